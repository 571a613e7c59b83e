"""Figures of the benchmark: all methods on the same hidden genes (Figures 2 to 6 and Tables 3 and 4 of the paper).

Methods come from best to worst median PCC, then controls, then the ceiling (:func:`order`); SpaDiT is marked wherever it stands.
Where whole genes are compared, their values are standardised over spots: accuracy is a matter of the pattern, not of a method's scale.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from spadit import metrics as measures
from spadit.errors import InputError
from spadit.plots.maps import draw_spots, height_over_width, signed
from spadit.plots.metrics import boxes, method_boxes, role_legend
from spadit.plots.style import DASHES, GRID, INK, MUTED, ROLES, SERIES, WIDTH, label, role, save, shorten, small_png, styled
from spadit.preprocess import unit_rows, zscore

MAX_GENES = 400
"""Genes of the UMAP and of the distance heatmaps; of more a seeded sample is shown."""
MAX_SPOTS = 3000
"""Spots that those two compare genes over; of more a seeded sample."""
NAME = 26
"""Letters of a method's name in a figure; longer ones are cut."""
GOOD = 0.5
"""PCC above which a gene counts as recovered in the robustness score."""
RECOVERED = "#c1272d"
LOST = "#a3adb6"
MARKERS = {"model": "D", "method": "o", "floor": "s", "control": "^", "ceiling": "o"}
"""Role -> marker, so that colour is not the only carrier of a meaning."""


def order(table: pd.DataFrame, column: str = "pcc") -> list[str]:
    """Methods of a table from best to worst median of ``column``: first those that compete, then controls, then the ceiling."""
    medians = table.dropna(subset=[column]).groupby("method", observed=True)[column].median()
    return sorted(medians.index, key=lambda m: ((role(m) == "control") + 2 * (role(m) == "ceiling"), -medians[m], m))


def competing(methods: Sequence[str]) -> list[str]:
    """Without controls and ceilings."""
    return [m for m in methods if role(m) not in ("control", "ceiling")]


def _name(method: str) -> str:
    return shorten(label(method), NAME)


def _weight(method: str) -> str:
    return "bold" if role(method) == "model" else "normal"


def _message(text: str) -> Figure:
    fig = Figure(figsize=(WIDTH, 1.2))
    fig.text(0.5, 0.5, text, ha="center", va="center", color=MUTED)
    return fig


# --- who is how good


@styled
def ranking(table: pd.DataFrame, n_genes: int | None = None) -> Figure:
    """Median PCC of each method with its 95 % interval, from best to worst; controls and ceiling apart; what did not run, with its reason.

    Parameters
    ----------
    table
        ``ranking.csv``: method, median_pcc, low, high, and where there are any accuracy_score, status and reason. A method without
        median_pcc has no result: it is named below the others with its status and reason.
    n_genes
        Hidden genes that were scored, for the axis label.
    """
    if "median_pcc" not in table:  # nothing ran
        table = table.assign(median_pcc=np.nan)
    done = order(table, "median_pcc")
    rows = table.drop_duplicates("method").set_index("method")
    absent = [m for m in rows.index if m not in done]
    ranked = competing(done)
    y, at = 0.0, {}
    for m in done:
        y += 0.5 if at and m not in ranked and (m == done[len(ranked)] or role(m) == "ceiling") else 0
        at[m] = y
        y += 1
    notes = {m: textwrap.wrap(absence(rows.loc[m]), 84, max_lines=2, placeholder=" …") for m in absent}
    gap = 0.9 if absent and done else 0.0
    top = y + gap
    for m in absent:
        at[m] = top
        top += 0.4 + 0.6 * len(notes[m])
    height = 0.25 * max(top, 1) + 1.35
    fig = Figure(figsize=(WIDTH, height), layout="constrained")
    ax = fig.subplots()
    lows = [v for v in rows.get("low", pd.Series(dtype=float)).reindex(done) if np.isfinite(v)]
    highs = [v for v in rows.get("high", pd.Series(dtype=float)).reindex(done) if np.isfinite(v)]
    medians = [float(rows.at[m, "median_pcc"]) for m in done]
    low, high = min([0.0, *lows, *medians]), max([0.1, *highs, *medians])
    ax.set_xlim(low - 0.03 * (high - low), high + 0.03 * (high - low))
    ax.set_ylim(max(top - 0.5, 0.6), -0.6)
    for m in done:
        kind = role(m)
        row = rows.loc[m]
        colour = MUTED if kind == "ceiling" else ROLES[kind][0]
        if kind == "model":
            ax.axhspan(at[m] - 0.48, at[m] + 0.48, color=colour, alpha=0.1, linewidth=0, zorder=0)
        if np.isfinite(row.get("low", np.nan)) and np.isfinite(row.get("high", np.nan)):
            ax.plot([row["low"], row["high"]], [at[m], at[m]], color=colour, linewidth=2.2, solid_capstyle="butt", zorder=2)
        face = "white" if kind == "ceiling" else colour
        edge = MUTED if kind == "ceiling" else INK
        size = 44 if kind == "model" else 34
        ax.scatter(row["median_pcc"], at[m], s=size, marker=MARKERS[kind], facecolor=face, edgecolor=edge, linewidths=0.8, zorder=3)
        _beside(ax, at[m], signed(row["median_pcc"]), 4, _weight(m))
        if "accuracy_score" in rows:
            _beside(ax, at[m], "–" if pd.isna(row["accuracy_score"]) else signed(row["accuracy_score"]), 34, _weight(m))
    for m in absent:
        for k, line in enumerate(notes[m]):
            ax.annotate(
                line,
                (0, at[m] + 0.6 * k),
                xycoords=("axes fraction", "data"),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                size=6.5,
                color=MUTED,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            )
    if absent and done:
        ax.axhline(y + gap / 2 - 0.7, color=MUTED, linewidth=0.6, linestyle=(0, (2, 2)))
    if done:
        ax.annotate("median", (1, 1), xycoords="axes fraction", xytext=(4, 2), textcoords="offset points", size=6.5, color=MUTED)
        if "accuracy_score" in rows:
            ax.annotate("AS", (1, 1), xycoords="axes fraction", xytext=(34, 2), textcoords="offset points", size=6.5, color=MUTED)
    ax.set_yticks([at[m] for m in (*done, *absent)], [_name(m) for m in (*done, *absent)])
    for m, tick in zip((*done, *absent), ax.get_yticklabels(), strict=True):
        tick.set_fontweight(_weight(m))
        tick.set_color(MUTED if m in absent else INK)
    ax.tick_params(axis="y", length=0)
    ax.plot([0, 0], [-0.6, max(y - 0.5, 0.6)], color=MUTED, linewidth=0.8, zorder=1)
    ax.grid(axis="x", color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines["left"].set_visible(False)
    genes = f"{n_genes:,} hidden genes" if n_genes else "hidden genes"
    score = "\nAS: accuracy score, 1 is best in PCC, SSIM, RMSE and JS" if done and "accuracy_score" in rows else ""
    ax.set_xlabel(f"median PCC over {genes}, with 95 % bootstrap interval{score}")
    handles = []
    for kind, (colour, name) in ROLES.items():
        if any(role(m) == kind for m in done):
            face, edge = ("white", MUTED) if kind == "ceiling" else (colour, INK)
            handles.append(
                Line2D([], [], linestyle="none", marker=MARKERS[kind], markersize=6, markerfacecolor=face, markeredgecolor=edge, label=name)
            )
    if handles:
        fig.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, handletextpad=0.3)
    return fig


