"""Reader of AnnData files (.h5ad), the format of scanpy, squidpy and the rest of scverse.

Only what the pipeline needs is read (obs, var, the counts, the coordinates), so that an unusual ``uns`` or a dozen
layers cost neither memory nor a failure.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import math
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.io import read_elem
from anndata.utils import make_index_unique

from spadit.errors import InputError
from spadit.io.hdf5 import opened

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
LOG_MAXIMUM = 30.0
"""Counts seldom stay below this and log-transformed values never exceed it (e^30 is 10^13)."""
LARGEST_COUNT = 1e15
"""Larger values are no counts, nor normalised ones; sums of them lose all others."""
FARTHEST = 1e12
"""Coordinates beyond are no places on a slide, in whichever unit."""
DENSE_BLOCK = 1 << 24
"""Entries of a dense matrix read at once."""


def read_h5ad(path: str | Path, role: str, batch: str | None = None) -> ad.AnnData:
    """Read a slide or a reference from an h5ad file.

    The counts are the first of ``layers['counts']``, ``X`` and ``raw.X`` that holds non-negative whole numbers. When none
    does, the first of ``layers['counts']``, ``raw.X`` and ``X`` that is finite and not negative is taken, with a warning:
    log-transformed values (see :func:`log_base`) are transformed back, because normalising logarithms as if they were
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
    path = Path(path)
    warnings: list[str] = []
    with opened(path) as file:
        _require_layout(file, path.name)
        obs, var = _table(file["obs"], path, "obs"), _table(file["var"], path, "var")
        unit = "spots" if role == "slide" else "cells"
        if not len(obs) or not len(var):
            empty = unit if not len(obs) else "genes"
            raise InputError(f"{path.name} holds no {empty}.", "Check how the file was written.")
        counts, var, counts_from = _counts(file, path, obs, var, role, warnings)
        spatial = _coordinates(file, path, obs, warnings) if role == "slide" else None

    names = pd.Index(obs.index.map(str))
    if not names.is_unique:
        repeated = names[names.duplicated()].unique()
        warnings.append(f"{len(repeated)} names of {unit} occur more than once ({_some(repeated)}): made unique with a suffix.")
    counts, var = _one_column_per_gene(counts, var, warnings)
    obs.index = make_index_unique(names)
    adata = ad.AnnData(obs=_writable(obs), var=_writable(var), layers={"counts": counts})
    if spatial is not None:
        adata.obsm["spatial"] = spatial
    if batch:
        _name_batch(adata, batch, role, path, warnings)
    adata.uns["spadit"] = {
        "id": path.stem,
        "role": role,
        "platform": "h5ad",
        "source": path.name,
        "counts_from": counts_from,
        "warnings": warnings,
    }
    for warning in warnings:
        log.warning("%s: %s", path.name, warning)
    return adata


# ---- the file ---------------------------------------------------------------------------------------------------


def _require_layout(file: h5py.File, name: str) -> None:
    if "obs" in file and "var" in file:
        return
    if "matrix" in file:
        raise InputError(f"{name} is a 10x HDF5 matrix, not an h5ad file.", "Convert it with scanpy.read_10x_h5(…).write_h5ad(…).")
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


@dataclasses.dataclass
class _Values:
    """What the values of a matrix look like, before they are cast to float32."""

    matrix: sp.csr_matrix
    bad: np.ndarray
    """Positions in ``matrix.data`` of NaN, infinite and negative values."""
    whole: bool
    maximum: float

    @property
    def usable(self) -> bool:
        return not self.bad.size


