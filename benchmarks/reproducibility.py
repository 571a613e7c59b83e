#!/usr/bin/env python3
"""Two output folders of the same inputs and revision, file by file: which files are identical, which differ, and within what.

    python benchmarks/reproducibility.py RESULTS_1 RESULTS_2 [--all] [--tolerance 1e-5]

Time and memory that a file reports are left out of the comparison; what then is equal is called 'equal but for time and memory'. Numbers of
tables, JSON, h5ad and safetensors files are compared one by one. The exit code is 1 when something differs by more than the tolerance
(relative or absolute, whichever is met), or a file is in one folder only.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from safetensors.numpy import load_file

FOLDERS = ("slides", "references", "benchmark", "multiqc")
# weights_sha256: a checksum of numbers that are compared themselves
MEASURED = re.compile(r"(^|_)(seconds|minutes)(_|$)|peak_gib$|^curve_seconds$|^weights_sha256$")
AMOUNT = re.compile(r"\b\d[\d,.]*\s?(s|min|h|ms|GiB)\b(\s\d+\s?(s|min)\b)?")
NOT_COMPARED = re.compile(r"multiqc_report(\.html|_data/)")  # hold date, paths and times throughout; what they show is in slides.csv

IDENTICAL, BUT_MEASURED, WITHIN, DIFFERENT, ONE_ONLY, SKIPPED = (
    "identical", "equal but for time and memory", "numbers within", "different", "in one folder only", "not compared",
)  # fmt: skip


@dataclasses.dataclass
class Row:
    """One file: what came of the comparison, and the largest difference of a number (relative or absolute, the smaller one)."""

    name: str
    verdict: str
    difference: float = 0.0
    where: str = ""


class Different(Exception):
    """Something that isn't a number differs, at this place."""


def compare(first: Path, second: Path) -> list[Row]:
    """Compare all files of two output folders, or of one slide's folders."""
    tops = [name for name in FOLDERS if (first / name).is_dir() or (second / name).is_dir()] or ["."]
    names = sorted(
        {str(path.relative_to(root)) for root in (first, second) for top in tops for path in (root / top).rglob("*") if path.is_file()}
    )
    rows = []
    for name in names:
        a, b = first / name, second / name
        if NOT_COMPARED.search(name):
            rows.append(Row(name, SKIPPED))
        elif not (a.is_file() and b.is_file()):
            rows.append(Row(name, ONE_ONLY))
        elif a.read_bytes() == b.read_bytes():
            rows.append(Row(name, IDENTICAL))
        else:
            rows.append(compare_files(name, a, b))
    return rows


def compare_files(name: str, a: Path, b: Path) -> Row:
    """Two files of one kind that aren't the same bytes."""
    largest, where = 0.0, ""
    try:
        for place, x, y in differences(a, b):
            if (found := distance(x, y)) > largest:
                largest, where = found, place
    except Different as error:
        return Row(name, DIFFERENT, math.inf, str(error))
    return Row(name, WITHIN if largest else BUT_MEASURED, largest, where)


def distance(x: np.ndarray, y: np.ndarray) -> float:
    """The largest difference between two arrays, relative or absolute, whichever is smaller; numbers that are none equal one another."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.shape != y.shape:
        raise Different(f"shape {x.shape} and {y.shape}")
    if (np.isnan(x) != np.isnan(y)).any():
        return math.inf
    both = ~np.isnan(x) & (x != y)
    if not both.any():
        return 0.0
    apart = np.abs(x[both] - y[both])
    return float((apart / np.maximum(np.maximum(np.abs(x[both]), np.abs(y[both])), 1)).max())


def differences(a: Path, b: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(place, numbers of the first file, numbers of the second). Raises Different where something else differs."""
    kind = a.suffix
    if kind == ".json":
        yield from of_values("", *(json.loads(path.read_text(encoding="utf-8")) for path in (a, b)))
    elif kind == ".csv":
        rows = [list(csv.reader(path.read_text(encoding="utf-8").splitlines())) for path in (a, b)]
        if len(rows[0]) != len(rows[1]) or rows[0][:1] != rows[1][:1]:
            raise Different("rows or columns")
        for i, column in enumerate(rows[0][0] if rows[0] else []):
            yield from of_values(column, *([number(row[i]) for row in table[1:]] for table in rows))
    elif kind == ".safetensors":
        tensors = [load_file(path) for path in (a, b)]
        if set(tensors[0]) != set(tensors[1]):
            raise Different("names of tensors")
        for name in tensors[0]:
            yield name, tensors[0][name], tensors[1][name]
    elif kind == ".h5ad":
        with h5py.File(a) as one, h5py.File(b) as two:
            yield from of_groups(one, two)
    elif kind in (".html", ".txt", ".yml"):
        texts = [AMOUNT.sub("<measured>", path.read_text(encoding="utf-8")) for path in (a, b)]
        if texts[0] != texts[1]:
            raise Different("text")
    else:
        raise Different("bytes")


def number(text: str) -> float | str:
    """A cell of a table."""
    try:
        return float(text)
    except ValueError:
        return text


def of_values(place: str, x, y) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """The numbers of two JSON values of the same structure."""
    if MEASURED.search(place.rpartition(".")[2]):
        return
    numbers = (int, float)
    if isinstance(x, dict) and isinstance(y, dict) and list(x) == list(y):
        for key in x:
            yield from of_values(f"{place}.{key}", x[key], y[key])
    elif isinstance(x, list) and isinstance(y, list) and len(x) == len(y):
        for i, (one, two) in enumerate(zip(x, y, strict=True)):
            yield from of_values(place if isinstance(one, numbers) else f"{place}[{i}]", one, two)
    elif isinstance(x, numbers) and isinstance(y, numbers):
        yield place, np.array(x), np.array(y)
    elif x != y:
        raise Different(place)


def of_groups(x: h5py.Group, y: h5py.Group) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """The numbers of two HDF5 groups of the same structure."""
    if set(x) != set(y):
        raise Different(f"{x.name}: members")
    for name in x:
        one, two = x[name], y[name]
        if isinstance(one, h5py.Group) and isinstance(two, h5py.Group):
            yield from of_groups(one, two)
        elif isinstance(one, h5py.Dataset) and isinstance(two, h5py.Dataset) and one.dtype.kind in "fiub" and one.shape == two.shape:
            yield one.name, one[()], two[()]
        elif not np.array_equal(one[()], two[()]):
            raise Different(one.name)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("first", type=Path)
    p.add_argument("second", type=Path)
    p.add_argument("--all", action="store_true", help="name every file; otherwise those that are not identical")
    p.add_argument("--tolerance", type=float, default=1e-5, help="differences of numbers up to this are fine (default: 1e-5)")
    args = p.parse_args()
    rows = compare(args.first, args.second)
    if not rows:
        sys.exit("There is nothing to compare in these folders.")
    for row in rows:
        if args.all or row.verdict != IDENTICAL:
            size = f" {row.difference:.1e}" if row.verdict == WITHIN else ""
            print(f"{row.verdict + size:28} {row.name}{f'  ({row.where})' if row.where else ''}")
    bad = [row for row in rows if row.verdict in (DIFFERENT, ONE_ONLY) or row.difference > args.tolerance]
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in dict.fromkeys(row.verdict for row in rows)}
    print(f"{len(rows)} files: " + ", ".join(f"{n} {verdict}" for verdict, n in counts.items()) + ".")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
