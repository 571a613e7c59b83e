"""Figures: they show what they say, at a size that fits, for small and large slides."""

from __future__ import annotations

import io
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from report_facts import curve_table, write_slide

from spadit.plots import maps, metrics, qc, style, training
from spadit.plots.slide import chosen_genes, draw_all, own_rows


@pytest.fixture
def facts(tmp_path):
    paths = write_slide(tmp_path)
    return ad.read_h5ad(paths["imputed"]), ad.read_h5ad(paths["slide"]), pd.read_csv(paths["metrics"])


def texts(figure) -> str:
    found = [t.get_text() for t in figure.texts]
    for ax in figure.axes:
        found += [t.get_text() for t in [*ax.texts, *ax.get_xticklabels(), *ax.get_yticklabels(), ax.xaxis.label, ax.yaxis.label]]
        found += [t.get_text() for t in (ax.get_legend().get_texts() if ax.get_legend() else [])]
    for legend in figure.legends:
        found += [t.get_text() for t in legend.get_texts()]
    return " | ".join(found)


def points(figure) -> list:
    return [c for ax in figure.axes for c in ax.collections if c.get_array() is not None and len(c.get_offsets()) > 1]


def test_maps_share_one_colour_scale_per_gene_and_name_pcc_and_reliability(facts):
    imputed, _, table = facts
    own = own_rows(table)
    figure = maps.gene_maps(imputed, ["Gene0", "Gene1"], own.set_index("gene")["pcc"])
    measured0, imputed0, measured1, imputed1 = points(figure)
    assert measured0.get_clim() == imputed0.get_clim()
    assert measured1.get_clim() == imputed1.get_clim()
    assert np.allclose(measured0.get_array(), imputed.layers["observed"][:, 0])
    assert np.allclose(imputed0.get_array(), imputed.X[:, 0])
    shown = texts(figure)
    assert "Gene0" in shown and "PCC 0.40" in shown and "expected 0.60" in shown and "reliable" in shown
    assert all(c.get_rasterized() for c in points(figure))


def test_y_axis_points_down_and_aspect_is_equal(facts):
    _, slide, _ = facts
    ax = maps.total_counts_map(slide).axes[0]
    bottom, top = ax.get_ylim()
    assert bottom > top
    assert ax.get_aspect() == 1


def test_spots_of_a_grid_touch_but_do_not_overlap(facts):
    _, slide, _ = facts
    figure = maps.total_counts_map(slide)
    ax, collection = figure.axes[0], points(figure)[0]
    figure.canvas.draw()
    (x0, _), (x1, _) = ax.transData.transform([(0, 0), (1, 0)])
    step_in_points = (x1 - x0) * 72 / figure.dpi
    assert np.sqrt(collection.get_sizes()[0]) == pytest.approx(step_in_points, rel=0.15)


def test_spacing_is_the_grid_step_whatever_the_unit():
    grid = np.stack(np.meshgrid(np.arange(20), np.arange(20)), -1).reshape(-1, 2) * 137.0
    assert maps.spacing(grid) == pytest.approx(137)
    assert maps.spacing(np.repeat(grid, 3, axis=0)) == pytest.approx(137)
    assert maps.spacing(np.zeros((5, 2))) == 1


def test_unmeasured_genes_show_the_imputed_map_alone(facts):
    imputed, _, _ = facts
    figure = maps.gene_maps(imputed, ["New0", "New1"])
    assert len(points(figure)) == 2
    assert "measured" not in texts(figure).replace("unmeasured", "")


def test_ceiling_stands_apart_hatched_and_named(facts):
    *_, table = facts
    assert metrics.method_order(table) == ["SpaDiT", "corr_weighted", "ridge", "library_size", "oracle_ridge"]
    figure = metrics.method_boxes(table)
    boxes = figure.axes[0].patches
    assert [bool(b.get_hatch()) for b in boxes] == [False, False, False, False, True]
    assert "ceiling: sees the truth, not ranked" in texts(figure)
    positions = figure.axes[0].get_yticks()
    assert positions[-1] - positions[-2] > positions[1] - positions[0]


def test_boxes_use_nothing_that_matplotlib_will_drop(facts):
    *_, table = facts
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics.method_boxes(table)


SEVEN = ("evaluation", *(f"fold_{k}" for k in range(5)), "delivery")


def test_training_curves_have_a_row_per_kind_of_network_and_a_line_per_fit():
    figure = training.curves(curve_table(SEVEN, ("token", "whole_slide")))
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "token networks, scored together with the coarse condition", "", "whole-slide networks, scored alone", "",
    ]  # fmt: skip
    assert [ax.get_ylabel() for ax in figure.axes] == ["training loss", "validation PCC"] * 2
    for ax in figure.axes:
        lines = [line for line in ax.lines if line.get_linestyle() != "None"]
        assert len(lines) == 7 and len({line.get_color() for line in lines}) == 7
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["evaluation", *(f"fold {k}" for k in range(5)), "delivery"]
    assert figure.get_size_inches()[0] == style.WIDTH
    assert len(training.curves(curve_table(SEVEN, ("whole_slide",))).axes) == 2


