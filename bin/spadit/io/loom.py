"""Reader of loom files (versions 2 and 3), as velocyto, SCope and older atlases write them. Format: http://linnarssonlab.org/loompy/format/"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from spadit.errors import InputError
from spadit.io import bundle
from spadit.io.counts import as_counts, assemble, check_places, look, unusable
from spadit.io.h5ad import COORDINATE_COLUMNS

KNOWN = 3
GENES = ("Gene", "gene", "gene_name", "GeneName", "gene_names", "var_names", "Symbol", "symbol", "index", "Accession")
CELLS = ("CellID", "cell_id", "cell_names", "obs_names", "Cell", "barcode", "barcodes", "index")


def recognise(path: Path) -> str | None:
    """Why the file looks like a loom file, or None."""
    if path.is_dir() or bundle.start_of(path, 8) != bundle.HDF5_SIGNATURE:
        return None
    with bundle.hdf5(path) as file:
        return "it is HDF5 with row_attrs and col_attrs" if {"matrix", "row_attrs", "col_attrs"} <= set(file) else None


def read_loom(path: str | Path, role: str, batch: str | None = None) -> AnnData:
    """Read a loom file: its main matrix (genes × cells there), attributes of cells as ``obs``.

    Parameters
    ----------
    path
        The file.
    role
        For a slide two attributes of cells have to be coordinates (x and y, or as Xenium and Visium name them).
    batch
        Attribute of cells.

    Raises
    ------
    InputError
        When it is damaged, or has no names of genes or cells, or no coordinates for a slide.
    """
    path = Path(path)
    warnings: list[str] = []
    with bundle.hdf5(path) as file:
        missing = [name for name in ("matrix", "row_attrs", "col_attrs") if name not in file]
        if missing:
            raise InputError(f"{path.name} is HDF5 but not loom: it lacks {', '.join(missing)}.", "Name the platform as it is.")
        version = file.attrs.get("LOOM_SPEC_VERSION", "")
        if not version and "attrs/LOOM_SPEC_VERSION" in file:
            version = file["attrs/LOOM_SPEC_VERSION"][()]
        bundle.newer(version.decode() if isinstance(version, bytes) else version, KNOWN, "loom", warnings)
        matrix = file["matrix"]
        if not isinstance(matrix, h5py.Dataset) or matrix.ndim != 2 or matrix.dtype.kind not in "iufb":
            raise InputError(f"{path.name}: 'matrix' is no matrix of numbers.", "Write the file again.")
        var, obs = _attributes(file["row_attrs"], matrix.shape[0]), _attributes(file["col_attrs"], matrix.shape[1])
        var.index, obs.index = _index(var, GENES, path, "genes"), _index(obs, CELLS, path, "cells")
        rows = max(1, bundle.BLOCK // max(1, matrix.shape[1]))
        rows = max(rows // 64 * 64, min(64, rows))  # whole chunks where memory allows
        blocks = [sp.csr_matrix(matrix[i : i + rows]) for i in range(0, matrix.shape[0], rows)]
    if not len(var) or not len(obs):
        raise InputError(f"{path.name} holds no {'genes' if not len(var) else 'cells'}.", "Check how the file was written.")
    values = look(sp.vstack(blocks, format="csr").T)
    if not values.usable:
        raise unusable(values, path, "matrix", obs, var, role)
    counts = as_counts(values, path, "matrix", warnings)
    spatial = None
    if role == "slide":
        pair = next((p for p in COORDINATE_COLUMNS if p[0] in obs and p[1] in obs), None)
        if pair is None:
            raise InputError(
                f"{path.name} has no coordinates (looked for x and y among the attributes of cells).", "Add them, or give an h5ad file."
            )
        spatial = check_places(bundle.numbers(obs, pair, path), obs.index, path, f"'{pair[0]}' and '{pair[1]}'")
    return assemble(path, role, batch, "loom", counts, obs, var, spatial, "matrix", warnings)


def _attributes(group: h5py.Group, size: int) -> pd.DataFrame:
    """The attributes that have one value per gene or cell."""
    columns = {}
    for name, values in group.items():
        if isinstance(values, h5py.Dataset) and values.shape == (size,):
            columns[name] = bundle.strings(values) if values.dtype.kind in "SO" else np.asarray(values)
    return pd.DataFrame(columns, index=range(size))


def _index(table: pd.DataFrame, names: tuple[str, ...], path: Path, what: str) -> list[str]:
    if not len(table):
        return []
    return [str(v) for v in table[bundle.column(table, names, path, f"the names of {what}")]]
