"""Writes Zarr stores (version 2 of the format), block by block, with nothing but the standard library and NumPy.

The form is fixed by https://zarr-specs.readthedocs.io/en/latest/v2/v2.0.html; every version of zarr-python and anndata reads it. A store
is a folder: '.zgroup', '.zattrs' and '.zarray' are JSON, every chunk is a file of its own, compressed with zlib.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

LEVEL = 3
"""Of compression: higher ones cost time and gain a few percent."""


def write_group(path: str | Path, attributes: dict | None = None) -> Path:
    """Make a group; returns its folder."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    _json(path / ".zgroup", {"zarr_format": 2})
    if attributes:
        _json(path / ".zattrs", attributes)
    return path


class Array:
    """An array that is written chunk by chunk; what isn't written has the fill value.

    Parameters
    ----------
    path
        Folder to make.
    shape, chunks
        Of equal length; () makes a scalar.
    dtype
        Of fixed size, or 'str' for texts of any length.
    """

    def __init__(
        self,
        path: str | Path,
        shape: Sequence[int],
        dtype: np.dtype | str,
        chunks: Sequence[int] | None = None,
        attributes: dict | None = None,
    ) -> None:
        self.path, self.shape = Path(path), tuple(shape)
        self.texts = dtype == "str"
        self.dtype = np.dtype(object) if self.texts else np.dtype(dtype).newbyteorder("<")
        self.chunks = tuple(chunks) if chunks is not None else tuple(max(1, n) for n in self.shape)
        self.path.mkdir(parents=True)
        floats = self.dtype.kind == "f"
        fill = "" if self.dtype.kind in "OU" else "NaN" if floats else False if self.dtype.kind == "b" else 0
        meta = {
            "zarr_format": 2,
            "shape": list(self.shape),
            "chunks": list(self.chunks),
            "dtype": "|O" if self.texts else self.dtype.str,
            "compressor": {"id": "zlib", "level": LEVEL},
            "fill_value": fill,
            "order": "C",
            "filters": [{"id": "vlen-utf8"}] if self.texts else None,
        }
        _json(self.path / ".zarray", meta)
        if attributes:
            _json(self.path / ".zattrs", attributes)

    def blocks(self) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
        """(number of a chunk, where it lies), chunk by chunk."""
        for number in product(*(range(-(-n // size)) for n, size in zip(self.shape, self.chunks, strict=True))):
            yield (
                number,
                tuple(slice(k * size, min((k + 1) * size, n)) for k, size, n in zip(number, self.chunks, self.shape, strict=True)),
            )

    def write(self, number: tuple[int, ...], values: np.ndarray) -> None:
        """Write one chunk; at an edge ``values`` may be smaller than a chunk."""
        values = np.asarray(values, dtype=self.dtype)
        if values.shape != self.chunks and self.shape:  # chunks have their full size on disk
            full = np.zeros(self.chunks, dtype=self.dtype) if not self.texts else np.full(self.chunks, "", dtype=object)
            full[tuple(slice(n) for n in values.shape)] = values
            values = full
        raw = _texts(values) if self.texts else values.tobytes()
        (self.path / (".".join(map(str, number)) or "0")).write_bytes(zlib.compress(raw, LEVEL))


def _texts(values: np.ndarray) -> bytes:
    """numcodecs' vlen-utf8: the number of texts, then each one's length in bytes and its bytes; lengths are little-endian uint32."""
    encoded = [str(v).encode() for v in values.ravel()]
    return len(encoded).to_bytes(4, "little") + b"".join(len(e).to_bytes(4, "little") + e for e in encoded)


def write_array(path: str | Path, values: np.ndarray, attributes: dict | None = None, chunks: Sequence[int] | None = None) -> None:
    """Write a whole array."""
    values = np.asarray(values)
    array = Array(path, values.shape, "str" if values.dtype.kind == "O" else values.dtype, chunks, attributes)
    for number, where in array.blocks():
        array.write(number, values[where])


def write_value(path: str | Path, value: object) -> None:
    """Write a number, text, list of texts or dict of such, as anndata keeps them in ``uns``."""
    if isinstance(value, dict):
        write_group(path, {"encoding-type": "dict", "encoding-version": "0.1.0"})
        for name, inner in value.items():
            write_value(Path(path) / str(name), inner)
    elif isinstance(value, str):
        write_array(path, np.array(value), {"encoding-type": "string", "encoding-version": "0.2.0"})
    elif isinstance(value, (list, tuple)):
        write_array(path, np.array(value, dtype=object), {"encoding-type": "string-array", "encoding-version": "0.2.0"})
    else:
        value = np.asarray(value)
        kind = "array" if value.ndim else "numeric-scalar"
        write_array(path, value, {"encoding-type": kind, "encoding-version": "0.2.0"})


def write_frame(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table as anndata does: numbers, truth values, texts and categories; anything else as text."""
    index = "_index" if "_index" not in table.columns else "_index_"
    names = [str(c) for c in table.columns]
    attributes = {"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": index, "column-order": names}
    path = write_group(path, attributes)
    texts, plain = ({"encoding-type": kind, "encoding-version": "0.2.0"} for kind in ("string-array", "array"))
    write_array(path / index, table.index.astype(str).to_numpy(dtype=object), texts)
    for name, (_, column) in zip(names, table.items(), strict=True):
        if isinstance(column.dtype, pd.CategoricalDtype):
            head = {"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": bool(column.cat.ordered)}
            group = write_group(path / name, head)
            write_array(group / "codes", column.cat.codes.to_numpy(), plain)
            categories = column.cat.categories
            if categories.dtype.kind in "biuf":
                write_array(group / "categories", categories.to_numpy(), plain)
            else:
                write_array(group / "categories", categories.astype(str).to_numpy(dtype=object), texts)
        elif isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
            write_array(path / name, column.to_numpy(), plain)
        else:
            write_array(path / name, column.astype(str).to_numpy(dtype=object), texts)


def _json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
