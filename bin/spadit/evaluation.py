"""The honest numbers of a slide: every measured gene as it was imputed while hidden, beside floors, controls and the ceiling.

For each fit of SpaDiT that predicted hidden genes, the floors get exactly the genes that this fit could see: train + validation
for the test genes, the other folds for a fold's genes. They are computed from a copy of the slide that holds nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.stats

from spadit import metrics
from spadit.contracts import Evaluation, Split
from spadit.errors import InputError
from spadit.methods import BASELINES, METHODS, visible_part
from spadit.preprocess import log_normalise

log = logging.getLogger(__name__)

MODEL = "SpaDiT"
"""The name of the project's own method in ``metrics.csv``."""

COLUMNS = [
    "gene", "method", "split", "fold", "pcc", "spearman", "ssim", "rmse", "js", "moran_truth", "moran_imputed",
    "coverage", "width", "reliability",
]  # fmt: skip
"""Of ``metrics.csv``: one row per gene and method."""

MAX_CELLS = 5000
"""Cells of the reference that floors are fitted on; more are subsampled (seeded). It bounds time and memory."""
TOP_GENES = 8

NOT_PREDICTABLE = 0.10
WARN = 0.20
CONTROL = "library_size"

RULE = (
    f"'not predictable' when the median PCC of {MODEL} over all scored hidden genes is below {NOT_PREDICTABLE:.2f}, or the lower end of "
    f"its 95 % bootstrap interval is not above 0, or when the median PCC is below {WARN:.2f} and {MODEL} is not better than the control "
    f"{CONTROL} (the spot's total alone, in the direction in which it scores higher): the lower end of the 95 % bootstrap interval of the "
    "mean paired difference in PCC is not above 0. Else 'warn' when one of the last two holds. Else 'pass'. A slide that would pass is "
    "marked 'warn' when quality control or pairing raised warnings."
)


def hidden_sets(split: Split) -> Iterator[tuple[list[str], list[str], int]]:
    """What each fit sees and what it predicts: (visible, hidden, fold), with fold −1 for the test genes."""
    visible = split.train + split.validation
    yield visible, split.test, -1
    for k, fold in enumerate(split.folds):
        hidden = set(fold)
        yield [g for g in visible if g not in hidden], fold, k


def impute_with_methods(
    slide: ad.AnnData,
    reference: ad.AnnData,
    visible: Sequence[str],
    hidden: Sequence[str],
    seed: int = 0,
    truth: np.ndarray | None = None,
    target: float | None = None,
    methods: Sequence[str] = BASELINES,
) -> Iterator[tuple[str, np.ndarray]]:
    """Impute hidden genes with every registered method, from the visible genes only.

    Parameters
    ----------
    slide
        Any slide that holds the visible genes; others in it are dropped before a method is called.
    reference
        Cells × genes with all visible and hidden genes.
    truth
        spots × hidden genes, for the ceiling; without it the ceiling is left out.

    Yields
    ------
    name, values
        values: spots × hidden genes, log-normalised scale, float32.
    """
    part = visible_part(slide, visible)
    for name in methods:
        method = METHODS[name]
        if method.kind == "ceiling" and truth is None:
            continue
        yield name, method.impute_log(part, reference, hidden, seed=seed, truth=truth, target=target)[0]


def measured_values(slide: ad.AnnData, genes: Sequence[str], target: float | None = None):
    """The truth: spots × genes, CSR, log-normalised with the library size of all these genes (the shared ones)."""
    return log_normalise(slide.layers["counts"][:, slide.var_names.get_indexer(list(genes))], target=target)[0]


def subsample(data: ad.AnnData, n: int, seed: int) -> np.ndarray:
    """Sorted positions of at most n observations, seeded."""
    if data.n_obs <= n:
        return np.arange(data.n_obs)
    return np.sort(np.random.default_rng(seed).choice(data.n_obs, n, replace=False))


