"""Reader of Slide-seq: Curio Seeker's output, and the tables of the Slide-seq and Slide-seqV2 papers.

Curio: ``…_MoleculesPerMatchedBead.mtx``, ``…_barcodes.tsv``, ``…_genes.tsv``, ``…_MatchedBeadLocation.csv``.
Slide-seqV2: ``….digital_expression.txt.gz``, ``…_bead_locations.csv``. Slide-seq: ``MappedDGEForR.csv``, ``BeadLocationsForR.csv``.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from anndata import AnnData

from spadit.io import bundle
from spadit.io.tables import NAMES, X, Y

CURIO = ("*MoleculesPerMatchedBead.mtx", "*MoleculesPerMatchedBead.mtx.gz")
CURIO_PLACES = ("*MatchedBeadLocation.csv", "*MatchedBeadLocation.csv.gz")
DGE = ("*digital_expression*.txt.gz", "*digital_expression*.txt", "*DGEForR.csv", "*DGEForR.csv.gz")
PLACES = ("*bead_locations*.csv", "*bead_locations*.csv.gz", "*BeadLocationsForR.csv", "*BeadLocationsForR.csv.gz")


def recognise(path: Path) -> str | None:
    """Why the folder looks like a Slide-seq slide, or None."""
    if not path.is_dir():
        return None
    found = next((f for pattern in (*CURIO, *CURIO_PLACES, *DGE, *PLACES) for f in path.glob(pattern)), None)
    return f"it holds {found.name}, as Curio Seeker or Slide-seq's software writes" if found else None


def read_slideseq(path: str | Path, role: str, batch: str | None = None) -> AnnData:
    """Read a Slide-seq slide: beads × genes, positions as they are in the table.

    Parameters
    ----------
    path
        The folder.
    role, batch
        As for :func:`spadit.io.read`.

    Raises
    ------
    InputError
        When a file is missing or damaged, or counts and positions don't go together.
    """
    path = Path(path)
    matrix = bundle.find(path, "", *CURIO, required=False)
    if matrix:
        files = [
            matrix,
            bundle.find(path, "the list of genes", *bundle.FEATURES),
            bundle.find(path, "the list of barcodes", *bundle.BARCODES),
        ]
        counts, barcodes, genes = bundle.mtx(*files)
        where = bundle.find(path, "the table of positions", *CURIO_PLACES)
    else:
        files = [bundle.find(path, "the matrix of counts", *CURIO, *DGE)]
        where = bundle.find(path, "the table of positions", *PLACES)
        found = bundle.wide(files[0], labels=1)  # genes × beads
        counts, barcodes, genes = found.matrix.T, found.columns, pd.DataFrame(index=found.labels[0])
    beads = bundle.table(where)
    axes = (bundle.column(beads, X, where, "x"), bundle.column(beads, Y, where, "y"))
    lower = {str(c).casefold(): c for c in beads.columns}
    name = next((lower[n] for n in NAMES if n in lower), beads.columns[0])
    beads = beads.set_index(name)
    return bundle.bundled(path, role, batch, "slideseq", counts, barcodes, genes, beads, axes, [*files, where], [])
