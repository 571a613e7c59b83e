"""What all readers share about counts: which values are counts, one column per gene, and the AnnData in the pipeline's own form."""

from __future__ import annotations

import dataclasses
import difflib
import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.utils import make_index_unique

from spadit.errors import InputError

NEIGHBOURS = 8
"""Nearest spots that any step looks at."""
MOST_SECTIONS = 1000
"""Of a slide: a column with more values doesn't name sections."""
log = logging.getLogger(__name__)

RAW_COUNTS = "Give raw counts; scaled, centred or imputed values can't be used."
LOG_MAXIMUM = 30.0
"""Counts seldom stay below this and log-transformed values never exceed it (e^30 is 10^13)."""

LARGEST_COUNT = 1e15
"""Larger values are no counts, nor normalised ones; sums of them lose all others."""
FARTHEST = 1e12
"""Coordinates beyond are no places on a slide, in whichever unit."""


@dataclasses.dataclass
class Values:
    """What the values of a matrix look like, before they are cast to float32."""

    matrix: sp.csr_matrix
    bad: np.ndarray
    """Positions in ``matrix.data`` of NaN, infinite, negative and absurdly large values."""
    whole: bool
    maximum: float

    @property
    def usable(self) -> bool:
        return not self.bad.size


def look(matrix: sp.spmatrix) -> Values:
    """A matrix of numbers as CSR float32 without zeros, and what its values look like before the cast."""
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
    return Values(matrix, bad, whole, maximum)


def unusable(
    values: Values, path: Path, label: str, obs: pd.DataFrame, var: pd.DataFrame, role: str, remedy: str = RAW_COUNTS
) -> InputError:
    """The error that names the first value that is no count."""
    first = int(values.bad[0])
    row = int(np.searchsorted(values.matrix.indptr, first, side="right")) - 1
    gene = var.index[values.matrix.indices[first]]
    value = float(values.matrix.data[first])
    kind = "missing (NaN)" if math.isnan(value) else "infinite" if math.isinf(value) else "negative" if value < 0 else "too large"
    unit = "spot" if role == "slide" else "cell"
    several = f"{values.bad.size:,} values that are no counts, the first is" if values.bad.size > 1 else "a value that is no count:"
    return InputError(f"{path.name}: {label} holds {several} {kind} ({value:g}, {unit} '{obs.index[row]}', gene '{gene}').", remedy)


def as_counts(
    values: Values, path: Path, label: str, warnings: list[str], declared: float | None = None, remedy: str = RAW_COUNTS
) -> sp.csr_matrix:
    """The matrix, with logarithms transformed back; a warning for all that isn't whole numbers.

    Parameters
    ----------
    values
        Usable values: finite and not negative.
    declared
        The base of the logarithm that the file declares.
    """
    matrix = values.matrix
    if values.whole:
        return matrix
    base = log_base(matrix, declared)
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
        raise InputError(f"{path.name}: {label} is too large to be transformed back from logarithms.", remedy)
    return matrix


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


def one_column_per_gene(counts: sp.csr_matrix, var: pd.DataFrame, warnings: list[str]) -> tuple[sp.csr_matrix, pd.DataFrame]:
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
    warnings.append(f"{len(repeated)} gene names occur more than once ({some(repeated)}): their counts were added up.")
    codes, unique = pd.factorize(names)
    total = sp.csr_matrix((np.ones(len(codes), dtype=np.float32), (np.arange(len(codes)), codes)), shape=(len(codes), len(unique)))
    counts = (counts @ total).tocsr()
    counts.sort_indices()
    return counts, var[~names.duplicated()]


def check_places(spatial: np.ndarray, names: Iterable, path: Path, label: str) -> np.ndarray:
    """Coordinates, spots × 2, as float64.

    Raises
    ------
    InputError
        When some are missing, infinite or absurdly far, or all are the same.
    """
    remedy = "Give x and y of every spot."
    bad = np.flatnonzero(~np.isfinite(spatial).all(axis=1))
    if bad.size:
        raise InputError(
            f"{path.name}: {label} is missing or infinite for {bad.size} spots, the first is '{list(names)[bad[0]]}'.",
            "Remove these spots or give their coordinates.",
        )
    if len(spatial) and np.abs(spatial).max() > FARTHEST:
        far = list(names)[int(np.abs(spatial).max(axis=1).argmax())]
        raise InputError(f"{path.name}: {label} is beyond {FARTHEST:g} for spot '{far}': that is no place on a slide.", remedy)
    if len(spatial) > 1 and np.ptp(spatial, axis=0).max() < 1 / FARTHEST:
        raise InputError(f"{path.name}: {label} puts all {len(spatial)} spots at the same place.", remedy)
    return np.ascontiguousarray(spatial, dtype=np.float64)