def score_methods(
    slide: ad.AnnData,
    reference: ad.AnnData,
    sets: Sequence[tuple[Sequence[str], Sequence[str], int]],
    seed: int = 0,
    target: float | None = None,
    imputed: ad.AnnData | None = None,
    methods: Sequence[str] = BASELINES,
) -> pd.DataFrame:
    """Score all methods, and SpaDiT where ``imputed`` is given: gene, method, fold and the measures.

    Parameters
    ----------
    sets
        (visible, hidden, fold) of each fit: :func:`hidden_sets`. The visible and hidden genes of all sets together are the shared genes.
    imputed
        SpaDiT's cross-fitted imputation: X, and layers 'lower' and 'upper' if there.
    """
    shared = sorted({g for visible, hidden, _ in sets for g in (*visible, *hidden)}, key=slide.var_names.get_loc)
    column = {g: i for i, g in enumerate(shared)}
    measured = measured_values(slide, shared, target).tocsc()
    rows = subsample(reference, MAX_CELLS, seed)
    reference = visible_part(reference[rows], shared)  # every gene of the reference is visible; the rest of it is not needed
    graph = metrics.neighbours(np.asarray(slide.obsm["spatial"]))
    tables = []
    for visible, hidden, fold in sets:
        hidden = list(hidden)
        if not hidden:
            continue
        truth = measured[:, [column[g] for g in hidden]].toarray()
        moran = metrics.morans_i(truth, graph)

        def row(method: str, values: np.ndarray) -> pd.DataFrame:
            table = metrics.score(truth, values)  # noqa: B023
            table.insert(0, "gene", hidden)  # noqa: B023
            return table.assign(
                method=method,
                fold=fold,  # noqa: B023
                moran_truth=moran,  # noqa: B023
                moran_imputed=metrics.morans_i(values, graph),
                coverage=np.nan,
                width=np.nan,
                reliability=np.nan,
            )

        if imputed is not None:
            positions = imputed.var_names.get_indexer(hidden)
            table = row(MODEL, np.asarray(imputed.X[:, positions]))
            if "lower" in imputed.layers and "upper" in imputed.layers:
                lower, upper = (np.asarray(imputed.layers[k][:, positions]) for k in ("lower", "upper"))
                known = np.isfinite(lower).all(axis=0) & np.isfinite(upper).all(axis=0)
                table.loc[known, "coverage"] = metrics.coverage(truth[:, known], lower[:, known], upper[:, known])
                table.loc[known, "width"] = metrics.width(lower[:, known], upper[:, known])
            if "reliability" in imputed.var:
                table["reliability"] = imputed.var["reliability"].to_numpy(dtype=float)[positions]
            tables.append(table)
        for name, values in impute_with_methods(slide, reference, visible, hidden, seed, truth, target, methods):
            tables.append(row(name, values))
        log.info("scored %d genes hidden from %d", len(hidden), len(visible))
    return pd.concat(tables, ignore_index=True)


def evaluate(imputed: ad.AnnData, slide: ad.AnnData, reference: ad.AnnData, split: Split, seed: int = 0) -> tuple[pd.DataFrame, Evaluation]:
    """Score SpaDiT's imputation of a slide, with floors, controls and the ceiling beside it.

    Parameters
    ----------
    imputed
        spots × genes: X on the log-normalised scale, each measured gene from a fit that never saw it (``imputed.h5ad``);
        layers 'lower' and 'upper' (90 % interval) and var 'reliability' if there.
    slide, reference
        Raw counts in ``layers['counts']``; shared genes by the same name in both.
    split
        Which genes were hidden when.
    seed
        Of the subsample of cells, the ceiling's folds and the bootstrap.

    Returns
    -------
    table
        One row per gene and method, :data:`COLUMNS`. SpaDiT first, then the methods in the registry's order.
    Evaluation
        Its summary, comparison and verdict.

    Raises
    ------
    InputError
        When the files don't belong together.
    """
    sets = list(hidden_sets(split))
    _check(imputed, slide, reference, split, sets)
    table = score_methods(slide, reference, sets, seed, imputed=imputed)
    names = {g: part for part in ("train", "validation", "test") for g in getattr(split, part)}
    table["split"] = table["gene"].map(names)
    ranks = {name: i for i, name in enumerate((MODEL, *BASELINES))}
    order = {g: i for i, g in enumerate(slide.var_names)}
    table = table.sort_values(["method", "gene"], key=lambda c: c.map(ranks if c.name == "method" else order), kind="stable")
    table = table[COLUMNS].reset_index(drop=True)
    return table, _facts(table, split, seed)


