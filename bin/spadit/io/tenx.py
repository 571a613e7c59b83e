"""Reader of references from 10x Genomics (Cell Ranger 2 to 9) and of MatrixMarket folders, such as R (Seurat, DropletUtils) exports."""

from __future__ import annotations

from pathlib import Path

import h5py
import pandas as pd
from anndata import AnnData

from spadit.errors import InputError
from spadit.io import bundle
from spadit.io.counts import as_counts, assemble, look, unusable

KNOWN = 10
"""Newest major version of Cell Ranger that was looked at."""
METADATA = ("metadata.csv", "metadata.csv.gz", "metadata.tsv", "metadata.tsv.gz", "*metadata.csv", "*metadata.tsv")


def recognise(path: Path) -> str | None:
    """Why the file or folder looks like a matrix of 10x Genomics, or None."""
    if path.is_dir():
        found = next((f for f in path.iterdir() if f.name.endswith((".mtx", ".mtx.gz"))), None)
        return f"it holds {found.name}" if found else None
    if bundle.start_of(path, 8) == bundle.HDF5_SIGNATURE:
        with bundle.hdf5(path) as file:
            if isinstance(file.get("matrix"), h5py.Group) or any(isinstance(g, h5py.Group) and "barcodes" in g for g in file.values()):
                return "it is HDF5 with a matrix and barcodes, as Cell Ranger writes it"
    return None


def read_tenx(path: str | Path, role: str, batch: str | None = None) -> AnnData:
    """Read a reference: a 10x HDF5 file, or a folder with matrix.mtx, features (or genes) and barcodes, gzip or not.

    A file ``metadata.csv`` or ``.tsv`` in the folder (cells' names in its first column) becomes ``obs``, of which ``batch`` names a column.

    Raises
    ------
    InputError
        When it is named as a slide (it has no positions), or a file is missing or damaged.
    """
    path = Path(path)
    warnings: list[str] = []
    if role == "slide":
        raise InputError(
            f"{path.name} holds counts but no positions of spots.",
            "Name the whole folder that Space Ranger or Xenium wrote ('outs'), with the positions in it.",
        )
    if path.is_dir():
        files = list(bundle.mtx_files(path))
        counts, names, genes = bundle.mtx(*files)
        metadata = bundle.find(path, "", *METADATA, required=False)
    else:
        files, metadata = [path], None
        counts, names, genes = bundle.tenx_h5(path, warnings, KNOWN)
    counts, genes = bundle.genes_only(counts, genes, files[0])
    if not counts.shape[0] or not counts.shape[1]:
        raise InputError(f"{path.name} holds no {'cells' if counts.shape[1] else 'genes'}.", "Check how the file was written.")
    obs = pd.DataFrame(index=pd.Index(names, dtype=object))
    if metadata:
        files.append(metadata)
        table = bundle.table(metadata)
        table = table.set_index(table.columns[0])
        if not table.index.is_unique or not obs.index.isin(table.index).all():
            raise InputError(
                f"{path.name}: {metadata.name} doesn't name every cell of {files[2].name} once.", "Write it again for the same cells."
            )
        obs = table.loc[obs.index] if obs.index.is_unique else table.reindex(obs.index)
    values = look(counts)
    if not values.usable:
        raise unusable(values, path, files[0].name, obs, genes, role)
    matrix = as_counts(values, path, files[0].name, warnings)
    return assemble(path, role, batch, "tenx", matrix, obs, genes, None, files[0].name, warnings, files)
