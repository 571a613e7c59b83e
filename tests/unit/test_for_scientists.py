"""What a scientist does with the output: plots without arguments, the SpatialData store, the notebook from the output to a figure."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import anndata as ad
import h5py
import matplotlib
import numpy as np
import pandas as pd
import pytest
from report_facts import write_slide

from spadit.errors import InputError
from spadit.io.write_spatialdata import CHUNK, write_spatialdata
from spadit.io.zarr_store import Array, write_frame

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    return write_slide(tmp_path_factory.mktemp("results") / "slides" / "cortex", "cortex")


# --- scanpy


def test_imputed_slide_opens_in_scanpy_and_plots_without_arguments(files):
    import matplotlib.pyplot as plt
    import scanpy as sc

    slide = sc.read_h5ad(files["imputed"])
    for gene in ("Gene1", "New0"):
        axis = sc.pl.embedding(slide, basis="spatial", color=gene, show=False)
        assert axis.collections[0].get_offsets().shape[0] == slide.n_obs and axis.get_title() == gene
    axis = sc.pl.spatial(slide, color="Gene1", spot_size=1, show=False)[0]
    assert axis.collections and axis.get_title() == "Gene1"
    plt.close("all")


def cells(path: Path) -> list[str]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4 and all(not c.get("outputs") for c in notebook["cells"])
    return ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]


@pytest.mark.parametrize("n_unmeasured", [5, 0])
def test_notebook_goes_from_the_output_to_a_figure(root, tmp_path, n_unmeasured):
    write_slide(tmp_path / "results/slides/cortex_1", "cortex_1", n_unmeasured=n_unmeasured)
    code = "\n".join(cells(root / "docs/notebooks/from_output_to_figure.ipynb"))
    (tmp_path / "cells.py").write_text("import matplotlib\nmatplotlib.use('Agg')\n" + code, encoding="utf-8")
    done = subprocess.run([sys.executable, "cells.py"], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "cortex_1_figure.pdf").stat().st_size > 5000 and (tmp_path / "cortex_1_figure.png").exists()
    kept = ad.read_h5ad(tmp_path / "cortex_1_usable.h5ad")
    assert 0 < kept.n_vars < 12 + n_unmeasured and f"{kept.n_vars} of {12 + n_unmeasured} genes kept" in done.stdout


# --- SpatialData


class Store:
    """Reads a Zarr store of version 2 by the letter of its specification, where neither zarr nor spatialdata is installed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        assert json.loads((path / ".zgroup").read_text()) == {"zarr_format": 2}
        attributes = path / ".zattrs"
        self.attrs = json.loads(attributes.read_text(encoding="utf-8")) if attributes.exists() else {}

    def __getitem__(self, name: str):
        path = self.path / name
        if not (path / ".zarray").exists():
            return Store(path)
        meta = json.loads((path / ".zarray").read_text())
        assert meta["compressor"]["id"] == "zlib" and meta["order"] == "C"
        texts = meta["filters"] == [{"id": "vlen-utf8"}]
        values = np.empty(meta["shape"], dtype=object if texts else meta["dtype"])
        for number in np.ndindex(*(-(-n // c) for n, c in zip(meta["shape"], meta["chunks"], strict=True))):
            raw = zlib.decompress((path / (".".join(map(str, number)) or "0")).read_bytes())
            where = tuple(slice(k * c, (k + 1) * c) for k, c in zip(number, meta["chunks"], strict=True))
            if texts:
                chunk, at = [], 4
                for _ in range(int.from_bytes(raw[:4], "little")):
                    size = int.from_bytes(raw[at : at + 4], "little")
                    chunk.append(raw[at + 4 : at + 4 + size].decode())
                    at += 4 + size
                assert at == len(raw)
                chunk = np.array(chunk, dtype=object).reshape(meta["chunks"])
            else:
                chunk = np.frombuffer(raw, meta["dtype"]).reshape(meta["chunks"])
            values[where] = chunk[tuple(slice(n) for n in values[where].shape)]
        return values


@pytest.fixture(scope="module")
def store(files, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("store") / "cortex.spatialdata.zarr"
    write_spatialdata(files["imputed"], path)
    return path


def test_store_holds_all_of_the_imputed_slide(files, store):
    slide, root = ad.read_h5ad(files["imputed"]), Store(store)
    assert root.attrs["spatialdata_attrs"]["version"] == "0.1"
    table = root["tables/imputed"]
    assert table.attrs["encoding-type"] == "anndata" and table.attrs["spatialdata-encoding-type"] == "ngff:regions_table"
    link = {key: table.attrs[key] for key in ("region", "region_key", "instance_key")}
    assert link == {"region": "spots", "region_key": "region", "instance_key": "spot_id"}
    np.testing.assert_array_equal(table["X"], slide.X)
    for name in slide.layers:
        np.testing.assert_array_equal(table[f"layers/{name}"], slide.layers[name])
    np.testing.assert_array_equal(table["obsm/spatial"], slide.obsm["spatial"])
    assert table["var"].attrs["column-order"] == list(slide.var.columns)
    assert table["var/_index"].tolist() == slide.var_names.tolist() and table["obs/_index"].tolist() == slide.obs_names.tolist()
    np.testing.assert_array_equal(table["var/reliability"], slide.var["reliability"])
    classes = table["var/reliability_class"]
    if isinstance(classes, Store):
        classes = classes["categories"][classes["codes"]]
    assert classes.tolist() == slide.var["reliability_class"].tolist()
    assert table["obs/region/categories"].tolist() == ["spots"] and not table["obs/region/codes"].any()
    assert table["uns/spadit/version"].item() == slide.uns["spadit"]["version"] and table["uns/spatialdata_attrs/region"].item() == "spots"


def test_spots_are_circles_in_geoparquet(files, store):
    from pyarrow import parquet

    slide, element = ad.read_h5ad(files["imputed"]), Store(store)["shapes/spots"]
    assert element.attrs["encoding-type"] == "ngff:shapes" and element.attrs["spatialdata_attrs"] == {"version": "0.2"}
    assert element.attrs["coordinateTransformations"][0]["output"]["name"] == "global"
    table = parquet.read_table(store / "shapes/spots/shapes.parquet")
    geo = json.loads(table.schema.metadata[b"geo"])
    assert geo["primary_column"] == "geometry" and geo["columns"]["geometry"]["encoding"] == "WKB"
    points = np.array([np.frombuffer(wkb[5:], "<f8") for wkb in table["geometry"].to_pylist()])
    assert all(wkb[:5] == b"\x01\x01\x00\x00\x00" for wkb in table["geometry"].to_pylist())
    np.testing.assert_array_equal(points, slide.obsm["spatial"])
    assert set(table["radius"].to_pylist()) == {0.5}  # spots lie 1 apart
    assert table.to_pandas().index.tolist() == Store(store)["tables/imputed/obs/spot_id"].tolist()


def test_store_opens_in_spatialdata(files, store):
    spatialdata = pytest.importorskip("spatialdata")
    sdata, slide = spatialdata.read_zarr(store), ad.read_h5ad(files["imputed"])
    np.testing.assert_array_equal(sdata["imputed"].X, slide.X)
    assert len(sdata["spots"]) == slide.n_obs
    cut = spatialdata.bounding_box_query(
        sdata, axes=("x", "y"), min_coordinate=[0, 0], max_coordinate=[2, 2], target_coordinate_system="global"
    )
    assert cut["imputed"].n_obs == 9


def test_store_opens_in_anndata(files, store):
    pytest.importorskip("zarr")
    table, slide = ad.read_zarr(store / "tables/imputed"), ad.read_h5ad(files["imputed"])
    np.testing.assert_array_equal(table.X, slide.X)
    assert table.uns["spadit"]["seed"] == slide.uns["spadit"]["seed"]


def large(path: Path, n: int, g: int) -> Path:
    """An imputed slide of n spots × g genes, in the chunks in which IMPUTE writes."""
    ad.AnnData(obs=pd.DataFrame(index=[str(i) for i in range(n)]), var=pd.DataFrame(index=[f"g{j}" for j in range(g)])).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        if "X" in file:
            del file["X"]
        values = file.create_dataset("X", (n, g), np.float32, chunks=(4096, 1), fillvalue=np.nan, compression="gzip")
        values.attrs["encoding-type"], values.attrs["encoding-version"] = "array", "0.2.0"
        values[:, g - 1] = np.arange(n)
        spatial = file.create_dataset("obsm/spatial", data=np.random.default_rng(0).uniform(0, 100, (n, 2)))
        spatial.attrs["encoding-type"], spatial.attrs["encoding-version"] = "array", "0.2.0"
    return path


def test_memory_is_that_of_a_chunk(tmp_path):
    n, g = 9000, 700
    source = large(tmp_path / "large.h5ad", n, g)
    tracemalloc.start()
    write_spatialdata(source, tmp_path / "s.zarr")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    chunk = CHUNK[0] * CHUNK[1] * 4
    assert peak < 4 * chunk < n * g * 4  # never the whole matrix
    values = Store(tmp_path / "s.zarr")["tables/imputed/X"]
    np.testing.assert_array_equal(values[:, -1], np.arange(n))
    assert np.isnan(values[:, :-1]).all() and len(list((tmp_path / "s.zarr/tables/imputed/X").glob("[0-9]*"))) == 3 * 3


def test_odd_tables_are_kept(tmp_path):
    table = pd.DataFrame(
        {
            "n": [1, 2], "x": [0.5, np.nan], "b": [True, False], "t": ["ä/b", None], "c": pd.Categorical(["x", None]),
            "k": pd.Categorical([3, 5]), "w": pd.array([1, None], dtype="Int64"),
        },
        index=["s 1", "切片"],
    )  # fmt: skip
    write_frame(tmp_path / "t", table)
    read = Store(tmp_path / "t")
    assert read["_index"].tolist() == ["s 1", "切片"] and read["n"].tolist() == [1, 2] and read["b"].tolist() == [True, False]
    assert read["t"].tolist() == ["ä/b", "None"] and read["c/codes"].tolist() == [0, -1] and read["k/categories"].tolist() == [3, 5]
    assert read["w"].tolist() == ["1", "<NA>"] and np.isnan(read["x"][1])


def test_edges_of_chunks_are_padded(tmp_path):
    array = Array(tmp_path / "a", (3, 5), np.int32, (2, 3))
    values = np.arange(15).reshape(3, 5)
    for number, where in array.blocks():
        array.write(number, values[where])
    (tmp_path / ".zgroup").write_text('{"zarr_format": 2}')
    np.testing.assert_array_equal(Store(tmp_path)["a"], values)


def test_slide_without_coordinates_is_refused(tmp_path):
    ad.AnnData(np.ones((2, 2), dtype=np.float32)).write_h5ad(tmp_path / "x.h5ad")
    with pytest.raises(InputError, match="no obsm"):
        write_spatialdata(tmp_path / "x.h5ad", tmp_path / "x.zarr")


def test_executable_leaves_a_whole_store_or_none(files, root, tmp_path):
    command = [sys.executable, root / "bin/spadit_spatialdata.py", "--id", "s", "--failure", tmp_path / "s.failure.json"]
    subprocess.run([*command, "--imputed", files["imputed"], "--output", tmp_path / "s.zarr"], check=True, timeout=120)
    assert {p.name for p in (tmp_path / "s.zarr").iterdir()} == {".zgroup", ".zattrs", "shapes", "tables"}
    ad.AnnData(np.ones((2, 2), dtype=np.float32)).write_h5ad(tmp_path / "x.h5ad")
    subprocess.run([*command, "--imputed", tmp_path / "x.h5ad", "--output", tmp_path / "x.zarr"], check=True, timeout=120)
    assert not (tmp_path / "x.zarr").exists() and (tmp_path / "s.failure.json").exists()
