"""How well hidden genes were imputed: SpaDiT against floors, control and ceiling, and predicted against true reliability.

All functions take the table of ``metrics.csv``: one row per gene and method.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from spadit.plots.style import GRID, INK, MUTED, RELIABILITY, ROLES, WIDTH, label, role, shorten, styled

MEASURES = {
    "pcc": "Pearson correlation (PCC)",
    "spearman": "Spearman correlation",
    "ssim": "structural similarity (SSIM)",
    "rmse": "RMSE of z-scores",
    "js": "Jensen-Shannon divergence",
}
"""Column -> name. Higher is better for the first three, lower for the last two."""
LOWER_IS_BETTER = ("rmse", "js")


def method_order(metrics: pd.DataFrame) -> list[str]:
    """SpaDiT, then floors from best to worst median PCC, then the control, then the ceiling."""
    medians = metrics.groupby("method", observed=True)["pcc"].median()
    ranks = list(ROLES)
    return sorted(medians.index, key=lambda m: (ranks.index(role(m)), -np.nan_to_num(medians[m], nan=-9), m))


def boxes(ax, metrics: pd.DataFrame, methods: Sequence[str], measure: str, values: bool) -> None:
    """A box per method from top to bottom, of the values in the column ``measure``; ``values`` prints the medians at the right."""
    rng = np.random.default_rng(0)
    for k, method in enumerate(methods):
        kind = role(method)
        y = k + (0.45 if kind == "ceiling" else 0)  # the ceiling stands apart: it is no competitor
        data = metrics.loc[metrics["method"] == method, measure].dropna().to_numpy(dtype=float)
        if not data.size:
            continue
        face = "white" if kind == "ceiling" else ROLES[kind][0]
        ax.boxplot(
            data,
            positions=[y],
            orientation="horizontal",
            widths=0.6,
            patch_artist=True,
            showfliers=False,
            boxprops={"facecolor": face, "edgecolor": INK, "linewidth": 0.6, "hatch": "////" if kind == "ceiling" else "", "alpha": 0.9},
            medianprops={"color": INK, "linewidth": 1.6},
            whiskerprops={"color": MUTED, "linewidth": 0.7},
            capprops={"color": MUTED, "linewidth": 0.7},
        )
        if len(data) <= 200:
            jitter = rng.uniform(-0.2, 0.2, len(data))
            few = len(data) <= 30
            ax.scatter(data, y + jitter, s=8 if few else 4, color=INK, alpha=0.6 if few else 0.35, linewidths=0, zorder=3, rasterized=True)
        if values:
            median = f"{np.median(data):.2f}".replace("-", "−")
            ax.annotate(median, (1, y), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points", va="center", size=7)
    positions = [k + (0.45 if role(m) == "ceiling" else 0) for k, m in enumerate(methods)]
    ax.set_yticks(positions, [shorten(label(m), 32) for m in methods])
    ax.set_ylim(max(positions) + 0.6, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)
    if measure not in LOWER_IS_BETTER:
        ax.axvline(0, color=MUTED, linewidth=0.8)
    ax.spines["left"].set_visible(False)


def role_legend(fig: Figure, methods: Sequence[str]) -> None:
    """What the fill colours mean, below the figure."""
    handles = []
    for kind, (colour, name) in ROLES.items():
        if any(role(m) == kind for m in methods):
            hatch = "////" if kind == "ceiling" else ""
            handles.append(Patch(facecolor="white" if hatch else colour, edgecolor=INK, hatch=hatch, linewidth=0.6, label=name))
    fig.legend(handles=handles, loc="outside lower center", ncols=2 if len(handles) > 3 else len(handles), frameon=False)


@styled
def method_boxes(metrics: pd.DataFrame, methods: Sequence[str] | None = None) -> Figure:
    """PCC per hidden gene for every method: box (quartiles), line (median, printed at the right), points where there are few genes.

    ``methods`` gives another order than :func:`method_order`.
    """
    methods = list(methods or method_order(metrics))
    n = metrics["gene"].nunique()
    fig = Figure(figsize=(WIDTH, 0.34 * len(methods) + 1.25), layout="constrained")
    ax = fig.subplots()
    boxes(ax, metrics, methods, "pcc", values=True)
    ax.annotate("median", (1, 1), xycoords="axes fraction", xytext=(4, 1), textcoords="offset points", size=6.5, color=MUTED)
    ax.set_xlabel(f"PCC of measured and imputed values over spots, per hidden gene ({n:,} genes)")
    role_legend(fig, methods)
    return fig


@styled
def all_measures(metrics: pd.DataFrame) -> Figure:
    """Small boxes of the other measures: Spearman, SSIM, RMSE and JS."""
    methods = method_order(metrics)
    shown = [m for m in MEASURES if m != "pcc" and m in metrics]
    fig = Figure(figsize=(WIDTH, 2 * (0.26 * len(methods) + 0.62) + 0.4), layout="constrained")
    axes = fig.subplots(2, 2, sharey=True).ravel()
    for ax, measure in zip(axes, shown, strict=False):
        boxes(ax, metrics, methods, measure, values=False)
        direction = "lower is better" if measure in LOWER_IS_BETTER else "higher is better"
        ax.set_xlabel(f"{MEASURES[measure]}, {direction}")
    for ax in axes[len(shown) :]:
        ax.set_visible(False)
    role_legend(fig, methods)
    return fig


@styled
def reliability_scatter(var: pd.DataFrame, pcc: pd.Series) -> Figure:
    """Predicted reliability against the true PCC of hidden genes, one point per gene.

    Parameters
    ----------
    var
        Genes with columns ``reliability`` and ``reliability_class``.
    pcc
        True PCC of each scored gene (index: gene).
    """
    table = var.loc[var.index.intersection(pcc.index)].assign(pcc=pcc).dropna(subset=["reliability", "pcc"])
    fig = Figure(figsize=(3.6, 3.5), layout="constrained")
    ax = fig.subplots()
    if table.empty:
        ax.text(0.5, 0.5, "no scored gene has a reliability", ha="center", va="center", transform=ax.transAxes, color=MUTED)
        return fig
    both = np.concatenate([table["reliability"], table["pcc"]])
    low, high = min(0.0, float(both.min())) - 0.05, max(0.3, float(both.max())) + 0.05
    ax.plot([low, high], [low, high], color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    along = {"rotation": 45, "rotation_mode": "anchor", "ha": "right", "va": "top"}  # below the line, not across it
    ax.annotate("as expected", (high, high), xytext=(-4, -8), textcoords="offset points", size=6.5, color=MUTED, **along)
    markers = {"reliable": "o", "use with care": "^", "do not use": "X"}
    size = 18 if len(table) <= 300 else 7
    for name, colour in RELIABILITY.items():
        part = table[table["reliability_class"].astype(str) == name]
        if len(part):
            ax.scatter(
                part["reliability"],
                part["pcc"],
                s=size,
                marker=markers[name],
                color=colour,
                alpha=0.75,
                linewidths=0,
                rasterized=len(table) > 1000,
                label=f"{name} ({len(part):,})",
            )
    ax.set(
        xlim=(low, high), ylim=(low, high), aspect="equal", xlabel="expected PCC (predicted reliability)", ylabel="true PCC while hidden"
    )
    ax.grid(color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.legend(frameon=False, loc="upper left", handletextpad=0.2, borderaxespad=0.2)
    return fig