def absence(row: Mapping[str, object]) -> str:
    """'failed: why', from the columns status and reason."""
    status = row.get("status")
    status = "no result" if not isinstance(status, str) or not status else status
    reason = row.get("reason")
    return f"{status}: {reason}" if isinstance(reason, str) and reason else status


def _beside(ax, y: float, text: str, offset: float, weight: str) -> None:
    """A number in a column right of the axes."""
    ax.annotate(
        text,
        (1, y),
        xycoords=("axes fraction", "data"),
        xytext=(offset, 0),
        textcoords="offset points",
        va="center",
        size=7,
        weight=weight,
    )


@styled
def accuracy_boxes(scores: pd.DataFrame) -> Figure:
    """The accuracy score of every method over slides (Figure 2): box (quartiles), line (median), a dot per slide.

    Parameters
    ----------
    scores
        sample, method, accuracy_score: one row per slide and method that competed on it. A method without a result on some slides is
        marked with the number of slides that it has one on.
    """
    scores = scores.dropna(subset=["accuracy_score"])
    if scores.empty:
        return _message("no accuracy score: it needs two methods")
    methods = order(scores, "accuracy_score")
    n = scores["sample"].nunique()
    fig = Figure(figsize=(WIDTH, 0.34 * len(methods) + 1.25), layout="constrained")
    ax = fig.subplots()
    boxes(ax, scores, methods, "accuracy_score", values=True)
    counts = scores.groupby("method", observed=True)["sample"].nunique()
    names = [_name(m) + ("" if counts[m] == n else f"\non {counts[m]} of {n} slides") for m in methods]
    ax.set_yticks(ax.get_yticks(), names)
    for m, tick in zip(methods, ax.get_yticklabels(), strict=True):
        tick.set_fontweight(_weight(m))
    ax.set_xlim(0, 1.02)
    ax.annotate("median", (1, 1), xycoords="axes fraction", xytext=(4, 1), textcoords="offset points", size=6.5, color=MUTED)
    ax.set_xlabel(f"accuracy score (AS) of each slide; 1: best in PCC, SSIM, RMSE and JS ({n:,} slide{'s' if n > 1 else ''})")
    role_legend(fig, methods)
    return fig


# --- what whole genes look like


