"""The benchmark: every method imputes the same hidden genes of a slide, fold by fold, and all are scored and ranked alike.

The steps are folds (:class:`Folds`, :func:`make_plan`), one run per method and fold (:func:`run_method`), and tables of what came of them
(:func:`collect`, then :func:`rank`, :func:`robustness` or :func:`ablation`). A method that failed in any fold gets no numbers: it is
marked, with its reason, and the rest is ranked.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import hashlib
import json
import math
import resource
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from spadit import metrics
from spadit.contracts import Benchmark, BenchmarkPlan, Failure, MethodRun
from spadit.errors import InputError, MethodError, SpaditError
from spadit.evaluation import MAX_CELLS, NOT_PREDICTABLE, difference, measured_values, subsample, summarize
from spadit.files import read_json, write_text
from spadit.inputs import closest
from spadit.io import write_h5ad
from spadit.io.hdf5 import opened
from spadit.methods import METHODS, Method, method_problems, visible_part
from spadit.methods.spadit import VARIANTS
from spadit.split import drawn_order

MEASURES = ["pcc", "spearman", "ssim", "rmse", "js"]

METRICS_COLUMNS = ["gene", "method", "fold", *MEASURES, "moran_truth", "moran_imputed"]
"""Of ``metrics.csv``: one row per gene and method, methods in the order of ``ranking.csv``."""

RANKING_COLUMNS = [
    "method", "kind", "status", "n_genes", "median_pcc", "low", "high", "mean_pcc", "median_spearman", "mean_spearman", "median_ssim",
    "mean_ssim", "median_rmse", "mean_rmse", "median_js", "mean_js", "accuracy_score", "robustness_score", "difference",
    "difference_low", "difference_high", "p", "seconds", "peak_gib", "version", "licence", "citation",
]  # fmt: skip
"""Of ``ranking.csv``, the best ranked method first, then controls and ceiling, then what failed. ``low`` and ``high``: 95 % bootstrap
interval of the median PCC. ``difference``: PCC less the best method's, mean over genes, with its interval; ``p``: Wilcoxon's, paired
per gene, corrected for the number of comparisons (Holm). ``seconds``: all folds; ``peak_gib``: the largest fold."""

ROBUSTNESS_COLUMNS = [
    "method", "kind", "rate", "status", "n_genes", "median_pcc", "low", "high", "mean_pcc", "robustness_score", "robustness_score_both",
]  # fmt: skip
"""Of ``robustness.csv``: one row per method and rate. ``rate``: share of the counts that was removed, 0 is the slide as it is.
``robustness_score``: share of genes with PCC > 0.5; ``robustness_score_both``: at this rate and on the slide as it is (Figure 6)."""

ROBUSTNESS_METRICS_COLUMNS = ["gene", "method", "rate", "fold", *MEASURES]
"""Of ``robustness_metrics.csv``: one row per gene, method and rate."""

ABLATION_COLUMNS = [
    "group", "variant", "description", "status", "n_seeds", "n_genes", "accuracy_score_mean", "accuracy_score_sd", "median_pcc_mean",
    "median_pcc_sd", "median_spearman_mean", "median_spearman_sd", "median_ssim_mean", "median_ssim_sd", "median_rmse_mean",
    "median_rmse_sd", "median_js_mean", "median_js_sd", "seconds",
]  # fmt: skip
"""Of ``ablation.csv``: one row per group ('backbone': Table 3, 'parts': Table 4) and variant. The accuracy score ranks the variants of the
group; mean and SD (n − 1) are over seeds. ``seconds``: all folds and seeds."""

ABLATION_METRICS_COLUMNS = ["gene", "method", "seed", "fold", *MEASURES]
"""Of ``ablation_metrics.csv``: one row per gene, variant (``method``) and seed."""

RATES = (0.1, 0.3, 0.5, 0.7)
"""Shares of the counts that robustness runs remove."""

OUTSIDE = "outside"
"""The kind of a method whose predictions were made elsewhere."""

LARGEST_FOLDS = 10_000_000
"""Bytes of a file of folds."""
LARGEST_TABLE = 4_000_000_000
"""Bytes of a table of predictions, unpacked."""

PATIENCE = 4
"""How many times a method's own estimate of its time is asked for."""


