"""Reader of CosMx (NanoString, Bruker): the flat files ``…exprMat_file.csv`` and ``…metadata_file.csv`` of a slide.

Format: https://nanostring-biostats.github.io/CosMx-Analysis-Scratch-Space/ and the read-me of the public data sets.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from spadit.io import bundle

log = logging.getLogger(__name__)

COUNTS = ("*exprMat_file.csv.gz", "*exprMat_file.csv")
CELLS = ("*metadata_file.csv.gz", "*metadata_file.csv")
CONTROLS = re.compile(r"(?i)^(neg(prb|ative|probe|[ _.-]?control)|system[ _.-]?control|false[ _.-]?code)")


def recognise(path: Path) -> str | None:
    """Why the folder looks like a CosMx slide, or None."""
    if not path.is_dir():
        return None
    found = next((f for pattern in COUNTS for f in path.glob(pattern)), None)
    return f"it holds {found.name}, which CosMx's software writes" if found else None


def read_cosmx(path: str | Path, role: str, batch: str | None = None) -> AnnData:
    """Read a CosMx slide: cells × genes without negative probes and system controls, positions in global pixels.

    A cell's number begins anew in every field of view: cells are named ``<fov>_<cell_ID>``. Cell 0 of a field, what lies outside all
    cells, is left out.

    Parameters
    ----------
    path
        The slide's folder.
    role, batch
        As for :func:`spadit.io.read`.

    Raises
    ------
    InputError
        When a file is missing or damaged, or counts and positions don't go together.
    """
    path = Path(path)
    matrix = bundle.find(path, "the table of counts", *COUNTS)
    where = bundle.find(path, "the table of cells", *CELLS)
    with bundle.readable(matrix), bundle.text(matrix) as stream:
        header = [h.strip().strip('"') for h in re.split("[,\t]", stream.readline(bundle.LONGEST_LINE))]
    leading = next((i for i, name in enumerate(header) if name.casefold() not in ("", "fov", "cell_id", "cell", "slide_id")), 0)
    found = bundle.wide(matrix, labels=max(leading, 1))
    labels = pd.DataFrame(dict(zip(header[: max(leading, 1)], found.labels, strict=True)))
    barcodes, cells = _names(labels, matrix), bundle.table(where, text_columns=("fov", "cell_ID", "cell_id", "cell", "cell_label"))
    cells.index = pd.Index(_names(cells, where))
    inside = np.array([not name.endswith("_0") for name in barcodes])
    genes = np.array([not CONTROLS.match(name) for name in found.columns])
    log.info("%s: left out %d controls and the counts outside cells of %d fields", path.name, int((~genes).sum()), int((~inside).sum()))
    axes = tuple(bundle.column(cells, (f"Center{a}_global_px", f"{a}_global_px", f"{a}_slide_mm"), where, a.lower()) for a in "XY")
    var = pd.DataFrame(index=[n for n, gene in zip(found.columns, genes, strict=True) if gene])
    names = [n for n, i in zip(barcodes, inside, strict=True) if i]
    return bundle.bundled(path, role, batch, "cosmx", found.matrix[inside][:, genes], names, var, cells, axes, [matrix, where], [])


def _names(table: pd.DataFrame, path: Path) -> list[str]:
    """<fov>_<cell_ID> of every row."""
    exact = {str(c): c for c in table.columns}
    fov = bundle.column(table, ("fov",), path, "the field of view")
    cell = exact.get("cell_ID") or bundle.column(table, ("cell_id",), path, "the cell's number")
    return [f"{f}_{c}" for f, c in zip(table[fov], table[cell], strict=True)]
