#!/usr/bin/env python3
"""How far the estimates of bin/spadit/resources.py are off, and which constants would fit best.

    python benchmarks/preflight.py                   # measure what results/preflight.csv doesn't hold yet, then fit and compare
    python benchmarks/preflight.py --print           # fit and compare only

Slides and references are synthetic (Poisson counts of a few factors): only their sizes matter here. Each size is measured in a process
of its own, one thread: one fit and the imputation of its hidden genes, with processor time (so that other work hardly matters) and the
largest memory of the process.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bin"))
RESULTS = ROOT / "benchmarks" / "results" / "preflight.csv"
SIZES = [  # spots, cells, shared genes, unmeasured genes, preset
    (300, 300, 40, 20, "fast"), (300, 300, 40, 20, "default"), (3000, 2000, 60, 300, "default"), (1500, 1000, 300, 300, "default"),
    (10000, 3000, 200, 200, "fast"), (3000, 4000, 1000, 200, "fast"), (30000, 2000, 100, 200, "fast"), (1500, 2000, 1000, 300, "default"),
    (10000, 8000, 150, 100, "default"),
]  # fmt: skip
KEYS = ["n_spots", "n_cells", "n_shared", "n_unmeasured", "preset"]


def synthetic(n: int, n_genes: int, seed: int):
    """n × genes of Poisson counts, about a third of them not zero."""
    import anndata as ad
    import scipy.sparse as sp

    rng = np.random.default_rng(seed)
    loadings = np.random.default_rng(0).normal(size=(5, n_genes)) * 0.7
    parts = [rng.poisson(np.exp(rng.normal(size=(min(2000, n - i), 5)) @ loadings - 1.2)).astype(np.float32) for i in range(0, n, 2000)]
    names = [f"{'cs'[seed]}{i}" for i in range(n)]
    made = ad.AnnData(obs=pd.DataFrame(index=names), var=pd.DataFrame(index=[f"Gene{i}" for i in range(n_genes)]))
    made.layers["counts"] = sp.vstack([sp.csr_matrix(part) for part in parts]).tocsr()
    return made


def measure(step: str, folder: Path, n_unmeasured: int, preset: str, steps: int | None) -> dict:
    """One fit or its imputation, in this process."""
    import torch

    from spadit import io
    from spadit.api import SpaDiT
    from spadit.contracts import Split
    from spadit.imputation import impute

    torch.set_num_threads(1)
    slide, reference = io.load(folder / "slide.h5ad", "slide"), io.load(folder / "reference.h5ad", "reference")
    start, wall = time.process_time(), time.perf_counter()
    if step == "fit":
        model = SpaDiT(preset, 0, "cpu", **({"max_steps": steps} if steps else {})).fit(slide, reference)
        model.save(folder / "models" / "delivery")
        share = (time.process_time() - start) / (time.perf_counter() - wall)
        found = {f"{name}_s": share * value for name, value in model.seconds.items()}
    else:
        genes = [g for g in reference.var_names if g not in set(slide.var_names)]
        split = Split("s", 0, [], [], [], genes, [])
        split.train = list(slide.var_names)
        impute(slide, reference, split, folder / "models", folder / "imputed.h5ad", device="cpu")
        found = {"impute_s": time.process_time() - start, "output_gib": (folder / "imputed.h5ad").stat().st_size / 2**30}
    found[f"{step}_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return found


def run(n_spots: int, n_cells: int, n_shared: int, n_unmeasured: int, preset: str, minutes: float) -> dict | None:
    """All measurements of one size; None when they take too long."""
    row = dict(zip(KEYS, (n_spots, n_cells, n_shared, n_unmeasured, preset), strict=True))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        slide, reference = synthetic(n_spots, n_shared, 1), synthetic(n_cells, n_shared + n_unmeasured, 0)
        slide.obsm["spatial"] = np.random.default_rng(0).uniform(0, n_spots**0.5, (n_spots, 2))
        row["n_counts"] = slide.layers["counts"].nnz + reference.layers["counts"].nnz
        for data, role in ((slide, "slide"), (reference, "reference")):
            data.var["shared"] = [name in set(slide.var_names) for name in data.var_names]
            data.uns["spadit"] = {"id": role, "role": role, "platform": "h5ad", "source": role, "sha256": "0", "warnings": []}
            data.write_h5ad(folder / f"{role}.h5ad")
        for step in ("fit", "impute"):
            command = [sys.executable, __file__, "--measure", step, str(folder), str(n_unmeasured), preset]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=60 * minutes)
            except subprocess.TimeoutExpired:
                print(f"{row}: {step} took more than {minutes} min", file=sys.stderr)
                return None
            if done.returncode:
                sys.exit(done.stderr)
            row |= json.loads(done.stdout.splitlines()[-1])
    return row


def fit(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Constants of at least 0 that make relative errors small (least squares of estimate / measured - 1)."""
    from scipy.optimize import nnls

    from spadit.resources import CONSTANTS, terms

    constants = {}
    for name in CONSTANTS:
        rows, used = [], []
        for _, row in table.iterrows():
            found = terms(sizes(row), settings(row))[name]
            if found:
                rows.append(found)
                used.append(measured(row, name))
        names = list(CONSTANTS[name])
        matrix = np.array([[row.get(term, 0.0) for term in names] for row in rows]) / np.array(used)[:, None]
        scale = np.maximum(np.abs(matrix).max(0), 1e-30)
        constants[name] = dict(zip(names, (nnls(matrix / scale, np.ones(len(used)))[0] / scale).tolist(), strict=True))
    return constants


