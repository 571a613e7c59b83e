"""Reader of AnnData files (.h5ad), the format of scanpy, squidpy and the rest of scverse.

Only what the pipeline needs is read (obs, var, the counts, the coordinates), so that an unusual ``uns`` or a dozen
layers cost neither memory nor a failure.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.io import read_elem

from spadit.errors import InputError
from spadit.io.bundle import HDF5_SIGNATURE, checked, hdf5, regular, start_of
from spadit.io.counts import Values, as_counts, assemble, check_places, look, unusable

log = logging.getLogger(__name__)

COORDINATES = ("spatial", "X_spatial")
"""Names in obsm, in order of preference."""
COORDINATE_COLUMNS = (
    ("x", "y"),
    ("X", "Y"),
    ("x_centroid", "y_centroid"),
    ("pxl_col_in_fullres", "pxl_row_in_fullres"),
    ("imagecol", "imagerow"),
    ("array_col", "array_row"),
)
"""Pairs of obs columns, taken when obsm holds no coordinates."""

RAW_COUNTS = "Give raw counts in layers['counts'], X or raw.X; scaled, centred or imputed values can't be used."
DENSE_BLOCK = 1 << 24
"""Entries of a dense matrix read at once."""


def recognise(path: Path) -> str | None:
    """Why the file looks like h5ad, or None."""
    if path.is_dir() or start_of(path, 8) != HDF5_SIGNATURE:
        return None
    with hdf5(path) as file:
        return "it is HDF5 with obs and var" if {"obs", "var"} <= set(file) else None


def read_h5ad(path: str | Path, role: str, batch: str | None = None) -> ad.AnnData:
    """Read a slide or a reference from an h5ad file.

    The counts are the first of ``layers['counts']``, ``X`` and ``raw.X`` that holds non-negative whole numbers. When none
    does, the first of ``layers['counts']``, ``raw.X`` and ``X`` that is finite and not negative is taken, with a warning:
    log-transformed values (see :func:`spadit.io.counts.log_base`) are transformed back, because normalising logarithms as if they were
    counts would be wrong; other fractional values (estimated or corrected counts) are used as they are.

    Genes of the same name are added up to one gene, with a warning. scanpy's way (``GENE``, ``GENE-1``) would leave a
    second, visible copy of a gene that is meant to be hidden. Spots of the same name are made unique (``A``, ``A-1``).

    Parameters
    ----------
    path
        The h5ad file.
    role
        'slide' or 'reference'. A slide needs coordinates: ``obsm['spatial']``, else ``obsm['X_spatial']``, else a pair of
        obs columns of :data:`COORDINATE_COLUMNS`.
    batch
        Column of obs that becomes ``obs['batch']``. It must be there in a reference; in a slide it may be missing.

    Returns
    -------
    AnnData
        spots (or cells) × genes in the form that :mod:`spadit.io` describes.

    Raises
    ------
    InputError
        For a file that is damaged or lacks something, in a sentence that names it.
    """
    path = regular(Path(path))
    with hdf5(path) as file:
        return read_anndata(file, path, role, batch, "h5ad")


def read_anndata(file: h5py.File, path: Path, role: str, batch: str | None, platform: str, files: Iterable[Path] = ()) -> ad.AnnData:
    """The same from an open HDF5 file in AnnData's layout.

    Parameters
    ----------
    path
        What the user named, for messages.
    platform, files
        As for :func:`spadit.io.counts.assemble`.
    """
    warnings: list[str] = []
    _require_layout(file, path.name)
    obs, var = _table(file["obs"], path, "obs"), _table(file["var"], path, "var")
    if not len(obs) or not len(var):
        empty = ("spots" if role == "slide" else "cells") if not len(obs) else "genes"
        raise InputError(f"{path.name} holds no {empty}.", "Check how the file was written.")
    counts, var, counts_from = _counts(file, path, obs, var, role, warnings)
    spatial = _coordinates(file, path, obs, warnings) if role == "slide" else None
    return assemble(path, role, batch, platform, counts, obs, var, spatial, counts_from, warnings, files)


# ---- the file ---------------------------------------------------------------------------------------------------


def _require_layout(file: h5py.File, name: str) -> None:
    if "obs" in file and "var" in file:
        return
    if "matrix" in file:
        raise InputError(f"{name} is a 10x HDF5 matrix, not an h5ad file.", "Name the platform 'tenx', or leave it to be detected.")
    raise InputError(f"{name} is HDF5 but not an h5ad file: it has no 'obs' and 'var'.", "Write it with AnnData.write_h5ad.")


def _element(element: h5py.Group | h5py.Dataset, path: Path, what: str) -> Any:
    try:
        return read_elem(element)
    except (MemoryError, InputError):
        raise
    except Exception as error:  # what a damaged file raises can be anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path.name}: '{what}' can't be read: {reason}.", "Copy the file or write it again.") from error


def _table(element: h5py.Group | h5py.Dataset, path: Path, what: str) -> pd.DataFrame:
    """obs or var. Before anndata 0.7 these were compound data sets, with the names in the field 'index'."""
    table = _element(element, path, what)
    if isinstance(table, np.ndarray) and table.dtype.names:
        table = pd.DataFrame({n: table[n] for n in table.dtype.names})
        index = next((n for n in ("index", "_index") if n in table), table.columns[0])
        table = table.set_index(index)
        table.index = [i.decode() if isinstance(i, bytes) else str(i) for i in table.index]
    if not isinstance(table, pd.DataFrame):
        raise InputError(f"{path.name}: '{what}' is not a table.", "Write the file again with AnnData.write_h5ad.")
    return table


# ---- counts -----------------------------------------------------------------------------------------------------


def _counts(
    file: h5py.File, path: Path, obs: pd.DataFrame, var: pd.DataFrame, role: str, warnings: list[str]
) -> tuple[sp.csr_matrix, pd.DataFrame, str]:
    """The raw counts (CSR float32), the gene table that belongs to them and where they were found."""
    raw = file.get("raw")
    places = {"layers['counts']": file.get("layers/counts"), "X": file.get("X")}
    if isinstance(raw, h5py.Group) and "X" in raw and "var" in raw:
        places["raw.X"] = raw["X"]
    found: dict[str, tuple[Values, pd.DataFrame]] = {}
    for label, element in places.items():
        if element is None or (isinstance(element, h5py.Dataset) and element.shape in (None, ())):
            continue
        genes = _table(raw["var"], path, "raw/var") if label == "raw.X" else var
        values = _values(element, path, label, len(obs), len(genes))
        found[label] = (values, genes)
        if values.usable and values.whole:
            break
    if not found:
        raise InputError(f"{path.name} holds no matrix: neither layers['counts'] nor X nor raw.X.", RAW_COUNTS)
    label = next((n for n, (v, _) in found.items() if v.usable and v.whole), None)
    if label is None:
        label = next((n for n in ("layers['counts']", "raw.X", "X") if n in found and found[n][0].usable), None)
    if label is None:
        label = next(iter(found))
        raise unusable(found[label][0], path, label, obs, found[label][1], role, RAW_COUNTS)
    if "layers['counts']" in found and label != "layers['counts']":
        warnings.append(f"layers['counts'] doesn't hold non-negative whole numbers; {label} does better and is used.")
    values, genes = found[label]
    log.info("%s: counts taken from %s", path.name, label)
    declared = _declared_base(file) if label != "layers['counts']" else None
    return as_counts(values, path, label, warnings, declared, RAW_COUNTS), genes.copy(), label


def _values(element: h5py.Group | h5py.Dataset, path: Path, label: str, n_obs: int, n_vars: int) -> Values:
    """Read one matrix as CSR float32 and look at its values before the cast."""
    shape = tuple(element.shape) if isinstance(element, h5py.Dataset) else None
    if shape is not None and len(shape) == 2 and shape == (n_obs, n_vars) and element.dtype.kind in "fiub":
        rows = max(1, DENSE_BLOCK // max(1, n_vars))
        plain = np.dtype(np.float32) if element.dtype.itemsize == 2 and element.dtype.kind == "f" else element.dtype.newbyteorder("=")
        try:
            matrix = sp.vstack(
                [sp.csr_matrix(element[i : i + rows].astype(plain, copy=False)) for i in range(0, n_obs, rows)], format="csr"
            )
        except OSError as error:
            raise InputError(f"{path.name}: {label} can't be read: {error}.", "Copy or download the file again.") from error
    elif shape is not None and shape != (n_obs, n_vars):
        raise _wrong_shape(path, label, shape, n_obs, n_vars)
    else:
        _check_sparse(element, path, label, n_obs, n_vars)
        matrix = _element(element, path, label)
        if not sp.issparse(matrix) or matrix.dtype.kind not in "fiub":
            raise InputError(f"{path.name}: {label} is not a matrix of numbers.", RAW_COUNTS)
        if matrix.shape != (n_obs, n_vars):
            raise _wrong_shape(path, label, matrix.shape, n_obs, n_vars)
        checked(matrix, path, label)
    return look(matrix)


def _check_sparse(element: h5py.Group | h5py.Dataset, path: Path, label: str, n_obs: int, n_vars: int) -> None:
    """The parts of a sparse matrix have to fit one another and obs × var, before memory is taken for them."""
    parts = [element.get(name) for name in ("data", "indices", "indptr")] if isinstance(element, h5py.Group) else []
    if not parts or not all(isinstance(part, h5py.Dataset) and part.ndim == 1 for part in parts):
        raise InputError(f"{path.name}: {label} is not a matrix of numbers.", RAW_COUNTS)
    shape = element.attrs.get("shape", element.attrs.get("h5sparse_shape"))
    shape = tuple(int(n) for n in np.ravel(shape)) if shape is not None and np.asarray(shape).dtype.kind in "iuf" else ()
    if shape != (n_obs, n_vars):
        raise _wrong_shape(path, label, shape, n_obs, n_vars)
    n_values, n_indices, n_pointers = (len(part) for part in parts)
    if parts[1].dtype.kind not in "iu" or parts[2].dtype.kind not in "iu":
        raise InputError(f"{path.name}: {label} is damaged: its indices are no whole numbers.", "Copy the file or write it again.")
    if n_values != n_indices or n_pointers not in (n_obs + 1, n_vars + 1):
        raise InputError(
            f"{path.name}: {label} is damaged: {n_values} values, {n_indices} indices and {n_pointers} row starts don't go together.",
            "Copy the file or write it again.",
        )


def _wrong_shape(path: Path, label: str, shape: tuple, n_obs: int, n_vars: int) -> InputError:
    found = " × ".join(map(str, shape))
    return InputError(f"{path.name}: {label} is {found}, but obs × var is {n_obs} × {n_vars}.", "Write the file again with AnnData.")


def _declared_base(file: h5py.File) -> float | None:
    """The base of the logarithm as scanpy's log1p notes it in ``uns['log1p']``; None without such a note."""
    note = file.get("uns/log1p")
    if note is None:
        return None
    base = note.get("base") if isinstance(note, h5py.Group) else None
    try:
        base = float(base[()]) if base is not None else math.e
    except (TypeError, ValueError):
        return math.e
    return base if base > 1 else math.e