def _counts(
    file: h5py.File, path: Path, obs: pd.DataFrame, var: pd.DataFrame, role: str, warnings: list[str]
) -> tuple[sp.csr_matrix, pd.DataFrame, str]:
    """The raw counts (CSR float32), the gene table that belongs to them and where they were found."""
    raw = file.get("raw")
    places = {"layers['counts']": file.get("layers/counts"), "X": file.get("X")}
    if isinstance(raw, h5py.Group) and "X" in raw and "var" in raw:
        places["raw.X"] = raw["X"]
    found: dict[str, tuple[_Values, pd.DataFrame]] = {}
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
        raise _unusable(found[label][0], path, label, obs, found[label][1], role)
    if "layers['counts']" in found and label != "layers['counts']":
        warnings.append(f"layers['counts'] doesn't hold non-negative whole numbers; {label} does better and is used.")
    values, genes = found[label]
    log.info("%s: counts taken from %s", path.name, label)
    matrix = values.matrix
    if not values.whole:
        base = log_base(matrix, _declared_base(file) if label != "layers['counts']" else None)
        if base:
            matrix.data = np.expm1(matrix.data.astype(np.float64) * math.log(base)).astype(np.float32)
            name = "natural logarithm" if base == math.e else f"logarithm to base {base:g}"
            warnings.append(
                f"{label} holds log-transformed values ({name}), not raw counts: they were transformed back, so totals "
                "and thresholds refer to normalised values. Give raw counts if you have them."
            )
        elif values.maximum < LOG_MAXIMUM:
            warnings.append(
                f"{label} holds fractional values below {LOG_MAXIMUM:g} (largest: {values.maximum:.3g}), perhaps log-transformed or "
                "scaled; they are used as counts as they are. Give raw counts if you have them."
            )
        else:
            warnings.append(f"{label} holds fractional values, not raw counts; they are used as they are.")
        if not np.isfinite(matrix.data).all():
            raise InputError(f"{path.name}: {label} is too large to be transformed back from logarithms.", RAW_COUNTS)
    return matrix, genes.copy(), label


def _values(element: h5py.Group | h5py.Dataset, path: Path, label: str, n_obs: int, n_vars: int) -> _Values:
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
        try:
            matrix.check_format(full_check=True)
        except ValueError as error:
            raise InputError(f"{path.name}: {label} is damaged: {error}.", "Copy the file or write it again.") from error
        matrix = sp.csr_matrix(matrix)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    data = matrix.data
    bad = np.flatnonzero(~(np.isfinite(data) & (data >= 0) & (data <= LARGEST_COUNT)))
    whole = bool(data.dtype.kind in "iub" or (data == np.rint(data)).all())
    maximum = float(data.max()) if data.size else 0.0
    with np.errstate(over="ignore"):
        matrix = matrix.astype(np.float32)
    if not bad.size:
        bad = np.flatnonzero(~np.isfinite(matrix.data))
    return _Values(matrix, bad, whole, maximum)


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


def _unusable(values: _Values, path: Path, label: str, obs: pd.DataFrame, var: pd.DataFrame, role: str) -> InputError:
    first = int(values.bad[0])
    row = int(np.searchsorted(values.matrix.indptr, first, side="right")) - 1
    gene = var.index[values.matrix.indices[first]]
    value = float(values.matrix.data[first])
    kind = "missing (NaN)" if math.isnan(value) else "infinite" if math.isinf(value) else "negative" if value < 0 else "too large"
    unit = "spot" if role == "slide" else "cell"
    several = f"{values.bad.size:,} values that are no counts, the first is" if values.bad.size > 1 else "a value that is no count:"
    return InputError(f"{path.name}: {label} holds {several} {kind} ({value:g}, {unit} '{obs.index[row]}', gene '{gene}').", RAW_COUNTS)


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


def log_base(matrix: sp.csr_matrix, declared: float | None = None) -> float | None:
    """The base b when the values are log_b(1 + scaled counts), else None.

    Told without guessing from the size of values alone, since fractional counts may be small, too: the file says so
    (``declared``), or undoing the logarithm gives whole multiples of each row's smallest value (scaled counts), or the same
    total in every row (values scaled to a fixed sum, for example TPM).

    Parameters
    ----------
    matrix
        spots or cells × genes, finite, not negative, not all whole numbers.
    declared
        The base that the file declares.
    """
    if not matrix.nnz or matrix.data.max() >= LOG_MAXIMUM:
        return None
    if declared:
        return declared
    rows = np.unique(np.linspace(0, matrix.shape[0] - 1, min(matrix.shape[0], 500)).astype(int))
    sample = matrix[rows]
    for base in (math.e, 2.0, 10.0):
        plain = np.expm1(sample.data.astype(np.float64) * math.log(base))
        lengths = np.diff(sample.indptr)
        filled = lengths > 0
        starts = sample.indptr[:-1][filled]
        smallest = np.repeat(np.minimum.reduceat(plain, starts), lengths[filled])
        ratio = plain / smallest
        ratio = ratio[(ratio > 1.5) & (ratio < 20)]
        if ratio.size >= 20 and np.mean(np.abs(ratio - np.rint(ratio)) < 0.02) > 0.9:
            return base
        totals = np.add.reduceat(plain, starts)
        if totals.size >= 10 and totals.std() < 0.02 * totals.mean():
            return base
    return None


