"""Zarr folders (versions 2 and 3), as far as AnnData needs them: copied into an HDF5 file, which the reader of h5ad understands.

The zarr package is not used: what Python 3.10 can install doesn't read version 3, and it would run the codec that a file names.
Here a codec is one of a fixed list, so no pickled object is ever loaded. Formats: https://zarr-specs.readthedocs.io, https://github.com/Blosc/c-blosc
(README_CHUNK_FORMAT.rst).
"""

from __future__ import annotations

import gzip
import io
import itertools
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from spadit.errors import InputError
from spadit.io import bundle

LARGEST_CHUNK = 1 << 31
"""Bytes, unpacked."""
CODECS = ("blosc", "zstd", "gzip", "zlib", "lz4", "vlen-utf8", "bytes", "crc32c")
BLOSC = {1: "lz4_raw", 2: "snappy", 3: "zlib", 4: "zstd"}


def is_node(folder: Path) -> bool:
    """Whether a folder is a zarr group or array."""
    return any((folder / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))


def node(folder: Path) -> dict:
    """What a node says of itself: kind ('group' or 'array'), attributes, and for arrays shape, chunks, dtype, fill, codecs, key."""
    new = folder / "zarr.json"
    if new.is_file():
        meta = bundle.read_json(bundle.regular(new))
        found = {"kind": meta.get("node_type"), "attributes": meta.get("attributes", {})}
        return found if found["kind"] == "group" else found | _array3(meta, folder)
    attributes = folder / ".zattrs"
    found = {"attributes": bundle.read_json(bundle.regular(attributes)) if attributes.is_file() else {}}
    old = folder / ".zarray"
    if old.is_file():
        return found | {"kind": "array"} | _array2(bundle.read_json(bundle.regular(old)), folder)
    if (folder / ".zgroup").is_file():
        return found | {"kind": "group"}
    raise InputError(
        f"{folder.name} is not zarr: it lacks .zgroup, .zarray and zarr.json.", "Copy the whole folder, with its hidden files."
    )


def _array2(meta: dict, folder: Path) -> dict:
    codecs = [c["id"] for c in [meta.get("compressor"), *(meta.get("filters") or [])] if c]
    separator = meta.get("dimension_separator", ".")
    return {
        "shape": tuple(meta["shape"]),
        "chunks": tuple(meta["chunks"]),
        "dtype": None if meta["dtype"] == "|O" else _dtype(meta["dtype"], folder),
        "fill": meta.get("fill_value"),
        "order": meta.get("order", "C"),
        "codecs": _known(codecs, folder),
        "key": lambda index: separator.join(map(str, index)) or "0",
    }


def _array3(meta: dict, folder: Path) -> dict:
    kind = meta["data_type"]
    if isinstance(kind, dict):
        name = kind.get("name")
        length = kind.get("configuration", {}).get("length_bytes", 0)
        text = {"fixed_length_utf32": f"<U{length // 4}", "null_terminated_bytes": f"|S{length}"}.get(name, "")
        dtype = _dtype(text or name, folder)
    else:
        dtype = None if kind in ("string", "str") else _dtype(kind, folder)
    codecs, order = [], "C"
    for codec in meta["codecs"]:
        settings = codec.get("configuration", {}) if isinstance(codec, dict) else {}
        name = codec["name"] if isinstance(codec, dict) else codec
        if name == "transpose" and list(settings.get("order", [])) == list(range(len(meta["shape"])))[::-1]:
            order = "F"
        elif name == "bytes" and settings.get("endian", "little") == "big":
            dtype = dtype.newbyteorder(">")
        elif name != "transpose" or list(settings.get("order", [])) != list(range(len(meta["shape"]))):
            codecs.append(name)
    encoding = meta.get("chunk_key_encoding", {"name": "default"})
    separator = encoding.get("configuration", {}).get("separator", "/" if encoding["name"] == "default" else ".")
    start = ["c"] if encoding["name"] == "default" else []
    return {
        "shape": tuple(meta["shape"]),
        "chunks": tuple(meta["chunk_grid"]["configuration"]["chunk_shape"]),
        "dtype": dtype,
        "fill": meta.get("fill_value"),
        "order": order,
        "codecs": _known(codecs[::-1], folder),
        "key": lambda index: separator.join([*start, *map(str, index)]) or "0",
    }


