#!/usr/bin/env python3
"""What a slide costs as it grows: time, memory and size of the result of pairing, training and imputing, on synthetic slides.

    python benchmarks/scale.py                                 # the small series over spots, cells and genes, and what they grow with
    python benchmarks/scale.py --cases largest                 # the paper's largest pair: 41,674 spots × 26,252 cells, 500 + 5,000 genes
    python benchmarks/scale.py --cases spots --folds 0         # one series, training 2 models a slide instead of 7
    python benchmarks/scale.py --cases 3000,2000,200,1000      # spots, cells, measured genes, genes to impute
    python benchmarks/scale.py --tables                        # the tables again, from results/scale.csv

The pipeline's own executables run, one after the other, on slides of spadit.synthetic. Memory and CPU seconds are sums over a step's
processes, looked at every fifth of a second; estimated_gib is what SPLIT expects (of training: one model at a time). CPU seconds are what
to compare where other work shares the cores. Rows are added to benchmarks/results/scale.csv; those of the same case, preset, threads,
folds and step are replaced.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = ROOT / "bin"
sys.path.insert(0, str(BIN))

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from spadit import __version__, io  # noqa: E402
from spadit.contracts import Resources  # noqa: E402
from spadit.resources import MARGIN  # noqa: E402
from spadit.synthetic import synthetic_pair  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "scale.csv"
SIZES = ["spots", "cells", "measured", "imputed"]
KEYS = [*SIZES, "preset", "threads", "folds", "step"]
BASE = (3000, 2000, 100, 500)
SERIES = {
    "spots": [(n, *BASE[1:]) for n in (1000, 3000, 10_000, 41_674, 100_000)],
    "cells": [(BASE[0], n, *BASE[2:]) for n in (1000, 5000, 26_252)],
    "genes": [(*BASE[:3], n) for n in (500, 2000, 10_000)],
    "measured": [(*BASE[:2], n, BASE[3]) for n in (50, 100, 300)],
    "largest": [(41_674, 26_252, 500, 5000)],
}
"""(spots, cells, measured genes, genes to impute)."""
SMALL = ("spots", "cells", "genes", "measured")
LIMIT = 3600
"""Seconds a step may take."""


def run(step: str, *arguments: object, threads: int) -> dict:
    """One executable: seconds, CPU seconds and the highest sum of its processes' memory, GiB."""
    script = BIN / f"spadit_{step}.py"
    command = [sys.executable, str(script), "--id", "slide", "--threads", str(threads), *map(str, arguments)]
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    begun = time.perf_counter()
    process = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True)
    os.set_blocking(process.stderr.fileno(), False)
    peak, said, cpu = 0, [], {}
    while process.poll() is None:
        said += process.stderr.readlines()
        memory, times = group_use(process.pid)
        peak, cpu = max(peak, memory), cpu | times
        if time.perf_counter() - begun > LIMIT:
            os.killpg(process.pid, 9)
        time.sleep(0.2)
    if process.returncode:
        raise SystemExit(f"{step} ended with {process.returncode}:\n{''.join(said + process.stderr.readlines())[-3000:]}")
    return {"step": step, "seconds": time.perf_counter() - begun, "cpu_seconds": sum(cpu.values()), "peak_gib": peak / 2**30}


def group_use(group: int) -> tuple[int, dict[str, float]]:
    """Resident bytes of all processes of a group, and CPU seconds so far of each. Models that are trained side by side are children of a
    server of processes, so no parent's account has their time."""
    total, cpu = 0, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                facts = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(facts[2]) == group:
                    total += int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
                    cpu[folder.name] = (int(facts[11]) + int(facts[12])) / os.sysconf("SC_CLK_TCK")
            except (OSError, ValueError, IndexError):
                continue  # it has ended
    return total, cpu