def assemble(
    path: Path,
    role: str,
    batch: str | None,
    platform: str,
    counts: sp.csr_matrix,
    obs: pd.DataFrame,
    var: pd.DataFrame,
    spatial: np.ndarray | None,
    counts_from: str,
    warnings: list[str],
    files: Iterable[Path] = (),
) -> ad.AnnData:
    """The AnnData in the form that :mod:`spadit.io` describes.

    Parameters
    ----------
    counts
        spots or cells × genes, float32, finite and not negative.
    obs, var
        Their names are in the index. Genes of the same name are added up, spots or cells of the same name made unique, both with a warning.
    spatial
        spots × 2; None for a reference.
    files
        What was read, when ``path`` is a folder.
    """
    unit = "spots" if role == "slide" else "cells"
    names = pd.Index(obs.index.map(str))
    if not names.is_unique:
        repeated = names[names.duplicated()].unique()
        warnings.append(f"{len(repeated)} names of {unit} occur more than once ({some(repeated)}): made unique with a suffix.")
    counts, var = one_column_per_gene(counts, var, warnings)
    obs = obs.copy(deep=False)
    obs.index = make_index_unique(names)
    adata = ad.AnnData(obs=writable(obs), var=writable(var), layers={"counts": counts})
    if spatial is not None:
        adata.obsm["spatial"] = spatial
    if batch:
        name_batch(adata, batch, role, path, warnings)
    adata.uns["spadit"] = {
        "id": path.stem,
        "role": role,
        "platform": platform,
        "source": path.name,
        "counts_from": counts_from,
        "warnings": warnings,
        **({"files": sorted(str(f.relative_to(path)) for f in files)} if path.is_dir() else {}),
    }
    for warning in warnings:
        log.warning("%s: %s", path.name, warning)
    return adata


def name_batch(adata: ad.AnnData, batch: str, role: str, path: Path, warnings: list[str]) -> None:
    """Put the column that names batches into ``obs['batch']``. It must be there in a reference; in a slide it may be missing."""
    if batch in adata.obs:
        adata.obs["batch"] = adata.obs[batch].astype(str).astype("category")
        if "spatial" in adata.obsm:
            lay_sections_apart(adata, warnings)
        return
    if role == "slide":  # the sheet names one column for slide and reference; the reference is where batches matter
        return
    near = difflib.get_close_matches(batch, list(adata.obs), n=1, cutoff=0.5)
    hint = f"Did you mean '{near[0]}'?" if near else f"Its columns are: {', '.join(adata.obs) or 'none'}."
    raise InputError(f"{path.name}: obs has no column '{batch}' to take batches from.", hint)


def lay_sections_apart(adata: ad.AnnData, warnings: list[str]) -> None:
    """Move the sections of a slide (``obs['batch']``) side by side when they lie upon one another, as each is measured from its own origin.

    A spot's neighbours are then of its own section, on maps and in the model. The places as they were given are kept in
    ``obsm['spatial_given']``.
    """
    from scipy.spatial import cKDTree

    sections = list(adata.obs.groupby("batch", observed=True).indices.values())
    if len(sections) > MOST_SECTIONS:
        return
    given = adata.obsm["spatial"]
    low, high = (np.array([edge(given[rows], axis=0) for rows in sections]) for edge in (np.min, np.max))
    upon = (low[:, None] <= high[None]).all(2) & (low[None] <= high[:, None]).all(2)
    if upon.sum() == len(sections):  # each upon itself alone
        return
    farthest = max(cKDTree(given[rows]).query(given[rows], min(NEIGHBOURS + 1, len(rows)))[0].max() for rows in sections)
    extent = (high - low).max(axis=0)
    step = extent + max(0.2 * extent.max(), 1.1 * farthest)
    columns = math.ceil(math.sqrt(len(sections)))
    places = given.copy()
    for i, rows in enumerate(sections):
        places[rows] += np.array([i % columns, i // columns]) * step - low[i]
    adata.obsm["spatial_given"], adata.obsm["spatial"] = given, places
    warnings.append(
        f"{len(sections)} sections lay upon one another, so they were put side by side; obsm['spatial_given'] has the input's places."
    )


def writable(table: pd.DataFrame) -> pd.DataFrame:
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


def some(names: Any, limit: int = 5) -> str:
    """The first few names, in quotes."""
    names = [str(n) for n in names]
    return ", ".join(f"'{n}'" for n in names[:limit]) + (" …" if len(names) > limit else "")
