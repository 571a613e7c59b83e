"""What readers share about files: finding those of a bundle, opening them safely, tables and sparse matrices.

Whatever a file claims is held against its size before memory is allocated, text is read in blocks, and nothing that a file holds can
name another file: links inside HDF5 are refused. Symbolic links of the file system are followed, since a staged input is one itself,
as long as they end at a regular file (never a device or a pipe).
"""

from __future__ import annotations

import contextlib
import csv
import errno
import gzip
import json
import logging
import os
import re
import stat
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from spadit.errors import InputError
from spadit.io.counts import as_counts, assemble, check_places, look, some, unusable
from spadit.io.hdf5 import AGAIN, opened

log = logging.getLogger(__name__)

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
GZIP_SIGNATURE = b"\x1f\x8b"
PARQUET_SIGNATURE = b"PAR1"
COMPRESSION = 1100
"""No gzip stream holds more than 1,032 times its size."""
LARGE = 256 << 20
"""Bytes; what claims less isn't held against its size on disk."""
MOST_ROWS = 200_000_000
"""Rows of a table. A slide of 1 cm² in squares of 2 µm has 25 million."""
LONGEST_LINE = 64 << 20
"""Characters of a line of text."""
BLOCK = 1 << 22
"""Entries of a dense block that is read at once."""
GENE_EXPRESSION = "Gene Expression"


# ---- finding and opening ------------------------------------------------------------------------------------------


def find(folder: Path, what: str, *patterns: str, required: bool = True) -> Path | None:
    """The file of a bundle that matches the first pattern that any file matches.

    Parameters
    ----------
    folder
        The bundle's folder.
    what
        What the file is, for the message.
    patterns
        Names below the folder, with '*', in order of preference.
    required
        Whether it is an error that there is none.

    Raises
    ------
    InputError
        When there is none, when several match, or when it is not a regular file (or a link to one).
    """
    for pattern in patterns:
        plain = folder / pattern
        candidates = folder.glob(pattern) if "*" in pattern else [plain] if os.path.lexists(plain) else []  # glob passes over broken links
        found = sorted(p for p in candidates if not p.name.startswith("._") and not p.is_dir())
        if len(found) > 1:
            raise InputError(
                f"{folder.name}: {what} is there {len(found)} times ({some([f.name for f in found])}).", "Keep one slide in a folder."
            )
        if found:
            return regular(found[0])
    if required:
        raise InputError(
            f"{folder.name}: {what} is missing (looked for {' or '.join(patterns)}).",
            "Name the whole folder as the instrument's software wrote it, or add the file.",
        )
    return None


def regular(path: Path) -> Path:
    """The path, when it is a regular file or a link to one."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise InputError(
            f"{path.name} is a link to a file that isn't there (inside a container only the named folder is seen).", "Copy the file itself."
        ) from error
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise InputError(f"{path.name} is a link to itself.", "Copy the file itself.") from error
    if not stat.S_ISREG(mode):
        raise InputError(f"{path.name} is not a regular file.", "Give the file itself, not a device, pipe or folder.")
    return path


def start_of(path: Path, size: int = 64) -> bytes:
    """The first bytes of a file."""
    with open(regular(path), "rb") as stream:
        return stream.read(size)


@contextlib.contextmanager
def readable(path: Path, form: str = "") -> Iterator[None]:
    """Turn what libraries raise for a damaged file into an :class:`InputError` that names it; a failing disk stays what it is."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path.name}: there is no such file.", "Check the path in the samplesheet.") from error
    except (OSError, EOFError, zlib.error, RuntimeError, LookupError, ValueError, TypeError, AttributeError, struct.error) as error:
        if isinstance(error, OSError) and error.errno in (errno.EIO, errno.ESTALE, errno.ENOSPC):
            raise
        cut = isinstance(error, (EOFError, zlib.error)) or re.search(
            r"truncated|end.of.(file|stream)|footer|Unexpected end|incomplete", str(error)
        )
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(
            f"{path.name} {'is cut short (truncated) or damaged' if cut else 'can’t be read' + (f' as {form}' if form else '')}: {reason}.",
            AGAIN,
        ) from error


