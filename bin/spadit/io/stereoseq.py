"""Reader of Stereo-seq (STOmics): GEF files of squares (``…tissue.gef``, ``…gef``) and of cells (``…cellbin.gef``), as SAW writes them.

Format: https://stereopy.readthedocs.io, "Gene Expression File". Stereo-seq as h5ad is read as any h5ad file.
"""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from spadit.errors import InputError
from spadit.io import bundle
from spadit.io.counts import some

KNOWN = 4
"""Newest version of the square format that was looked at."""
KNOWN_CELLS = 2
BIN_SIZE = "50"
"""Positions of the chip along the side of a square (0.5 µm each), when the sheet names none: 25 µm."""
RECORDS = 1 << 24
"""Records read at once."""


def recognise(path: Path) -> str | None:
    """Why the file (or the only GEF file of a folder) looks like Stereo-seq, or None."""
    if path.is_dir():
        found = next(iter(path.glob("*.gef")), None)
        return f"it holds {found.name}" if found else None
    if bundle.start_of(path, 8) != bundle.HDF5_SIGNATURE:
        return None
    with bundle.hdf5(path) as file:
        found = next((name for name in ("geneExp", "cellBin") if name in file), None)
    return f"it is HDF5 with '{found}', as in GEF files" if found else None


def read_stereoseq(path: str | Path, role: str, batch: str | None = None, bin_size: str = "") -> AnnData:
    """Read a Stereo-seq slide: squares or cells × genes, positions in units of the chip (0.5 µm).

    Parameters
    ----------
    path
        The GEF file, or a folder with one.
    role, batch
        As for :func:`spadit.io.read`.
    bin_size
        Side of the squares in positions of the chip; added up from the smallest size in the file where it lacks this one. Not for cells.

    Raises
    ------
    InputError
        When the file is damaged or lacks what is asked for.
    """
    path = Path(path)
    file = bundle.find(path, "the GEF file", "*.gef") if path.is_dir() else path
    warnings: list[str] = []
    with bundle.hdf5(file) as gef:
        version = np.ravel(gef.attrs.get("version", [0]))
        if "cellBin" in gef:
            bundle.newer(version[0], KNOWN_CELLS, "the format of cells", warnings)
            if bin_size:
                raise InputError(
                    f"{file.name} holds cells, not squares, but a bin size is given ({bin_size}).", "Leave the column 'bin_size' empty."
                )
            counts, names, genes, positions = _cells(gef["cellBin"], file)
        elif "geneExp" in gef:
            bundle.newer(version[0], KNOWN, "the GEF format", warnings)
            counts, names, genes, positions = _squares(gef["geneExp"], file, bin_size or BIN_SIZE)
        else:
            raise InputError(
                f"{file.name} is HDF5 but not a GEF file: it has neither 'geneExp' nor 'cellBin'.", "Name the file that SAW wrote."
            )
    return bundle.bundled(path, role, batch, "stereoseq", counts, names, genes, positions, ("x", "y"), [file], warnings)