# ---- folds -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Folds:
    """Which genes are hidden together. The file is ``{"seed": 0, "folds": [["GeneA", ...], ...]}``: any tool can read or write it."""

    seed: int
    folds: list[list[str]]

    @property
    def genes(self) -> list[str]:
        """All genes that are hidden once, fold by fold."""
        return [gene for fold in self.folds for gene in fold]

    def to_json(self, path: str | Path) -> None:
        """Write the file."""
        write_text(path, json.dumps({"seed": self.seed, "folds": self.folds}, ensure_ascii=False) + "\n")

    @classmethod
    def from_json(cls, path: str | Path, shared: Iterable[str]) -> Folds:
        """Read folds back, of this pipeline or of anything else, and check them.

        Shared genes that are in no fold are visible in every fold, and not scored.

        Parameters
        ----------
        shared
            The genes that slide and reference share.

        Raises
        ------
        InputError
            When it is no such file, a gene isn't shared or occurs twice, a fold is empty, or fewer than two genes stay visible.
        """
        name, shared = Path(path).name, set(shared)
        form = 'It has to be {"seed": 0, "folds": [["GeneA", "GeneB"], ["GeneC"]]}.'
        content = read_json(path, "the file of folds", LARGEST_FOLDS, form)
        folds, seed = (content.get("folds"), content.get("seed", 0)) if isinstance(content, dict) else (None, 0)
        good = isinstance(folds, list) and all(isinstance(f, list) and all(isinstance(g, str) for g in f) for f in folds)
        if not good or not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
            raise InputError(f"{name} doesn't hold folds of genes.", form)
        if len(folds) < 2 or not all(folds):
            raise InputError(f"{name}: there have to be at least two folds, and none may be empty.", form)
        result = cls(seed, [sorted(fold) for fold in folds])
        seen: set[str] = set()
        twice = {gene for gene in result.genes if gene in seen or seen.add(gene)}
        if twice:
            raise InputError(f"{name}: {_some(twice)} more than once in it.", "Every gene may be hidden in one fold only.")
        unknown = set(result.genes) - shared
        if unknown:
            near = closest(min(unknown), shared)
            hint = f" Did you mean '{near}'?" if near else ""
            raise InputError(
                f"{name}: {_some(unknown)} not shared by slide and reference.{hint}",
                "Take folds that were made for this slide and reference.",
            )
        _enough_visible(len(shared), result.folds, name)
        return result


def _some(genes: set[str]) -> str:
    """'GeneA is', '3 genes (GeneA, GeneB, GeneC) are'."""
    names = sorted(genes)
    return f"the gene {names[0]} is" if len(names) == 1 else f"{len(names)} genes ({', '.join(names[:3])}{' ...' * (len(names) > 3)}) are"


def _enough_visible(n_shared: int, folds: list[list[str]], name: str) -> None:
    left = n_shared - max(map(len, folds))
    if left < 2:
        raise InputError(f"{name}: a fold leaves {left} visible genes; at least 2 are needed.", "Use more folds.")


def make_folds(shared: Iterable[str], n_folds: int = 5, seed: int = 0, sample: str = "slide") -> Folds:
    """Put the shared genes into folds, in the order of SHA-256(seed, name), as :func:`spadit.split.split_genes` does.

    Raises
    ------
    InputError
        When there are fewer genes than folds, fewer than two folds, or fewer than two genes stay visible.
    """
    names = sorted(set(shared))
    if n_folds < 2:
        raise InputError(f"{sample}: {n_folds} folds are too few.", "Use at least 2 folds.")
    if len(names) < n_folds:
        raise InputError(
            f"{sample}: {len(names)} shared genes are fewer than {n_folds} folds.",
            "Use fewer folds (--folds), or a reference that shares more.",
        )
    order = drawn_order(names, seed)
    folds = [sorted(order[k::n_folds]) for k in range(n_folds)]
    _enough_visible(len(names), folds, sample)
    return Folds(int(seed), folds)


# ---- methods and plan ------------------------------------------------------------------------------------------------


def choose_methods(wanted: str | None = None) -> list[str]:
    """Names of methods from 'a,b,c'; all methods, floors, controls and the ceiling when None or ''.

    Raises
    ------
    SpaditError
        When a name isn't known (with the closest one), occurs twice, or none is left.
    """
    if not wanted:
        return list(METHODS)
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    problems = method_problems(names)
    if problems:
        raise SpaditError(problems[0], f"Known methods: {', '.join(METHODS)}.")
    return names