# ---- coordinates, tables ----------------------------------------------------------------------------------------


def _coordinates(file: h5py.File, path: Path, obs: pd.DataFrame, warnings: list[str]) -> np.ndarray:
    """spots × 2, float64."""
    remedy = "Put x and y of every spot into obsm['spatial'] (spots × 2)."
    obsm = file.get("obsm")
    key = next((k for k in COORDINATES if isinstance(obsm, h5py.Group) and k in obsm), None)
    if key:
        label, member = f"obsm['{key}']", obsm[key]
        if isinstance(member, h5py.Dataset) and (member.ndim != 2 or len(member) != len(obs) or member.shape[1] > 1000):
            shape = " × ".join(map(str, member.shape or ())) or "one value"
            raise InputError(f"{path.name}: {label} is {shape}, but {len(obs)} × 2 is expected.", remedy)
        values = _element(member, path, f"obsm/{key}")
        values = values.toarray() if sp.issparse(values) else values
    else:
        pair = next((p for p in COORDINATE_COLUMNS if p[0] in obs and p[1] in obs), None)
        if pair is None:
            raise InputError(f"{path.name} has no spatial coordinates (obsm['spatial']).", remedy)
        label, values = f"obs columns '{pair[0]}' and '{pair[1]}'", obs[list(pair)]
    if label != "obsm['spatial']":
        warnings.append(f"Coordinates were taken from {label}, as there is no obsm['spatial'].")
    try:
        spatial = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path.name}: {label} holds values that are not numbers.", remedy) from error
    if spatial.ndim != 2 or spatial.shape[0] != len(obs) or spatial.shape[1] < 2:
        shape = " × ".join(map(str, spatial.shape))
        raise InputError(f"{path.name}: {label} is {shape}, but {len(obs)} × 2 is expected.", remedy)
    if spatial.shape[1] > 2:
        warnings.append(f"{label} has {spatial.shape[1]} columns: the first two are used.")
        spatial = spatial[:, :2]
    return check_places(spatial, obs.index, path, label)