@contextlib.contextmanager
def hdf5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file for reading, after a look at all it holds: no links, no values in other files, no absurd sizes."""
    if not start_of(path):
        raise InputError(f"{path.name} is empty (0 bytes).", AGAIN)
    with opened(path) as file, readable(path, "HDF5"):
        yield file


def plausible(name: str, where: str, entries: int, size: int, stored: int) -> None:
    """Raise an InputError when ``size`` bytes (of ``entries``) are claimed, but far too few are stored for that."""
    if size > LARGE and size > stored * COMPRESSION:
        raise InputError(f"{name}: '{where}' claims {entries:,} entries ({size / 2**30:,.0f} GiB), but {stored:,} bytes are stored.", AGAIN)


def newer(found: Any, known: int, program: str, warnings: list[str]) -> None:
    """Add a warning when a file was written by a later major version than the reader was made for."""
    number = re.search(r"\d+", str(found))
    if number and int(number[0]) > known:
        warnings.append(
            f"The files were written by {program} ({found}), which is newer than the reader knows (up to {known}.x); it was tried."
        )


def unknown_columns(table: pd.DataFrame, known: Sequence[str], what: str) -> None:
    """Note the columns of a table that the reader doesn't know: they are kept as they are."""
    new = [c for c in table if c not in known]
    if new:
        log.info("%s has %d columns that the reader doesn't know, kept as they are: %s", what, len(new), some(new))


def read_json(path: Path) -> dict:
    """A JSON object."""
    plausible(path.name, "JSON", path.stat().st_size, path.stat().st_size, 0)
    with readable(path, "JSON"):
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(content, dict):
            raise ValueError("it holds no object")
    return content


# ---- tables -------------------------------------------------------------------------------------------------------


def text(path: Path) -> IO[str]:
    """A text file, unpacked when its content (not its name) is gzip."""
    opener: Any = gzip.open if start_of(path, 2) == GZIP_SIGNATURE else open
    return opener(path, "rt", encoding="utf-8-sig", newline=None)


def delimiter(line: str) -> str:
    """Tab, comma or semicolon: what a line of a table has most of."""
    return max("\t,; ", key=lambda d: (line.count(d), d != " ")) if line.strip() else ","


def table(
    path: Path, names: Sequence[str] | None = None, text_columns: Sequence[str] = (), only: dict[str, Any] | None = None
) -> pd.DataFrame:
    """A small table, one row per spot or gene: CSV or TSV (gzip or not) or Parquet, told from the content.

    Parameters
    ----------
    names
        Names of the columns, when the file has no header.
    text_columns
        Columns that are text whatever they look like (barcodes such as 0012); ones that aren't there are passed over. The first column
        always is.
    only
        Column and value: other rows are left out (Parquet only, and before they take memory).
    """
    if start_of(path, 4) == PARQUET_SIGNATURE:
        return _parquet(path, text_columns, only)
    with readable(path, "a table"):
        with text(path) as stream:
            first = stream.readline(LONGEST_LINE)
        if not first.strip():
            raise InputError(f"{path.name} is empty.", AGAIN)
        separator = delimiter(first)
        columns = list(names) if names else next(csv.reader([first], delimiter=separator))
        kinds = {c: str for i, c in enumerate(columns) if i == 0 or c in text_columns}
        with text(path) as stream:
            chunks, rows = [], 0
            for chunk in pd.read_csv(
                stream,
                sep=separator,
                header=None if names else 0,
                names=names,
                index_col=False,
                dtype={
                    (i if not c and not names else c): k
                    for i, (c, k) in enumerate(zip(columns, [kinds.get(c) for c in columns], strict=True))
                    if k
                },
                keep_default_na=True,
                na_values=[],
                chunksize=1_000_000,
            ):
                rows += len(chunk)
                if rows > MOST_ROWS:
                    raise InputError(f"{path.name} has more than {MOST_ROWS:,} rows.", "Check the file.")
                chunks.append(chunk)
    return pd.concat(chunks, ignore_index=True) if len(chunks) > 1 else chunks[0]