def cut(
    slide: ad.AnnData, reference: ad.AnnData, n_spots: int | None = None, n_cells: int | None = MAX_CELLS, seed: int = 0
) -> tuple[ad.AnnData, ad.AnnData]:
    """At most so many spots and cells (seeded; None: all): what all methods are given, and scored on."""
    spots = subsample(slide, n_spots or slide.n_obs, seed)
    cells = subsample(reference, n_cells or reference.n_obs, seed)
    return slide[spots].copy(), reference[cells].copy()


def shared_genes(slide: ad.AnnData) -> list[str]:
    """The genes that a paired slide shares with its reference, in the slide's order."""
    return slide.var_names[slide.var["shared"].astype(bool)].tolist()


def make_plan(
    sample: str,
    folds: Folds,
    methods: Sequence[str],
    n_spots: int,
    n_cells: int,
    seed: int = 0,
    rates: Sequence[float] = (),
    ablation_seeds: int = 0,
) -> BenchmarkPlan:
    """Every run of a slide's benchmark, with what it needs.

    Parameters
    ----------
    methods
        Empty: only the ablation.
    n_spots, n_cells
        That methods are given; time and memory are asked for accordingly.
    rates
        Shares of the counts that robustness runs remove.
    ablation_seeds
        Seeds that each variant is trained with; 0: no ablation.
    """
    scale = max(1.0, n_spots * n_cells / (1500 * 2000))
    # a few dense arrays of spots × cells and of either × genes, in float64, beside Python and its libraries
    memory = math.ceil(4 + 8 * 6 * (n_spots * n_cells + (n_spots + n_cells) * len(folds.genes)) / 2**30)

    def job(what: str, method: Method, name: str, fold: int, rate: float, run_seed: int) -> dict:
        parts = [sample, name, *([f"rate{rate:g}"] if rate else []), *([f"seed{run_seed}"] if what == "ablation" else []), f"fold{fold}"]
        return {
            "name": ".".join(parts),
            "what": what,
            "method": name,
            "kind": method.kind,
            "fold": fold,
            "rate": rate,
            "seed": run_seed,
            "image": "peers" if method.requires else "core",
            "minutes": math.ceil(max(20, PATIENCE * scale * method.minutes)),
            "memory_gib": memory if not method.requires and method.kind != "method" else 2 * memory,
        }

    jobs = []
    for rate in (0.0, *rates):
        what = "robustness" if rate else "benchmark"
        jobs += [job(what, METHODS[name], name, k, rate, seed) for name in methods for k in range(len(folds.folds))]
    model = METHODS["SpaDiT"]
    for run_seed in range(seed, seed + ablation_seeds):
        jobs += [job("ablation", model, name, k, 0.0, run_seed) for name in VARIANTS for k in range(len(folds.folds))]
    return BenchmarkPlan(sample=sample, seed=seed, n_spots=n_spots, n_cells=n_cells, methods=list(methods), jobs=jobs)


# ---- one run ---------------------------------------------------------------------------------------------------------


