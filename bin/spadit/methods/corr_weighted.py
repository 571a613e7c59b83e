"""Floor: the average of the visible genes, weighted by how they correlate with the hidden gene in the reference."""

from __future__ import annotations

import numpy as np

from spadit.methods.base import Method, reference_z, slide_z


def impute(slide, reference, genes, *, seed=0, device="cpu", target=None) -> np.ndarray:
    """spots × genes, z-scale: Σ w_v y_v / Σ w_v over the visible genes v, with w_v = max(0, correlation in the reference)."""
    z_visible, z_hidden = reference_z(slide, reference, genes, target)
    weights = np.maximum(z_visible.T @ z_hidden / len(z_visible), 0)
    total = weights.sum(axis=0)
    return slide_z(slide, target) @ (weights / np.where(total > 0, total, 1))


METHOD = Method(
    "corr_weighted", "floor", "average of the visible genes, weighted by max(0, correlation in the reference)", "This project.", impute
)
