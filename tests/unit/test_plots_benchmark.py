"""Figures of the benchmark: what is drawn is what the tables say, for one method and for fifteen."""

from __future__ import annotations

import logging
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from report_facts import benchmark_files
from scipy.stats import pearsonr

from spadit.errors import InputError
from spadit.plots import benchmark, style

NAMES = ["SpaDiT", "Tangram", "gimVI", "SpaGE", "stPlus", "SpaOTsc", "novoSpaRc", "SpatialScope", "stDiff", "ensemble", "corr_weighted",
         "ridge", "knn50", "library_size", "oracle_ridge"]  # fmt: skip
LONG = "a_method_of_ours_with_a_very_long_name_$x$"


def ranking_table(names=NAMES) -> pd.DataFrame:
    """Each method's median PCC is 0.02 lower than that of the one before."""
    table = pd.DataFrame({"method": names, "status": "ok", "median_pcc": 0.5 - 0.02 * np.arange(len(names))})
    score = [np.nan if style.role(m) in ("control", "ceiling") else 0.5 for m in names]
    return table.assign(low=table["median_pcc"] - 0.05, high=table["median_pcc"] + 0.04, accuracy_score=score)


def metrics_table(names=NAMES, n_genes=12) -> pd.DataFrame:
    rows = [
        {"gene": f"G{g}", "method": m, "pcc": 0.6 - 0.03 * k - 0.02 * g, "fold": g % 2} for k, m in enumerate(names) for g in range(n_genes)
    ]
    return pd.DataFrame(rows)