def sizes(row):
    from spadit.resources import Sizes

    return Sizes(*(int(row[key]) for key in (*KEYS[:4], "n_counts")), n_fits=1)


def settings(row):
    from spadit.settings import PRESETS

    return PRESETS[row["preset"]]


def measured(row, name: str) -> float:
    """The measured number of an estimate; trust belongs to the coarse condition."""
    if name == "coarse_s":
        return row["coarse_s"] + row["trust_s"]
    return row[{"whole_s": "whole_slide_s", "disk_gib": "output_gib"}.get(name, name)]


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    p.add_argument("--print", action="store_true", help="measure nothing")
    p.add_argument("--minutes", type=float, default=5, help="longest time of one step (default: 5)")
    p.add_argument("--sizes", type=int, default=len(SIZES), help="measure the first few sizes only")
    args = p.parse_args()
    if args.measure:
        step, folder, n_unmeasured, preset = args.measure
        print(json.dumps(measure(step, Path(folder), int(n_unmeasured), preset, None)))
        return 0
    table = pd.read_csv(RESULTS) if RESULTS.exists() else pd.DataFrame(columns=KEYS)
    if not args.print:
        for size in SIZES[: args.sizes]:
            if not len(table) or not (table[KEYS].astype(str) == [str(x) for x in size]).all(axis=1).any():
                start = time.perf_counter()
                row = run(*size, args.minutes)
                if row:
                    table = pd.concat([table, pd.DataFrame([row])], ignore_index=True)
                    RESULTS.parent.mkdir(parents=True, exist_ok=True)
                    table.to_csv(RESULTS, index=False, float_format="%.5g")
                print(f"{size}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    from spadit import resources

    best = fit(table)
    print(json.dumps({name: {term: float(f"{value:.2g}") for term, value in part.items()} for name, part in best.items()}, indent=1))
    constants = resources.CONSTANTS
    print("\nEstimate / measured, with the constants as they are:\n")
    print("| spots × cells × shared + new genes | preset | " + " | ".join(constants) + " |\n" + "|---" * (len(constants) + 2) + "|")
    for _, row in table.iterrows():
        found = resources.terms(sizes(row), settings(row))
        cells = [f"{resources.estimate(n, found):.2g} / {measured(row, n):.2g}" if found[n] else "" for n in constants]
        print(f"| {row.n_spots:,} × {row.n_cells:,} × {row.n_shared:,} + {row.n_unmeasured:,} | {row.preset} | " + " | ".join(cells) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
