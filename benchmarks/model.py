#!/usr/bin/env python3
"""SpaDiT beside floors, controls and the ceiling on every slide of a folder, genes fully hidden; and what each part costs.

    python benchmarks/model.py [FOLDER] [--slides a b] [--preset default] [--seeds 0 1 2] [--target 10000]
    python benchmarks/model.py --speed            # one fit and its imputation at full size, with time per part and peak memory

FOLDER holds one folder per slide with st.h5ad and sc.h5ad (default: ../shared/data, else assets/demo). Five folds over the shared
genes, one set of folds per seed; at most 1,500 spots and 2,000 cells, seeded. Results are added to benchmarks/results/model.csv (gene by
gene, rows of other slides, presets or seeds stay), and tables for the docs are printed from all of it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "bin"), str(ROOT / "benchmarks")]

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from floors import MIN_CELLS, gene_folds  # noqa: E402
from scipy.stats import spearmanr, wilcoxon  # noqa: E402

from spadit import io, uncertainty  # noqa: E402
from spadit.api import SpaDiT  # noqa: E402
from spadit.evaluation import impute_with_methods, measured_values, subsample  # noqa: E402
from spadit.metrics import coverage, pcc, ssim  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "model.csv"
KEYS = ["slide", "target", "seed", "method"]
RIVALS = ("corr_weighted", "ridge", "knn50")
WITHOUT = ", no neighbours"


def measure(
    folder: Path, preset: str, seed: int, max_spots: int, max_cells: int, target: float | None, threads: int, neighbours: bool = True
) -> pd.DataFrame:
    """One row per gene and method: pcc, ssim, and of SpaDiT coverage, reliability and class."""
    torch.set_num_threads(threads)
    prior = RESULTS.with_name(f"trust_prior_without_{folder.name}.json")
    if prior.exists():  # made by benchmarks/trust.py: what other slides say of reliability, this one left out
        uncertainty.PRIOR = prior
    else:
        print(
            f"{prior} isn't there (benchmarks/trust.py makes it): reliability starts from a prior that may have seen {folder.name}.",
            file=sys.stderr,
        )
    slide, reference = io.read(folder / "st.h5ad", "slide"), io.read(folder / "sc.h5ad", "reference")
    slide = slide[subsample(slide, max_spots, 0)].copy()
    reference = reference[subsample(reference, max_cells, 0)].copy()
    shared = [g for g in slide.var_names if g in reference.var_names]
    seen_in = np.asarray((reference[:, shared].layers["counts"] > 0).sum(axis=0)).ravel()
    scored = dict(zip(shared, seen_in >= MIN_CELLS, strict=True))
    truth = pd.DataFrame(measured_values(slide, shared, target).toarray(), columns=shared)
    tables = []
    for fold in gene_folds(shared, 5, seed):
        visible = [g for g in shared if g not in set(fold)]
        true = truth[fold].to_numpy()
        start = time.perf_counter()
        model = SpaDiT(preset, seed=0, device="cpu", neighbours=neighbours).fit(slide[:, visible], reference)
        imputed = model.impute(fold)
        seconds = time.perf_counter() - start
        rows = pd.DataFrame(
            {
                "gene": fold,
                "method": f"SpaDiT {preset}" + (WITHOUT if not neighbours else ""),
                "pcc": pcc(true, imputed.X),
                "ssim": ssim(true, imputed.X),
                "coverage": coverage(true, imputed.layers["lower"], imputed.layers["upper"]),
                "reliability": imputed.var["reliability"].to_numpy(),
                "class": imputed.var["reliability_class"].to_numpy(),
                "seconds": seconds / len(fold),
            }
        )
        for name in ("token", "whole_slide"):
            rows[f"weight_{name}"] = model.blend.get(name, 0.0)
        tables.append(rows)
        for name, values in impute_with_methods(slide, reference, visible, fold, 0, true, target):
            tables.append(pd.DataFrame({"gene": fold, "method": name, "pcc": pcc(true, values), "ssim": ssim(true, values)}))
    table = pd.concat(tables, ignore_index=True)
    table = table[table["gene"].map(scored)]
    table.insert(0, "slide", folder.name)
    table.insert(1, "target", "median" if target is None else f"{target:g}")
    table.insert(2, "seed", seed)
    return table


def accuracy(table: pd.DataFrame, slides: list[str]) -> str:
    """Median PCC per method and slide, mean over seeds; the best that competes in bold."""
    medians = table.groupby(["slide", "method", "seed"])["pcc"].median().groupby(["slide", "method"]).mean().unstack()
    names = [n for n in medians.columns if n.startswith("SpaDiT")] + [*RIVALS, "library_size", "mean_z", "oracle_ridge"]
    lines = ["| method | " + " | ".join(slides) + " |", "|---" * (len(slides) + 1) + "|"]
    ranked = [n for n in names if n.startswith("SpaDiT") or n in RIVALS]
    for name in names:
        cells = []
        for s in slides:
            value = medians.loc[s].get(name, np.nan)
            cell = "" if np.isnan(value) else f"{value:.3f}"
            cells.append(f"**{cell}**" if name in ranked and value == medians.loc[s, ranked].max() else cell)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def paired(table: pd.DataFrame, preset: str) -> str:
    """SpaDiT less each method that competes, gene by gene (a gene's PCC is its mean over seeds)."""
    means = table.groupby(["slide", "gene", "method"])["pcc"].mean().unstack()
    lines = ["| slide | genes | against | mean difference | 95 % interval | better in | p (Wilcoxon) |", "|---" * 7 + "|"]
    for s, part in means.groupby(level=0):
        for name in (*RIVALS, f"SpaDiT {preset}{WITHOUT}"):
            d = (part[f"SpaDiT {preset}"] - part[name]).dropna().to_numpy() if name in part else []
            if not len(d):
                continue
            draws = np.random.default_rng(0).choice(d, (2000, len(d))).mean(1)
            low, high = np.quantile(draws, [0.025, 0.975])
            lines.append(
                f"| {s} | {len(d):,} | {name} | {d.mean():+.3f} | {low:+.3f} to {high:+.3f} | {(d > 0).mean():.0%} "
                f"| {wilcoxon(d).pvalue:.1e} |"
            )
    return "\n".join(lines)


def trust(table: pd.DataFrame, preset: str) -> str:
    """Coverage of the 90 % intervals, and what reliability is worth."""
    lines = [
        "| slide | coverage | Spearman (reliability, PCC) | 'reliable' | of these PCC ≥ 0.3 | 'do not use' | of these PCC < 0.15 "
        "| weight of token, whole-slide | s per fit |",
        "|---" * 9 + "|",
    ]
    own = table[table["method"] == f"SpaDiT {preset}"]
    for s, part in own.groupby("slide"):
        rank = np.mean([spearmanr(p["reliability"], p["pcc"])[0] for _, p in part.groupby("seed")])
        good, bad = part[part["class"] == "reliable"], part[part["class"] == "do not use"]
        share = lambda x: "–" if not len(x) else f"{x.mean():.0%}"  # noqa: E731
        seconds = part.groupby("seed")["seconds"].sum().mean() / 5
        lines.append(
            f"| {s} | {part['coverage'].mean():.3f} | {rank:.2f} | {len(good) / len(part):.0%} | {share(good['pcc'] >= 0.3)} | "
            f"{len(bad) / len(part):.0%} | {share(bad['pcc'] < 0.15)} "
            f"| {part['weight_token'].mean():.2f}, {part['weight_whole_slide'].mean():.2f} | {seconds:.0f} |"
        )
    return "\n".join(lines)


def speed(folder: Path, preset: str, max_spots: int, max_cells: int, threads: int) -> str:
    """One fit on four fifths of the shared genes and the imputation of the others: seconds per part, peak memory of the process."""
    torch.set_num_threads(threads)
    slide, reference = io.read(folder / "st.h5ad", "slide"), io.read(folder / "sc.h5ad", "reference")
    slide, reference = slide[subsample(slide, max_spots, 0)].copy(), reference[subsample(reference, max_cells, 0)].copy()
    shared = [g for g in slide.var_names if g in reference.var_names]
    hidden = gene_folds(shared, 5, 0)[0]
    start = time.perf_counter()
    model = SpaDiT(preset, seed=0, device="cpu").fit(slide[:, [g for g in shared if g not in set(hidden)]], reference)
    fitted = time.perf_counter()
    model.impute(hidden)
    total = time.perf_counter() - start
    shares = {**{k: v for k, v in model.seconds.items() if k != "total"}, "impute": total - (fitted - start)}
    parts = ", ".join(f"{k.replace('_', '-')} {v / total:.0%}" for k, v in shares.items())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return f"| {folder.name} | {slide.n_obs:,} × {reference.n_obs:,} × {len(shared):,} | {preset} | {total:.0f} | {peak:.1f} | {parts} |"


def main() -> int:
    default = ROOT.parent / "shared" / "data"
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    p.add_argument("folder", nargs="?", type=Path, default=default if default.is_dir() else ROOT / "assets" / "demo")
    p.add_argument("--slides", nargs="*", help="names of slides (default: all)")
    p.add_argument("--preset", default="default")
    p.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="of the gene folds; none: print what is there")
    p.add_argument("--target", type=float, help="total that spots are scaled to for the truth and the floors (default: their median)")
    p.add_argument("--max-spots", type=int, default=1500)
    p.add_argument("--max-cells", type=int, default=2000)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--without-neighbours", action="store_true", help="no spot sees its neighbours on the slide (a row of its own)")
    p.add_argument("--speed", action="store_true", help="one fit and its imputation per slide: time and memory")
    args = p.parse_args()
    folders = sorted(f.parent for f in args.folder.glob("*/st.h5ad") if not args.slides or f.parent.name in args.slides)
    if not folders:
        print(f"{args.folder} holds no slide (a folder with st.h5ad and sc.h5ad).", file=sys.stderr)
        return 2
    if args.speed:
        print("| slide | spots × cells × genes | preset | seconds | peak GiB | share of the time |\n" + "|---" * 6 + "|")
        for folder in folders:  # each in a process of its own: the peak of memory is the process's
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                print(pool.submit(speed, folder, args.preset, args.max_spots, args.max_cells, args.threads).result(), flush=True)
        return 0
    for folder in folders:
        for seed in args.seeds:
            start = time.perf_counter()
            new = measure(folder, args.preset, seed, args.max_spots, args.max_cells, args.target, args.threads, not args.without_neighbours)
            RESULTS.parent.mkdir(parents=True, exist_ok=True)
            if RESULTS.exists():
                old = pd.read_csv(RESULTS, dtype={"target": str})
                known = set(map(tuple, new[KEYS].drop_duplicates().to_numpy().tolist()))
                new = pd.concat([old[[tuple(k) not in known for k in old[KEYS].to_numpy().tolist()]], new], ignore_index=True)
            new.sort_values([*KEYS, "gene"], kind="stable").to_csv(RESULTS, index=False, float_format="%.4f", lineterminator="\n")
            print(f"{folder.name}, seed {seed}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    table = pd.read_csv(RESULTS, dtype={"target": str})
    table = table[table["target"] == ("median" if args.target is None else f"{args.target:g}")]
    print(accuracy(table, sorted(table["slide"].unique())), paired(table, args.preset), trust(table, args.preset), sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