def matrices(names, n_spots=60, n_genes=12, constant=True) -> tuple[ad.AnnData, dict[str, ad.AnnData]]:
    """Measured values, and imputed ones that are the measured with more and more noise. G0 is constant as measured, G1 as imputed."""
    rng = np.random.default_rng(0)
    truth = rng.gamma(1, 1, (n_spots, n_genes)).astype(np.float32)
    if constant:
        truth[:, 0] = 1
    obs, var = pd.DataFrame(index=[f"s{i}" for i in range(n_spots)]), pd.DataFrame(index=[f"G{g}" for g in range(n_genes)])
    spatial = np.stack(np.meshgrid(np.arange(10), np.arange(-(-n_spots // 10))), -1).reshape(-1, 2)[:n_spots].astype(float)

    def data(values):
        made = ad.AnnData(values.astype(np.float32), obs=obs, var=var)
        made.obsm["spatial"] = spatial
        return made

    imputed = {}
    for k, m in enumerate(names):
        values = 3 * truth + k * rng.normal(size=truth.shape) + 7
        if constant:
            values[:, 1] = 0
        imputed[m] = data(values)
    return data(truth), imputed


def texts(figure) -> str:
    found = [t.get_text() for t in figure.texts]
    for ax in figure.axes:
        found += [t.get_text() for t in [*ax.texts, *ax.get_xticklabels(), *ax.get_yticklabels(), ax.xaxis.label, ax.yaxis.label, ax.title]]
    for legend in figure.legends:
        found += [t.get_text() for t in [*legend.get_texts(), legend.get_title()]]
    return " | ".join(found)


def drawn(figure) -> bytes:
    """The figure as a picture; a warning of matplotlib's (what it will drop, what didn't fit) is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return style.png(figure, dpi=50)


def labels(figure) -> list[str]:
    return [t.get_text() for t in figure.axes[0].get_yticklabels()]


# --- order and ranking


def test_competitors_come_first_then_controls_then_the_ceiling():
    table = metrics_table(["oracle_ridge", "library_size", "SpaDiT", "ridge"])  # from best to worst PCC
    assert benchmark.order(table) == ["SpaDiT", "ridge", "library_size", "oracle_ridge"]
    assert benchmark.competing(benchmark.order(table)) == ["SpaDiT", "ridge"]


def test_ranking_shows_each_median_with_its_interval():
    table = ranking_table()
    figure = benchmark.ranking(table, 33)
    ax = figure.axes[0]
    order = benchmark.order(table, "median_pcc")
    points = {round(float(c.get_offsets()[0][1]), 6): float(c.get_offsets()[0][0]) for c in ax.collections if len(c.get_offsets()) == 1}
    at = dict(zip(order, sorted(points), strict=True))
    rows = table.set_index("method")
    for m in order:
        assert points[at[m]] == pytest.approx(rows.at[m, "median_pcc"])
    lines = {round(line.get_ydata()[0], 6): line.get_xdata() for line in ax.lines if len(set(line.get_ydata())) == 1}
    for m in order:
        assert list(lines[at[m]]) == pytest.approx([rows.at[m, "low"], rows.at[m, "high"]])
    assert [t.get_text() for t in ax.get_yticklabels()] == [style.label(m) for m in order]
    assert ax.get_yticklabels()[order.index("SpaDiT")].get_fontweight() == "bold"
    assert at["library_size"] - at["knn50"] > 1 < at["oracle_ridge"] - at["library_size"]  # set apart
    assert "33 hidden genes" in texts(figure) and "0.50" in texts(figure)
    drawn(figure)


def test_ranking_names_what_has_no_result_with_its_reason():
    status = ["failed: ran out of memory", "not run: " + "very " * 60, ""]
    bad = pd.DataFrame({"method": ["stDiff", LONG, "SpatialScope"], "status": status})
    figure = benchmark.ranking(pd.concat([ranking_table(["SpaDiT", "ridge"]), bad], ignore_index=True))
    said = texts(figure)
    assert "failed: ran out of memory" in said and "not run: very" in said and "no result" in said and "…" in said
    assert labels(figure)[2:] == ["stDiff", style.shorten(LONG, benchmark.NAME), "SpatialScope"]
    drawn(figure)
    drawn(benchmark.ranking(bad))  # nothing ran at all


@pytest.mark.parametrize("names", [["SpaDiT"], ["ridge"], [LONG], NAMES])
def test_figures_of_any_number_of_methods_fit_a_page(names):
    truth, imputed = matrices(benchmark.competing(names))
    table = metrics_table(names)
    figures = [
        benchmark.ranking(ranking_table(names)),
        benchmark.accuracy_boxes(ranking_table(names).assign(sample="a")),
        benchmark.distance_heatmaps(truth, imputed),
        benchmark.top_gene_maps(truth, imputed, list(truth.var_names)),
        benchmark.robustness_curves(robustness(names)[0]),
        benchmark.robustness_scatter(robustness(names)[1]),
        benchmark.method_boxes(table, benchmark.order(table)),
    ]
    for figure in figures:
        width, height = figure.get_size_inches()
        assert width <= style.WIDTH + 1e-6 and height <= 9.7
        drawn(figure)


# --- accuracy score over slides


def test_accuracy_boxes_are_the_quartiles_over_slides():
    rng = np.random.default_rng(1)
    table = pd.concat([ranking_table().assign(sample=f"s{k}", accuracy_score=rng.uniform(0.2, 1, len(NAMES))) for k in range(9)])
    table.loc[table["method"].isin(["library_size", "oracle_ridge"]), "accuracy_score"] = np.nan
    table = table[~((table["method"] == "stDiff") & (table["sample"] == "s3"))]
    figure = benchmark.accuracy_boxes(table)
    ax = figure.axes[0]
    methods = benchmark.order(table, "accuracy_score")
    assert len(ax.patches) == len(methods) == 13  # no control, no ceiling
    for box, m in zip(ax.patches, methods, strict=True):
        x = box.get_path().vertices[:, 0]
        values = table.loc[table["method"] == m, "accuracy_score"]
        assert [x.min(), x.max()] == pytest.approx(list(values.quantile([0.25, 0.75])))
    dots = {round(float(c.get_offsets()[:, 1].mean())): sorted(c.get_offsets()[:, 0]) for c in ax.collections}
    assert dots[0] == pytest.approx(sorted(table.loc[table["method"] == methods[0], "accuracy_score"]))
    assert labels(figure)[methods.index("stDiff")] == "stDiff\non 8 of 9 slides"
    assert "9 slides" in texts(figure)


def test_accuracy_of_a_single_slide_and_of_none():
    one = benchmark.accuracy_boxes(ranking_table(["SpaDiT", "ridge"]).assign(sample="a"))
    assert "(1 slide)" in texts(one)
    assert "needs two methods" in texts(benchmark.accuracy_boxes(ranking_table().assign(sample="a", accuracy_score=np.nan)))


# --- whole genes


def test_gene_distances_follow_pcc_and_a_constant_gene_is_unrelated():
    truth, imputed = matrices(["ridge"])
    distances = benchmark.gene_distances(benchmark.gene_vectors(truth, truth.var_names))
    r = pearsonr(truth.X[:, 3], truth.X[:, 7]).statistic
    assert distances[3, 7] == pytest.approx(np.sqrt(2 * (1 - r)), abs=1e-4)
    assert distances[0, 5] == pytest.approx(benchmark.UNRELATED) and distances[0, 0] == 0
    assert np.allclose(distances, distances.T, atol=1e-5)
    assert benchmark.agreement(distances, distances) == pytest.approx(1)
    scaled = ad.AnnData(truth.X * 5 - 3, obs=truth.obs, var=truth.var)
    assert np.allclose(distances, benchmark.gene_distances(benchmark.gene_vectors(scaled, truth.var_names)), atol=1e-2)


def test_heatmaps_are_ordered_by_the_truth_on_one_scale():
    truth, imputed = matrices(["SpaDiT", "ridge"])
    truth.X[:, 11] = truth.X[:, 4] + 0.01 * truth.X[:, 5]  # two genes alike, far apart in the table
    real = benchmark.gene_distances(benchmark.gene_vectors(truth, truth.var_names))
    sequence = benchmark.clustered(real)
    assert sorted(sequence) == list(range(12)) and abs(list(sequence).index(4) - list(sequence).index(11)) == 1
    figure = benchmark.distance_heatmaps(truth, imputed)
    images = [ax.images[0] for ax in figure.axes if ax.images]
    assert np.allclose(images[0].get_array(), real[np.ix_(sequence, sequence)])
    own = benchmark.gene_distances(benchmark.gene_vectors(imputed["ridge"], truth.var_names))
    assert np.allclose(images[2].get_array(), own[np.ix_(sequence, sequence)])
    assert len({image.get_clim() for image in images}) == 1
    said = texts(figure)
    assert "measured" in said and f"agreement {benchmark.signed(benchmark.agreement(real, own))}" in said
    assert style.svg(figure) == style.svg(benchmark.distance_heatmaps(truth, imputed))


def test_heatmaps_show_the_genes_that_all_methods_have():
    truth, imputed = matrices(["SpaDiT", "ridge"])
    imputed["ridge"] = imputed["ridge"][:, ::-1][:, 2:]  # another order, two genes less
    assert "10 hidden genes" in texts(benchmark.distance_heatmaps(truth, imputed))
    assert "need a method and two genes" in texts(benchmark.distance_heatmaps(truth[:, :1], imputed))


def test_umap_is_the_same_every_time_and_pairs_each_gene():
    truth, imputed = matrices(["SpaDiT", "ridge"])
    imputed["ridge"] = imputed["ridge"][:, 3:]
    table = benchmark.gene_embedding(truth, imputed)
    assert table.equals(benchmark.gene_embedding(truth, imputed))
    assert table.groupby("method", sort=False).size().to_dict() == {"truth": 12, "SpaDiT": 12, "ridge": 9}
    assert np.isfinite(table[["x", "y"]].to_numpy()).all()
    figure = benchmark.gene_umap(truth, imputed)
    for ax, m in zip(figure.axes, imputed, strict=False):
        real, own = (c.get_offsets() for c in ax.collections)
        places = table.set_index(["method", "gene"])[["x", "y"]]
        assert np.allclose(own, places.loc[m]) and np.allclose(real, places.loc["truth"].loc[places.loc[m].index])
        assert len(ax.lines) == len(own)  # a line for each gene
    pcc = [pearsonr(truth[:, g].X.ravel(), imputed["ridge"][:, g].X.ravel()).statistic for g in truth.var_names[3:]]
    assert f"median PCC {benchmark.signed(float(np.median(pcc)))}" in figure.axes[1].get_title()
    drawn(figure)


def test_umap_of_few_genes_has_no_neighbourhoods_but_comes_out():
    truth, imputed = matrices(["SpaDiT"], n_genes=2)
    drawn(benchmark.gene_umap(truth, imputed))
    assert "two genes" in texts(benchmark.gene_umap(truth[:, :1], imputed))
    assert "needs a method" in texts(benchmark.gene_umap(truth, {}))


# --- maps


def test_maps_show_standardised_values_of_all_methods_on_one_scale():
    truth, imputed = matrices(["SpaDiT", "ridge"])
    imputed["ridge"] = imputed["ridge"][:, 3:]  # G2 was not imputed by it
    pcc = pd.DataFrame({"SpaDiT": [0.7, 0.6], "ridge": [0.5, 0.4]}, index=["G5", "G2"])
    figure = benchmark.top_gene_maps(truth, imputed, ["G5", "G2"], pcc)
    points = [c for ax in figure.axes for c in ax.collections if c.get_array() is not None and len(c.get_offsets()) == 60]
    assert {c.get_clim() for c in points} == {(benchmark.LOWEST, benchmark.HIGHEST)}
    values = truth[:, "G5"].X.ravel()
    assert np.allclose(points[0].get_array(), (values - values.mean()) / values.std(), atol=1e-4)
    values = imputed["ridge"][:, "G5"].X.ravel()
    assert np.allclose(points[2].get_array(), (values - values.mean()) / values.std(), atol=1e-4)
    assert "PCC 0.70" in texts(figure) and "PCC 0.50" in texts(figure)
    assert len(points) == 5  # of six panels; the sixth is grey
    assert all(c.get_rasterized() for c in points)


def test_constant_gene_is_drawn_at_its_mean():
    truth, imputed = matrices(["SpaDiT"])
    first = benchmark.top_gene_maps(truth, imputed, ["G0"]).axes[0].collections[0]
    assert (first.get_array() == 0).all()


def test_best_genes_favour_no_method():
    table = metrics_table(["SpaDiT", "ridge"])
    table.loc[(table["method"] == "ridge") & (table["gene"] == "G7"), "pcc"] = 0.9
    table.loc[table["gene"] == "G11", "pcc"] = -0.1
    assert benchmark.best_genes(table, ["SpaDiT", "ridge"], 2) == ["G7", "G0"]
    assert len(benchmark.best_genes(table, ["SpaDiT", "ridge"], 99)) == 11


# --- robustness and ablation


def robustness(names) -> tuple[pd.DataFrame, pd.DataFrame]:
    """robustness.csv and robustness_metrics.csv of methods whose PCC falls with the rate."""
    genes = pd.concat([metrics_table(names).assign(rate=r, pcc=lambda t, r=r: t["pcc"] * (1 - r)) for r in (0, 0.1, 0.3, 0.5, 0.7)])
    first = genes[genes["rate"] == 0].set_index(["method", "gene"])["pcc"]
    genes["both"] = (genes["pcc"] > 0.5) & (genes.set_index(["method", "gene"]).index.map(first) > 0.5)
    grouped = genes.groupby(["method", "rate"], sort=False)
    summary = pd.DataFrame({"median_pcc": grouped["pcc"].median(), "robustness_score_both": grouped["both"].mean()}).reset_index()
    return summary, genes.drop(columns="both")


def test_robustness_curves_are_the_table():
    summary, _ = robustness(NAMES)
    summary.loc[(summary["method"] == "stDiff") & (summary["rate"] == 0.5), ["median_pcc", "robustness_score_both"]] = np.nan
    figure = benchmark.robustness_curves(summary)
    for ax, column in zip(figure.axes, ("robustness_score_both", "median_pcc"), strict=True):
        lines = {line.get_label(): line for line in ax.lines}
        assert len(lines) == len(NAMES)
        for m in NAMES:
            rows = summary[summary["method"] == m].dropna(subset=[column])
            assert lines[style.label(m)].get_xdata() == pytest.approx(rows["rate"])
            assert lines[style.label(m)].get_ydata() == pytest.approx(rows[column])
        looks = {(line.get_color(), str(line.get_linestyle()), line._dash_pattern[1] and tuple(line._dash_pattern[1])) for line in ax.lines}
        assert len(looks) >= len(NAMES) - 1  # no two competitors look the same
    assert "taken away" in texts(figure)
    assert "no method has a result" in texts(benchmark.robustness_curves(summary.assign(median_pcc=np.nan)))


def test_robustness_scatter_counts_genes_above_half_in_both():
    summary, genes = robustness(["SpaDiT", "ridge", "library_size"])
    figure = benchmark.robustness_scatter(genes)
    assert len(figure.axes) == 2 * 4  # the control is left out
    scores = summary.set_index(["method", "rate"])["robustness_score_both"]
    for k, (m, rate) in enumerate((m, r) for m in ("SpaDiT", "ridge") for r in (0.1, 0.3, 0.5, 0.7)):
        ax = figure.axes[k]
        lost, good = (c.get_offsets() for c in ax.collections)
        assert len(lost) + len(good) == 12 and len(good) == round(12 * scores[m, rate])
        assert (good > 0.5).all()
        assert ax.texts[0].get_text() == f"RS {benchmark.signed(scores[m, rate])}"
    assert "original counts" in texts(benchmark.robustness_scatter(genes[genes["rate"] > 0]))


def test_ablation_bars_are_mean_and_sd_and_failures_are_named():
    table = pd.DataFrame(
        {
            "group": ["backbone", "backbone", "parts", "parts"],
            "variant": ["SpaDiT", "backbone_unet", "SpaDiT", "condition_none"],
            "description": ["the network as it is", "U-Net as the backbone, " + "long " * 30, "the network as it is", np.nan],
            "status": ["ok", "ok", "ok", "failed: ran out of memory"],
            "n_seeds": 3,
            "accuracy_score_mean": [0.9, 0.5, 0.8, np.nan],
            "accuracy_score_sd": [0.05, 0.1, np.nan, np.nan],
        }
    )
    figure = benchmark.ablation_bars(table)
    backbone, parts = figure.axes
    assert [p.get_width() for p in backbone.patches] == pytest.approx([0.9, 0.5]) and [p.get_width() for p in parts.patches] == [0.8]
    whisker = backbone.collections[1].get_segments()[0]
    assert whisker[:, 0] == pytest.approx([0.4, 0.6])
    said = texts(figure)
    assert "0.50 ± 0.10" in said and "failed: ran out of memory" in said and "mean ± SD over 3 seeds" in said and "U-Net" in said
    drawn(figure)
    assert "one seed" in texts(benchmark.ablation_bars(table.assign(n_seeds=1)))


# --- files


def test_all_files_of_a_slide(tmp_path, caplog):
    folder, slide = benchmark_files(tmp_path)
    summary, genes = robustness(["SpaDiT", "ridge"])
    summary.to_csv(folder / "robustness.csv", index=False)
    genes.to_csv(folder / "robustness_metrics.csv", index=False)
    with caplog.at_level(logging.INFO):
        written = benchmark.draw_slide("s.1", folder, slide, tmp_path / "plots")
    names = {p.name for p in written}
    drawn_names = ("ranking", "pcc", "umap", "distances", "maps", "robustness", "robustness_genes")
    assert names == {f"benchmark_{n}.{f}" for n in drawn_names for f in ("svg", "pdf", "png")} | {"s.1.benchmark.png"}
    assert (tmp_path / "plots/thumbnails/s.1.benchmark.png").stat().st_size <= 50_000
    assert all(p.stat().st_size > 1000 for p in written)
    assert "fontTools" not in {r.name.split(".")[0] for r in caplog.records}  # a line for every letter


def test_truth_of_the_figures_is_normalised_over_all_scored_genes(tmp_path):
    folder, slide = benchmark_files(tmp_path, spots=slice(3, 50))
    genes = list(slide.var_names)
    truth, imputed = benchmark.read_imputed(folder, ["SpaDiT", "ridge", "no such method"], slide, [*genes, "not on the slide"])
    assert list(imputed) == ["SpaDiT", "ridge"] and truth.n_obs == 47 and truth.var_names.tolist() == genes
    counts = slide.layers["counts"].toarray()[3:50]
    totals = counts.sum(1, keepdims=True)
    assert np.allclose(truth.X.toarray(), np.log1p(counts / totals * np.median(totals)), atol=1e-5)
    assert np.allclose(truth.obsm["spatial"], slide.obsm["spatial"][3:50])


def test_files_of_another_slide_are_refused(tmp_path):
    folder, slide = benchmark_files(tmp_path)
    slide.obs_names = [f"other{i}" for i in range(slide.n_obs)]
    with pytest.raises(InputError, match="SpaDiT.h5ad: its spots are not those of the slide"):
        benchmark.draw_slide("s", folder, slide, tmp_path / "plots")


def test_cohort_reads_the_slides_names(tmp_path):
    for name in ("a.1", "b"):
        ranking_table(["SpaDiT", "ridge", "library_size"]).to_csv(tmp_path / f"{name}.ranking.csv", index=False)
    (tmp_path / "empty.ranking.csv").write_text("method,median_pcc\n", encoding="utf-8")
    assert set(benchmark.read_scores(tmp_path)["sample"]) == {"a.1", "b"}
    written = benchmark.draw_cohort(tmp_path, tmp_path / "plots")
    assert [p.name for p in written] == [*(f"benchmark_accuracy.{f}" for f in ("svg", "pdf", "png")), "benchmark_accuracy.png"]
    assert written[-1].stat().st_size <= 50_000


def test_executables(tmp_path, root):
    import subprocess
    import sys

    folder, slide = benchmark_files(tmp_path / "in")
    slide.write_h5ad(tmp_path / "slide.h5ad")
    for path in folder.glob("*.h5ad"):
        path.unlink()  # a UMAP takes its time, and test_all_files_of_a_slide draws one
    command = [sys.executable, root / "bin/spadit_benchmark_plot.py", "--id", "s.1", "--benchmark", folder]
    subprocess.run([*command, "--slide", tmp_path / "slide.h5ad", "--outdir", tmp_path / "plots"], check=True)
    assert (tmp_path / "plots/benchmark_ranking.pdf").is_file() and (tmp_path / "plots/thumbnails/s.1.benchmark.png").is_file()
    (tmp_path / "all").mkdir()
    (folder / "ranking.csv").rename(tmp_path / "all" / "s.1.ranking.csv")
    command = [sys.executable, root / "bin/spadit_benchmark_cohort.py", "--id", "cohort", "--rankings", tmp_path / "all"]
    subprocess.run([*command, "--outdir", tmp_path / "cohort"], check=True)
    assert (tmp_path / "cohort/benchmark_accuracy.svg").is_file()
