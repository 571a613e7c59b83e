"""A hidden gene's own level on the slide can't be known; this is the best guess, and what puts imputed maps on the slide's scale."""

from __future__ import annotations

import numpy as np


class Scale:
    """A gene's mean and SD over spots (log-normalised) from its mean, SD and detection in the reference: ridge over visible genes.

    Correlations don't depend on it; counts and intervals do.
    """

    def __init__(self, coefficients: np.ndarray, bounds: np.ndarray):
        self.coefficients, self.bounds = coefficients, bounds

    @classmethod
    def fit(cls, mean: np.ndarray, sd: np.ndarray, statistics: np.ndarray) -> Scale:
        """``mean``, ``sd``: of visible genes on the slide, (genes,); ``statistics``: mean, SD, detection in the reference, (genes, 3)."""
        features = _features(statistics)
        penalty = np.eye(features.shape[1])
        penalty[0, 0] = 0
        targets = np.log(np.column_stack([mean, sd]) + 1e-3)
        return cls(np.linalg.solve(features.T @ features + penalty, features.T @ targets), np.array([targets.min(0), targets.max(0)]))

    def expected(self, statistics: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and SD of genes, (genes,) each."""
        return tuple(np.exp(np.clip(_features(statistics) @ self.coefficients, *self.bounds)).T)


def crossfitted_scale(mean: np.ndarray, sd: np.ndarray, statistics: np.ndarray, n_folds: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """The expected mean and SD of visible genes, each from genes of other folds."""
    n = len(mean)
    result = np.empty((2, n))
    for k in range(min(n_folds, n)):
        own = np.arange(n) % min(n_folds, n) == k
        others = ~own if n > 1 else own
        result[:, own] = Scale.fit(mean[others], sd[others], statistics[others]).expected(statistics[own])
    return result[0], result[1]


def _features(statistics: np.ndarray) -> np.ndarray:
    return np.column_stack([np.ones(len(statistics)), np.log(statistics[:, :2] + 1e-3), statistics[:, 2]])


SOFTNESS = 0.35


def to_expression(z: np.ndarray, mean: np.ndarray, sd: np.ndarray, spread: np.ndarray | None = None) -> np.ndarray:
    """Log-normalised values (spots × genes, above 0) from maps on any scale and each gene's expected mean and SD.

    A map shrinks where little is known. Its shape is kept; its spread becomes the one expected of the gene, so that imputed and measured
    genes can be seen on one scale. How unsure a gene is stands in its reliability and interval instead. Near 0 and below values bend
    towards 0 (softplus, over 0.35 SD) instead of being cut: of sparse genes that would be two fifths of the spots, and their order would be
    lost. The mean over the spots stays the expected one. ``spread``: the maps' own SDs.
    """
    spread = z.std(0) if spread is None else spread
    soft = np.maximum(SOFTNESS * sd, 1e-6)
    values = z * (sd / np.where(spread > 1e-6, spread, 1) / soft).astype(np.float32)
    values += (mean / soft).astype(np.float32)
    bend = np.abs(values)  # log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)), in place: np.logaddexp takes four times as long
    np.negative(bend, out=bend)
    np.exp(bend, out=bend)
    np.log1p(bend, out=bend)
    np.maximum(values, 0, out=values)
    values += bend
    values *= mean / np.maximum(values.mean(0, dtype=np.float64), 1e-12)
    return values.astype(np.float32, copy=False)
