"""Training curves, one line per fit."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from spadit.plots.style import GRID, MUTED, WIDTH, styled

# Okabe and Ito's order, without yellow (too faint on white); dashes repeat where there are more fits than colours
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#4d4d4d")
_DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)))


def curve(table: pd.DataFrame, fit: str, column: str) -> pd.Series:
    """One line of a fit: mean over its networks at each step (index: step).

    Where a fit was trained twice, first to choose the number of steps and then on all its genes, the first is taken.
    """
    rows = table[table["fit"] == fit]
    if "stage" in rows and (rows["stage"] == "choose").any():
        rows = rows[rows["stage"] == "choose"]
    return rows.groupby("step")[column].mean().dropna()


@styled
def curves(table: pd.DataFrame) -> Figure:
    """Loss and validation correlation over training steps.

    Parameters
    ----------
    table
        ``curves.csv``: fit, stage, model, step, train_loss, validation_loss, validation_pcc. Several models of a fit are averaged per step.
    """
    panels = [
        (c, n)
        for c, n in (("train_loss", "training loss"), ("validation_loss", "validation loss"), ("validation_pcc", "validation PCC"))
        if c in table and table[c].notna().any()
    ]
    fig = Figure(figsize=(WIDTH, 2.5), layout="constrained")
    if not panels:
        fig.text(0.5, 0.5, "no training curve", ha="center", color=MUTED)
        return fig
    fits = list(dict.fromkeys(table["fit"]))
    for ax, (column, name) in zip(fig.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for k, fit in enumerate(fits):
            line = curve(table, fit, column)
            colour, dash = _COLOURS[k % len(_COLOURS)], _DASHES[k // len(_COLOURS) % len(_DASHES)]
            ax.plot(
                line.index,
                line.to_numpy(),
                color=colour,
                linestyle=dash,
                linewidth=1.1,
                label=str(fit),
                marker="o" if len(line) == 1 else "",
                markersize=3,
            )
        ax.set(xlabel="training step", ylabel=name)
        ax.grid(color=GRID, linewidth=0.6)
        ax.set_axisbelow(True)
    handles, labels = ax.get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=min(7, len(fits)), frameon=False)
    return fig
