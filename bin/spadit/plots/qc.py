"""What the data looked like: counts and genes per spot or cell."""

from __future__ import annotations

import numpy as np
from anndata import AnnData
from matplotlib.figure import Figure

from spadit.plots.style import GRID, INK, MUTED, WIDTH, styled


@styled
def histograms(slide: AnnData) -> Figure:
    """Histograms of total counts and detected genes per spot. ``slide``: raw counts in ``layers['counts']``, n_spots × n_genes."""
    counts = slide.layers["counts"]
    totals = np.asarray(counts.sum(axis=1), dtype=float).ravel()
    genes = np.asarray((counts > 0).sum(axis=1), dtype=float).ravel()
    fig = Figure(figsize=(WIDTH, 2.1), layout="constrained")
    for ax, values, name in zip(fig.subplots(1, 2), (totals, genes), ("total counts per spot", "genes detected per spot"), strict=True):
        bins = 50 if name.startswith("total") else np.arange(-0.5, max(values.max(), 1) + 1, max(1, np.ceil(np.ptp(values) / 50)))
        ax.hist(values, bins=bins, color="#0072B2", alpha=0.85)
        median = float(np.median(values))
        ax.axvline(median, color=INK, linewidth=1)
        ax.annotate(
            f"median {median:,.0f}",
            (median, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            size=7,
            ha="center",
        )
        ax.set(xlabel=name, ylabel="spots")
        ax.xaxis.set_major_formatter(lambda v, _: f"{v:,.0f}")
        ax.grid(axis="y", color=GRID, linewidth=0.6)
        ax.set_axisbelow(True)
    return fig


@styled
def quantiles(slide: dict, reference: dict) -> Figure:
    """Counts and genes of slide and reference before the filters, as quantile curves.

    Parameters
    ----------
    slide, reference
        'counts' and 'genes': 21 values at 0, 5, …, 100 % (``contracts.QualityControl.quantiles``).
    """
    share = np.linspace(0, 100, 21)
    fig = Figure(figsize=(WIDTH, 2.5), layout="constrained")
    names = {"counts": "total counts", "genes": "detected genes"}
    for ax, (key, name) in zip(fig.subplots(1, 2), names.items(), strict=True):
        for table, who, colour, line in ((slide, "slide, per spot", "#0072B2", "-"), (reference, "reference, per cell", "#D55E00", "--")):
            if len(table.get(key) or []) == 21:
                ax.plot(share, np.asarray(table[key], dtype=float), color=colour, linestyle=line, linewidth=1.6, label=who)
        ax.set_yscale("symlog", linthresh=1)
        ax.set_ylim(bottom=0)
        ax.set(xlabel="share of spots or cells with at most this many (%)", ylabel=name)
        ax.yaxis.set_major_formatter(lambda v, _: f"{v:,.0f}")
        ax.grid(color=GRID, linewidth=0.6)
        ax.axvline(50, color=MUTED, linewidth=0.6)
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        fig.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return fig