def _check(imputed: ad.AnnData, slide: ad.AnnData, reference: ad.AnnData, split: Split, sets: list) -> None:
    remedy = "Use the files that one run wrote for one slide."
    if not imputed.obs_names.equals(slide.obs_names):
        raise InputError(f"{split.sample}: the imputed spots are not the slide's spots in the slide's order.", remedy)
    hidden = [g for _, part, _ in sets for g in part]
    if len(set(hidden)) != len(hidden) or set(hidden) != {*split.train, *split.validation, *split.test}:
        raise InputError(f"{split.sample}: test genes and folds of the split don't hold every shared gene exactly once.", remedy)
    if not hidden or any(len(visible) < 2 for visible, part, _ in sets if part):
        raise InputError(f"{split.sample}: the split leaves fewer than two visible genes.", "Use a reference that shares more genes.")
    for what, data in (("imputed file", imputed), ("slide", slide), ("reference", reference)):
        missing = [g for g in hidden if g not in data.var_names]
        if missing:
            raise InputError(
                f"{split.sample}: {len(missing)} genes of the split are not in the {what}, the first is '{missing[0]}'.", remedy
            )
    values = np.asarray(imputed.X[:, imputed.var_names.get_indexer(hidden)])
    bad = ~np.isfinite(values).all(axis=0)
    if bad.any():
        gene = hidden[int(np.flatnonzero(bad)[0])]
        raise InputError(
            f"{split.sample}: {int(bad.sum())} genes were imputed with missing or infinite values, the first is '{gene}'.",
            "This is a fault of the imputation: please report it.",
        )


def _facts(table: pd.DataFrame, split: Split, seed: int) -> Evaluation:
    model = table[table["method"] == MODEL].set_index("gene")
    summary = [row for part in ("test", "all") for row in summarize(table if part == "all" else table[table["split"] == part], part, seed)]
    comparison = compare(table, seed)
    whole = next(row for row in summary if row["method"] == MODEL and row["split"] == "all")
    control = difference(table, CONTROL, seed, either_way=True)
    verdict, reasons = judge(whole, control)
    floors = {m.name for m in _floors()}
    best = max((row for row in summary if row["split"] == "all" and row["method"] in floors), key=lambda row: row["median_pcc"])
    versus = next(row for row in comparison if row["method"] == best["method"])
    if (lead := -versus["mean_difference"]) >= 0:
        how = f"does as well or better: its PCC is {lead:.2f} higher" if lead >= 0.005 else "does as well: its PCC is the same"
        medians = f"median PCC {best['median_pcc']:.2f} against {whole['median_pcc']:.2f}"
        reasons.append(f"The simple method {best['method']} {how} on average over genes ({medians}).")
    known = model["reliability"].notna()
    reliability = float("nan")
    if known.sum() >= 3 and model.loc[known, "reliability"].nunique() > 1 and model.loc[known, "pcc"].nunique() > 1:
        reliability = float(scipy.stats.spearmanr(model.loc[known, "reliability"], model.loc[known, "pcc"]).statistic)
    return Evaluation(
        sample=split.sample,
        n_test=len(split.test),
        n_scored=len(model),
        summary=summary,
        comparison=comparison,
        coverage=float(model["coverage"].mean()) if model["coverage"].notna().any() else float("nan"),
        reliability_spearman=reliability,
        verdict=verdict,
        rule=RULE,
        reasons=reasons,
        top_genes=top_genes(model["pcc"]),
    )


def _floors() -> list:
    return [METHODS[name] for name in BASELINES if METHODS[name].ranked]


def _competes(name: str) -> bool:
    return name not in METHODS or METHODS[name].ranked  # what isn't registered comes from outside, or is a variant of the model


def summarize(table: pd.DataFrame, part: str, seed: int = 0) -> list[dict]:
    """One row per method: medians over genes, the mean PCC, the median PCC's interval, and the accuracy score of those that compete."""
    measures = ["pcc", "spearman", "ssim", "rmse", "js"]
    medians = table.groupby("method", sort=False)[measures].median()
    competing = medians.loc[[_competes(name) for name in medians.index]]
    scores = metrics.accuracy_score(competing) if len(competing) > 1 else pd.Series(dtype=float)
    rows = []
    for method, median in medians.iterrows():
        values = table.loc[table["method"] == method, "pcc"].to_numpy()
        low, high = metrics.bootstrap_interval(values, "median", seed)
        rows.append(
            {
                "method": method,
                "split": part,
                "n_genes": len(values),
                "median_pcc": float(median["pcc"]),
                "mean_pcc": float(values.mean()),
                "low": low,
                "high": high,
                **{f"median_{name}": float(median[name]) for name in measures[1:]},
                "accuracy_score": float(scores[method]) if method in scores else None,
            }
        )
    return rows