def thin(slide: ad.AnnData, rate: float, seed: int = 0) -> ad.AnnData:
    """A copy with a share of the counts removed at random: each count stays with probability 1 − rate.

    Every gene has a random stream of its own, from the seed and its name: what stays of a visible gene doesn't depend on a hidden one.

    Parameters
    ----------
    slide
        Raw counts in ``layers['counts']``, spots × genes. Counts that aren't whole are rounded.
    rate
        Share to be removed, from 0 (nothing) to below 1. In the paper's Figure 6 sparsity increases with the rate.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"a rate is from 0 to below 1, not {rate}")
    result = slide.copy()
    if rate == 0:
        return result
    counts = sp.csc_matrix(slide.layers["counts"]).copy()
    counts.sort_indices()  # a stream meets the spots in their order
    for column, gene in enumerate(slide.var_names):
        rows = slice(counts.indptr[column], counts.indptr[column + 1])
        digest = hashlib.sha256(f"{seed}\t{rate:g}\t{gene}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        whole = np.rint(np.nan_to_num(counts.data[rows], nan=0.0, posinf=0.0, neginf=0.0)).clip(0).astype(np.int64)
        counts.data[rows] = rng.binomial(whole, 1 - rate)
    counts.eliminate_zeros()
    result.layers["counts"] = counts.tocsr().astype(np.float32)
    return result


def run_method(
    method: Method,
    slide: ad.AnnData,
    reference: ad.AnnData,
    folds: Folds,
    fold: int,
    seed: int = 0,
    device: str = "cpu",
    rate: float = 0.0,
) -> tuple[ad.AnnData, float]:
    """Impute one fold's genes with one method, which is given the other genes only.

    Parameters
    ----------
    slide, reference
        The pair, cut (:func:`cut`); slide with ``var['shared']``.
    rate
        Share of the slide's counts to be removed first.

    Returns
    -------
    part
        spots × the fold's genes: X on the log-normalised scale, ``layers['sd']`` where the method has one.
    seconds
        That the method took.

    Raises
    ------
    MethodError
        When the method's package is missing, or it returns something unusable. Whatever else a method raises is passed on.
    """
    shared = shared_genes(slide)
    hidden = folds.folds[fold]
    known = set(hidden)
    visible = [gene for gene in shared if gene not in known]
    part = thin(visible_part(slide, visible), rate, seed)
    truth = None
    if method.kind == "ceiling":
        position = {gene: i for i, gene in enumerate(shared)}
        truth = measured_values(slide, shared)[:, [position[gene] for gene in hidden]].toarray()
    begun = time.perf_counter()
    values, sd = method.impute_log(part, reference, hidden, seed=seed, device=device, truth=truth)
    seconds = time.perf_counter() - begun
    if not np.isfinite(values).all():  # a scale far off can still overflow
        raise MethodError(f"The method '{method.name}' returned values that are infinite on the log-normalised scale.")
    made = ad.AnnData(
        X=values, obs=pd.DataFrame(index=slide.obs_names), var=pd.DataFrame(index=hidden), layers={} if sd is None else {"sd": sd}
    )
    return made, seconds


def peak_gib() -> float:
    """Largest memory this process has had so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20


def try_method(run: MethodRun, method: Method, *arguments, **options) -> ad.AnnData | None:
    """:func:`run_method` with its outcome written into ``run``: what a method raises is its failure, not the pipeline's.

    Running out of memory is passed on: the task is tried again with more.
    """
    run.package_version = method.version
    if method.missing():
        run.status = "not run"
        run.reason = f"needs {' and '.join(method.missing())}: in the image spadit/peers and in the extra 'peers'"
        return None
    try:
        made, run.seconds = run_method(method, *arguments, **options)
    except MemoryError:
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error):
            raise MemoryError(str(error)) from error
        said = error.message if isinstance(error, SpaditError) else f"{type(error).__name__}: {error}"
        run.status, run.reason = "failed", " ".join(said.split())[:300]
        run.peak_gib = peak_gib()
        return None
    run.status, run.peak_gib = "ok", peak_gib()
    return made


# ---- predictions from outside ----------------------------------------------------------------------------------------