def measure(size: tuple[int, int, int, int], preset: str, threads: int, folds: int, folder: Path) -> pd.DataFrame:
    """One row per step of a slide of this size."""
    spots, cells, measured, imputed = size
    for data, name in zip(synthetic_pair(spots, cells, measured, imputed), ("st", "sc"), strict=True):
        io.write_h5ad(data, folder / f"{name}.h5ad")
        del data
    slide, reference, split, model = (folder / name for name in ("slide.h5ad", "reference.h5ad", "split.json", "model"))
    pair = ("--slide", slide, "--reference", reference)
    rows = [
        run(
            "pair", "--slide", folder / "st.h5ad", "--reference", folder / "sc.h5ad", "--reference-id", "reference",
            "--output-slide", slide, "--output-reference", reference, "--facts", folder / "pairing.json", threads=1,
        )
    ]  # fmt: skip
    resources = folder / "resources.json"
    run("split", *pair, "--output", split, "--folds", max(folds, 2), "--resources", resources, "--preset", preset, threads=1)
    if not folds:
        content = json.loads(split.read_text(encoding="utf-8"))
        split.write_text(json.dumps(content | {"folds": []}), encoding="utf-8")
    facts = ("--curves", folder / "curves.csv", "--facts", folder / "training.json")
    rows.append(run("train", *pair, "--split", split, "--preset", preset, "--device", "cpu", "--output", model, *facts, threads=threads))
    out = folder / "imputed.h5ad"
    rows.append(
        run(
            "impute", *pair, "--split", split, "--model", model, "--training", folder / "training.json", "--device", "cpu", "--output", out,
            threads=threads,
        )
    )  # fmt: skip
    sizes = {"pair": slide.stat().st_size + reference.stat().st_size, "impute": out.stat().st_size}
    sizes["train"] = sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
    table = pd.DataFrame(rows)
    table["output_mb"] = table["step"].map(sizes) / 1e6
    expected = Resources.from_json(resources)
    table["estimated_gib"] = table["step"].map({"train": expected.fit_gib, "impute": expected.impute_gib / MARGIN})
    weights = [fit["blend"].get("token", 0.0) for fit in json.loads((folder / "training.json").read_text(encoding="utf-8"))["fits"]]
    table["network_weight"] = max(weights)
    for name, value in reversed(list(zip(SIZES, size, strict=True))):
        table.insert(0, name, value)
    return table.assign(preset=preset, threads=threads, folds=folds, load=round(os.getloadavg()[1], 1), **machine())


def machine() -> dict:
    """Where it was measured, with what."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    versions = {name: version(name) for name in ("numpy", "torch", "anndata")}
    return {"cpu": cpu, "cores": os.cpu_count(), "spadit": __version__, "python": platform.python_version()} | versions


def exponents(table: pd.DataFrame) -> pd.DataFrame:
    """How CPU time, memory and output of each step grow over a series: the slope of a straight line in logarithms, and its end alone (the
    last two sizes), where what is always there counts less."""
    rows = []
    for name in SMALL:
        axis = {"spots": "spots", "cells": "cells", "genes": "imputed", "measured": "measured"}[name]
        fixed = [column for column in SIZES if column != axis]
        for (step, preset, _threads, folds), part in table.groupby(["step", "preset", "threads", "folds"]):
            part = part[(part[fixed] == [BASE[SIZES.index(column)] for column in fixed]).all(axis=1)].sort_values(axis)
            if len(part) < 3:
                continue
            x = np.log(part[axis].to_numpy(float))
            row = {"series": name, "step": step, "preset": preset, "folds": folds, "from": part[axis].min(), "to": part[axis].max()}
            for column in ("cpu_seconds", "peak_gib", "output_mb"):
                y = np.log(np.maximum(part[column].to_numpy(float), 1e-3))
                row |= {column: np.polyfit(x, y, 1)[0], f"{column}, end": (y[-1] - y[-2]) / (x[-1] - x[-2])}
            rows.append(row)
    return pd.DataFrame(rows)


def show(table: pd.DataFrame) -> None:
    """The tables of README.md."""
    columns = [*KEYS, "seconds", "cpu_seconds", "peak_gib", "output_mb", "load"]
    print("\n" + table[columns].round(2).to_markdown(index=False))
    grown = exponents(table)
    if len(grown):
        print("\nExponents (x: size ** x)\n\n" + grown.round(2).to_markdown(index=False))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cases", nargs="+", default=list(SMALL), help="names of series, 'largest', or spots,cells,measured,imputed")
    p.add_argument("--preset", default="fast")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--folds", type=int, default=5, help="as --folds of the pipeline; 0: none, so that 2 models are trained")
    p.add_argument("--tables", action="store_true", help="measure nothing")
    p.add_argument("--results", type=Path, default=RESULTS)
    args = p.parse_args()
    known = pd.read_csv(args.results) if args.results.exists() else pd.DataFrame()
    if not args.tables:
        cases = [case for name in args.cases for case in (SERIES[name] if name in SERIES else [tuple(map(int, name.split(",")))])]
        for case in dict.fromkeys(cases):
            with tempfile.TemporaryDirectory(prefix="spadit_scale_") as folder:
                found = measure(case, args.preset, args.threads, args.folds, Path(folder))
            shown = [*SIZES, "step", "seconds", "cpu_seconds", "peak_gib", "estimated_gib", "output_mb"]
            print(found[shown].round(2).to_string(index=False), flush=True)
            known = pd.concat([known, found]).drop_duplicates(KEYS, keep="last").sort_values(KEYS)
            args.results.parent.mkdir(exist_ok=True)
            known.to_csv(args.results, index=False, float_format="%.4g")
    show(known)


if __name__ == "__main__":
    main()