def _genes(dataset: h5py.Dataset, path: Path) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Names (with ids, where there are both), offsets and numbers of records of the genes."""
    rows = dataset[:]
    fields = rows.dtype.names or ()
    name = next((f for f in ("geneName", "gene", "geneID") if f in fields), None)
    if name is None:
        raise InputError(f"{path.name}: '{dataset.name}' has no names of genes (there are {some(fields)}).", bundle.AGAIN)
    decoded = {f: [v.decode("utf-8", "replace") for v in rows[f]] for f in {name, "geneID"} & set(fields)}
    table = pd.DataFrame(index=decoded[name])
    if name == "geneName" and "geneID" in decoded:
        table["gene_ids"] = decoded["geneID"]
    offset = rows["offset"].astype(np.int64) if "offset" in fields else np.zeros(0, dtype=np.int64)
    count = rows["count"].astype(np.int64) if "count" in fields else np.zeros(0, dtype=np.int64)
    return table, offset, count


def _squares(group: h5py.Group, path: Path, bin_size: str) -> tuple[sp.csr_matrix, list[str], pd.DataFrame, pd.DataFrame]:
    sizes = {int(m[1]): name for name in group if (m := re.fullmatch(r"bin(\d+)", name))}
    if not bin_size.isdigit() or not int(bin_size):
        raise InputError(f"{path.name}: '{bin_size}' is no bin size.", "Give a whole number, for example 50.")
    size = int(bin_size)
    source = size if size in sizes else min(sizes, default=0)
    if not source or size % source:
        raise InputError(
            f"{path.name} has no squares of bin {size} (there are {', '.join(map(str, sorted(sizes)))}).", "Name another in 'bin_size'."
        )
    group = group[sizes[source]]
    for name in ("expression", "gene"):
        if name not in group:
            raise InputError(f"{path.name}: '{group.name}' lacks '{name}'.", bundle.AGAIN)
    genes, offset, count = _genes(group["gene"], path)
    records = group["expression"]
    if len(offset) != len(genes) or int(count.sum()) != len(records) or not np.array_equal(offset, np.cumsum(count) - count):
        raise InputError(f"{path.name}: the genes of '{group.name}' don't fit its {len(records):,} records.", bundle.AGAIN)
    ends = np.cumsum(count)
    step = _step(records, source) if source == size else size
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for start in range(0, len(records), RECORDS):
        block = records[start : start + RECORDS]
        # squares are numbered by their corner, y before x
        square = (block["y"].astype(np.int64) // step << 32) | (block["x"].astype(np.int64) // step)
        gene = np.searchsorted(ends, np.arange(start, start + len(block)), side="right")
        parts.append(_summed(square, gene, block["count"].astype(np.float64)))
    square, gene, value = (np.concatenate(column) for column in zip(*parts, strict=True)) if parts else (np.zeros(0, dtype=np.int64),) * 3
    corners, row = np.unique(square, return_inverse=True)
    counts = sp.csr_matrix((value, (row, gene)), shape=(len(corners), len(genes)))
    y, x = corners >> 32, corners & 0xFFFFFFFF
    positions = pd.DataFrame(
        {"x": (x * size).astype(np.float64), "y": (y * size).astype(np.float64)},
        index=[f"{a}_{b}" for a, b in zip(x * size, y * size, strict=True)],
    )
    return counts, list(positions.index), genes, positions


def _step(records: h5py.Dataset, size: int) -> int:
    """What squares of the file's own size are counted in: positions of the chip (all are multiples of the size) or squares."""
    for start in range(0, len(records), RECORDS):
        block = records[start : start + RECORDS]
        if (block["x"] % size).any() or (block["y"] % size).any():
            return 1
    return size


def _summed(square: np.ndarray, gene: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Records of the same square and gene added up. Genes come in order, so those of one gene are next to one another after a sort."""
    order = np.lexsort((square, gene))
    square, gene, value = square[order], gene[order], value[order]
    first = np.flatnonzero(np.r_[True, (np.diff(gene) != 0) | (np.diff(square) != 0)]) if len(gene) else np.zeros(0, dtype=np.int64)
    return square[first], gene[first], np.add.reduceat(value, first) if len(first) else value


def _cells(group: h5py.Group, path: Path) -> tuple[sp.csr_matrix, list[str], pd.DataFrame, pd.DataFrame]:
    for name in ("cell", "cellExp", "gene"):
        if name not in group:
            raise InputError(f"{path.name}: '{group.name}' lacks '{name}'.", bundle.AGAIN)
    genes, _, _ = _genes(group["gene"], path)
    cells, records = group["cell"][:], group["cellExp"]
    number = cells["geneCount"].astype(np.int64)
    pointers = np.r_[0, np.cumsum(number)]
    if pointers[-1] != len(records) or not np.array_equal(cells["offset"].astype(np.int64), pointers[:-1]):
        raise InputError(f"{path.name}: the cells of '{group.name}' don't fit its {len(records):,} records.", bundle.AGAIN)
    indices, data = np.empty(len(records), dtype=np.int32), np.empty(len(records), dtype=np.float32)
    for start in range(0, len(records), RECORDS):
        block = records[start : start + RECORDS]
        indices[start : start + len(block)], data[start : start + len(block)] = block["geneID"], block["count"]
    matrix = sp.csr_matrix((len(cells), len(genes)), dtype=np.float32)
    matrix.data, matrix.indices, matrix.indptr = data, indices, pointers.astype(np.int32 if len(records) < 2**31 else np.int64)
    bundle.checked(matrix, path, group.name)
    names = [str(i) for i in cells["id"]] if "id" in cells.dtype.names else [f"cell{i + 1}" for i in range(len(cells))]
    positions = pd.DataFrame({f: cells[f] for f in cells.dtype.names if cells[f].ndim == 1 and f not in ("id", "offset")}, index=names)
    return matrix, names, genes, positions