def _parquet(path: Path, text_columns: Sequence[str], only: dict[str, Any] | None) -> pd.DataFrame:
    import pyarrow.parquet as pq

    with readable(path, "Parquet"):
        file = pq.ParquetFile(path)
        if file.metadata.num_rows > MOST_ROWS:
            raise InputError(f"{path.name} claims {file.metadata.num_rows:,} rows.", AGAIN)
        size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
        plausible(path.name, "Parquet", file.metadata.num_rows, size, path.stat().st_size * 100)
        filters = [(c, "=", v) for c, v in (only or {}).items() if c in file.schema_arrow.names]
        frame = pq.read_table(path, filters=filters or None).to_pandas()
    if frame.index.name:
        frame = frame.reset_index()
    for column in frame.columns:
        if isinstance(column, str) and (column in text_columns or column == frame.columns[0]):
            frame[column] = [v.decode() if isinstance(v, bytes) else str(v) for v in frame[column]]
    return frame


def column(frame: pd.DataFrame, names: Sequence[str], path: Path, what: str) -> str:
    """The first of the names that the table has as a column, whatever the case.

    Raises
    ------
    InputError
        When it has none of them.
    """
    lower = {str(c).casefold(): c for c in reversed(frame.columns)}
    for name in names:
        if name.casefold() in lower:
            return lower[name.casefold()]
    shown = some([c for c in frame.columns], 12)
    raise InputError(f"{path.name} has no column with {what} (looked for {', '.join(names)}; there are {shown}).", "Check the file.")


def numbers(frame: pd.DataFrame, columns: Sequence[str], path: Path) -> np.ndarray:
    """Columns as float64; text that isn't a number is an error that names the row."""
    result = np.empty((len(frame), len(columns)))
    for i, name in enumerate(columns):
        values = pd.to_numeric(frame[name], errors="coerce")
        wrong = np.flatnonzero(values.isna() & frame[name].notna())
        if wrong.size:
            raise InputError(
                f"{path.name}: column '{name}' holds '{frame[name].iloc[wrong[0]]}' in data row {wrong[0] + 1}, which is no number.",
                "Mend the table.",
            )
        result[:, i] = values
    return result


# ---- matrices in text ---------------------------------------------------------------------------------------------


class Wide:
    """A table of counts in text: a header, then one row per spot (or gene), read in blocks into a sparse matrix."""

    def __init__(self, header: list[str], labels: list[list[str]], matrix: sp.csr_matrix):
        self.columns = header
        """Names of the columns of numbers."""
        self.labels = labels
        """One list per leading column of text: the rows' names."""
        self.matrix = matrix
        """rows × columns, float32."""


