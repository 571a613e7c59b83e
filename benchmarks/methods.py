#!/usr/bin/env python3
"""Tables for the docs from what a run with --benchmark left: accuracy, and time and memory, method × slide.

    ./spadit run --input samplesheet.csv --outdir results --benchmark --benchmark_spots 3000 --benchmark_cells 2000
    python benchmarks/methods.py results/benchmark

The first command hides every shared gene once (5 folds, seed 0) from every method of the registry; the second only prints.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Slide -> its ranking.csv, indexed by method."""
    return {path.parent.name: pd.read_csv(path).set_index("method") for path in sorted(folder.glob("*/ranking.csv"))}


def markdown(found: dict[str, pd.DataFrame], cell) -> str:
    """Methods in the order of their mean accuracy score, those that don't compete last; ``cell(row)`` writes a method's entry."""
    scores = pd.DataFrame({slide: table["accuracy_score"] for slide, table in found.items()})
    lines = ["| method | " + " | ".join(found) + " |", "|---" * (len(found) + 1) + "|"]
    for method in scores.mean(axis=1).sort_values(ascending=False, na_position="last").index:
        kind = next(table.loc[method, "kind"] for table in found.values() if method in table.index)
        entries = [cell(table.loc[method]) if method in table.index else "" for table in found.values()]
        lines.append(f"| {method} ({kind}) | " + " | ".join(entries) + " |")
    return "\n".join(lines)


def accuracy(row: pd.Series) -> str:
    """Median PCC with its 95 % interval and the accuracy score; or why there is none."""
    if row["status"] != "ok":
        return row["status"]
    score = "" if pd.isna(row["accuracy_score"]) else f"; AS {row['accuracy_score']:.2f}"
    return f"{row['median_pcc']:.3f} ({row['low']:.3f} to {row['high']:.3f}){score}"


def cost(row: pd.Series) -> str:
    """Seconds of all folds and the largest memory of one."""
    return "–" if row["status"] != "ok" else f"{row['seconds']:.0f} s, {row['peak_gib']:.1f} GiB"


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    p.add_argument("folder", type=Path, help="<outdir>/benchmark")
    found = tables(p.parse_args().folder)
    if not found:
        print("There is no <slide>/ranking.csv in this folder: give <outdir>/benchmark of a run with --benchmark.", file=sys.stderr)
        return 2
    print(markdown(found, accuracy), markdown(found, cost), sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
