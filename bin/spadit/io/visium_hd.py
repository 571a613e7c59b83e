"""Reader of Visium HD: one size of squares of the folder ``outs`` of Space Ranger 3 and 4."""

from __future__ import annotations

import re
from pathlib import Path

from anndata import AnnData

from spadit.errors import InputError
from spadit.io import bundle
from spadit.io.visium import read_squares

BIN_SIZE = "8"
"""Micrometres, when the sheet names none: what 10x Genomics recommends to begin with."""


def recognise(path: Path) -> str | None:
    """Why the folder looks like a Visium HD slide, or None."""
    if not path.is_dir():
        return None
    if _squares(path):
        return "it holds folders square_…um of Visium HD"
    return "it is a folder square_…um of Visium HD" if _own(path) else None


def _squares(path: Path) -> dict[int, Path]:
    """The folders of squares by size in micrometres."""
    for folder in (bundle.outs(path) / "binned_outputs", path):
        found = {int(m[1]): f for f in folder.glob("square_*um") if f.is_dir() and (m := re.fullmatch(r"square_(\d+)um", f.name))}
        if found:
            return found
    return {}


def _own(path: Path) -> int | None:
    """The size of squares when the folder itself holds them: its name says so, or its scale factors."""
    named = re.fullmatch(r"square_(\d+)um", path.name)
    if named:
        return int(named[1])
    scale = path / "spatial" / "scalefactors_json.json"
    if scale.is_file():
        size = bundle.read_json(scale).get("bin_size_um")
        return round(float(size)) if isinstance(size, (int, float)) else None
    return None


def read_visium_hd(path: str | Path, role: str, batch: str | None = None, bin_size: str = "") -> AnnData:
    """Read the squares of one size of a Visium HD slide. Positions are pixels of the full-resolution image (x: column, y: row).

    Parameters
    ----------
    path
        The folder ``outs``, the one that holds it, ``binned_outputs``, or one ``square_…um``.
    role, batch
        As for :func:`spadit.io.read`.
    bin_size
        Side of the squares in micrometres: 2, 8 or 16, as far as the folder has them.

    Raises
    ------
    InputError
        When there are no squares of that size, or a file is missing or damaged.
    """
    path = Path(path)
    squares = _squares(path)
    own = None if squares else _own(path)
    if own is not None:
        squares = {own: path}
    if not squares:
        raise InputError(
            f"{path.name}: the squares of Visium HD are missing (looked for binned_outputs/square_008um).", "Name the folder 'outs'."
        )
    wanted = bin_size or (str(own) if own is not None else BIN_SIZE)
    if not wanted.isdigit() or int(wanted) not in squares:
        there = ", ".join(map(str, sorted(squares)))
        raise InputError(
            f"{path.name}: there are no squares of {wanted} µm (there are {there}).", "Name one of these in the column 'bin_size'."
        )
    return read_squares(path, squares[int(wanted)], role, batch, "visium_hd", [])