def read_prediction(path: str | Path, slide: ad.AnnData, folds: Folds) -> ad.AnnData:
    """Predictions of another tool, for the benchmark's spots and genes in their order.

    Parameters
    ----------
    path
        ``.h5ad`` (X: spots × genes) or a CSV/TSV file with spots as rows (names in the first column) and genes as columns. Further spots
        and genes are left out. ``var['fold']``, if there, must be the benchmark's.

    Raises
    ------
    MethodError
        When it can't be read, lacks spots or genes, holds values that are not finite, or was made on other folds.
    """
    path = Path(path)
    try:
        if path.suffix == ".h5ad":
            with opened(path):
                pass
            data = ad.read_h5ad(path)
            x = data.X.toarray() if sp.issparse(data.X) else data.X
            table = pd.DataFrame(x, index=data.obs_names, columns=data.var_names)
            fold = data.var["fold"] if "fold" in data.var else None
        else:
            separator = "\t" if ".tsv" in path.name else ","
            _check_table(path, separator)
            table = pd.read_csv(path, sep=separator, index_col=0)
            table.index, table.columns, fold = table.index.astype(str), table.columns.astype(str), None
    except (MemoryError, MethodError):
        raise
    except InputError as error:  # of :func:`opened`
        raise MethodError(f"{path.name} can't be read: {error.message.removeprefix(path.name).strip(': .')}") from error
    except Exception as error:  # what readers raise for damaged files can be anything
        raise MethodError(f"{path.name} can't be read: {' '.join(str(error).split())[:200]}") from error
    for what, names, wanted in (("spots", table.index, slide.obs_names), ("genes", table.columns, folds.genes)):
        if names.has_duplicates:
            raise MethodError(f"{path.name}: {what} occur twice, the first is '{names[names.duplicated()][0]}'")
        missing = pd.Index(wanted).difference(names)
        if len(missing):
            raise MethodError(f"{path.name}: {len(missing)} of {len(wanted)} {what} are missing, the first is '{missing[0]}'")
    of = _fold_of(folds)
    if fold is not None and any(fold[gene] != of[gene] for gene in folds.genes):
        raise MethodError(f"{path.name}: its var['fold'] says that it was made on other folds")
    try:
        values = table.loc[slide.obs_names, folds.genes].to_numpy(dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise MethodError(f"{path.name}: not all values are numbers") from error
    bad = ~np.isfinite(values).all(axis=0)
    if bad.any():
        raise MethodError(
            f"{path.name}: {int(bad.sum())} genes hold missing or infinite values, the first is '{folds.genes[bad.argmax()]}'"
        )
    return ad.AnnData(X=values, obs=pd.DataFrame(index=slide.obs_names), var=pd.DataFrame(index=folds.genes))


def _check_table(path: Path, separator: str) -> None:
    """Refuse a table that swells when it is unpacked, or that names a gene twice (pandas would rename the second)."""
    unpack = gzip.open if path.suffix == ".gz" else open
    size = 0
    with unpack(path, "rb") as stream:
        while block := stream.read(1 << 20):
            size += len(block)
            if size > LARGEST_TABLE:
                raise MethodError(f"{path.name} is larger than {LARGEST_TABLE / 1e9:g} GB, unpacked: give it as h5ad")
    with unpack(path, "rt", encoding="utf-8-sig", newline="") as stream:
        names = pd.Index(next(csv.reader([stream.readline()], delimiter=separator), [])[1:])
    if names.has_duplicates:
        raise MethodError(f"{path.name}: genes occur twice, the first is '{names[names.duplicated()][0]}'")


def _fold_of(folds: Folds) -> dict[str, int]:
    return {gene: k for k, fold in enumerate(folds.folds) for gene in fold}


# ---- what came of it -------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Result:
    """A method over all folds: its values, or why there are none."""

    method: str
    status: str
    imputed: ad.AnnData | None = None
    """spots × genes (in the slide's order): X, layers 'sd' if there; ``var['fold']``."""
    seconds: float = float("nan")
    peak_gib: float = float("nan")
    version: str = ""
    outside: bool = False


def read_parts(folder: str | Path) -> dict[str, tuple[MethodRun, Path | None]]:
    """Runs of a folder by the name of their job: ``<name>.run.json``, and ``<name>.h5ad`` where it came to something; or
    ``<name>.failure.json``, where it couldn't even start."""
    parts = {}
    for path in sorted(Path(folder).glob("*.failure.json")):
        failure = Failure.from_json(path)
        run = MethodRun(failure.id, "", "", -1, 0.0, 0, "failed", f"{failure.reason} {failure.remedy}".strip())
        parts[path.name.removesuffix(".failure.json")] = (run, None)
    for path in sorted(Path(folder).glob("*.run.json")):
        values = path.with_name(path.name.removesuffix(".run.json") + ".h5ad")
        parts[path.name.removesuffix(".run.json")] = (MethodRun.from_json(path), values if values.exists() else None)
    return parts


def collect(jobs: Sequence[dict], parts: dict[str, tuple[MethodRun, Path | None]], slide: ad.AnnData, folds: Folds) -> Result:
    """Put a method's folds together. With one of them failed or missing there is no result, only the reason."""
    method = jobs[0]["method"]
    runs = []
    for job in sorted(jobs, key=lambda job: job["fold"]):
        run, path = parts.get(job["name"], (None, None))
        which = f"fold {job['fold'] + 1} of {len(folds.folds)}"
        if run is None or (run.status == "ok" and path is None):
            return Result(method, f"failed: {which} came to no result (killed for time or memory, or its image is missing: see the trace)")
        if run.status == "not run":
            return Result(method, f"not run: {run.reason}")
        if run.status != "ok":
            return Result(method, f"failed: {run.reason} ({which})", version=run.package_version)
        runs.append((run, ad.read_h5ad(path)))
    imputed = ad.concat([part for _, part in runs], axis=1)
    imputed.obs = slide.obs[[]]
    result = Result(
        method,
        "ok",
        _in_order(imputed, slide, folds),
        sum(run.seconds for run, _ in runs),
        max(run.peak_gib for run, _ in runs),
        next(run.package_version for run, _ in runs),
    )
    return result


def collect_outside(method: str, path: str | Path, slide: ad.AnnData, folds: Folds) -> Result:
    """Predictions of another tool as a result; what is wrong with them is its status."""
    try:
        imputed = read_prediction(path, slide, folds)
    except MethodError as error:
        return Result(method, f"failed: {error.message}", outside=True)
    return Result(method, "ok", _in_order(imputed, slide, folds), outside=True)


def _in_order(imputed: ad.AnnData, slide: ad.AnnData, folds: Folds) -> ad.AnnData:
    of = _fold_of(folds)
    imputed = imputed[slide.obs_names, [gene for gene in slide.var_names if gene in of]].copy()
    imputed.var["fold"] = [of[gene] for gene in imputed.var_names]
    if "spatial" in slide.obsm:
        imputed.obsm["spatial"] = np.asarray(slide.obsm["spatial"])
    return imputed


def score(results: Iterable[Result], slide: ad.AnnData) -> pd.DataFrame:
    """Score all results against what was measured: one row per gene and method, :data:`METRICS_COLUMNS`.

    The truth is log-normalised with the library size of all shared genes, as in :mod:`spadit.evaluation`.
    """
    shared = shared_genes(slide)
    measured = measured_values(slide, shared).tocsc()
    position = {gene: i for i, gene in enumerate(shared)}
    graph = metrics.neighbours(np.asarray(slide.obsm["spatial"]))
    tables, known = [], {}
    for result in results:
        if result.imputed is None:
            continue
        genes = tuple(result.imputed.var_names)
        if genes not in known:
            truth = measured[:, [position[gene] for gene in genes]].toarray()
            known = {genes: (truth, metrics.morans_i(truth, graph))}
        truth, moran = known[genes]
        values = np.asarray(result.imputed.X)
        table = metrics.score(truth, values)
        table.insert(0, "gene", genes)
        tables.append(
            table.assign(
                method=result.method,
                fold=result.imputed.var["fold"].to_numpy(),
                moran_truth=moran,
                moran_imputed=metrics.morans_i(values, graph),
            )[METRICS_COLUMNS]
        )
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=METRICS_COLUMNS)


