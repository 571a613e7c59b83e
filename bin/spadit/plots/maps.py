"""Spatial maps: one value per spot, drawn where the spot lies.

Coordinates are taken as image coordinates, so the y axis points down, as in scanpy and squidpy. Spots are sized to the slide's own
spacing, axes have equal aspect, and points are rasterised inside vector files so that 100,000 spots stay a small file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from spadit.plots.style import INK, MAP, MISSING, MUTED, WIDTH, shorten, styled


def spacing(xy: np.ndarray) -> float:
    """Typical distance of a spot to its neighbours (median over spots of the mean to the four nearest), in the coordinates' unit.

    On a grid this is the grid's step; among irregular cells it also bridges the gaps, where the nearest one alone would be too near.

    Parameters
    ----------
    xy
        Coordinates, n_spots × 2. Spots on the same place are counted once; a single place gives 1.
    """
    from scipy.spatial import cKDTree

    places = np.unique(xy[np.isfinite(xy).all(1)], axis=0)
    if len(places) < 2:
        return 1.0
    if len(places) > 20_000:  # a sample of spots against all places: the same median, a fraction of the time
        asked = places[np.random.default_rng(0).choice(len(places), 20_000, replace=False)]
    else:
        asked = places
    near = min(5, len(places))
    return float(np.median(cKDTree(places).query(asked, k=near)[0][:, 1:].mean(axis=1)))


def _extent(xy: np.ndarray) -> tuple[float, float, float, float, float]:
    """x and y limits with half a spot around them, and the spacing."""
    step = spacing(xy)
    low, high = np.nanmin(xy, axis=0) - step, np.nanmax(xy, axis=0) + step
    return low[0], high[0], low[1], high[1], step


def height_over_width(xy: np.ndarray) -> float:
    x0, x1, y0, y1, _ = _extent(xy)
    return float(np.clip((y1 - y0) / (x1 - x0), 0.4, 1.6))


def draw_spots(ax: Axes, xy: np.ndarray, values: np.ndarray, low: float, high: float, size: tuple[float, float]):
    """One map in ``ax``, whose size is given in inches; spots without a value are grey. Returns the points for a colour bar."""
    x0, x1, y0, y1, step = _extent(xy)
    points_per_unit = 72 * min(size[0] / (x1 - x0), size[1] / (y1 - y0))
    diameter = max(step * points_per_unit * 1.05, 0.5)
    missing = ~np.isfinite(values)
    style = {"s": diameter**2, "linewidths": 0, "rasterized": True}
    if missing.any():
        ax.scatter(*xy[missing].T, color=MISSING, **style)
    points = ax.scatter(*xy[~missing].T, c=values[~missing], cmap=MAP, vmin=low, vmax=high, **style)
    ax.set(xlim=(x0, x1), ylim=(y1, y0), xticks=[], yticks=[], aspect="equal")
    ax.spines[:].set_visible(False)
    return points


def _limits(*values: np.ndarray) -> tuple[float, float]:
    """One colour scale for all panels of a gene: zero (or the lowest value) to the 99th percentile."""
    pooled = np.concatenate([v[np.isfinite(v)] for v in values])
    if not pooled.size:
        return 0.0, 1.0
    low = min(0.0, float(np.quantile(pooled, 0.01)))
    high = max(float(np.quantile(v[np.isfinite(v)], 0.99)) for v in values if np.isfinite(v).any())
    high = high if high > low else float(pooled.max())
    return low, (high if high > low else low + 1.0)


def _column(matrix, index: int) -> np.ndarray:
    column = matrix[:, index]
    return np.asarray(column.todense() if hasattr(column, "todense") else column, dtype=float).ravel()


def signed(value: float) -> str:
    """Two decimals with a real minus sign; 'n/a' for what is no number."""
    return "n/a" if value is None or not np.isfinite(value) else f"{value:.2f}".replace("-", "−")


def _subtitle(imputed: AnnData, gene: str, pcc: Mapping[str, float] | None) -> str:
    parts = []
    if pcc is not None and gene in pcc:
        parts.append(f"PCC {signed(pcc[gene])}")
    if "reliability" in imputed.var:
        parts.append(f"expected {signed(float(imputed.var.at[gene, 'reliability']))}")
    if "reliability_class" in imputed.var:
        parts.append(str(imputed.var.at[gene, "reliability_class"]))
    return "  ·  ".join(parts)


@styled
def gene_maps(imputed: AnnData, genes: Sequence[str], pcc: Mapping[str, float] | None = None, per_row: int = 2) -> Figure:
    """Measured beside imputed, one colour scale per gene; genes the slide did not measure show the imputed map alone.

    Parameters
    ----------
    imputed
        ``X`` imputed and ``layers['observed']`` measured values (log-normalised), ``obsm['spatial']``; n_spots × n_genes.
    genes
        Which genes to show, in this order.
    pcc
        True correlation of each gene predicted while hidden; shown in the title.
    per_row
        Genes side by side.
    """
    xy = np.asarray(imputed.obsm["spatial"], dtype=float)[:, :2]
    genes = list(genes)
    both = "measured" not in imputed.var or bool(imputed.var.loc[genes, "measured"].any())
    panels = 2 if both else 1
    per_row = max(1, min(per_row if both else per_row * 2, len(genes)))
    rows = -(-len(genes) // per_row)
    bar, gap, edge, head, foot = 0.42, 0.06, 0.06, 0.52, 0.3
    slots = max(per_row, 2 if both else 3)  # one gene alone is not blown up to the whole width
    cell = (WIDTH - 2 * edge) / slots
    panel_w = (cell - bar - gap * panels) / panels
    panel_h = panel_w * height_over_width(xy)
    width, height = 2 * edge + per_row * cell, rows * (panel_h + head) + foot
    fig = Figure(figsize=(width, height))
    for k, gene in enumerate(genes):
        j = imputed.var_names.get_loc(gene)
        x = edge + (k % per_row) * cell
        y = height - (k // per_row + 1) * (panel_h + head)
        shown = {"imputed": _column(imputed.X, j)}
        if both:
            shown = {"measured": _column(imputed.layers["observed"], j), **shown}
        low, high = _limits(*shown.values())
        span = panels * panel_w + (panels - 1) * gap
        fig.text((x + 0.02) / width, (y + panel_h + 0.33) / height, shorten(gene, 28), weight="bold", size=8.5, color=INK)
        fig.text((x + 0.02) / width, (y + panel_h + 0.185) / height, _subtitle(imputed, gene, pcc), size=6.5, color=INK)
        for p, (what, values) in enumerate(shown.items()):
            left = x + p * (panel_w + gap)
            ax = fig.add_axes((left / width, y / height, panel_w / width, panel_h / height))
            points = draw_spots(ax, xy, values, low, high, (panel_w, panel_h))
            fig.text((left + 0.02) / width, (y + panel_h + 0.05) / height, what, size=6.5, color=MUTED)
        bar_h = min(panel_h * 0.6, 1.1)
        cax = fig.add_axes(((x + span + 0.05) / width, (y + (panel_h - bar_h) / 2) / height, 0.06 / width, bar_h / height))
        colorbar = fig.colorbar(points, cax=cax)
        colorbar.outline.set_visible(False)
        colorbar.locator = MaxNLocator(3)
        colorbar.ax.tick_params(labelsize=6.5, length=2, pad=1)
    fig.text(edge / width, 0.1 / height, "Colour: log-normalised expression, one scale per gene.", size=6.5, color=MUTED)
    return fig


@styled
def total_counts_map(slide: AnnData) -> Figure:
    """The tissue: total counts of each spot on a log scale. ``slide``: raw counts in ``layers['counts']``, ``obsm['spatial']``."""
    xy = np.asarray(slide.obsm["spatial"], dtype=float)[:, :2]
    totals = np.asarray(slide.layers["counts"].sum(axis=1), dtype=float).ravel()
    values = np.log10(np.maximum(totals, 1))
    panel_w = 3.2
    panel_h = panel_w * height_over_width(xy)
    width, height = panel_w + 0.75, panel_h + 0.35
    fig = Figure(figsize=(width, height))
    ax = fig.add_axes((0.05 / width, 0.05 / height, panel_w / width, panel_h / height))
    low, high = (float(q) for q in np.quantile(values, (0.005, 0.995)))
    points = draw_spots(ax, xy, values, low, high if high > low else low + 1, (panel_w, panel_h))
    fig.text(0.07 / width, 1 - 0.2 / height, "Total counts per spot", weight="bold", size=8.5)
    cax = fig.add_axes(((panel_w + 0.12) / width, (0.05 + panel_h * 0.2) / height, 0.08 / width, panel_h * 0.6 / height))
    colorbar = fig.colorbar(points, cax=cax, format=lambda v, _: f"{10**v:,.0f}")
    colorbar.outline.set_visible(False)
    colorbar.locator = FixedLocator([np.log10(m * 10**k) for k in range(9) for m in (1, 3)])
    colorbar.ax.tick_params(labelsize=6.5, length=2, pad=1)
    return fig


@styled
def thumbnail(imputed: AnnData, gene: str) -> Figure:
    """A small picture of one measured gene, measured beside imputed on one colour scale, for tables of many slides."""
    xy = np.asarray(imputed.obsm["spatial"], dtype=float)[:, :2]
    j = imputed.var_names.get_loc(gene)
    shown = {"measured": _column(imputed.layers["observed"], j), "imputed": _column(imputed.X, j)}
    low, high = _limits(*shown.values())
    panel_w, gap, head = 1.75, 0.08, 0.2
    panel_h = panel_w * height_over_width(xy)
    width, height = 2 * panel_w + 3 * gap, panel_h + head + gap
    fig = Figure(figsize=(width, height))
    for p, (what, values) in enumerate(shown.items()):
        left = gap + p * (panel_w + gap)
        ax = fig.add_axes((left / width, gap / height, panel_w / width, panel_h / height))
        draw_spots(ax, xy, values, low, high, (panel_w, panel_h))
        fig.text((left + 0.02) / width, 1 - 0.15 / height, what, size=8, color=MUTED)
    return fig
