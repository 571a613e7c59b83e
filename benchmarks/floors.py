#!/usr/bin/env python3
"""The numbers to beat: floors, controls and the ceiling on every slide of a folder, genes fully hidden.

    python benchmarks/floors.py [FOLDER] [--target 10000] [--full]

FOLDER holds one folder per slide with st.h5ad and sc.h5ad (default: ../shared/data, else assets/demo). Five folds over the shared
genes; at most 1,500 spots and 2,000 cells, seeded. Writes benchmarks/results/floors.csv (rows of other slides or targets stay) and
prints a table for docs.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bin"))

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from spadit import io  # noqa: E402
from spadit.evaluation import score_methods, subsample, summarize  # noqa: E402
from spadit.methods import BASELINES, METHODS  # noqa: E402

MIN_CELLS = 10
"""A gene is scored when at least this many cells of the reference show it; genes seen in fewer still count as visible ones."""
COLUMNS = ["slide", "target", "method", "kind", "n_spots", "n_cells", "n_shared", "n_scored", "median_pcc", "low", "high", "mean_pcc"]
COLUMNS += ["median_spearman", "median_ssim", "median_rmse", "median_js", "accuracy_score"]


def gene_folds(genes: list[str], n: int, seed: int) -> list[list[str]]:
    """Folds by SHA-256 of seed and name: independent of gene order and library versions."""
    order = sorted(genes, key=lambda g: hashlib.sha256(f"{seed}\t{g}".encode()).digest())
    return [order[k::n] for k in range(n)]


def measure(folder: Path, seed: int, folds: int, max_spots: int, max_cells: int, target: float | None) -> tuple[list[dict], float]:
    """The summary rows of one slide, and the seconds it took."""
    slide, reference = io.read(folder / "st.h5ad", "slide"), io.read(folder / "sc.h5ad", "reference")
    slide = slide[subsample(slide, max_spots, seed)].copy()
    reference = reference[subsample(reference, max_cells, seed)].copy()
    shared = [g for g in slide.var_names if g in reference.var_names]
    sets = [([g for g in shared if g not in set(fold)], fold, k) for k, fold in enumerate(gene_folds(shared, folds, seed))]
    start = time.perf_counter()
    table = score_methods(slide, reference, sets, seed, target)
    seconds = time.perf_counter() - start
    n_cells = (reference[:, shared].layers["counts"] > 0).sum(axis=0)
    scored = {g for g, n in zip(shared, np.asarray(n_cells).ravel(), strict=True) if n >= MIN_CELLS}
    rows = summarize(table[table["gene"].isin(scored)], "all", seed)
    facts = {
        "slide": folder.name,
        "target": "median" if target is None else f"{target:g}",
        "n_spots": slide.n_obs,
        "n_cells": reference.n_obs,
        "n_shared": len(shared),
        "n_scored": len(scored),
    }
    return [{**row, **facts, "kind": METHODS[row["method"]].kind} for row in rows], seconds


def markdown(table: pd.DataFrame) -> str:
    """Methods × slides: median PCC / median SSIM, the best floor in bold."""
    lines = []
    slides = list(dict.fromkeys(table["slide"]))
    counts = table.drop_duplicates("slide").set_index("slide")["n_scored"]
    lines.append("| method | " + " | ".join(f"{s} ({counts[s]:,} scored)" for s in slides) + " |")
    lines.append("|---" * (len(slides) + 1) + "|")
    best = table[table["kind"] == "floor"].groupby("slide")["median_pcc"].max()
    for name in BASELINES:
        method = METHODS[name]
        cells = []
        for s in slides:
            row = table[(table["slide"] == s) & (table["method"] == name)].iloc[0]
            pcc = f"{row['median_pcc']:.3f}"
            if method.kind == "floor" and row["median_pcc"] == best[s]:
                pcc = f"**{pcc}**"
            cells.append(f"{pcc} / {row['median_ssim']:.3f}")
        lines.append(f"| {name} ({method.kind}) | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    default = ROOT.parent / "shared" / "data"
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    p.add_argument("folder", nargs="?", type=Path, default=default if default.is_dir() else ROOT / "assets" / "demo")
    p.add_argument("--slides", nargs="*", help="names of slides (default: all)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--folds", type=int, default=5)
    p.add_argument("--max-spots", type=int, default=1500)
    p.add_argument("--max-cells", type=int, default=2000)
    p.add_argument("--full", action="store_true", help="all spots and cells")
    p.add_argument("--target", type=float, help="total that spots and cells are scaled to (default: their median)")
    p.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "floors.csv")
    args = p.parse_args()
    folders = sorted(f.parent for f in args.folder.glob("*/st.h5ad") if not args.slides or f.parent.name in args.slides)
    if not folders:
        print(f"{args.folder} holds no slide (a folder with st.h5ad and sc.h5ad).", file=sys.stderr)
        return 2
    limit = sys.maxsize if args.full else None
    rows = []
    for folder in folders:
        found, seconds = measure(folder, args.seed, args.folds, limit or args.max_spots, limit or args.max_cells, args.target)
        print(f"{folder.name}: {seconds:.1f} s", file=sys.stderr)
        rows += found
    table = pd.DataFrame(rows)[COLUMNS]
    print(markdown(table))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    if args.output.exists():
        old = pd.read_csv(args.output, dtype={"target": str})
        keys = ["slide", "target", "n_spots", "n_cells"]
        new = set(map(tuple, table[keys].to_numpy().tolist()))
        table = pd.concat([old[[tuple(k) not in new for k in old[keys].to_numpy().tolist()]], table], ignore_index=True)
    table = table.sort_values(["target", "slide", "n_spots"], kind="stable")
    table.to_csv(args.output, index=False, float_format="%.4f", lineterminator="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
