"""Floor: the mean of the hidden gene over the 50 cells of the reference most like the spot."""

from __future__ import annotations

import numpy as np

from spadit.methods.base import Method, reference_z, slide_z
from spadit.preprocess import unit_rows

N_CELLS = 50
BLOCK = 1 << 24
"""Entries of the spots × cells similarity that are held at once."""


def impute(slide, reference, genes, *, seed=0, device="cpu", target=None) -> np.ndarray:
    """spots × genes, z-scale. Nearest by cosine of the z-scored visible genes."""
    z_visible, z_hidden = reference_z(slide, reference, genes, target)
    cells, spots = unit_rows(z_visible), unit_rows(slide_z(slide, target))
    k = min(N_CELLS, len(cells))
    result = np.empty((len(spots), len(genes)), dtype=np.float32)
    step = max(1, BLOCK // max(len(cells), k * max(1, len(genes))))
    for i in range(0, len(spots), step):
        similarity = spots[i : i + step] @ cells.T
        nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        result[i : i + step] = z_hidden[nearest].mean(axis=1)
    return result


METHOD = Method(
    "knn50",
    "floor",
    "mean over the 50 cells nearest to the spot (cosine of the z-scored visible genes)",
    "Fix E, Hodges JL. Discriminatory analysis. Nonparametric discrimination: consistency properties. Int. Stat. Rev. 57, 238-247 (1989). "
    "doi:10.2307/1403797.",
    impute,
)
