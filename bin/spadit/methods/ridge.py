"""Floor: a linear map from the visible genes to the hidden one, fitted on cells and applied to spots."""

from __future__ import annotations

import numpy as np

from spadit.methods.base import Method, reference_z, slide_z

PENALTY = 0.01
"""Of the trace of the visible genes' covariance. The same for every slide: nothing is tuned on one. (Settled once, as the value that
reproduces the project's first table of floors on four slides.)"""


def solve(x: np.ndarray, y: np.ndarray, gram: np.ndarray | None = None, cross: np.ndarray | None = None) -> np.ndarray:
    """Weights W (features × targets) of ridge regression: (K + λI)⁻¹ X'Y/n with K = X'X/n, λ = 0.01 tr(K).

    With fewer observations than features the same weights come from the observations' n × n matrix.

    Parameters
    ----------
    x
        observations × features, centred.
    y
        observations × targets, centred.
    gram, cross
        X'X and X'Y where they are known already.
    """
    n, p = x.shape
    penalty = PENALTY * max(float(np.einsum("ij,ij->", x, x, dtype=np.float64)) / n, 1e-9)
    if p <= n:
        k = (x.T @ x if gram is None else gram).astype(np.float64) / n
        k[np.diag_indices(p)] += penalty
        return np.linalg.solve(k, (x.T @ y if cross is None else cross).astype(np.float64) / n).astype(np.float32)
    k = (x @ x.T).astype(np.float64) / n
    k[np.diag_indices(n)] += penalty
    return x.T @ np.linalg.solve(k, y.astype(np.float64) / n).astype(np.float32)


def impute(slide, reference, genes, *, seed=0, device="cpu", target=None) -> np.ndarray:
    """spots × genes, z-scale."""
    z_visible, z_hidden = reference_z(slide, reference, genes, target)
    return slide_z(slide, target) @ solve(z_visible, z_hidden)


METHOD = Method(
    "ridge",
    "floor",
    "linear map from the visible genes to the hidden gene, fitted on cells (penalty 1 % of the trace of their covariance)",
    "Hoerl AE, Kennard RW. Ridge regression: biased estimation for nonorthogonal problems. Technometrics 12, 55-67 (1970). "
    "doi:10.1080/00401706.1970.10488634.",
    impute,
)
