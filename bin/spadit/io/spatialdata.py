"""Reader of SpatialData (.zarr) and of AnnData written as zarr: the table of counts in it. Format: https://spatialdata.scverse.org"""

from __future__ import annotations

import tempfile
from pathlib import Path

import h5py
from anndata import AnnData

from spadit.errors import InputError
from spadit.io import bundle, zarr
from spadit.io.counts import some
from spadit.io.h5ad import COORDINATES, read_anndata

WANTED = ("X", "layers/counts", "raw/X", "raw/var", "obs", "var", *(f"obsm/{name}" for name in COORDINATES))


def recognise(path: Path) -> str | None:
    """Why the folder looks like SpatialData or AnnData as zarr, or None."""
    if not path.is_dir() or not zarr.is_node(path):
        return None
    if _tables(path):
        return "it is zarr with tables, as SpatialData writes it"
    return "it is zarr with obs and var, as AnnData writes it" if {"obs", "var"} <= set(zarr.names(path)) else None


def _tables(path: Path) -> list[Path]:
    return [path / part / name for part in ("tables", "table") for name in zarr.names(path / part)]


def read_spatialdata(path: str | Path, role: str, batch: str | None = None) -> AnnData:
    """Read the table of a SpatialData folder. Images, shapes and points are not looked at.

    Parameters
    ----------
    path
        The folder (``….zarr``). It may hold one table; of several the one named ``table`` is taken.
    role
        A slide needs coordinates in the table: ``obsm['spatial']``, as spatialdata-io's readers write, or columns of ``obs``.
    batch
        As for :func:`spadit.io.read`.

    Raises
    ------
    InputError
        When there is no table, or it is damaged, lacks coordinates or needs a codec that isn't decoded.
    """
    path = Path(path)
    if not zarr.is_node(path):
        raise InputError(f"{path.name} is not zarr: it lacks .zgroup and zarr.json.", "Copy the whole folder, with its hidden files.")
    found = _tables(path)
    chosen = next((t for t in found if t.name == "table"), None) if len(found) > 1 else next(iter(found), None)
    if chosen is None and {"obs", "var"} <= set(zarr.names(path)):
        chosen = path
    if chosen is None:
        what = f"holds {len(found)} tables ({some([t.name for t in found])})" if found else "holds no table of counts (looked for tables/*)"
        raise InputError(f"{path.name} {what}.", "Write a SpatialData object with one table named 'table'.")
    files: list[Path] = []
    with tempfile.TemporaryDirectory(prefix="spadit_zarr_") as scratch, h5py.File(Path(scratch) / "table.h5", "w") as file:
        for name in WANTED:
            if zarr.is_node(chosen / name):
                files += zarr.copy(chosen / name, file, name)
        with bundle.readable(path, "AnnData"):
            return read_anndata(file, path, role, batch, "spatialdata", files)
