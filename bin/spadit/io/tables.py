"""Reader of plain tables: counts and coordinates of a slide (seqFISH, MERFISH, STARmap …), or the counts of a reference, as CSV or TSV."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from spadit.errors import InputError
from spadit.io import bundle
from spadit.io.counts import as_counts, assemble, look, some, unusable

ENDINGS = r"\.(csv|tsv|txt|tab)(\.gz)?"
COUNTS = re.compile(rf"(?i).*(counts?|expression|expr|cell_?by_?gene|dge|matrix).*{ENDINGS}")
PLACES = re.compile(rf"(?i).*(coord|location|position|centroid|spatial(?!.*count)).*{ENDINGS}")
X = (
    "x",
    "x_coord",
    "xcoord",
    "x_centroid",
    "centroid_x",
    "center_x",
    "coord_x",
    "pos_x",
    "x_um",
    "x_px",
    "row",
    "imagecol",
    "spatial_x",
    "dim1",
)
Y = (
    "y",
    "y_coord",
    "ycoord",
    "y_centroid",
    "centroid_y",
    "center_y",
    "coord_y",
    "pos_y",
    "y_um",
    "y_px",
    "col",
    "imagerow",
    "spatial_y",
    "dim2",
)
NAMES = ("cell_id", "cell", "cellid", "barcode", "barcodes", "spot", "spot_id", "bead", "id", "name", "index", "unnamed: 0")
CELL_WORDS = re.compile(r"(?i)(cells?|spots?|barcodes?|beads?|obs|samples?)([ _.-]?(ids?|names?))?")
GENE_WORDS = re.compile(r"(?i)(genes?|symbols?|features?|var)([ _.-]?(ids?|names?|symbols?))?|hgnc.*|mgi.*|ensembl.*")
KNOWN_GENES = re.compile(
    r"(?i)ENS[A-Z]*G\d{11}.*|MT-?(ND[1-6]|CO[1-3]|CYTB?|ATP[68])|RP[LS]\d+[AXYL]?\d?|ACTB|GAPDH|MALAT1|B2M|EEF1A1|TUBA1A|VIM|CD\d+[A-Z]?|GAD[12]|SLC\d+A\d+"
)


def recognise(path: Path) -> str | None:
    """Why the file or folder looks like tables, or None."""
    if path.is_dir():
        places, counts = _candidates(path)
        if not counts:
            return None
        return f"it holds a table of counts ({counts[0].name})" + (f" and one of coordinates ({places[0].name})" if places else "")
    start = bundle.start_of(path, 4096)
    if start.startswith(bundle.GZIP_SIGNATURE):
        with bundle.readable(path, "gzip"), bundle.text(path) as stream:
            raw = stream.buffer.peek(8)[:8] if hasattr(stream, "buffer") else b""
            if raw.startswith(bundle.HDF5_SIGNATURE):
                raise InputError(
                    f"{path.name} is a gzip archive: unpack it first.", "Unpack it and name the file in it, for example an h5ad file."
                )
            line = stream.readline(bundle.LONGEST_LINE)
    else:
        line = start.split(b"\n")[0].decode("utf-8-sig", "replace")
    line = line.rstrip("\r\n")
    if start.lstrip().startswith((b"<", b"version https://git-lfs")) or not line.isprintable() and "\t" not in line:
        return None
    return "it is a table of text" if re.search("[,\t;]", line) else None


def _candidates(folder: Path) -> tuple[list[Path], list[Path]]:
    """Tables of coordinates, and of counts, told from their names."""
    files = sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith("."))
    places = [f for f in files if PLACES.fullmatch(f.name)]
    return places, [f for f in files if COUNTS.fullmatch(f.name) and f not in places]


def read_tables(path: str | Path, role: str, batch: str | None = None) -> AnnData:
    """Read tables of counts. Rows may be spots (cells) or genes.

    Parameters
    ----------
    path
        A slide: the folder with a table of counts (``…counts…``, ``…expression…``, ``…cell_by_gene…``) and one of coordinates
        (``…coord…``, ``…location…``, ``…position…``, ``…centroid…``) with columns x and y. Spots are matched by name; where neither table
        names them, by their order. A reference: the table of counts, or a folder with it and perhaps ``metadata.csv``.
    role, batch
        As for :func:`spadit.io.read`.

    Raises
    ------
    InputError
        When a table is missing or no table of counts, when the two don't go together, or when it can't be told what is a gene.
    """
    path = Path(path)
    warnings: list[str] = []
    if role == "reference":
        return _reference(path, batch, warnings)
    if not path.is_dir():
        raise InputError(
            f"{path.name} is one table, but a slide needs counts and coordinates.", "Put the two tables into a folder and name that."
        )
    places, counts = _candidates(path)
    for what, found, like in (("counts", counts, "counts.csv"), ("coordinates", places, "coordinates.csv")):
        if len(found) != 1:
            count = "is missing" if not found else f"is there {len(found)} times ({some([f.name for f in found])})"
            raise InputError(f"{path.name}: the table of {what} {count}.", f"Keep one in the folder and name it, for example, {like}.")
    positions = bundle.table(places[0])
    return slide_of_tables(path, role, batch, "tables", counts[0], bundle.wide(counts[0]), places[0], positions, warnings)


def slide_of_tables(
    path: Path,
    role: str,
    batch: str | None,
    platform: str,
    file: Path,
    found: bundle.Wide,
    where: Path,
    positions: pd.DataFrame,
    warnings: list[str],
) -> AnnData:
    """A slide of a table of counts, ``found`` in ``file``, and one of coordinates from ``where``."""
    axes = (bundle.column(positions, X, where, "x"), bundle.column(positions, Y, where, "y"))
    lower = {str(c).casefold(): c for c in positions.columns}
    first = positions.columns[0]
    name = next((lower[n] for n in NAMES if n in lower), first if first not in axes and positions[first].is_unique else None)
    rows = found.labels[0] if found.labels else None
    if name is not None:
        spots = pd.Index(positions[name].astype(str))
        by_row = len(spots.intersection(pd.Index(rows))) if rows else 0
        by_column = len(spots.intersection(pd.Index(found.columns)))
        if by_row or by_column:
            positions = positions.drop(columns=name).set_index(spots)
            matrix, barcodes, genes = found.matrix, rows, found.columns
            if by_column > by_row:
                matrix, barcodes, genes = found.matrix.T, found.columns, rows or []
            var = pd.DataFrame(index=genes)
            return bundle.bundled(path, role, batch, platform, matrix, barcodes, var, positions, axes, [file, where], warnings)
        if rows and found.matrix.shape[0] != len(positions):
            raise InputError(
                f"{path.name}: no spot of {file.name} ({some(rows, 2)}) has a position in {where.name} ({some(spots, 2)}).",
                "The two tables are of different slides, or their names were changed: give them the same names.",
            )
    if rows and name is not None or found.matrix.shape[0] != len(positions):
        n, m = found.matrix.shape[0], len(positions)
        raise InputError(
            f"{path.name}: the spots of {file.name} ({n:,} rows) and {where.name} ({m:,} rows) can't be matched by name"
            + (", nor by order." if n != m else "."),
            "Put the same names of spots into the first column of both tables.",
        )
    warnings.append(f"{file.name} and {where.name} share no names of spots: their rows were matched by order.")
    names = [f"spot{i + 1}" for i in range(len(positions))] if not rows else rows
    positions = positions.drop(columns=[name] if name is not None else []).set_index(pd.Index(names))
    var = pd.DataFrame(index=found.columns)
    return bundle.bundled(path, role, batch, platform, found.matrix, names, var, positions, axes, [file, where], warnings)


def _reference(path: Path, batch: str | None, warnings: list[str]) -> AnnData:
    file, metadata = path, None
    if path.is_dir():
        _, counts = _candidates(path)
        if len(counts) != 1:
            count = "is missing" if not counts else f"is there {len(counts)} times ({some([f.name for f in counts])})"
            raise InputError(f"{path.name}: the table of counts {count}.", "Keep one in the folder and name it, for example, counts.csv.")
        file, metadata = counts[0], bundle.find(path, "", "*metadata*.csv", "*metadata*.tsv", "*meta*.txt", required=False)
    found = bundle.wide(file, labels=1)
    rows, columns, matrix = found.labels[0], found.columns, found.matrix
    if genes_in_rows(_first_cell(file), rows, columns, file):
        matrix, rows, columns = matrix.T, columns, rows
    obs = pd.DataFrame(index=pd.Index(rows, dtype=object))
    files = [file]
    if metadata:
        table = bundle.table(metadata)
        obs = table.set_index(table.columns[0]).reindex(obs.index)
        files.append(metadata)
    var = pd.DataFrame(index=columns)
    values = look(sp.csr_matrix(matrix))
    if not values.usable:
        raise unusable(values, path, file.name, obs, var, "reference")
    counts = as_counts(values, path, file.name, warnings)
    return assemble(path, "reference", batch, "tables", counts, obs, var, None, file.name, warnings, files)


def _first_cell(path: Path) -> str:
    with bundle.readable(path), bundle.text(path) as stream:
        return re.split("[,\t;]", stream.readline(bundle.LONGEST_LINE))[0].strip().strip('"')


def genes_in_rows(corner: str, rows: list[str], columns: list[str], path: Path) -> bool:
    """Whether the rows of a table are genes: its upper left corner says so, or names that are genes' for sure.

    Raises
    ------
    InputError
        When it can't be told.
    """
    if GENE_WORDS.fullmatch(corner):
        return True
    if CELL_WORDS.fullmatch(corner):
        return False
    score = [np.mean([bool(KNOWN_GENES.fullmatch(n)) for n in names]) if names else 0.0 for names in (rows, columns)]
    if score[0] == score[1]:
        raise InputError(
            f"{path.name}: it can't be told whether rows are genes ({some(rows, 2)}) or columns are ({some(columns, 2)}).",
            "Put the word 'gene' (or 'cell') into the first cell of the header, for what the rows are.",
        )
    return score[0] > score[1]