def _one_column_per_gene(counts: sp.csr_matrix, var: pd.DataFrame, warnings: list[str]) -> tuple[sp.csr_matrix, pd.DataFrame]:
    """Add up genes of the same name and leave out genes without a name."""
    names = pd.Index([str(n).strip() for n in var.index], dtype=object)
    named = np.array([n not in ("", "nan", "None") for n in names])
    if not named.any():
        raise InputError("No gene has a name.", "Put gene symbols or Ensembl ids into var_names.")
    if not named.all():
        warnings.append(f"{int((~named).sum())} genes without a name were left out.")
        counts, var, names = counts[:, named], var[named], names[named]
    var = var.copy()
    var.index = names
    if names.is_unique:
        return counts, var
    repeated = names[names.duplicated()].unique()
    warnings.append(f"{len(repeated)} gene names occur more than once ({_some(repeated)}): their counts were added up.")
    codes, unique = pd.factorize(names)
    total = sp.csr_matrix((np.ones(len(codes), dtype=np.float32), (np.arange(len(codes)), codes)), shape=(len(codes), len(unique)))
    counts = (counts @ total).tocsr()
    counts.sort_indices()
    return counts, var[~names.duplicated()]


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
    bad = np.flatnonzero(~np.isfinite(spatial).all(axis=1))
    if bad.size:
        raise InputError(
            f"{path.name}: {label} is missing or infinite for {bad.size} spots, the first is '{obs.index[bad[0]]}'.",
            "Remove these spots or give their coordinates.",
        )
    if np.abs(spatial).max() > FARTHEST:
        far = obs.index[int(np.abs(spatial).max(axis=1).argmax())]
        raise InputError(f"{path.name}: {label} is beyond {FARTHEST:g} for spot '{far}': that is no place on a slide.", remedy)
    if len(spatial) > 1 and np.ptp(spatial, axis=0).max() < 1 / FARTHEST:
        raise InputError(f"{path.name}: {label} puts all {len(spatial)} spots at the same place.", remedy)
    return np.ascontiguousarray(spatial)


def _name_batch(adata: ad.AnnData, batch: str, role: str, path: Path, warnings: list[str]) -> None:
    if batch in adata.obs:
        adata.obs["batch"] = adata.obs[batch].astype(str).astype("category")
        return
    if role == "slide":  # the sheet names one column for slide and reference; the reference is where batches matter
        return
    near = difflib.get_close_matches(batch, list(adata.obs), n=1, cutoff=0.5)
    hint = f"Did you mean '{near[0]}'?" if near else f"Its columns are: {', '.join(adata.obs) or 'none'}."
    raise InputError(f"{path.name}: obs has no column '{batch}' to take batches from.", hint)


def _writable(table: pd.DataFrame) -> pd.DataFrame:
    """The table with columns that AnnData can write: mixed values become text, '/' in names becomes '_'."""
    columns = {}
    for name in table.columns:
        column = table[name]
        if not isinstance(column, pd.Series):  # a column name that occurs twice
            column = column.iloc[:, 0]
        if isinstance(column.dtype, pd.CategoricalDtype):
            column = column.cat.rename_categories(str) if column.cat.categories.dtype == object else column
        elif column.dtype.kind not in "fiub":
            column = column.map(lambda v: "" if v is None or v is pd.NA or v != v else v.decode() if isinstance(v, bytes) else str(v))
        columns["index_" if str(name) == "_index" else str(name).replace("/", "_")] = column
    table = pd.DataFrame(columns, index=pd.Index(table.index.map(str), dtype=object))
    table.index.name = None
    return table


def _some(names: Any, limit: int = 5) -> str:
    names = [str(n) for n in names]
    return ", ".join(f"'{n}'" for n in names[:limit]) + (" …" if len(names) > limit else "")
