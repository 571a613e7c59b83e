"""The genes of a slide together: which have patterns that are alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from spadit.plots.style import INK, MUTED, RELIABILITY, shorten, styled

MARKERS = {"reliable": "o", "use with care": "^", "do not use": "x"}


@styled
def gene_map(points: np.ndarray, names: Sequence[str], classes: Sequence[str], labelled: int = 40) -> Figure:
    """Genes on a plane, alike ones close; the first ``labelled`` names are written where they find room.

    Parameters
    ----------
    points
        genes × 2.
    classes
        Reliability class of each gene: colour and shape.
    """
    fig = Figure(figsize=(7.2, 4.6))
    ax = fig.add_axes((0.01, 0.07, 0.98, 0.92))
    classes = np.asarray(classes)
    for name, colour in RELIABILITY.items():
        chosen = classes == name
        if chosen.any():
            ax.scatter(
                *points[chosen].T, s=22, color=colour, marker=MARKERS[name], linewidths=0.4, edgecolors="white", label=name, alpha=0.9
            )
    ax.set(xticks=[], yticks=[])
    ax.margins(0.04)
    ax.spines[:].set_visible(False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3, frameon=False, handletextpad=0.2)
    canvas = FigureCanvasAgg(fig)  # knows how large a text will be
    canvas.draw()
    renderer, taken = canvas.get_renderer(), []
    for (x, y), name in list(zip(points, names, strict=True))[: 4 * labelled]:
        if len(taken) >= labelled:
            break
        text = ax.annotate(shorten(str(name), 18), (x, y), xytext=(3, 2), textcoords="offset points", size=6.5, color=INK)
        box = text.get_window_extent(renderer).padded(1)
        inside = box.x1 < fig.bbox.x1 and box.y1 < fig.bbox.y1
        if not inside or any(box.overlaps(other) for other in taken):
            text.remove()
        else:
            taken.append(box)
    fig.text(0.99, 0.015, "near: like patterns; distances between far groups mean little", size=6.5, color=MUTED, ha="right")
    return fig