def kind_of(result: Result) -> str:
    """'floor', 'control', 'ceiling', 'method' or 'outside'."""
    return OUTSIDE if result.outside else METHODS[result.method].kind


# ---- ranking ---------------------------------------------------------------------------------------------------------


def rank(
    results: Sequence[Result], table: pd.DataFrame, sample: str, n_spots: int, folds: Folds, seed: int = 0
) -> tuple[pd.DataFrame, Benchmark]:
    """Rank the methods of one slide.

    Best is the ranked method (floors, methods, and predictions from outside) of the highest median PCC. Each other one is compared with it
    gene by gene; it is *not significantly worse* when Wilcoxon's p, corrected by Holm for all these comparisons, is not below 0.05, or
    when its mean PCC isn't lower.

    Parameters
    ----------
    table
        Of :func:`score`.

    Returns
    -------
    ranking
        :data:`RANKING_COLUMNS`.
    Benchmark
        Who is best, in a sentence.
    """
    by_name = {result.method: result for result in results}
    summary = {row["method"]: row for row in summarize(table, "all", seed)} if len(table) else {}
    means = table.groupby("method", sort=False)[MEASURES].mean()
    competing = [name for name in summary if kind_of(by_name[name]) in ("floor", "method", OUTSIDE)]
    order = sorted(competing, key=lambda name: (-summary[name]["median_pcc"], -summary[name]["mean_pcc"], name))
    compared = {}
    if order:
        rows = [difference(table, name, seed, model=order[0]) for name in order[1:]]
        corrected = metrics.holm([row["p"] for row in rows])
        compared = {row["method"]: row | {"p": float(p)} for row, p in zip(rows, corrected, strict=True)}
    rest = [name for name in by_name if name in summary and name not in competing]
    without = [name for name in by_name if name not in summary]
    ranking = []
    for name in (*order, *rest, *without):
        result = by_name[name]
        row = {"method": name, "kind": kind_of(result), "status": result.status, "version": result.version}
        if not result.outside:
            row |= {"licence": METHODS[name].licence, "citation": METHODS[name].citation}
        if name in summary:
            row |= {"seconds": result.seconds, "peak_gib": result.peak_gib} | summary[name]
            row |= {f"mean_{measure}": means.loc[name, measure] for measure in MEASURES}
            row["robustness_score"] = metrics.robustness_score(table.loc[table["method"] == name, "pcc"])
        if name in compared:
            found = compared[name]
            row |= {
                "difference": -found["mean_difference"],
                "difference_low": -found["high"],
                "difference_high": -found["low"],
                "p": found["p"],
            }
        ranking.append(row)
    tied = [name for name in order[1:] if compared[name]["p"] >= 0.05 or compared[name]["mean_difference"] <= 0]
    best = [*order[:1], *tied]
    facts = Benchmark(
        sample=sample,
        seed=seed,
        n_spots=n_spots,
        n_genes=len(folds.genes),
        n_folds=len(folds.folds),
        winner=_winner(best, order, summary),
        best=best,
        failed={name: by_name[name].status for name in without},
        notes=_notes(by_name, table, seed, order),
    )
    return pd.DataFrame(ranking, columns=RANKING_COLUMNS), facts