def test_training_curve_is_the_mean_over_networks_and_does_not_jump_where_one_stops():
    table = curve_table(("delivery",), ("token",))
    line = training.curve(table, "delivery", "token", "validation_pcc")
    assert line.to_dict() == pytest.approx({10: 0.315, 90: 0.435, 100: (0.3 + 0.58) / 2})
    final = training.curve(table[table["stage"] == "final"], "delivery", "token", "train_loss")
    assert final.to_dict() == pytest.approx({10: 0.1, 50: 0.02})


def test_dot_marks_the_steps_of_the_final_networks():
    table = curve_table(("delivery",), ("token",))
    assert training.chosen_steps(table, "delivery", "token") == 50
    assert training.chosen_steps(table[table["stage"] == "choose"], "delivery", "token") is None
    loss, pcc = training.curves(table).axes
    assert not [line for line in loss.lines if line.get_marker() == "o"]
    (dot,) = [line for line in pcc.lines if line.get_marker() == "o"]
    assert dot.get_xdata()[0] == 50
    assert dot.get_ydata()[0] == pytest.approx(0.375)  # half-way from 0.315 at 10 to 0.435 at 90


def test_legends_cover_no_line():
    flat = {"counts": [100.0] * 21, "genes": [100.0] * 21}
    figure = qc.quantiles(flat, flat)
    assert not any(ax.get_legend() for ax in figure.axes)
    assert "slide, per spot | reference, per cell" in texts(figure)


def test_typical_genes_are_shown_beside_the_best(facts):
    *_, table = facts
    genes = chosen_genes(own_rows(table), ["Gene2", "not there"], n=2)
    assert genes["top"] == ["Gene2"]
    assert 1 <= len(genes["typical"]) <= 3 and "Gene2" not in genes["typical"]


def test_all_files_are_written_whole_and_thumbnails_are_small(facts, tmp_path):
    imputed, slide, table = facts
    written = draw_all("cortex", imputed, slide, table, ["Gene0", "Gene1"], tmp_path / "plots")
    names = {p.name for p in written}
    for name in ("top_genes", "typical_genes", "unmeasured_genes", "total_counts", "methods_pcc", "reliability", "qc_histograms"):
        assert {f"{name}.svg", f"{name}.png"} <= names
    thumbnail = tmp_path / "plots" / "thumbnails" / "cortex.thumbnail.png"
    assert thumbnail.stat().st_size <= 50_000
    assert {p.name for p in (tmp_path / "plots").rglob("*") if p.is_file()} == names


def test_the_same_figure_gives_the_same_file(facts):
    *_, table = facts
    assert style.svg(metrics.method_boxes(table)) == style.svg(metrics.method_boxes(table))


@pytest.mark.parametrize("n", [1, 2, 100_000])
def test_maps_of_one_spot_and_of_100k(n):
    rng = np.random.default_rng(0)
    imputed = ad.AnnData(
        X=rng.gamma(1, 1, (n, 1)).astype(np.float32),
        var=pd.DataFrame({"measured": [True], "reliability": [np.nan], "reliability_class": ["do not use"]}, index=["A"]),
    )
    imputed.layers["observed"] = imputed.X.copy()
    imputed.obsm["spatial"] = rng.uniform(0, 1e4, (n, 2))
    assert len(style.small_png(maps.thumbnail(imputed, "A"))) <= 50_000
    vector = style.svg(maps.gene_maps(imputed, ["A"]))
    assert len(vector) < 3_000_000  # rasterised: a vector point each would be 20 MB


def test_empty_and_odd_values_do_not_stop_a_figure(facts):
    imputed, _, table = facts
    imputed.X[:] = 0
    imputed.layers["observed"][:, 0] = np.nan
    style.png(maps.gene_maps(imputed, ["Gene0"], {"Gene0": float("nan")}), dpi=50)
    table["ssim"] = np.nan
    style.png(metrics.all_measures(table), dpi=50)
    style.png(metrics.reliability_scatter(imputed.var.assign(reliability=np.nan), own_rows(table).set_index("gene")["pcc"]), dpi=50)
    style.png(training.curves(curve_table((), ())), dpi=50)
    style.png(training.curves(curve_table(("delivery",), ("token",)).assign(validation_pcc=np.nan)), dpi=50)
    style.png(qc.quantiles({}, {"counts": [0] * 21}), dpi=50)


def test_names_with_dollar_signs_and_long_names_are_drawn_as_they_are(facts):
    imputed, _, table = facts
    imputed.var_names = ["$\\frac{1$", *imputed.var_names[1:]]
    figure = maps.gene_maps(imputed, ["$\\frac{1$"])
    assert "$\\frac{1$" in texts(figure)
    assert Image.open(io.BytesIO(style.png(figure, dpi=40))).width > 100


def test_caller_settings_of_matplotlib_stay(facts):
    import matplotlib

    before = dict(matplotlib.rcParams)
    metrics.method_boxes(facts[2])
    assert dict(matplotlib.rcParams) == before


def test_executable(tmp_path, root):
    import subprocess
    import sys

    paths = write_slide(tmp_path / "in")
    options = [f"--{o}={paths[o]}" for o in ("imputed", "slide", "metrics", "evaluation")]
    outdir = tmp_path / "plots"
    subprocess.run([sys.executable, root / "bin" / "spadit_plot.py", "--id", "cortex", *options, "--outdir", outdir], check=True)
    assert (outdir / "top_genes.svg").is_file() and (outdir / "thumbnails" / "cortex.thumbnail.png").is_file()
