"""Training curves: a row of panels per kind of network, one line per fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from spadit.plots.style import GRID, MUTED, WIDTH, series, styled

PANELS = {"train_loss": "training loss", "validation_pcc": "validation PCC"}
"""Column of ``curves.csv`` -> what it is."""
MODES = {"token": "token networks, scored together with the coarse condition", "whole_slide": "whole-slide networks, scored alone"}
"""Mode -> title of its row: the two validation PCCs are of different things."""


def modes(table: pd.DataFrame) -> list[str]:
    """The kinds of network in a table of curves, in the order of :data:`MODES`."""
    found = set(table["mode"]) if "mode" in table else set()
    return [mode for mode in MODES if mode in found]


def curve(table: pd.DataFrame, fit: str, mode: str, column: str) -> pd.Series:
    """One line of a fit and mode (index: step): the mean over its networks.

    The networks that chose how long to train are taken where there are any: the final ones have no validation genes. A network that has
    stopped counts with its last value; without it the line would jump to whichever networks are left.
    """
    rows = table[(table["fit"] == fit) & (table["mode"] == mode)]
    if (rows["stage"] == "choose").any():
        rows = rows[rows["stage"] == "choose"]
    return rows.pivot_table(index="step", columns="network", values=column).sort_index().ffill().mean(axis=1)


def chosen_steps(table: pd.DataFrame, fit: str, mode: str) -> int | None:
    """How long the final networks of a fit and mode were trained; None where there are none."""
    steps = table.loc[(table["fit"] == fit) & (table["mode"] == mode) & (table["stage"] == "final"), "step"]
    return int(steps.max()) if len(steps) else None


@styled
def curves(table: pd.DataFrame) -> Figure:
    """Loss and validation correlation over training steps, on the latter a dot where the final networks' training ended.

    Parameters
    ----------
    table
        ``curves.csv``: fit, mode, stage ('choose' or 'final'), network, step, train_loss, validation_pcc.
    """
    rows = modes(table)
    panels = [column for column in PANELS if column in table and table[column].notna().any()]
    if not rows or not panels:
        fig = Figure(figsize=(WIDTH, 1.2), layout="constrained")
        fig.text(0.5, 0.5, "no training curve", ha="center", color=MUTED)
        return fig
    fits = list(dict.fromkeys(table["fit"]))
    fig = Figure(figsize=(WIDTH, 0.4 + 2.1 * len(rows)), layout="constrained")
    handles = {}
    for axes, mode in zip(fig.subplots(len(rows), len(panels), squeeze=False), rows, strict=True):
        for ax, column in zip(axes, panels, strict=True):
            for k, fit in enumerate(fits):
                line = curve(table, fit, mode, column)
                if line.empty:
                    continue
                colour, dash = series(k)
                (drawn,) = ax.plot(line.index, line.to_numpy(), color=colour, linestyle=dash, linewidth=1.1)
                handles[str(fit).replace("_", " ")] = drawn
                stop = chosen_steps(table, fit, mode) if column == "validation_pcc" else None
                if stop is not None or len(line) == 1:
                    at = line.index[0] if stop is None else min(stop, line.index[-1])
                    ax.plot(at, np.interp(at, line.index, line), "o", color=colour, markersize=3.5)
            ax.set(xlabel="training step", ylabel=PANELS[column])
            ax.grid(color=GRID, linewidth=0.6)
            ax.set_axisbelow(True)
        axes[0].set_title(MODES[mode], loc="left")
    fig.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(7, len(handles)), frameon=False)
    return fig