def _winner(best: list[str], order: list[str], summary: dict) -> str:
    if not best:
        return "No method that can be ranked came to a result."
    row = summary[best[0]]
    level = f"median PCC {row['median_pcc']:.3f}, 95 % interval {row['low']:.3f} to {row['high']:.3f}, {row['n_genes']:,} genes"
    if len(order) == 1:
        said = f"Only {best[0]} could be ranked ({level})."
    elif len(best) > 1:
        said = f"No clear winner between {', '.join(best[:-1])} and {best[-1]}: the highest median is {best[0]}'s ({level})."
    else:
        said = f"{best[0]} is best ({level}); every other method is significantly worse."
    if row["median_pcc"] < NOT_PREDICTABLE or row["low"] <= 0:
        said += " That is hardly better than chance: trust none of them on this slide."
    return said


def _notes(by_name: dict[str, Result], table: pd.DataFrame, seed: int, order: list[str]) -> list[str]:
    notes = []
    outside = [name for name, result in by_name.items() if result.outside]
    if outside:
        notes.append(
            f"{', '.join(outside)}: predictions that were made elsewhere. Whether hidden genes were really hidden from them can't be "
            "checked here."
        )
    control = "library_size"
    if order and control in by_name and by_name[control].imputed is not None:
        found = difference(table, control, seed, either_way=True, model=order[0])
        if found["low"] <= 0:
            notes.append(
                f"{order[0]} is not better than the spot's total alone (mean difference in PCC {found['mean_difference']:+.2f}, "
                f"95 % interval {found['low']:+.2f} to {found['high']:+.2f})."
            )
    return notes


# ---- robustness and ablation -----------------------------------------------------------------------------------------


