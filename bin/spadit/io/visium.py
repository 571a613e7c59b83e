"""Reader of Visium: the folder ``outs`` of Space Ranger, versions 1 to 4.

Formats: https://www.10xgenomics.com/support/software/space-ranger/latest/analysis/outputs/spatial-outputs
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from anndata import AnnData

from spadit.errors import InputError
from spadit.io import bundle

KNOWN = 4
"""Newest major version of Space Ranger that was looked at."""
COLUMNS = ("barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres")
POSITIONS = tuple(
    f"{folder}*tissue_positions{ending}"
    for folder in ("spatial/", "")
    for ending in (".parquet", ".csv", "_list.csv", ".csv.gz", "_list.csv.gz")
)
"""From Space Ranger for HD; 2 and later; 1."""
FILTERED = ("filtered_feature_bc_matrix", "filtered_gene_bc_matrices_h5")
RAW = ("raw_feature_bc_matrix",)


def recognise(path: Path) -> str | None:
    """Why the folder looks like a Visium slide, or None."""
    if not path.is_dir():
        return None
    found = next((f for pattern in POSITIONS for f in bundle.outs(path).glob(pattern)), None)
    return f"it holds {found.name}, which Space Ranger writes" if found else None


def read_visium(path: str | Path, role: str, batch: str | None = None) -> AnnData:
    """Read a Visium slide: counts of the spots under tissue, positions in pixels of the full-resolution image (x: column, y: row).

    Parameters
    ----------
    path
        The folder ``outs``, or the one that holds it: ``filtered_feature_bc_matrix.h5`` (or the folder of the same name, or
        ``raw_feature_bc_matrix`` of which the spots under tissue are taken) and ``spatial/tissue_positions…``.
    role, batch
        As for :func:`spadit.io.read`.

    Raises
    ------
    InputError
        When a file is missing or damaged, or counts and positions don't go together.
    """
    return read_squares(Path(path), bundle.outs(Path(path)), role, batch, "visium", [])


def read_squares(path: Path, folder: Path, role: str, batch: str | None, platform: str, warnings: list[str]) -> AnnData:
    """A slide of Space Ranger, with spots or squares, from ``folder``; messages name ``path``."""
    filtered = any(bundle.find(folder, "", f"*{s}.h5", required=False) or (folder / s).is_dir() for s in FILTERED)
    raw = any(bundle.find(folder, "", f"*{s}.h5", required=False) or (folder / s).is_dir() for s in RAW)
    counts, barcodes, genes, files = bundle.tenx(folder, warnings, KNOWN, *(RAW if raw and not filtered else FILTERED))
    where = bundle.find(folder, "the table of positions", *POSITIONS)
    positions = tissue_positions(where)
    if raw and not filtered:
        warnings.append("There is no filtered matrix: the spots that are marked as under tissue were taken from the raw one.")
        positions = positions[positions["in_tissue"] == 1]
        inside = pd.Index(barcodes).isin(positions.index)
        counts, barcodes = counts[inside], [b for b, i in zip(barcodes, inside, strict=True) if i]
    positions = positions.drop(columns="in_tissue")
    scale = bundle.find(folder, "scale factors", "spatial/*scalefactors_json.json", "*scalefactors_json.json", required=False)
    if scale:
        bundle.read_json(scale)  # not needed for coordinates, but a damaged one tells of a damaged copy
        files = [*files, scale]
    axes = ("pxl_col_in_fullres", "pxl_row_in_fullres")
    return bundle.bundled(path, role, batch, platform, counts, barcodes, genes, positions, axes, [*files, where], warnings, pixels=True)


def tissue_positions(path: Path) -> pd.DataFrame:
    """The table of positions, of any version of Space Ranger: barcode in the index, in_tissue, array_row, array_col and pixels.

    Version 1 writes no header; a header tells the order of the columns.
    """
    table = bundle.table(path, text_columns=("barcode",), only={"in_tissue": 1})
    if "barcode" not in table:
        if len(table.columns) != len(COLUMNS):
            raise InputError(
                f"{path.name} has {len(table.columns)} columns, but {len(COLUMNS)} are expected ({', '.join(COLUMNS)}).", bundle.AGAIN
            )
        table = bundle.table(path, names=COLUMNS)
    for name in COLUMNS:
        bundle.column(table, (name,), path, f"'{name}'")
    table[["in_tissue"]] = bundle.numbers(table, ["in_tissue"], path)
    bundle.unknown_columns(table, COLUMNS, path.name)
    return table.set_index("barcode")