def difference(table: pd.DataFrame, method: str, seed: int = 0, either_way: bool = False, model: str = MODEL) -> dict:
    """SpaDiT's (or another ``model``'s) PCC less another method's, gene by gene: the mean, its 95 % bootstrap interval and Wilcoxon's p.

    ``either_way``: the other method may be turned round as a whole, when that scores higher. A spot's total needs that: normalised values
    of a gene without a pattern fall with it, so a model can seem to know something of every gene.
    """
    wide = table.pivot(index="gene", columns="method", values="pcc")
    if either_way and wide[method].median() < 0:
        wide[method] = -wide[method]
    paired = (wide[model] - wide[method]).to_numpy()
    low, high = metrics.bootstrap_interval(paired, "mean", seed)
    p = metrics.paired_wilcoxon(wide[model].to_numpy(), wide[method].to_numpy())
    return {"method": method, "mean_difference": float(paired.mean()), "low": low, "high": high, "p": p}


def compare(table: pd.DataFrame, seed: int = 0) -> list[dict]:
    """:func:`difference` to each ranked method over all scored genes, p corrected for their number (Holm)."""
    rows = [difference(table, m.name, seed) for m in _floors() if m.name in set(table["method"])]
    for row, p in zip(rows, metrics.holm([row["p"] for row in rows]), strict=True):
        row["p"] = float(p)
    return rows


def judge(whole: dict, control: dict) -> tuple[str, list[str]]:
    """The verdict of :data:`RULE` with its reasons, from SpaDiT's summary over all genes and its difference to the control."""
    median, low = whole["median_pcc"], whole["low"]
    n = whole["n_genes"]
    if median < NOT_PREDICTABLE or low <= 0:
        reasons = []
        if median < NOT_PREDICTABLE:
            reasons.append(_below(median, NOT_PREDICTABLE, n))
        if low <= 0:
            reasons.append(f"The interval of the median PCC reaches down to {low:.2f}: no better than chance.")
        return "not predictable", reasons
    reasons = []
    if median < WARN:
        reasons.append(_below(median, WARN, n))
    if control["low"] <= 0:
        reasons.append(
            f"{MODEL} is not better than the spot's total alone (mean difference in PCC {control['mean_difference']:+.2f}, "
            f"95 % interval {control['low']:+.2f} to {control['high']:+.2f})."
        )
    return ("pass", "warn", "not predictable")[len(reasons)], reasons


def _below(median: float, limit: float, n: int) -> str:
    """With as many digits, at least 2, as it takes to see that the median is below the limit."""
    shown = next((text for digits in range(2, 6) if float(text := f"{median:.{digits}f}") < limit), f"{median:.6f}")
    return f"The median PCC over {n:,} hidden genes is {shown}, below {limit:.2f}."


def top_genes(pcc: pd.Series) -> list[str]:
    """Up to 8 genes of highest PCC among all scored ones. Each was hidden when it was imputed, so test genes need no preference."""
    return pcc[pcc > 0].sort_values(ascending=False, kind="stable").index[:TOP_GENES].tolist()


def read_imputed(path: str | Path) -> ad.AnnData:
    """The measured genes of an ``imputed.h5ad``: unmeasured ones, often many more, are not read.

    Raises
    ------
    InputError
        When it isn't such a file.
    """
    import h5py
    from anndata.io import read_elem

    path = Path(path)
    try:
        with h5py.File(path, "r") as file:
            obs, var = read_elem(file["obs"]), read_elem(file["var"])
            columns = np.flatnonzero(var["measured"].to_numpy(dtype=bool))
            layers = {k: _columns(file[f"layers/{k}"], columns) for k in ("lower", "upper") if f"layers/{k}" in file}
            return ad.AnnData(X=_columns(file["X"], columns), obs=obs[[]], var=var.iloc[columns], layers=layers)
    except FileNotFoundError as error:
        raise InputError(f"{path.name}: there is no such file.", "Check the path.") from error
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path.name} is not an imputed slide of this pipeline: {error}.", "Make it with spadit_impute.py.") from error


def _columns(dataset, columns: np.ndarray) -> np.ndarray:
    if not len(columns):
        return np.empty((dataset.shape[0], 0), dtype=np.float32)
    first, last = int(columns[0]), int(columns[-1]) + 1  # measured genes come first, so this is nearly all that is needed
    return dataset[:, first:last][:, columns - first]
