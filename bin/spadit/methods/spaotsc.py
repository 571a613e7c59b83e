"""SpaOTsc: cells are transported to spots, and a spot takes the mean of what arrives there."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import rankdata
from sklearn.decomposition import PCA

from spadit.methods.base import Method, reference_log
from spadit.preprocess import log_normalise, unit_rows

ALPHA = 0.1
"""Weight of structure (cells alike should go to places near one another) against expression."""
EPSILON = 1.0
"""Weight of the plan's entropy."""
RHO = 100.0
"""Weight of the marginals: how much it costs to make or lose mass."""
N_OUTER = 5
"""How often the structure's cost is made anew from the plan."""
N_SINKHORN = 200
TOLERANCE = 1e-7
N_COMPONENTS = 40
"""Principal components that cells are compared in."""
MAX_CELLS = 2500
MAX_SPOTS = 2500
"""Of one plan. More spots are divided at random into plans of their own, each a thinned slide; more cells are subsampled."""


def rank_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman correlation of every row of ``a`` with every row of ``b`` over the columns; 0 for a constant row."""
    a, b = (rankdata(x, axis=1).astype(np.float64) for x in (a, b))
    return unit_rows(a - a.mean(axis=1, keepdims=True)) @ unit_rows(b - b.mean(axis=1, keepdims=True)).T


def structure_cost(plan: np.ndarray, cells: np.ndarray, spots: np.ndarray) -> np.ndarray:
    """Gradient of Σ (D_ij - E_kl)² γ_ik γ_jl, the Gromov-Wasserstein term of a plan γ: cells × spots.

    Parameters
    ----------
    plan
        γ, cells × spots.
    cells, spots
        D and E: distances within either, symmetric.
    """
    own = (cells**2 @ plan.sum(axis=1))[:, None] + (spots**2 @ plan.sum(axis=0))[None, :]
    return 2 * (own - 2 * cells @ plan @ spots)


def transport_plan(correlation: np.ndarray, cells: np.ndarray | None = None, spots: np.ndarray | None = None) -> np.ndarray:
    """Unbalanced, structured optimal transport with entropy.

    Minimises (1 - α) ⟨γ, C⟩ + α GW(γ) + ε Σ γ (log γ - 1) + ρ KL(marginals), with C = exp(1 - correlation)². The quadratic term is
    replaced by its linear part at the plan before, N_OUTER times, and Sinkhorn's iterations solve what is left.

    Parameters
    ----------
    correlation
        cells × spots, -1 to 1. The marginals are its exponential's row and column sums, brought to 1.
    cells, spots
        Distances within either, largest 1; None: no structure.

    Returns
    -------
    numpy.ndarray
        γ: cells × spots, not negative.
    """
    from ot.unbalanced import sinkhorn_unbalanced

    weight = np.exp(correlation)
    a, b = weight.sum(axis=1) / weight.sum(), weight.sum(axis=0) / weight.sum()
    cost = np.exp(1 - correlation) ** 2
    # the divergence from a matrix of ones is the entropy
    options = {"reg": EPSILON, "reg_m": RHO, "c": np.ones_like(cost), "numItermax": N_SINKHORN, "stopThr": TOLERANCE}
    if cells is None or spots is None or ALPHA == 0:
        return sinkhorn_unbalanced(a, b, cost, **options)
    plan = a[:, None] * b[None, :]
    for _ in range(N_OUTER):
        before = plan
        plan = sinkhorn_unbalanced(a, b, (1 - ALPHA) * cost + ALPHA * structure_cost(plan, cells, spots), **options)
        if np.abs(plan - before).sum() < 1e-3 * plan.sum():
            break
    return plan


def _distances(x: np.ndarray) -> np.ndarray:
    d = cdist(x, x)
    return d / max(d.max(), 1e-12)


def impute(slide, reference, genes, *, seed=0, device="cpu", target=None) -> np.ndarray:
    """spots × genes, log-normalised scale."""
    rng = np.random.default_rng(seed)
    visible, hidden = reference_log(slide, reference, genes, target)
    chosen = np.sort(rng.choice(len(visible), MAX_CELLS, replace=False)) if len(visible) > MAX_CELLS else np.arange(len(visible))
    visible, hidden = visible[chosen], hidden[chosen]
    whole = log_normalise(reference.layers["counts"][chosen])[0].toarray()
    n = min(N_COMPONENTS, *whole.shape)
    cells = _distances(PCA(n, random_state=seed).fit_transform(whole.astype(np.float64)))

    spots = log_normalise(slide.layers["counts"], target=target)[0].toarray()
    places = np.asarray(slide.obsm["spatial"], dtype=float)[:, :2]
    result = np.empty((len(spots), len(genes)), dtype=np.float32)
    for part in np.array_split(rng.permutation(len(spots)), -(-len(spots) // MAX_SPOTS)):
        plan = transport_plan(rank_correlation(visible, spots[part]), cells, _distances(places[part]))
        mass = plan.sum(axis=0)
        shares = np.where(mass > 0, plan / np.where(mass > 0, mass, 1), 1 / len(plan))
        result[part] = shares.T @ hidden
    return result


METHOD = Method(
    "SpaOTsc",
    "method",
    "mean over the cells that unbalanced, structured optimal transport brings to the spot",
    "Cang Z, Nie Q. Inferring spatial and signaling relationships between cells from single cell transcriptomic data. "
    "Nat. Commun. 11, 2084 (2020). doi:10.1038/s41467-020-15968-5.",
    impute,
    requires=("POT",),
    defaults={"alpha": ALPHA, "epsilon": EPSILON, "rho": RHO, "cost": "exp(1 - Spearman)²", "components": N_COMPONENTS},
    differs="Own implementation on POT's Sinkhorn iterations; the structured problem is linearised 5 times. At most 2,500 "
    "cells (seeded) and 2,500 spots per plan; more spots are divided at random into several plans.",
    scale="log",
    minutes=5,
)