def _dtype(name: str, folder: Path) -> np.dtype:
    dtype = np.dtype(name)
    if dtype.hasobject or dtype.kind not in "biufSU":
        raise InputError(f"{folder.name}: values of type '{name}' are not read.", "Write the file again with numbers and text only.")
    return dtype


def _known(codecs: Sequence[str], folder: Path) -> list[str]:
    """The codecs in the order in which a chunk is unpacked. Anything that isn't on the list is refused: 'pickle' would run code."""
    other = [name for name in codecs if name not in CODECS]
    if other:
        raise InputError(
            f"{folder.name}: the codec '{other[0]}' is not decoded{' because it can run code' if other[0] == 'pickle' else ''}.",
            f"Write the file again with one of {', '.join(CODECS[:5])}.",
        )
    return list(codecs)


def copy(folder: Path, target: h5py.Group, name: str) -> list[Path]:
    """Copy a zarr array or group, with all below it, into an HDF5 group, chunk by chunk.

    Returns
    -------
    list of Path
        The files that were read.

    Raises
    ------
    InputError
        When something is damaged, needs a codec that isn't on the list, or claims an absurd size.
    """
    with bundle.readable(folder, "zarr"):
        found = node(folder)
        files = [f for f in (folder / n for n in ("zarr.json", ".zgroup", ".zarray", ".zattrs")) if f.is_file()]
        if found["kind"] == "group":
            made = target.require_group(name)
            for inner in sorted(folder.iterdir()):
                if inner.is_dir() and is_node(inner):
                    files += copy(inner, made, inner.name)
        else:
            made, chunks = _copy_array(folder, found, target, name)
            files += chunks
        for key, value in found["attributes"].items():
            if isinstance(value, dict) or value is None:
                continue  # anndata uses none
            if isinstance(value, list) and all(isinstance(v, str) for v in value):
                value = np.array(value, dtype=h5py.string_dtype())
            made.attrs[key] = value
    return files


