"""The data behind the page's maps, and what the genes say together."""

from __future__ import annotations

import base64
import json
import zlib

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from spadit.report import explorer, genes


def imputed_slide(n: int = 50, classes: tuple[str, ...] = ("reliable", "use with care", "do not use", "reliable")) -> ad.AnnData:
    """Four genes, the first two measured, the first one smooth in space."""
    rng = np.random.default_rng(0)
    xy = np.stack(np.meshgrid(np.arange(10), np.arange(-(-n // 10))), -1).reshape(-1, 2)[:n].astype(float)
    x = np.stack([xy[:, 0], *rng.uniform(0, 3, (3, n))], 1).astype(np.float32)
    var = {"measured": [True, True, False, False], "reliability": [0.5, 0.3, 0.0, 0.4], "reliability_class": list(classes)}
    data = ad.AnnData(x, obs=pd.DataFrame(index=[f"s{i}" for i in range(n)]), var=pd.DataFrame(var, index=list("ABCD")))
    observed = np.full(x.shape, np.nan, dtype=np.float32)
    observed[:, :2] = rng.uniform(0, 2, (n, 2))
    data.layers.update({"observed": observed, "lower": np.maximum(x - 0.7, 0), "upper": x + 0.7})
    data.obsm["spatial"] = xy
    return data


def unpacked(text: str, gene: dict) -> list[np.ndarray]:
    """As the page does it."""
    codes = np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=np.uint8).reshape(len(gene["ranges"]), -1)
    return [
        np.where(c == explorer.MISSING, np.nan, low + c / 254 * (high - low)) for c, (low, high) in zip(codes, gene["ranges"], strict=True)
    ]


def test_values_come_back_within_a_step_of_their_range():
    data = imputed_slide()
    data.layers["observed"][3, 1] = np.nan
    facts, values = explorer.build(data, explorer.reader(data), ["B", "D"])
    assert [g["name"] for g in facts["genes"]] == ["B", "D"] and facts["left_out"] == 2 and not facts["binned"]
    x, seen = unpacked(values[0], facts["genes"][0])
    assert np.abs(x - data.X[:, 1]).max() <= np.ptp(data.X[:, 1]) / 254 / 2 + 1e-5
    assert np.isnan(seen[3]) and np.nanmax(np.abs(seen - data.layers["observed"][:, 1])) < 0.01
    assert facts["genes"][0]["half"] == pytest.approx(0.7, abs=1e-3)  # one number: no second map is stored
    assert not facts["genes"][1]["measured"] and len(unpacked(values[1], facts["genes"][1])) == 1


def test_an_error_that_differs_between_spots_is_kept():
    data = imputed_slide()
    data.layers["lower"][:, 0] = data.X[:, 0] * 0.5
    data.layers["upper"][:, 0] = data.X[:, 0] * 1.5
    facts, values = explorer.build(data, explorer.reader(data), ["A"])
    assert facts["genes"][0]["half"] is None
    _, lower, seen = unpacked(values[0], facts["genes"][0])
    assert np.abs(lower - data.layers["lower"][:, 0]).max() < 0.02
    assert np.abs(seen - data.layers["observed"][:, 0]).max() < 0.01


@pytest.mark.parametrize("values", [np.zeros(4), np.full(4, np.nan), np.array([1.0, np.nan, 3.0, 2.0]), np.array([])])
def test_quantise_of_odd_values(values):
    codes, low, high = explorer.quantise(values)
    assert codes.dtype == np.uint8 and ((codes == explorer.MISSING) == ~np.isfinite(values)).all()
    assert np.isfinite([low, high]).all()


def test_genes_that_do_not_fit_are_left_out_and_counted():
    data = imputed_slide()
    facts, values = explorer.build(data, explorer.reader(data), list("ABCD"), characters=250)
    assert 1 <= len(facts["genes"]) < 4 and len(values) == len(facts["genes"])
    assert facts["left_out"] == 4 - len(values)


def test_many_spots_become_means_over_squares():
    data = imputed_slide(1000)
    xy = data.obsm["spatial"]
    places = explorer.places_of(xy, data.obs_names, limit=120)
    assert len(places.xy) <= 120 and places.member is not None
    assert np.allclose(np.asarray(places.member.sum(1)).ravel(), 1)
    assert np.allclose(places.average(np.ones((1000, 1))), 1)
    assert places.average(xy)[:, 0].std() > 2  # neighbours are averaged, not strangers
    assert sum(int(name.split()[2]) if name.startswith("mean") else 1 for name in places.names) == 1000
    groups = (xy[:, 1] > 50).astype(int)
    assert set(places.most(groups)) == {0, 1}
    facts, values = explorer.build(data, explorer.reader(data), ["A"], limit=120)
    assert facts["binned"] and len(unpacked(values[0], facts["genes"][0])[0]) == len(places.xy)


def test_json_can_not_end_its_element():
    text = explorer.as_json({"name": "</script><script>alert(1)</script> & \u2028 β"})
    assert "<" not in text and "&" not in text
    assert json.loads(text)["name"].startswith("</script>") and "β" in text


def test_maps_of_spots(make_slide, intermediate):
    slide = intermediate(make_slide(n_spots=80, n_genes=20, names=[f"Gene{k}" for k in range(19)] + ["mt-Nd1"]), "slide")
    slide.obs["region"] = pd.Categorical(np.where(slide.obsm["spatial"][:, 0] > 5, "left", "right"))
    slide.obs["barcode"] = [f"b{i}" for i in range(80)]
    maps = explorer.spot_maps(slide, explorer.places_of(slide.obsm["spatial"], slide.obs_names))
    assert [m["title"] for m in maps] == ["total counts", "genes detected", "mitochondrial share", "region", explorer.CLUSTERS]
    assert maps[0]["values"] == pytest.approx(slide.layers["counts"].sum(1).A1)
    assert maps[3]["labels"] == ["left", "right"] and set(maps[3]["values"]) == {0, 1}
    sizes = np.bincount(maps[4]["values"])
    assert 3 <= len(sizes) <= 10 and (np.diff(sizes) <= 0).all()  # the largest cluster is the first


def test_values_are_read_from_the_file_gene_by_gene(tmp_path):
    data = imputed_slide()
    data.uns["spadit"] = {"version": "0"}
    data.write_h5ad(tmp_path / "x.h5ad")
    with explorer.opened(tmp_path / "x.h5ad") as (tables, read):
        assert list(tables.var_names) == list("ABCD") and tables.X is None
        assert np.array_equal(read("X", np.array([3, 1])), data.X[:, [3, 1]])
        assert np.array_equal(read("observed", np.array([0])), data.layers["observed"][:, [0]])


def test_spatially_variable_genes_are_usable_ones_in_order():
    data = imputed_slide(100)
    places = explorer.places_of(data.obsm["spatial"], data.obs_names)
    table = genes.spatially_variable(data, explorer.reader(data), places)
    assert table["gene"][0] == "A" and set(table["gene"]) == set("ABD")  # C is not to be used
    assert table["moran"][0] > 0.8 > 0.3 > table["moran"][1]
    assert table.set_index("gene")["moran_measured"].isna().to_dict() == {"A": False, "B": False, "D": True}


def test_markers_are_those_of_their_type():
    rng = np.random.default_rng(0)
    types = np.repeat(["x", "y", "rare"], (60, 60, 4))
    counts = rng.poisson(2, (124, 4)).astype(np.float32)
    counts[types == "x", 0] += 20
    counts[types == "x", 2] += 30  # marks x better, but must not be used
    counts[types == "y", 3] += 20
    reference = ad.AnnData(
        obs=pd.DataFrame({"Cell_Type": types}, index=[f"c{i}" for i in range(124)]), var=pd.DataFrame(index=list("ABCD"))
    )
    reference.layers["counts"] = sp.csr_matrix(counts)
    found = genes.markers(reference, imputed_slide())
    assert found.column == "Cell_Type" and found.n_cells == 124
    assert found.table["x"] == ["A"] and found.table["y"][0] == "D" and "rare" not in found.table
    assert "C" not in found.table["y"] and "A" not in found.table["y"]
    reference.obs = reference.obs.rename(columns={"Cell_Type": "donor"})
    assert genes.markers(reference, imputed_slide()) is None


def test_embedding_keeps_like_genes_together():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 200))
    values = np.stack([a + 0.1 * rng.normal(size=200) for _ in range(8)] + [b + 0.1 * rng.normal(size=200) for _ in range(8)], 1)
    points = genes.embedding(values)
    within = np.linalg.norm(points[:8] - points[:8].mean(0), axis=1).mean()
    assert points.shape == (16, 2) and np.linalg.norm(points[:8].mean(0) - points[8:].mean(0)) > 2 * within


def test_reasons_name_what_takes_from_the_expected_pcc_or_adds_to_it():
    from spadit.uncertainty import Trust

    names = ("reference mean", "detection", "agreement of ridge", "highest correlation", "SD of the map", "Moran's I of the map")
    trust = Trust(np.full(6, 0.5), np.ones(6), np.array([0, 0.1, 0.1, 0.1, 0.0, 0.0]), mean=0.3, error=0.05, quantile=1.0, rms=1.0)
    even = np.full(6, 0.5)
    few, loose, good, all_cells = even.copy(), even.copy(), even.copy(), even.copy()
    few[1], loose[3], good[2], all_cells[1] = 0.01, -1.5, 2.5, 0.999
    trust.coefficients[1] = 1.0  # so that detection in all cells is worth naming
    said = trust.reasons(np.stack([few, loose, good, even, all_cells]), names)
    assert said[0] == "few of the reference's cells express it (1 %)"
    assert said[1] == "in the reference visible genes follow it loosely"
    assert said[2] == "simple maps of it agree more than most"
    assert said[3] == "such expectations err by ± 0.05 on this slide"
    assert said[4] == "its level in the reference speaks for it (100 % of its cells express it)"
