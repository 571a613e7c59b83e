"""SpatialData and AnnData as zarr, versions 2 and 3, written here byte by byte; what is refused in them."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
from bundles import GENES, N, barcodes, counts, places, same

from spadit import io
from spadit.errors import InputError
from spadit.io.zarr import unblosc

# of numcodecs 0.15.1: Blosc(cname="lz4", clevel=5, shuffle=1) of np.tile(np.arange(100, dtype="i4") // 7, 20)
BLOSC = bytes.fromhex(
    "02012104401f0000401f0000db000000140000008100000012000100120101001202010012030100120401001205010012060100120701001208010012090100120a0100120b"
    "0100120c0100120d0100220e0e630012006300120163001202630012036300120463001205630012066300120763001208630012096300120a6300120b6300120c63000f6400"
    "fffffffffffff9500d0d0d0e0e120000001f000100ffffffffffffffbe500000000000120000001f000100ffffffffffffffbe500000000000120000001f000100ffffffffff"
    "ffffbe500000000000"
)


class Store:
    """Writes zarr; ``codec`` is None, zlib, gzip or zstd."""

    def __init__(self, version: int, codec: str | None, chunk: int = 7):
        self.version, self.codec, self.chunk = version, codec, chunk

    def packed(self, data: bytes) -> bytes:
        if self.codec == "zstd":
            return pa.Codec("zstd").compress(data, asbytes=True)
        return {"zlib": zlib.compress, "gzip": gzip.compress, None: bytes}[self.codec](data)

    def group(self, folder: Path, **attributes) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        attributes = {k.replace("_type", "-type").replace("_order", "-order"): v for k, v in attributes.items()}
        if self.version == 3:
            (folder / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}))
        else:
            (folder / ".zgroup").write_text('{"zarr_format": 2}')
            (folder / ".zattrs").write_text(json.dumps(attributes))
        return folder

    def array(self, folder: Path, values, **attributes) -> None:
        values = np.asarray(values)
        text = values.dtype.kind == "U"
        self.group(folder, encoding_type="string-array" if text else "array", **attributes)
        chunks = [min(self.chunk, max(1, n)) for n in values.shape]
        if self.version == 3:
            kind = "string" if text else values.dtype.name
            codecs = [{"name": "vlen-utf8"} if text else {"name": "bytes", "configuration": {"endian": "little"}}]
            codecs += [{"name": self.codec, "configuration": {}}] if self.codec else []
            meta = json.loads((folder / "zarr.json").read_text()) | {
                "node_type": "array", "shape": values.shape, "data_type": kind, "fill_value": "" if text else 0, "codecs": codecs,
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}}, "chunk_key_encoding": {"name": "default"},
            }  # fmt: skip
            (folder / "zarr.json").write_text(json.dumps(meta))
        else:
            meta = {
                "zarr_format": 2, "shape": values.shape, "chunks": chunks, "dtype": "|O" if text else values.dtype.str,
                "fill_value": 0, "order": "C",
                "compressor": {"id": self.codec} if self.codec else None, "filters": [{"id": "vlen-utf8"}] if text else None,
            }  # fmt: skip
            (folder / ".zgroup").unlink()
            (folder / ".zarray").write_text(json.dumps(meta))
        for index in np.ndindex(*(-(-n // c) for n, c in zip(values.shape, chunks, strict=True))):
            block = np.zeros(chunks, dtype=object if text else values.dtype)
            part = values[tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, chunks, strict=True))]
            block[tuple(slice(0, n) for n in part.shape)] = part
            data = block.tobytes()
            if text:
                items = [str(v or "").encode() for v in block.ravel()]
                data = struct.pack("<I", len(items)) + b"".join(struct.pack("<I", len(i)) + i for i in items)
            path = folder / ("c/" + "/".join(map(str, index)) if self.version == 3 else ".".join(map(str, index)))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.packed(data))

    def anndata(self, folder: Path, spatial: bool = True, dense: bool = False) -> Path:
        matrix = sp.csr_matrix(counts().astype("f4"))
        self.group(folder, encoding_type="anndata")
        if dense:
            self.array(folder / "X", counts().astype("f8"))
        else:
            self.group(folder / "X", encoding_type="csr_matrix", shape=matrix.shape)
            for name in ("data", "indices", "indptr"):
                self.array(folder / "X" / name, getattr(matrix, name))
        self.group(folder / "obs", encoding_type="dataframe", _index="_index", column_order=["region", "area"])
        self.array(folder / "obs/_index", barcodes())
        self.array(folder / "obs/area", np.arange(N) + 0.5)
        self.group(folder / "obs/region", encoding_type="categorical", ordered=False)
        self.array(folder / "obs/region/codes", (np.arange(N) % 2).astype("i1"))
        self.array(folder / "obs/region/categories", ["cortex", "hülle"])
        self.group(folder / "var", encoding_type="dataframe", _index="gene", column_order=[])
        self.array(folder / "var/gene", GENES)
        if spatial:
            self.array(self.group(folder / "obsm") / "spatial", places())
        for name in ("", "/X", "/obs", "/var"):
            meta = folder / name.strip("/") / ("zarr.json" if self.version == 3 else ".zattrs")
            content = json.loads(meta.read_text())
            (content["attributes"] if self.version == 3 else content)["encoding-version"] = (
                "0.2.0" if name == "/obs" or name == "/var" else "0.1.0"
            )
            meta.write_text(json.dumps(content))
        for meta in folder.rglob("zarr.json" if self.version == 3 else ".zattrs"):
            content = json.loads(meta.read_text())
            attributes = content["attributes"] if self.version == 3 else content
            if attributes.get("encoding-type") in ("array", "string-array", "categorical"):
                attributes["encoding-version"] = "0.2.0"
            meta.write_text(json.dumps(content))
        return folder

    def spatialdata(self, folder: Path, **more) -> Path:
        self.group(folder, spatialdata_attrs={"version": "0.2"})
        self.group(folder / "images")
        self.group(folder / "tables")
        self.anndata(folder / "tables/table", **more)
        return folder


def refused(path, **more) -> str:
    with pytest.raises(InputError) as caught:
        io.read(path, "slide", **more)
    assert caught.value.remedy
    return str(caught.value)


@pytest.mark.parametrize(
    ("version", "codec", "dense"), [(2, None, False), (2, "zlib", True), (2, "zstd", False), (3, "zstd", False), (3, "gzip", True)]
)
def test_spatialdata(tmp_path, version, codec, dense):
    path = Store(version, codec).spatialdata(tmp_path / "s.zarr", dense=dense)
    slide = io.read(path, "slide")
    same(slide, barcodes(), places())
    assert slide.uns["spadit"]["platform"] == "spatialdata" and io.warnings_of(slide) == []
    assert list(slide.obs["region"]) == ["cortex", "hülle"] * (N // 2) and list(slide.obs["area"]) == list(np.arange(N) + 0.5)
    same(io.read(path / "tables/table", "slide"), barcodes(), places())  # AnnData as zarr
    sections = io.read(path, "slide", batch="region")
    assert list(sections.obs["batch"]) == list(slide.obs["region"]) and np.array_equal(sections.obsm["spatial_given"], places())
    (path / "images/ignored").write_text("x")
    assert io.read(path, "slide").uns["spadit"]["sha256"] == slide.uns["spadit"]["sha256"]


def test_blosc():
    np.testing.assert_array_equal(np.frombuffer(unblosc(BLOSC, 8000), dtype="i4"), np.tile(np.arange(100, dtype="i4") // 7, 20))
    for damaged, limit in ((BLOSC[:100], 8000), (BLOSC, 100)):
        with pytest.raises((EOFError, OSError, ValueError)):
            unblosc(damaged, limit)


def change(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"filters": [{"id": "pickle"}]}, "the codec 'pickle' is not decoded because it can run code"),
        ({"compressor": {"id": "lzma"}}, "the codec 'lzma' is not decoded"),
        ({"dtype": "|O", "filters": None}, "holds"),
        ({"shape": [10**12], "chunks": [1000]}, "claims 1,000,000,000,000 entries"),
        ({"shape": [10**12], "chunks": [10**12]}, "claims 1,000,000,000,000 entries"),
        ({"chunks": [0]}, "make no sense"),
        ({"dtype": "<c16"}, "are not read"),
    ],
)
def test_arrays_that_are_refused(tmp_path, changes, says):
    path = Store(2, "zlib").spatialdata(tmp_path / "s.zarr")
    change(path / "tables/table/X/data/.zarray", **changes)
    assert says in refused(path)


def test_pickle_is_refused_in_version_3_too(tmp_path):
    path = Store(3, None).spatialdata(tmp_path / "s.zarr")
    change(path / "tables/table/obs/_index/zarr.json", codecs=[{"name": "pickle"}])
    assert "'pickle' is not decoded because it can run code" in refused(path)


def test_truncated(tmp_path):
    for version, codec in ((2, "zlib"), (3, "zstd"), (2, None)):
        path = Store(version, codec).spatialdata(tmp_path / f"{version}{codec}.zarr")
        for name in ("X/data", "obs/_index", "obsm/spatial"):
            chunk = next(
                f for f in sorted((path / "tables/table" / name).rglob("*")) if f.is_file() and not f.name.startswith((".z", "zarr"))
            )
            content = chunk.read_bytes()
            chunk.write_bytes(content[: len(content) // 2])
            assert "can" in refused(path) or "holds" in refused(path)
            chunk.write_bytes(content)
    (path / "tables/table/X/data/.zarray").write_text('{"zarr')
    assert ".zarray" in refused(path)


def test_what_is_missing(tmp_path):
    path = Store(2, None).spatialdata(tmp_path / "s.zarr", spatial=False)
    assert "no spatial coordinates" in refused(path)
    (path / "tables/table").rename(path / "tables/cells")
    Store(2, None).anndata(path / "tables/bins")
    assert "holds 2 tables ('bins', 'cells')" in refused(path)
    empty = Store(2, None).group(tmp_path / "e.zarr")
    assert "no table of counts" in refused(empty, platform="spatialdata")
    (tmp_path / "f").mkdir()
    assert "is not zarr" in refused(tmp_path / "f", platform="spatialdata")
