"""Reader of MERSCOPE (Vizgen): a region's folder with ``cell_by_gene.csv`` and ``cell_metadata.csv``.

Format: https://vizgen.github.io/vizgen-postprocessing/ and the instrument's user guide; file names may have a prefix and a suffix.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from spadit.io import bundle

log = logging.getLogger(__name__)

COUNTS = ("cell_by_gene.csv", "cell_by_gene.csv.gz", "*cell_by_gene*.csv", "*cell_by_gene*.csv.gz")
CELLS = ("cell_metadata.csv", "cell_metadata.csv.gz", "*cell_metadata*.csv", "*cell_metadata*.csv.gz")


def recognise(path: Path) -> str | None:
    """Why the folder looks like a MERSCOPE slide, or None."""
    if not path.is_dir():
        return None
    found = next((f for pattern in COUNTS for f in path.glob(pattern)), None)
    return f"it holds {found.name}, which MERSCOPE's software writes" if found else None


def read_merscope(path: str | Path, role: str, batch: str | None = None) -> AnnData:
    """Read a MERSCOPE slide: cells × genes without the blank barcodes (``Blank-…``), positions in micrometres.

    Parameters
    ----------
    path
        The region's folder.
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
    found = bundle.wide(matrix, labels=1)
    genes = np.array([not name.casefold().startswith("blank") for name in found.columns])
    log.info("%s: left out %d blank barcodes", path.name, int((~genes).sum()))
    cells = bundle.table(where)
    axes = (bundle.column(cells, ("center_x",), where, "x"), bundle.column(cells, ("center_y",), where, "y"))
    cells = cells.set_index(cells.columns[0])
    var = pd.DataFrame(index=[n for n, gene in zip(found.columns, genes, strict=True) if gene])
    return bundle.bundled(path, role, batch, "merscope", found.matrix[:, genes], found.labels[0], var, cells, axes, [matrix, where], [])
