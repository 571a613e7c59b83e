"""Reader of Xenium: the output folder of the instrument (Xenium Onboard Analysis 1 to 4) or of Xenium Ranger.

Format: https://www.10xgenomics.com/support/software/xenium-onboard-analysis/latest/analysis/xoa-output-understanding-outputs
"""

from __future__ import annotations

from pathlib import Path

from anndata import AnnData

from spadit.io import bundle

KNOWN = 4
"""Newest major version of the analysis software that was looked at."""
CELLS = ("cells.parquet", "cells.csv.gz", "cells.csv")
COLUMNS = (
    *("cell_id", "x_centroid", "y_centroid", "transcript_counts", "control_probe_counts", "control_codeword_counts"),
    *("genomic_control_counts", "unassigned_codeword_counts", "deprecated_codeword_counts", "total_counts"),
    *("cell_area", "nucleus_area", "nucleus_count", "segmentation_method"),
)


def recognise(path: Path) -> str | None:
    """Why the folder looks like a Xenium slide, or None."""
    if not path.is_dir():
        return None
    folder = bundle.outs(path)
    if (folder / "experiment.xenium").exists():
        return "it holds experiment.xenium"
    found = next((f for name in CELLS for f in folder.glob(name)), None)
    matrix = next((f for f in folder.glob("cell_feature_matrix*") if not f.name.endswith(".zip")), None)
    if found and matrix:
        return f"it holds {matrix.name} and {found.name}, which Xenium's software writes"
    return None


def read_xenium(path: str | Path, role: str, batch: str | None = None) -> AnnData:
    """Read a Xenium slide: cells × genes (features of type Gene Expression), positions in micrometres.

    Parameters
    ----------
    path
        The folder with ``cell_feature_matrix.h5`` (or the folder of that name) and ``cells.parquet`` (or ``cells.csv.gz``).
    role, batch
        As for :func:`spadit.io.read`.

    Raises
    ------
    InputError
        When a file is missing or damaged, or counts and positions don't go together.
    """
    path = Path(path)
    folder = bundle.outs(path)
    warnings: list[str] = []
    # the version in the matrix is that of another program
    counts, barcodes, genes, files = bundle.tenx(folder, [], KNOWN, "cell_feature_matrix")
    experiment = bundle.find(folder, "", "experiment.xenium", required=False)
    if experiment:
        bundle.newer(bundle.read_json(experiment).get("analysis_sw_version", ""), KNOWN, "Xenium's software", warnings)
        files.append(experiment)
    where = bundle.find(folder, "the table of cells", *CELLS)
    cells = bundle.table(where, text_columns=("cell_id",))
    name = bundle.column(cells, ("cell_id",), where, "the cells' names")
    axes = (bundle.column(cells, ("x_centroid",), where, "x"), bundle.column(cells, ("y_centroid",), where, "y"))
    bundle.unknown_columns(cells, COLUMNS, where.name)
    cells = cells.set_index(name)
    return bundle.bundled(path, role, batch, "xenium", counts, barcodes, genes, cells, axes, [*files, where], warnings)