def wide(path: Path, labels: int | None = None) -> Wide:
    """Read a table of counts. numpy parses a line of thousands of numbers many times faster than pandas makes as many columns.

    Parameters
    ----------
    labels
        Leading columns that are names; None: one, unless the first column looks like all the others.

    Raises
    ------
    InputError
        For rows of another length than the header, and for values that are no numbers, named with row and column.
    """
    with readable(path, "a table"), text(path) as stream:
        first, second = _line(stream, path), _line(stream, path)
        if not first:
            raise InputError(f"{path.name} is empty.", AGAIN)
        separator = delimiter(first)
        header = [h.strip() for h in next(csv.reader([first], delimiter=separator))]
        if not second:
            raise InputError(f"{path.name} holds a header only.", AGAIN)
        cells = next(csv.reader([second], delimiter=separator))
        if len(cells) == len(header) + 1:  # as R writes it: no name above the rows' names
            header = ["", *header]
        if labels is None:
            labels = 0 if _number(cells[0]) and not _names_rows(header[0]) else 1
        columns = header[labels:]
        if not columns or len(columns) == 1 and separator == " ":
            raise InputError(f"{path.name} is not a table: its first line has one column.", "Separate columns by commas or tabs.")
        names: list[list[str]] = [[] for _ in range(labels)]
        blocks, dense = [], []
        rows = max(1, BLOCK // len(columns))
        number, line = 1, second
        while line:
            if line.strip():
                number += 1
                start, values = _split(line, separator, labels)
                for kept, name in zip(names, start, strict=True):
                    kept.append(name)
                dense.append(_numbers(values, separator, columns, path, number))
                if len(dense) == rows:
                    blocks.append(sp.csr_matrix(np.stack(dense)))
                    dense = []
            line = _line(stream, path)
        if dense:
            blocks.append(sp.csr_matrix(np.stack(dense)))
    return Wide(columns, names, sp.vstack(blocks, format="csr"))


def _line(stream: IO[str], path: Path) -> str:
    line = stream.readline(LONGEST_LINE)
    if len(line) >= LONGEST_LINE:
        raise InputError(f"{path.name} has a line of more than {LONGEST_LINE:,} characters: it can't be a table.", "Check the file.")
    return line


def _split(line: str, separator: str, labels: int) -> tuple[list[str], str]:
    if not labels:
        return [], line
    if '"' in line[: line.find(separator) + 1] or line.startswith('"'):
        cells = next(csv.reader([line.rstrip("\n")], delimiter=separator))
        return [c.strip() for c in cells[:labels]], separator.join(cells[labels:])
    *start, rest = line.split(separator, labels) if line.count(separator) >= labels else [line.strip()] * labels + [""]
    return [c.strip() for c in start], rest


def _numbers(values: str, separator: str, columns: list[str], path: Path, number: int) -> np.ndarray:
    plain = values.replace('"', "") if '"' in values else values
    cells = plain.rstrip("\r\n").split(separator)
    try:
        result = np.array(cells, dtype=np.float32)
    except ValueError:
        result = None
    if result is None or len(cells) != len(columns):
        if len(cells) != len(columns):
            raise InputError(
                f"{path.name}: row {number} has {len(cells)} values, but the header has {len(columns)} columns of them.",
                "The file may be cut short: copy it again, or mend the row.",
            )
        wrong = next(i for i, c in enumerate(cells) if not _number(c))
        raise InputError(
            f"{path.name}: row {number}, column '{columns[wrong]}' holds '{cells[wrong].strip()[:40]}', which is no count.",
            "Give a table of whole numbers without empty cells.",
        )
    return result


def _number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _names_rows(header: str) -> bool:
    """Whether a column's name says that it holds names."""
    return not header or bool(
        re.fullmatch(
            r"(?i)(unnamed: 0|index|(cell|spot|bead|entity|gene)[ _.-]?(s|id|ids|name|names)?|id|barcodes?|names?|symbols?)", header
        )
    )


# ---- 10x matrices -------------------------------------------------------------------------------------------------


def mtx(path: Path, features: Path, barcodes: Path) -> tuple[sp.csr_matrix, list[str], pd.DataFrame]:
    """A MatrixMarket file with its two lists of names.

    Returns
    -------
    matrix
        barcodes × features.
    barcodes
    features
        Names in the index; columns gene_ids and feature_types where they are there.
    """
    from scipy.io import mminfo, mmread

    genes = _names(features)
    cells = [row[0] for row in _names(barcodes)]
    with readable(path, "MatrixMarket"):
        rows, columns, entries, *_ = mminfo(path)
        # lists that R or Python wrote may have a header
        genes = genes[1:] if len(genes) - 1 in (rows, columns) and len(genes) not in (rows, columns) else genes
        cells = cells[1:] if len(cells) - 1 in (rows, columns) and len(cells) not in (rows, columns) else cells
        shapes = {(len(genes), len(cells)): True, (len(cells), len(genes)): False}
        if (rows, columns) not in shapes:
            raise InputError(
                f"{path.name} is {rows:,} × {columns:,}, but {features.name} names {len(genes):,} features and {barcodes.name} "
                f"{len(cells):,} barcodes.",
                "The three files don't belong together: take them from the same folder.",
            )
        packed = start_of(path, 2) == GZIP_SIGNATURE
        bound = path.stat().st_size * (COMPRESSION if packed else 1)
        if entries * 4 > bound or entries > rows * columns:
            raise InputError(f"{path.name} claims {entries:,} entries, but it is too small for them.", AGAIN)
        matrix = mmread(path)
    matrix = sp.csr_matrix(matrix.T if shapes[rows, columns] else matrix)
    width = max(map(len, genes), default=1)
    table = pd.DataFrame(index=[row[1] if width > 1 and len(row) > 1 else row[0] for row in genes])
    if width > 1:
        table["gene_ids"] = [row[0] for row in genes]
    if width > 2:
        table["feature_types"] = [row[2] if len(row) > 2 else "" for row in genes]
    return matrix, cells, table


def _names(path: Path) -> list[list[str]]:
    """The rows of a list of names without header (10x) or with one (tables written by R and Python)."""
    with readable(path, "a list of names"), text(path) as stream:
        lines = [line.rstrip("\r\n") for line in stream if line.strip()]
    separator = "\t" if lines and "\t" in lines[0] else ","
    return [[c.strip() for c in row] for row in csv.reader(lines, delimiter=separator)]


def tenx_h5(path: Path, warnings: list[str], known: int = 10) -> tuple[sp.csr_matrix, list[str], pd.DataFrame]:
    """A 10x HDF5 matrix: version 3 (``/matrix``), or version 2 (one group per genome, all of which are taken).

    Returns
    -------
    matrix
        barcodes × features of type Gene Expression.
    barcodes
    features
        Names in the index; columns gene_ids and, where there, genome.
    """
    with hdf5(path) as file:
        version = file.attrs.get("software_version", "")
        version = version.decode() if isinstance(version, bytes) else str(version)
        newer(version, known, "10x software", warnings)
        groups = [file["matrix"]] if "matrix" in file else [g for g in file.values() if isinstance(g, h5py.Group) and "barcodes" in g]
        if not groups:
            raise InputError(
                f"{path.name} is HDF5 but not a 10x matrix: it has no group 'matrix'.", "Name the file that Cell or Space Ranger wrote."
            )
        parts = [_tenx_group(group, path) for group in groups]
    if any(p[1] != parts[0][1] for p in parts):
        raise InputError(f"{path.name} holds several genomes with different barcodes.", "Give one genome's matrix.")
    matrix = sp.hstack([p[0] for p in parts], format="csr") if len(parts) > 1 else parts[0][0]
    return matrix, parts[0][1], pd.concat([p[2] for p in parts])


def _tenx_group(group: h5py.Group, path: Path) -> tuple[sp.csr_matrix, list[str], pd.DataFrame]:
    wanted = ("shape", "data", "indices", "indptr", "barcodes")
    missing = [name for name in wanted if name not in group]
    if missing:
        raise InputError(
            f"{path.name}: '{group.name}' lacks {', '.join(missing)}.", "The file is damaged or not a 10x matrix: copy it again."
        )
    features, cells = (int(n) for n in group["shape"][:2])
    barcodes = strings(group["barcodes"])
    if "features" in group:
        table = pd.DataFrame(index=strings(group["features/name"]))
        for name, column_name in (("id", "gene_ids"), ("genome", "genome"), ("feature_type", "feature_types")):
            if name in group["features"]:
                table[column_name] = strings(group["features"][name])
    else:
        table = pd.DataFrame({"gene_ids": strings(group["genes"])}, index=strings(group["gene_names"]))
    if (len(table), len(barcodes)) != (features, cells):
        raise InputError(
            f"{path.name}: the matrix is {features:,} × {cells:,}, but {len(table):,} features and {len(barcodes):,} barcodes are named.",
            AGAIN,
        )
    pointers = group["indptr"][:]
    if len(pointers) != cells + 1 or group["data"].shape != group["indices"].shape or pointers[-1] != len(group["data"]):
        raise InputError(f"{path.name}: the parts of '{group.name}' don't fit together.", AGAIN)
    # one column per barcode in the file is one row per barcode here
    matrix = sp.csr_matrix((cells, features), dtype=np.float32)
    small = np.int32 if features < 2**31 and pointers[-1] < 2**31 else np.int64
    matrix.data, matrix.indices, matrix.indptr = (
        numbers_of(group["data"]),
        group["indices"][:].astype(small, copy=False),
        pointers.astype(small),
    )
    checked(matrix, path, group.name)
    return matrix, barcodes, table


def checked(matrix: sp.csr_matrix, path: Path, where: str) -> sp.csr_matrix:
    """The matrix, when its index arrays are sound."""
    try:
        matrix.check_format(full_check=True)
    except ValueError as error:
        raise InputError(f"{path.name}: {where} is damaged: {error}.", "Copy the file or write it again.") from error
    return matrix


def numbers_of(dataset: h5py.Dataset) -> np.ndarray:
    """A data set of counts as float32, converted while it is read."""
    if dataset.dtype.kind not in "iufb":
        raise InputError(f"{Path(dataset.file.filename).name}: '{dataset.name}' holds no numbers.", "Give raw counts.")
    return dataset.astype(np.float32)[:]


def strings(dataset: h5py.Dataset) -> list[str]:
    """A data set of text."""
    return [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in dataset[:]]


def genes_only(matrix: sp.csr_matrix, features: pd.DataFrame, path: Path) -> tuple[sp.csr_matrix, pd.DataFrame]:
    """The features of type Gene Expression: no control probes, antibodies or unassigned codewords."""
    if "feature_types" not in features:
        return matrix, features
    genes = (features["feature_types"] == GENE_EXPRESSION).to_numpy()
    if not genes.any():
        raise InputError(
            f"{path.name} has no feature of type '{GENE_EXPRESSION}' (there are {some(features['feature_types'].unique())}).",
            "Check the file.",
        )
    if not genes.all():
        left = features["feature_types"][~genes].value_counts()
        log.info("%s: left out %s", path.name, ", ".join(f"{n:,} × {kind}" for kind, n in left.items()))
        matrix = matrix[:, genes]
    return matrix, features[genes].drop(columns="feature_types")


def tenx(folder: Path, warnings: list[str], known: int, *stems: str) -> tuple[sp.csr_matrix, list[str], pd.DataFrame, list[Path]]:
    """The matrix of a bundle of 10x Genomics: ``<stem>.h5``, else the folder ``<stem>/`` with matrix.mtx.gz, features and barcodes.

    Returns
    -------
    matrix
        barcodes × genes.
    barcodes
    genes
    files
        What was read.
    """
    path = find(folder, "", *(f"*{stem}.h5" for stem in stems), required=False)
    if path:
        matrix, barcodes, features = tenx_h5(path, warnings, known)
        return *_swapped(genes_only(matrix, features, path), barcodes), [path]
    for stem in stems:
        inner = folder / stem
        if inner.is_dir():
            files = mtx_files(inner)
            matrix, barcodes, features = mtx(*files)
            return *_swapped(genes_only(matrix, features, files[0]), barcodes), list(files)
    looked = " or ".join(f"{stem}.h5 or {stem}/matrix.mtx.gz" for stem in stems)
    raise InputError(
        f"{folder.name}: the matrix of counts is missing (looked for {looked}).",
        "Name the whole folder as the software wrote it, or add the file.",
    )


def _swapped(matrix_genes: tuple[sp.csr_matrix, pd.DataFrame], barcodes: list[str]) -> tuple[sp.csr_matrix, list[str], pd.DataFrame]:
    return matrix_genes[0], barcodes, matrix_genes[1]


MATRIX = ("matrix.mtx.gz", "matrix.mtx", "*matrix.mtx.gz", "*matrix.mtx", "*.mtx.gz", "*.mtx")
FEATURES = (
    "features.tsv.gz",
    "features.tsv",
    "genes.tsv.gz",
    "genes.tsv",
    *(f"*{n}.{e}{z}" for n in ("features", "genes") for e in ("tsv", "csv", "txt") for z in (".gz", "")),
)
BARCODES = (
    "barcodes.tsv.gz",
    "barcodes.tsv",
    *(f"*{n}.{e}{z}" for n in ("barcodes", "cells") for e in ("tsv", "csv", "txt") for z in (".gz", "")),
)


def mtx_files(folder: Path) -> tuple[Path, Path, Path]:
    """The matrix, the features and the barcodes of a folder."""
    return (
        find(folder, "the matrix of counts", *MATRIX),
        find(folder, "the list of genes", *FEATURES),
        find(folder, "the list of barcodes", *BARCODES),
    )


# ---- counts and positions -----------------------------------------------------------------------------------------


def place(
    counts: sp.csr_matrix,
    barcodes: Sequence[str],
    positions: pd.DataFrame,
    path: Path,
    counts_file: str,
    positions_file: str,
    warnings: list[str],
) -> tuple[sp.csr_matrix, pd.DataFrame]:
    """Bring counts and the table of positions together by the spots' names.

    Parameters
    ----------
    counts
        spots × genes, in the order of ``barcodes``.
    positions
        One row per spot, names in the index. Rows without counts are left out: positions off the tissue, or empty cells.

    Returns
    -------
    counts
        Spots that have a position, in the order of the counts.
    positions
        Their rows.

    Raises
    ------
    InputError
        When a name occurs twice, or no name occurs in both.
    """
    names = pd.Index(np.asarray(barcodes, dtype=object))
    for index, file in ((names, counts_file), (positions.index, positions_file)):
        if not index.is_unique:
            twice = index[index.duplicated()].unique()
            raise InputError(
                f"{path.name}: {file} names {len(twice)} spots more than once ({some(twice)}), so counts and positions can't be matched.",
                "Keep one of each, or give slides in folders of their own.",
            )
    rows = positions.index.get_indexer(names)
    found = rows >= 0
    if not found.any():
        raise InputError(
            f"{path.name}: no spot of {counts_file} ({some(names, 2)}) has a position in {positions_file} ({some(positions.index, 2)}).",
            "The two files are of different slides, or their names were changed: take both from one run.",
        )
    if not found.all():
        warnings.append(f"{int((~found).sum()):,} of {len(names):,} spots have counts but no position ({some(names[~found])}): left out.")
        counts = counts[found]
    unused = len(positions) - int(found.sum())
    if unused:
        log.info("%s: %s positions have no counts and are left out", path.name, f"{unused:,}")
    return counts, positions.iloc[rows[found]]


def bundled(
    path: Path,
    role: str,
    batch: str | None,
    platform: str,
    counts: sp.spmatrix,
    barcodes: Sequence[str],
    genes: pd.DataFrame,
    positions: pd.DataFrame,
    columns: tuple[str, str],
    files: Sequence[Path],
    warnings: list[str],
    pixels: bool = False,
) -> ad.AnnData:
    """Counts and positions of a bundle, checked and brought together, in the form that :mod:`spadit.io` describes.

    Parameters
    ----------
    path
        The bundle as the user named it.
    counts
        spots × genes.
    barcodes, genes
        Names of the rows; the table of the columns with their names in the index.
    positions
        One row per spot, the spots' names in the index; the rest becomes ``obs``.
    columns
        Those of x and y; they move to ``obsm['spatial']``.
    files
        What was read: first the counts, last the positions.
    pixels
        Whether coordinates are pixels of an image, which are not negative.
    """
    counts_file, positions_file = files[0].name, files[-1].name
    if not counts.shape[0] or not counts.shape[1]:
        raise InputError(f"{path.name}: {counts_file} holds no {'spots' if counts.shape[1] else 'genes'}.", "Check the bundle.")
    values = look(counts)
    if not values.usable:
        raise unusable(values, path, counts_file, pd.DataFrame(index=list(barcodes)), genes, role)
    matrix = as_counts(values, path, counts_file, warnings)
    matrix, obs = place(matrix, barcodes, positions, path, counts_file, positions_file, warnings)
    spatial = check_places(numbers(obs, columns, files[-1]), obs.index, path, positions_file)
    outside = int((spatial < 0).any(axis=1).sum())
    if pixels and outside:
        warnings.append(f"{positions_file} puts {outside:,} spots outside the image (negative pixels); they are used as they are.")
    obs = obs.drop(columns=list(columns))
    return assemble(path, role, batch, platform, matrix, obs, genes, spatial if role == "slide" else None, counts_file, warnings, files)


def outs(path: Path) -> Path:
    """The folder that holds the results: the named one or its ``outs``."""
    inner = path / "outs"
    return inner if inner.is_dir() else path