def _grid(n: int, widest: int = 5) -> tuple[int, int]:
    """Rows and columns for n panels, filled as evenly as can be."""
    rows = -(-n // widest)
    return rows, -(-n // rows)


def gene_vectors(data: AnnData, genes: Sequence[str]) -> np.ndarray:
    """Genes × spots, each gene standardised and of length 1: the squared distance of two is 2 (1 − their PCC). Constant genes are zeros."""
    values = data[:, list(genes)].X
    values = np.asarray(values.todense() if hasattr(values, "todense") else values, dtype=np.float32)
    return unit_rows(zscore(values).T)


def gene_embedding(truth: AnnData, imputed: Mapping[str, AnnData], seed: int = 0) -> pd.DataFrame:
    """One UMAP of all genes as measured and as imputed by every method: method ('truth' for the measured ones), gene, x, y.

    Parameters
    ----------
    truth
        spots × genes, ``X`` log-normalised.
    imputed
        Method -> spots × genes, the same spots. Genes that the truth doesn't have are left out.
    seed
        Of the principal components (up to 50) that the UMAP is made of, and of the UMAP itself, which starts from the first two.

    References
    ----------
    McInnes L, Healy J, Melville J. arXiv:1802.03426 (2018).
    """
    import scanpy as sc
    from sklearn.decomposition import PCA

    parts = {"truth": truth, **imputed}
    named = [(m, g) for m, data in parts.items() for g in truth.var_names if g in data.var_names]
    vectors = np.concatenate([gene_vectors(data, [g for g in truth.var_names if g in data.var_names]) for data in parts.values()])
    n = min(50, len(vectors) - 1, vectors.shape[1])
    table = pd.DataFrame(named, columns=["method", "gene"])
    if n < 2:
        return table.assign(x=0.0, y=0.0)
    scores = PCA(n, svd_solver="randomized", random_state=seed).fit_transform(vectors).astype(np.float32)
    xy = scores[:, :2]
    if len(vectors) >= 10:  # with fewer there are no neighbourhoods to show
        points = AnnData(scores)
        spread = np.abs(xy).max()
        sc.pp.neighbors(points, n_neighbors=min(15, len(vectors) - 1), use_rep="X", random_state=seed)
        sc.tl.umap(points, init_pos=np.ascontiguousarray(xy * (10 / spread if spread > 0 else 1)), random_state=seed)
        xy = points.obsm["X_umap"]
    return table.assign(x=xy[:, 0], y=xy[:, 1])


@styled
def gene_umap(truth: AnnData, imputed: Mapping[str, AnnData], seed: int = 0) -> Figure:
    """Genes as measured and as imputed, in one UMAP with a panel per method (Figure 3). A line joins the two points of a gene.

    Parameters: as :func:`gene_embedding`. The number is the median PCC of the genes shown.
    """
    if not imputed or truth.n_vars < 2:
        return _message("no UMAP: it needs a method and two genes")
    table = gene_embedding(truth, imputed, seed)
    measured = table[table["method"] == "truth"].set_index("gene")
    methods = list(imputed)
    rows, columns = _grid(len(methods))
    cell = WIDTH / max(columns, 3)
    fig = Figure(figsize=(cell * columns if columns > 2 else WIDTH * columns / 3 + 0.6, rows * (cell + 0.2) + 0.45), layout="constrained")
    axes = np.atleast_1d(fig.subplots(rows, columns, squeeze=False).ravel())
    size = 9 if truth.n_vars <= 150 else 4
    low, high = table[["x", "y"]].min() - 0.6, table[["x", "y"]].max() + 0.6
    vectors = gene_vectors(truth, truth.var_names)
    for ax, method in zip(axes, methods, strict=False):
        own = table[table["method"] == method].set_index("gene")
        real = measured.loc[own.index]
        for a, b in zip(real[["x", "y"]].to_numpy(), own[["x", "y"]].to_numpy(), strict=True):
            ax.plot(*zip(a, b, strict=True), color="#b9c2ca", linewidth=0.4, zorder=1, rasterized=truth.n_vars > 150)
        ax.scatter(real["x"], real["y"], s=size, color="#0072B2", linewidths=0, alpha=0.8, zorder=2, rasterized=truth.n_vars > 150)
        ax.scatter(
            own["x"], own["y"], s=size, color="#E69F00", marker="^", linewidths=0, alpha=0.8, zorder=3, rasterized=truth.n_vars > 150
        )
        pcc = (vectors[truth.var_names.get_indexer(own.index)] * gene_vectors(imputed[method], own.index)).sum(axis=1)
        ax.set_title(f"{_name(method)}\nmedian PCC {signed(float(np.median(pcc)))}", size=7, weight=_weight(method), linespacing=1.3)
        ax.set(xticks=[], yticks=[], xlim=(low["x"], high["x"]), ylim=(low["y"], high["y"]))
        _frame(ax, method)
    for ax in axes[len(methods) :]:
        ax.set_visible(False)
    handles = [
        Line2D([], [], linestyle="none", marker="o", color="#0072B2", markersize=4, label="gene as measured"),
        Line2D([], [], linestyle="none", marker="^", color="#E69F00", markersize=4, label="gene as imputed while hidden"),
        Line2D([], [], color="#b9c2ca", linewidth=0.8, label="the same gene"),
    ]
    title = f"One UMAP for all panels: {truth.n_vars:,} genes, standardised over {truth.n_obs:,} spots"
    fig.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, title=title, title_fontsize=7)
    return fig


def _frame(ax, method: str) -> None:
    """A thin frame around a panel; SpaDiT's is blue and thick."""
    ax.spines[:].set_visible(True)
    own = role(method) == "model"
    ax.spines[:].set_color(ROLES["model"][0] if own else "#c3cad0")
    ax.spines[:].set_linewidth(1.6 if own else 0.6)


def gene_distances(vectors: np.ndarray) -> np.ndarray:
    """Distance √(2 (1 − PCC)) of each pair of standardised genes: 0 the same pattern, √2 unrelated (also a constant gene), 2 opposite."""
    distances = np.sqrt(2 * np.maximum(1 - vectors @ vectors.T, 0))
    np.fill_diagonal(distances, 0)
    return distances


def clustered(distances: np.ndarray) -> np.ndarray:
    """Positions of genes in the order of average-linkage clustering, similar ones side by side."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(distances) < 3:
        return np.arange(len(distances))
    return leaves_list(linkage(squareform(distances, checks=False), "average", optimal_ordering=True))


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation of two matrices of distances over all pairs of genes; 0 where either is constant, NaN with a single pair."""
    pairs = np.triu_indices(len(a), 1)
    return float(measures.pcc(a[pairs], b[pairs])) if len(pairs[0]) > 1 else float("nan")


UNRELATED = float(np.sqrt(2))
"""Distance of two standardised genes whose PCC is 0."""


@styled
def distance_heatmaps(truth: AnnData, imputed: Mapping[str, AnnData]) -> Figure:
    """Distances between genes, as measured and as imputed by each method, genes in the order of the truth's clustering (Figure 4).

    Parameters
    ----------
    truth
        spots × genes, ``X`` log-normalised.
    imputed
        Method -> spots × genes, the same spots. The genes that all have are shown. The number is :func:`agreement` with the truth.
    """
    genes = [g for g in truth.var_names if all(g in data.var_names for data in imputed.values())]
    if not imputed or len(genes) < 2:
        return _message("no distances between genes: they need a method and two genes")
    real = gene_distances(gene_vectors(truth, genes))
    sequence = clustered(real)
    panels = {"truth": real} | {m: gene_distances(gene_vectors(data, genes)) for m, data in imputed.items()}
    rows, columns = _grid(len(panels))
    pairs = ~np.eye(len(genes), dtype=bool)
    reach = max(float(np.quantile(np.abs(d[pairs] - UNRELATED), 0.98)) for d in panels.values())
    reach = min(max(reach, 0.2), 2 - UNRELATED)
    low, high = UNRELATED - reach, UNRELATED + reach
    bar, edge, gap, head, foot = 1.0, 0.06, 0.12, 0.36, 0.3
    cell = (WIDTH - bar - 2 * edge) / max(columns, 3)
    side = cell - gap
    width, height = 2 * edge + columns * cell + bar, rows * (side + head) + foot
    fig = Figure(figsize=(width, height))
    for k, (method, distances) in enumerate(panels.items()):
        left, bottom = edge + (k % columns) * cell, height - (k // columns + 1) * (side + head)
        ax = fig.add_axes((left / width, bottom / height, side / width, side / height))
        image = ax.imshow(
            distances[np.ix_(sequence, sequence)],
            cmap="RdBu",
            vmin=low,
            vmax=high,
            interpolation="nearest",
            aspect="equal",
            rasterized=True,
        )
        ax.set(xticks=[], yticks=[])
        if method == "truth":
            ax.spines[:].set_visible(True)
            title, said, weight = "measured", "the truth", "bold"
        else:
            _frame(ax, method)
            title, said, weight = _name(method), f"agreement {signed(agreement(real, distances))}", _weight(method)
        fig.text(left / width, (bottom + side + 0.175) / height, title, size=7, weight=weight)
        fig.text(left / width, (bottom + side + 0.05) / height, said, size=6.5, color=MUTED)
    bar_h = min(1.6, rows * (side + head) * 0.6)
    cax = fig.add_axes(((width - bar + 0.04) / width, (height - head - bar_h) / height, 0.09 / width, bar_h / height))
    colorbar = fig.colorbar(image, cax=cax)
    colorbar.set_ticks([low, UNRELATED, high], labels=[f"≤ {low:.2f} alike", "1.41 unrelated", f"≥ {high:.2f} opposed"])
    colorbar.outline.set_visible(False)
    colorbar.ax.tick_params(labelsize=6.5, length=2, pad=1)
    note = f"{len(genes):,} hidden genes × the same genes. Colour: distance of the two standardised genes, √(2 (1 − PCC))."
    fig.text(edge / width, 0.09 / height, note, size=6.5, color=MUTED)
    return fig


@styled
def top_gene_maps(
    truth: AnnData, imputed: Mapping[str, AnnData], genes: Sequence[str], pcc: pd.DataFrame | None = None, tallest: float = 9.6
) -> Figure:
    """Spatial maps of genes, measured and as imputed by every method, all on one colour scale (Figure 5).

    Parameters
    ----------
    truth
        spots × genes, ``X`` log-normalised, ``obsm['spatial']``.
    imputed
        Method -> spots × genes, the same spots.
    genes
        Which genes to show, a block each; those that don't fit into ``tallest`` inches are left out, the first is always shown.
    pcc
        gene × method: true correlations, for the titles.
    """
    xy = np.asarray(truth.obsm["spatial"], dtype=float)[:, :2]
    panels = ["measured", *imputed]
    bar, edge, gap, head, name, foot = 0.5, 0.06, 0.06, 0.3, 0.22, 0.3
    ratio = height_over_width(xy)
    rows, columns = _grid(len(panels), 7 if ratio > 1 else 6 if ratio > 0.7 else 5)
    cell = (WIDTH - 2 * edge - bar) / max(columns, 3)
    panel_w = cell - gap
    panel_h = panel_w * ratio
    block = name + rows * (panel_h + head)
    genes = list(genes)[: max(1, int((tallest - foot) // block))]
    width, height = 2 * edge + columns * cell + bar, len(genes) * block + foot
    fig = Figure(figsize=(width, height))
    points = None
    for i, gene in enumerate(genes):
        top = height - i * block
        fig.text(edge / width, (top - 0.16) / height, shorten(gene, 40), weight="bold", size=8.5)
        for k, method in enumerate(panels):
            data = truth if k == 0 else imputed[method]
            left = edge + (k % columns) * cell
            bottom = top - name - (k // columns + 1) * (panel_h + head)
            values = _standardised(data, gene, truth.n_obs)
            ax = fig.add_axes((left / width, bottom / height, panel_w / width, panel_h / height))
            points = draw_spots(ax, xy, values, LOWEST, HIGHEST, (panel_w, panel_h))
            weight = "bold" if k == 0 else _weight(method)
            title = "measured" if k == 0 else shorten(label(method), max(10, int(panel_w * 15.5)))
            fig.text((left + 0.02) / width, (bottom + panel_h + 0.13) / height, title, size=6.5, weight=weight)
            if k and pcc is not None and method in pcc and gene in pcc.index:
                said = f"PCC {signed(pcc.at[gene, method])}"
                fig.text((left + 0.02) / width, (bottom + panel_h + 0.03) / height, said, size=6.5, color=MUTED)
    bar_h = min(1.5, block * 0.7)
    cax = fig.add_axes(((width - bar + 0.06) / width, (height - name - head - bar_h) / height, 0.08 / width, bar_h / height))
    colorbar = fig.colorbar(points, cax=cax, ticks=[LOWEST, 0, HIGHEST])
    colorbar.ax.set_yticklabels([f"≤ −{-LOWEST:.0f}", "mean", f"≥ {HIGHEST:.0f} SD"])
    colorbar.outline.set_visible(False)
    colorbar.ax.tick_params(labelsize=6.5, length=2, pad=1)
    note = "Colour: standard deviations from the gene's mean over spots, one scale for all maps. Each gene was hidden when it was imputed."
    fig.text(edge / width, 0.1 / height, note, size=6.5, color=MUTED)
    return fig


LOWEST, HIGHEST = -1.0, 3.0
"""Ends of the maps' colour scale, in standard deviations: counts are skewed, most spots of a gene lie little below its mean."""


def _standardised(data: AnnData, gene: str, n_spots: int) -> np.ndarray:
    """A gene's values as standard deviations from its mean; NaN where the method did not impute it."""
    if gene not in data.var_names:
        return np.full(n_spots, np.nan)
    return zscore(np.asarray(gene_values(data, gene), dtype=np.float64)[:, None])[:, 0]


def gene_values(data: AnnData, gene: str) -> np.ndarray:
    """One gene over spots."""
    column = data.X[:, data.var_names.get_loc(gene)]
    return np.asarray(column.todense() if hasattr(column, "todense") else column).ravel()


# --- how stable it is


@styled
def robustness_curves(table: pd.DataFrame) -> Figure:
    """Robustness score and median PCC of each method as counts are taken away (Figure 6).

    Parameters
    ----------
    table
        ``robustness.csv``: method, rate (share of the counts taken away; 0: the original), median_pcc, robustness_score_both (share of
        genes with PCC above 0.5 at this rate and with the original counts). A method without numbers at some rate has a gap there.
    """
    scores = table.dropna(subset=["median_pcc"])
    if scores.empty:
        return _message("no robustness: no method has a result")
    first = scores[scores["rate"] == scores["rate"].min()]
    methods = order(first, "median_pcc")
    methods += [m for m in dict.fromkeys(scores["method"]) if m not in methods]
    fig = Figure(figsize=(WIDTH, max(2.8, 0.17 * len(methods) + 0.6)), layout="constrained")
    panels = {"robustness_score_both": "robustness score (RS)", "median_pcc": "median PCC over hidden genes"}
    others = [m for m in competing(methods) if role(m) != "model"]
    lines = {}
    for ax, (column, name) in zip(fig.subplots(1, 2), panels.items(), strict=True):
        for m in methods:
            line = scores[scores["method"] == m].sort_values("rate").dropna(subset=[column])
            if line.empty:
                continue
            kind = role(m)
            if kind == "model":
                drawn = {"color": ROLES[kind][0], "linewidth": 2.4, "markersize": 5, "zorder": 4}
            elif m in others:
                k, n = others.index(m), len(SERIES) - 1  # all colours but SpaDiT's
                drawn = {"color": SERIES[1 + k % n], "linestyle": DASHES[k // n % len(DASHES)], "linewidth": 1.1, "markersize": 3.2}
            else:
                drawn = {"color": MUTED, "linestyle": DASHES[2], "linewidth": 0.9, "markersize": 3.2, "markerfacecolor": "white"}
            (lines[m],) = ax.plot(line["rate"], line[column], marker=MARKERS[kind], label=label(m), **drawn)
        rates = sorted(scores["rate"].unique())
        ax.set(xlabel="share of the slide's counts taken away", ylabel=name, xticks=rates)
        ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]), top=max(0.1, 1.06 * ax.dataLim.y1))
        ax.xaxis.set_major_formatter(lambda v, _: f"{v:.0%}".replace("%", " %"))
        ax.grid(color=GRID, linewidth=0.6)
        ax.set_axisbelow(True)
    shown = [m for m in methods if m in lines]
    legend = fig.legend([lines[m] for m in shown], [_name(m) for m in shown], loc="outside right center", frameon=False, handlelength=3)
    for m, text in zip(shown, legend.get_texts(), strict=True):
        text.set_fontweight(_weight(m))
    fig.supxlabel("RS: share of genes with PCC above 0.5 at this rate and with the original counts", size=7, color=MUTED)
    return fig


@styled
def robustness_scatter(table: pd.DataFrame) -> Figure:
    """PCC of every gene with the original counts against PCC with thinned ones, a panel per method and rate (Figure 6).

    Red: above 0.5 in both; their share is the robustness score.

    Parameters
    ----------
    table
        ``robustness_metrics.csv``: gene, method, rate (share of the counts taken away; 0: the original), pcc.
    """
    wide = table.pivot_table(index=["method", "gene"], columns="rate", values="pcc", observed=True)
    rates = [r for r in wide.columns if r]
    if 0 not in wide or not rates:
        return _message("no robustness: it needs the original counts (rate 0) and thinned ones")
    methods = competing(order(table[table["rate"] == 0]))
    sides = 1 if len(methods) <= 5 else 2  # two methods side by side where there are many
    lines = -(-len(methods) // sides)
    edge, gap, left, head, foot, between = 0.06, 0.06, 0.36, 0.2, 0.56, 0.18
    panel = (WIDTH - 2 * edge - sides * (left + len(rates) * gap) - (sides - 1) * between) / (sides * len(rates))
    panel = min(panel, 1.45)
    top = 0.4
    height = top + lines * (panel + head) + foot
    fig = Figure(figsize=(WIDTH, height))
    low = min(-0.1, float(np.nanmin(wide.to_numpy())) - 0.05)
    many = table["gene"].nunique() > 150
    points = {"s": 3 if many else 6, "linewidths": 0, "rasterized": many}
    for i, method in enumerate(methods):
        x0 = edge + (i // lines) * (left + len(rates) * (panel + gap) + between)
        y0 = height - top - (i % lines + 1) * (panel + head)
        fig.text((x0 + left) / WIDTH, (y0 + panel + 0.05) / height, _name(method), size=7, weight=_weight(method))
        genes = wide.loc[method]
        for j, rate in enumerate(rates):
            ax = fig.add_axes(((x0 + left + j * (panel + gap)) / WIDTH, y0 / height, panel / WIDTH, panel / height))
            both = genes[[0, rate]].dropna()
            good = (both > GOOD).all(axis=1)
            for part, colour in ((both[~good], LOST), (both[good], RECOVERED)):
                ax.scatter(part[0], part[rate], color=colour, **points)
            ax.axhline(GOOD, color=MUTED, linewidth=0.5, linestyle=(0, (2, 2)))
            ax.axvline(GOOD, color=MUTED, linewidth=0.5, linestyle=(0, (2, 2)))
            ax.plot([low, 1], [low, 1], color=GRID, linewidth=0.6, zorder=0)
            ax.set(xlim=(low, 1), ylim=(low, 1), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
            ax.tick_params(labelsize=6.5, length=2, pad=1)
            _frame(ax, method)
            rs = float(good.mean()) if len(good) else float("nan")
            ax.text(0.04, 0.96, f"RS {signed(rs)}", size=6.5, va="top", transform=ax.transAxes)
            if j:
                ax.set_yticklabels([])
            if i % lines < lines - 1 and i != len(methods) - 1:
                ax.set_xticklabels([])
            if i % lines == 0:
                ax.set_title(f"{rate:.0%}".replace("%", " %"), size=7, pad=13)
    fig.text((edge + left) / WIDTH, 1 - 0.14 / height, "Share of the slide's counts taken away:", size=7, color=MUTED)
    fig.text(0.5, 0.22 / height, "PCC of each gene with the original counts", ha="center", va="center", size=8)
    note = "red: above 0.5 with the original and with the thinned counts; RS: share of these genes"
    fig.text(0.5, 0.08 / height, note, ha="center", va="center", size=6.5, color=MUTED)
    fig.text(0.01, 0.5, "PCC with thinned counts", rotation=90, va="center", size=8)
    return fig


GROUPS = {"backbone": "another backbone", "parts": "a part changed or left out"}
"""Group of an ablation -> title of its panel."""


@styled
def ablation_bars(table: pd.DataFrame) -> Figure:
    """The accuracy score of every variant of the network, mean and SD over seeds, a panel per group (Tables 3 and 4).

    Parameters
    ----------
    table
        ``ablation.csv``: group, variant, description, accuracy_score_mean, accuracy_score_sd, n_seeds, status. The score ranks the
        variants of a group among themselves; a variant without one is named with its status.
    """
    if table.empty:
        return _message("no ablation")
    groups = {g: part for g, part in table.groupby("group", sort=False)}
    fig = Figure(figsize=(WIDTH, sum(0.42 * len(part) + 0.45 for part in groups.values()) + 0.35), layout="constrained")
    axes = fig.subplots(len(groups), 1, sharex=True, squeeze=False, height_ratios=[len(p) + 0.6 for p in groups.values()]).ravel()
    for ax, (group, part) in zip(axes, groups.items(), strict=True):
        for y, row in enumerate(part.to_dict("records")):
            mean, sd = row["accuracy_score_mean"], row.get("accuracy_score_sd", np.nan)
            own = role(row["variant"]) == "model"
            if pd.isna(mean):
                ax.text(0.01, y, shorten(absence(row), 90), size=6.5, color=MUTED, va="center")
            else:
                sd = sd if np.isfinite(sd) else 0.0
                ax.barh(y, mean, height=0.62, color=ROLES["model"][0] if own else "#a9cfe6", edgecolor=INK, linewidth=0.5)
                if sd:
                    ax.errorbar(mean, y, xerr=sd, color=INK, linewidth=1, capsize=2.5)
                said = signed(mean) + (f" ± {sd:.2f}" if row.get("n_seeds", 1) > 1 else "")
                ax.annotate(said, (mean + sd, y), xytext=(5, 0), textcoords="offset points", va="center", size=6.5)
            described = (
                textwrap.wrap(row["description"], 46, max_lines=2, placeholder=" …") if isinstance(row.get("description"), str) else []
            )
            place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right", "va": "center"}
            name = shorten(str(row["variant"]), 34)
            ax.annotate(name, (0, y), xytext=(-5, 4.5 * len(described)), size=7, weight="bold" if own else "normal", **place)
            if described:
                ax.annotate("\n".join(described), (0, y), xytext=(-5, -5), size=6.5, color=MUTED, **place)
        ax.set_title(GROUPS.get(group, str(group)), loc="left")
        ax.set_yticks([])
        ax.set_ylim(len(part) - 0.4, -0.6)
        ax.set_xlim(0, 1.15)
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1])
        ax.grid(axis="x", color=GRID, linewidth=0.6)
        ax.set_axisbelow(True)
    seeds = int(table["n_seeds"].max()) if "n_seeds" in table and table["n_seeds"].notna().any() else 1
    spread = f"bar and whisker: mean ± SD over {seeds} seeds" if seeds > 1 else "one seed"
    axes[-1].set_xlabel(f"accuracy score (AS) among the variants of a panel, 1: best in all\n{spread}")
    return fig


# --- files


FORMATS = ("svg", "pdf", "png")


def find_table(folder: Path, name: str) -> pd.DataFrame | None:
    """``name`` or ``<anything>.name`` of a folder, as a table; None when it isn't there or holds nothing."""
    path = next(iter([p for p in (folder / name,) if p.is_file()] or sorted(folder.glob(f"*.{name}"))), None)
    if path is None:
        return None
    text = {"gene": str, "method": str, "variant": str, "status": str, "kind": str, "sample": str}
    table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
    return table if len(table) else None


def best_genes(table: pd.DataFrame, methods: Sequence[str], n: int = 6) -> list[str]:
    """Genes with the highest PCC that any of these methods reached, so that the choice favours none."""
    best = table[table["method"].isin(methods)].groupby("gene", observed=True)["pcc"].max()
    return best[best > 0].sort_values(ascending=False, kind="stable").index[:n].tolist()


def _sample(n: int, most: int) -> np.ndarray:
    return np.arange(n) if n <= most else np.sort(np.random.default_rng(0).choice(n, most, replace=False))


def read_imputed(folder: Path, methods: Sequence[str], slide: AnnData, genes: Sequence[str]) -> tuple[AnnData, dict[str, AnnData]]:
    """The measured values of the genes, and what each method with a file ``<method>.h5ad`` imputed, over the same spots.

    Parameters
    ----------
    slide
        Raw counts in ``layers['counts']``, ``obsm['spatial']``. Only the spots that were imputed are kept.
    genes
        All genes that were scored: they are what the measured values are normalised over.

    Raises
    ------
    InputError
        When a method's file doesn't belong to the slide.
    """
    import anndata

    from spadit.evaluation import measured_values

    imputed: dict[str, AnnData] = {}
    for method in methods:
        path = folder / f"{method}.h5ad"
        if not path.is_file():
            continue
        data = anndata.read_h5ad(path)
        first = next(iter(imputed.values()), data)
        if not data.obs_names.equals(first.obs_names) or not data.obs_names.isin(slide.obs_names).all():
            raise InputError(f"{path.name}: its spots are not those of the slide.", "Use the files that one run wrote for one slide.")
        imputed[method] = AnnData(data.X, obs=data.obs[[]], var=data.var[[]])
    if imputed:
        slide = slide[next(iter(imputed.values())).obs_names]
    genes = [g for g in genes if g in slide.var_names]
    truth = AnnData(measured_values(slide, genes), obs=slide.obs[[]], var=pd.DataFrame(index=genes))
    if "spatial" in slide.obsm:
        truth.obsm["spatial"] = np.asarray(slide.obsm["spatial"])
    return truth, imputed


def draw_slide(sample: str, folder: str | Path, slide: AnnData, outdir: str | Path) -> list[Path]:
    """Every figure of a slide's benchmark; returns the files written.

    Parameters
    ----------
    folder
        ``ranking.csv``, ``metrics.csv`` and the methods' ``.h5ad``; ``robustness.csv``, ``robustness_metrics.csv`` and ``ablation.csv``
        where they were made. What isn't there has no figure.
    slide
        Raw counts in ``layers['counts']``, ``obsm['spatial']``.
    outdir
        Gets ``benchmark_<name>.svg|pdf|png`` and ``thumbnails/<sample>.benchmark.png`` (at most 50 KB).
    """
    folder, outdir = Path(folder), Path(outdir)
    ranked, table = find_table(folder, "ranking.csv"), find_table(folder, "metrics.csv")
    figures: dict[str, Figure] = {}
    thumbnail = None
    if ranked is not None:
        n_genes = table["gene"].nunique() if table is not None else None
        figures["ranking"] = thumbnail = ranking(ranked, n_genes)
    if table is not None:
        methods = order(table)
        figures["pcc"] = method_boxes(table, methods)
        truth, imputed = read_imputed(folder, competing(methods), slide, list(dict.fromkeys(table["gene"])))
        if imputed:
            spots, genes = _sample(truth.n_obs, MAX_SPOTS), truth.var_names[_sample(truth.n_vars, MAX_GENES)]
            some = {m: data[spots, [g for g in genes if g in data.var_names]] for m, data in imputed.items()}
            figures["umap"] = gene_umap(truth[spots, genes], some)
            figures["distances"] = distance_heatmaps(truth[spots, genes], some)
            top = best_genes(table, list(imputed))
            if top and "spatial" in truth.obsm:
                figures["maps"] = top_gene_maps(truth, imputed, top, table.pivot_table(index="gene", columns="method", values="pcc"))
    for name, file, draw in (
        ("robustness", "robustness.csv", robustness_curves),
        ("robustness_genes", "robustness_metrics.csv", robustness_scatter),
        ("ablation", "ablation.csv", ablation_bars),
    ):
        if (found := find_table(folder, file)) is not None:
            figures[name] = draw(found)
    written = [path for name, figure in figures.items() for path in save(figure, outdir / f"benchmark_{name}", formats=FORMATS)]
    if thumbnail is not None:
        written.append(_thumbnail(thumbnail, outdir / "thumbnails" / f"{sample}.benchmark.png"))
    return written


def _thumbnail(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(small_png(figure))
    return path


def read_scores(folder: str | Path) -> pd.DataFrame:
    """sample, method and the other columns of every ``<sample>.ranking.csv`` of a folder."""
    tables = [
        table.assign(sample=path.name.removesuffix(".ranking.csv"))
        for path in sorted(Path(folder).glob("*.ranking.csv"))
        if (table := find_table(path.parent, path.name)) is not None
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["sample", "method", "accuracy_score"])


def draw_cohort(folder: str | Path, outdir: str | Path) -> list[Path]:
    """The accuracy scores over all slides, from a folder of ``<sample>.ranking.csv``: ``outdir/benchmark_accuracy.svg|pdf|png`` and
    ``thumbnails/benchmark_accuracy.png`` (at most 50 KB)."""
    outdir = Path(outdir)
    figure = accuracy_boxes(read_scores(folder))
    written = save(figure, outdir / "benchmark_accuracy", formats=FORMATS)
    return [*written, _thumbnail(figure, outdir / "thumbnails" / "benchmark_accuracy.png")]