def _copy_array(folder: Path, found: dict, target: h5py.Group, name: str) -> tuple[h5py.Dataset, list[Path]]:
    shape, chunks, dtype = found["shape"], found["chunks"], found["dtype"]
    if (
        len(chunks) != len(shape)
        or any(not isinstance(n, int) or n < 0 for n in shape)
        or any(not isinstance(n, int) or n < 1 for n in chunks)
    ):
        raise InputError(f"{folder.name}: the shape {shape} or the chunks {chunks} make no sense.", bundle.AGAIN)
    itemsize = dtype.itemsize if dtype is not None else 8
    stored = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    # zstd and blosc squeeze constants far more than gzip does
    bundle.plausible(folder.parent.name, folder.name, math.prod(shape), math.prod(shape) * itemsize, stored * 20)
    if math.prod(chunks) * itemsize > LARGEST_CHUNK:
        raise InputError(
            f"{folder.name}: chunks of {math.prod(chunks):,} entries are too large.", "Write the file again with smaller chunks."
        )
    kind = h5py.string_dtype() if dtype is None or dtype.kind == "U" else dtype
    made = target.create_dataset(name, shape=shape, dtype=kind)
    files = []
    for index in itertools.product(*(range(-(-n // c)) for n, c in zip(shape, chunks, strict=True))):
        path = folder / found["key"](index)
        corner = tuple(slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(index, chunks, shape, strict=True))
        size = tuple(s.stop - s.start for s in corner)
        if path.exists():
            block = _chunk(bundle.regular(path), found, itemsize)
            made[corner] = block[tuple(slice(0, n) for n in size)] if shape else block[()]
            files.append(path)
        else:
            fill = found["fill"]
            made[corner] = ("" if fill in (None, 0) else fill) if dtype is None else dtype.type(fill or 0)
    return made, files


def _chunk(path: Path, found: dict, itemsize: int) -> np.ndarray:
    """One chunk, in its full shape."""
    data, entries, dtype = path.read_bytes(), math.prod(found["chunks"]), found["dtype"]
    size = entries * itemsize
    for codec in found["codecs"]:
        if codec == "vlen-utf8":
            values = np.empty(entries, dtype=object)
            values[:] = _texts(data, entries, path)
            return values.reshape(found["chunks"])
        if codec != "bytes":
            data = _unpacked(codec, data, size if dtype is not None else LARGEST_CHUNK)
    if dtype is None or len(data) != size:
        raise InputError(f"{path.parent.name}/{path.name} holds {len(data):,} bytes, but {size:,} are expected.", bundle.AGAIN)
    block = np.frombuffer(data, dtype=dtype).reshape(found["chunks"], order=found["order"])
    return block.astype(object) if dtype.kind == "U" else block


def _texts(data: bytes, entries: int, path: Path) -> list[str]:
    (count,) = struct.unpack_from("<I", data, 0)
    if count > entries:
        raise InputError(f"{path.parent.name}/{path.name} holds more texts than expected.", bundle.AGAIN)
    texts, at = [], 4
    for _ in range(count):
        (length,) = struct.unpack_from("<I", data, at)
        texts.append(data[at + 4 : at + 4 + length].decode())
        at += 4 + length
    if at > len(data):
        raise EOFError("a text ends beyond the chunk")
    return texts + [""] * (entries - count)


def _unpacked(codec: str, data: bytes, limit: int) -> bytes:
    """One codec undone; more than ``limit`` bytes are not unpacked."""
    import pyarrow as pa

    if codec == "crc32c":
        return data[:-4]
    if codec == "blosc":
        return unblosc(data, limit)
    if codec == "lz4":
        (size,) = struct.unpack_from("<I", data, 0)
        if size > limit:
            raise ValueError("the chunk is larger than expected")
        return pa.Codec("lz4_raw").decompress(data[4:], size, asbytes=True)
    if codec == "zstd":
        with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
            result = stream.read(limit + 1)
    elif codec == "gzip":
        with gzip.open(io.BytesIO(data)) as stream:
            result = stream.read(limit + 1)
    else:
        result = zlib.decompressobj().decompress(data, limit + 1)
    if len(result) > limit:
        raise ValueError("the chunk is larger than expected")
    return result


def unblosc(data: bytes, limit: int) -> bytes:
    """A buffer of Blosc (format version 2): blocks of LZ4, Snappy, zlib or Zstandard, their bytes or bits shuffled."""
    _, _, flags, typesize, size, blocksize, packed = struct.unpack_from("<BBBBIII", data, 0)
    if size > limit or packed > len(data) or size and not blocksize:
        raise EOFError("the Blosc chunk is cut short or larger than expected")
    if flags & 2:
        return data[16 : 16 + size]
    blocks = -(-size // blocksize)
    starts = struct.unpack_from(f"<{blocks}I", data, 16)
    result: list[bytes] = []
    for i, start in enumerate(starts):
        length = min(blocksize, size - i * blocksize)
        splits = typesize if not flags & 16 and length == blocksize and 1 < typesize <= 16 and blocksize // typesize >= 128 else 1
        parts = []
        for _ in range(splits):
            (packed,) = struct.unpack_from("<I", data, start)
            piece = data[start + 4 : start + 4 + packed]
            parts.append(piece if packed == length // splits else _inflate(piece, flags >> 5, length // splits))
            start += 4 + packed
        result.append(_unshuffled(b"".join(parts), typesize, flags))
    return b"".join(result)


def _inflate(piece: bytes, code: int, size: int) -> bytes:
    import pyarrow as pa

    if code not in BLOSC:
        raise ValueError(f"Blosc's compressor number {code} is not decoded")
    if BLOSC[code] == "zlib":
        return zlib.decompress(piece)
    return pa.Codec(BLOSC[code]).decompress(piece, size, asbytes=True)


def _unshuffled(block: bytes, typesize: int, flags: int) -> bytes:
    values = len(block) // typesize
    if flags & 4:  # bits: one plane for each bit of the values; a block whose number of values eight doesn't divide is left as it is
        if values % 8:
            return block
        whole = values * typesize
        planes = np.unpackbits(np.frombuffer(block, dtype=np.uint8, count=whole), bitorder="little").reshape(typesize * 8, values)
        return np.packbits(planes.T, bitorder="little").tobytes() + block[whole:]
    if flags & 1 and typesize > 1:
        whole = len(block) // typesize * typesize
        return np.frombuffer(block, dtype=np.uint8, count=whole).reshape(typesize, -1).T.tobytes() + block[whole:]
    return block


def names(folder: Path) -> list[str]:
    """The groups and arrays in a group."""
    return sorted(f.name for f in folder.iterdir() if f.is_dir() and is_node(f)) if folder.is_dir() else []