def robustness(results: dict[float, Sequence[Result]], slide: ad.AnnData, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accuracy at each rate of removed counts, always against the slide as it was measured.

    Parameters
    ----------
    results
        Rate -> the methods' results; 0.0 among them.

    Returns
    -------
    table, per_gene
        :data:`ROBUSTNESS_COLUMNS` and :data:`ROBUSTNESS_METRICS_COLUMNS`.
    """
    scored = {rate: score(some, slide) for rate, some in sorted(results.items())}
    rows = []
    for rate, some in sorted(results.items()):
        table = scored[rate]
        for result in some:
            row = {"method": result.method, "kind": kind_of(result), "rate": rate, "status": result.status}
            pcc = table[table["method"] == result.method].set_index("gene")["pcc"]
            if len(pcc):
                low, high = metrics.bootstrap_interval(pcc.to_numpy(), "median", seed)
                row |= {"n_genes": len(pcc), "median_pcc": pcc.median(), "low": low, "high": high, "mean_pcc": pcc.mean()}
                row["robustness_score"] = metrics.robustness_score(pcc)
                whole = scored[0.0]
                before = whole[whole["method"] == result.method].set_index("gene")["pcc"]
                if len(before):
                    row["robustness_score_both"] = metrics.robustness_score(np.minimum(pcc, before.loc[pcc.index]))
            rows.append(row)
    per_gene = pd.concat([table.assign(rate=rate) for rate, table in scored.items()], ignore_index=True)
    return pd.DataFrame(rows, columns=ROBUSTNESS_COLUMNS), per_gene[ROBUSTNESS_METRICS_COLUMNS]


def ablation(results: dict[int, Sequence[Result]], slide: ad.AnnData) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accuracy scores of the variants of the network, with their spread over seeds.

    A variant that failed with one seed has no numbers, since the accuracy score compares it with the others seed by seed.

    Parameters
    ----------
    results
        Seed -> the variants' results.

    Returns
    -------
    table, per_gene
        :data:`ABLATION_COLUMNS` and :data:`ABLATION_METRICS_COLUMNS`.
    """
    per_gene = pd.concat([score(some, slide).assign(seed=seed) for seed, some in sorted(results.items())], ignore_index=True)
    runs = {name: [r for some in results.values() for r in some if r.method == name] for name in VARIANTS}
    status = {name: next((r.status for r in some if r.status != "ok"), "ok" if some else "not run") for name, some in runs.items()}
    medians = per_gene.groupby(["seed", "method"])[MEASURES].median()
    rows = []
    for group in ("backbone", "parts"):
        names = [name for name, variant in VARIANTS.items() if variant.group in ("", group)]
        good = [name for name in names if status[name] == "ok"]
        scores = {}
        if len(good) > 1:
            scores = {seed: metrics.accuracy_score(medians.loc[seed].loc[good]) for seed in sorted(results)}
        for name in names:
            row = {
                "group": group,
                "variant": name,
                "description": VARIANTS[name].description,
                "status": status[name],
                "n_seeds": len(runs[name]),
            }
            if name in good:
                own = medians.xs(name, level="method")
                row |= {
                    "n_genes": per_gene.loc[per_gene["method"] == name, "gene"].nunique(),
                    "seconds": sum(r.seconds for r in runs[name]),
                }
                values = {f"median_{measure}": own[measure] for measure in MEASURES}
                if scores:
                    values["accuracy_score"] = pd.Series([found[name] for found in scores.values()])
                for measure, found in values.items():
                    row |= {f"{measure}_mean": found.mean(), f"{measure}_sd": found.std(ddof=1)}
            rows.append(row)
    return pd.DataFrame(rows, columns=ABLATION_COLUMNS), per_gene[ABLATION_METRICS_COLUMNS]


def to_csv(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table as all of this pipeline's are written."""
    write_text(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def write_tables(
    what: str,
    folder: str | Path,
    plan: BenchmarkPlan,
    parts: dict[str, tuple[MethodRun, Path | None]],
    slide: ad.AnnData,
    folds: Folds,
    outside: dict[str, Path] | None = None,
) -> str:
    """Collect what the runs of a plan left, and write the tables of 'benchmark', 'robustness' or 'ablation' into a folder.

    Returns
    -------
    str
        What came of it, in a sentence.
    """
    folder = Path(folder)
    groups: dict[tuple, list[dict]] = {}
    for job in plan.jobs:
        if job["what"] == what or (what == "robustness" and job["what"] == "benchmark"):
            groups.setdefault((job["rate"], job["seed"], job["method"]), []).append(job)
    found = {key: collect(jobs, parts, slide, folds) for key, jobs in groups.items()}
    if what == "benchmark":
        results = list(found.values()) + [collect_outside(name, path, slide, folds) for name, path in (outside or {}).items()]
        ranking, facts = rank(results, table := score(results, slide), plan.sample, slide.n_obs, folds, plan.seed)
        order = {name: i for i, name in enumerate(ranking["method"])}
        to_csv(table.sort_values("method", key=lambda c: c.map(order), kind="stable"), folder / "metrics.csv")
        to_csv(ranking, folder / "ranking.csv")
        facts.to_json(folder / "benchmark.json")
        for result in results:
            if result.imputed is not None:
                write_h5ad(result.imputed, folder / f"{result.method}.h5ad")
        return facts.winner
    keys = sorted({key[0 if what == "robustness" else 1] for key in found})
    results = {key: [result for k, result in found.items() if k[0 if what == "robustness" else 1] == key] for key in keys}
    table, per_gene = robustness(results, slide, plan.seed) if what == "robustness" else ablation(results, slide)
    to_csv(table, folder / f"{what}.csv")
    to_csv(per_gene, folder / f"{what}_metrics.csv")
    return f"{len(found)} results in {what}.csv"
