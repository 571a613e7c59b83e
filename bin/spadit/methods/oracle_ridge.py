"""Ceiling: the linear map of `ridge` fitted on the spatial truth. It cheats on purpose and is never ranked.

It tells how much of a gene the visible genes could say, if the reference told how: spots are predicted in 5 folds by maps that
were fitted on the other spots' measured values of the hidden gene.
"""

from __future__ import annotations

import numpy as np

from spadit.methods.base import Method, slide_z
from spadit.methods.ridge import solve
from spadit.preprocess import zscore

FOLDS = 5


def impute(slide, reference, genes, *, truth, seed=0, device="cpu", target=None) -> np.ndarray:
    """spots × genes, z-scale (here of the truth, not of the reference).

    Parameters
    ----------
    truth
        spots × genes: the measured values of ``genes``, log-normalised.
    """
    if truth is None:
        raise ValueError("the ceiling oracle_ridge needs the truth")
    x, y = slide_z(slide, target), zscore(np.asarray(truth))
    n, p = x.shape
    order = np.random.default_rng(seed).permutation(n)
    folds = [np.sort(part) for part in np.array_split(order, min(FOLDS, n))]
    # the products of all spots less those of a fold are the products of the other spots: made once, not five times
    gram, cross = (x.T @ x, x.T @ y) if p <= n * (1 - 1 / FOLDS) else (None, None)
    result = np.zeros(y.shape, dtype=np.float32)
    for fold in folds:
        others = np.setdiff1d(order, fold)
        if not len(others):
            continue
        known = (None, None) if gram is None else (gram - x[fold].T @ x[fold], cross - x[fold].T @ y[fold])
        result[fold] = x[fold] @ solve(x[others], y[others], *known)
    return result


METHOD = Method(
    "oracle_ridge",
    "ceiling",
    "the map of ridge fitted on the spatial truth, 5 folds over spots: sees the answers",
    "This project.",
    impute,
)
