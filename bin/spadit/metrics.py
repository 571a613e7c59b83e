"""How good an imputed gene is: one number per gene, for all genes of a slide at once.

``truth`` and ``imputed`` are spots × genes (or spots, for a single gene) on the log-normalised scale; the result is one
float64 per gene. A constant vector says nothing, and its correlation is 0, not NaN. :data:`METRICS` tells of each measure
its range, its direction and its source; documents and reports take them from there.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import scipy.sparse as sp
import scipy.stats

BLOCK = 1 << 23
"""Entries that are worked on at once in float64 (64 MiB): memory doesn't grow with spots × genes."""

LI_2022 = (
    "Li B, et al. Benchmarking spatial and single-cell transcriptomics integration methods for transcript distribution prediction and "
    "cell type deconvolution. Nat. Methods 19, 662-670 (2022). doi:10.1038/s41592-022-01480-9."
)


@dataclasses.dataclass(frozen=True)
class Metric:
    """What a reader must know of a measure."""

    name: str
    label: str
    low: float
    high: float
    better: str
    """'higher', 'lower', or '' where neither is."""
    definition: str
    citation: str


METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric(
            "pcc",
            "Pearson correlation (PCC)",
            -1,
            1,
            "higher",
            "Pearson correlation over spots; 0 for a constant prediction.",
            LI_2022,
        ),
        Metric(
            "spearman",
            "Spearman correlation",
            -1,
            1,
            "higher",
            "Pearson correlation of the ranks over spots, ties sharing their mean rank; 0 for a constant prediction.",
            "Spearman C. The proof and measurement of association between two things. Am. J. Psychol. 15, 72-101 (1904). "
            "doi:10.2307/1412159.",
        ),
        Metric(
            "ssim",
            "structural similarity (SSIM)",
            -1,
            1,
            "higher",
            "Structural similarity with one window over all spots, each vector first divided by its maximum, L = 1, C1 = 0.0001, "
            "C2 = 0.0009.",
            "Wang Z, et al. Image quality assessment: from error visibility to structural similarity. IEEE Trans. Image Process. 13, "
            "600-612 (2004). doi:10.1109/TIP.2003.819861.",
        ),
        Metric(
            "rmse",
            "RMSE of z-scores",
            0,
            2,
            "lower",
            "Root mean square difference of the z-scored vectors, √(2(1 − PCC)) unless one is constant; a constant prediction scores 1.",
            LI_2022,
        ),
        Metric(
            "js",
            "Jensen-Shannon divergence",
            0,
            float(np.log(2)),
            "lower",
            "Jensen-Shannon divergence (natural logarithm; not its root, the distance) of the vectors normalised to sum 1 over spots, "
            "negative values clipped to 0.",
            "Lin J. Divergence measures based on the Shannon entropy. IEEE Trans. Inf. Theory 37, 145-151 (1991). doi:10.1109/18.61115.",
        ),
        Metric(
            "moran",
            "Moran's I",
            -1,
            1,
            "",
            "Spatial autocorrelation over each spot's 6 nearest neighbours; to be compared between truth and prediction.",
            "Moran PAP. Notes on continuous stochastic phenomena. Biometrika 37, 17-23 (1950). doi:10.1093/biomet/37.1-2.17.",
        ),
        Metric(
            "coverage",
            "coverage of the 90 % interval",
            0,
            1,
            "",
            "Share of spots whose measured value lies within the interval; 0.9 is right.",
            "",
        ),
        Metric(
            "width",
            "width of the 90 % interval",
            0,
            float("inf"),
            "lower",
            "Mean width of the interval over spots, at right coverage.",
            "",
        ),
        Metric(
            "accuracy_score",
            "accuracy score (AS)",
            0,
            1,
            "higher",
            "Mean rank of a method among N by PCC, SSIM, RMSE and JS (best = N, ties share the mean rank), divided by N.",
            LI_2022,
        ),
        Metric("robustness_score", "robustness score (RS)", 0, 1, "higher", "Share of test genes with PCC above 0.5.", LI_2022),
    )
}


def pcc(truth: np.ndarray, imputed: np.ndarray) -> np.ndarray:
    """Pearson correlation over spots, per gene; 0 where either vector is constant."""
    return _blocks(_pcc, truth, imputed)


def spearman(truth: np.ndarray, imputed: np.ndarray) -> np.ndarray:
    """Spearman correlation over spots, per gene: Pearson correlation of the ranks, ties sharing the mean rank."""
    return _blocks(lambda a, b: _pcc(scipy.stats.rankdata(a, axis=0), scipy.stats.rankdata(b, axis=0)), truth, imputed)


def ssim(truth: np.ndarray, imputed: np.ndarray) -> np.ndarray:
    """Structural similarity with a single window, per gene.

    Both vectors are divided by their own maximum (if that is positive), then, with L = 1, C1 = (0.01 L)², C2 = (0.03 L)²,
    means m, variances v and covariance c: (2 m1 m2 + C1) / (m1² + m2² + C1) · (2 c + C2) / (v1 + v2 + C2).
    Wang et al. 2004; as in Li et al. 2022.
    """
    return _blocks(_ssim, truth, imputed)


def rmse(truth: np.ndarray, imputed: np.ndarray) -> np.ndarray:
    """Root mean square difference of the z-scored vectors, per gene; a constant vector becomes zeros."""
    return _blocks(lambda a, b: np.sqrt(np.mean((_zscore(a) - _zscore(b)) ** 2, axis=0)), truth, imputed)


def js(truth: np.ndarray, imputed: np.ndarray) -> np.ndarray:
    """Jensen-Shannon **divergence** (natural logarithm, 0 to ln 2) of the vectors as distributions over spots, per gene.

    ``scipy.spatial.distance.jensenshannon`` gives its square root, the distance. Negative values are clipped to 0; a vector
    without positive values is taken as uniform, like any other constant.
    """
    return _blocks(_js, truth, imputed)


def coverage(truth: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Share of spots whose value lies within [lower, upper], per gene."""
    return _blocks(lambda t, a, b: np.mean((a <= t) & (t <= b), axis=0), truth, lower, upper)


def width(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Mean width of the interval over spots, per gene."""
    return _blocks(lambda a, b: np.mean(b - a, axis=0), lower, upper)


def neighbours(spatial: np.ndarray, k: int = 6) -> sp.csr_matrix:
    """Each spot's k nearest spots, spots × spots, each row summing to 1 (k is cut to the number of other spots).

    Parameters
    ----------
    spatial
        Coordinates, spots × 2.
    """
    from sklearn.neighbors import NearestNeighbors

    n = len(spatial)
    k = min(k, n - 1)
    if k < 1:
        return sp.csr_matrix((n, n))
    graph = NearestNeighbors(n_neighbors=k).fit(spatial).kneighbors_graph()  # without the spot itself
    return (graph / k).tocsr()


def morans_i(values: np.ndarray, graph: sp.csr_matrix) -> np.ndarray:
    """Moran's I per gene: n / S0 · Σ w_ij z_i z_j / Σ z_i², with S0 the sum of the weights; 0 for a constant gene.

    Parameters
    ----------
    values
        spots × genes.
    graph
        Weights, spots × spots, for example of :func:`neighbours`.
    """
    total = graph.sum()

    def block(v: np.ndarray) -> np.ndarray:
        z = _zscore(v)
        return np.einsum("sg,sg->g", z, graph @ z) / total if total > 0 else np.zeros(v.shape[1])

    return _blocks(block, values)


def score(truth: np.ndarray, imputed: np.ndarray) -> pd.DataFrame:
    """PCC, Spearman, SSIM, RMSE and JS: genes × measures."""
    functions = (pcc, spearman, ssim, rmse, js)
    return pd.DataFrame({f.__name__: np.atleast_1d(f(truth, imputed)) for f in functions})


def accuracy_score(table: pd.DataFrame) -> pd.Series:
    """Accuracy score of each method on one data set: in (0, 1], 1 = best by all four measures.

    Parameters
    ----------
    table
        methods × at least the columns pcc, ssim, rmse, js: the medians over genes.

    Raises
    ------
    ValueError
        With fewer than two methods, where ranks say nothing.
    """
    n = len(table)
    if n < 2:
        raise ValueError("the accuracy score needs at least two methods")
    ranks = [table[c].rank(ascending=METRICS[c].better == "higher", method="average") for c in ("pcc", "ssim", "rmse", "js")]
    return sum(ranks) / len(ranks) / n


def robustness_score(pcc_per_gene: np.ndarray, threshold: float = 0.5) -> float:
    """Share of test genes with PCC above the threshold. NaN without genes."""
    values = np.asarray(pcc_per_gene, dtype=float)
    return float(np.mean(values > threshold)) if values.size else float("nan")


def bootstrap_interval(
    values: np.ndarray, statistic: str = "median", seed: int = 0, n_draws: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the median or mean over genes. (NaN, NaN) without values.

    Efron 1979. Genes are drawn as if they were independent; co-expressed ones aren't, so the interval is a lower bound.
    """
    values = np.asarray(values, dtype=float)
    if not values.size:
        return float("nan"), float("nan")
    function = {"median": np.median, "mean": np.mean}[statistic]
    rng = np.random.default_rng(seed)
    rows = max(1, BLOCK // 4 // values.size)
    draws = np.concatenate(
        [function(values[rng.integers(values.size, size=(min(rows, n_draws - i), values.size))], axis=1) for i in range(0, n_draws, rows)]
    )
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_wilcoxon(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test of a − b over genes; 1 where nothing differs."""
    difference = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    if not np.any(difference):
        return 1.0
    return float(scipy.stats.wilcoxon(difference).pvalue)


def holm(p: np.ndarray) -> np.ndarray:
    """p-values corrected for their number (Holm 1979)."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(p, kind="stable")
    corrected = np.minimum(1, np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]))
    result = np.empty_like(p)
    result[order] = corrected
    return result


def _blocks(function, *arrays: np.ndarray) -> np.ndarray:
    """Call ``function`` on blocks of genes, in float64; checks shapes and that all is finite."""
    arrays = tuple(np.asarray(a) for a in arrays)
    if any(a.shape != arrays[0].shape for a in arrays) or arrays[0].ndim not in (1, 2) or not arrays[0].shape[0]:
        raise ValueError(f"spots × genes arrays of one shape with at least one spot are needed, not {[a.shape for a in arrays]}")
    single = arrays[0].ndim == 1
    if single:
        arrays = tuple(a[:, None] for a in arrays)
    n_spots, n_genes = arrays[0].shape
    result = np.empty(n_genes)
    step = max(1, BLOCK // n_spots)
    for i in range(0, n_genes, step):
        part = [np.asarray(a[:, i : i + step], dtype=np.float64) for a in arrays]
        if not all(np.isfinite(a).all() for a in part):
            raise ValueError("values must be finite numbers")
        result[i : i + step] = function(*part)
    return result[0] if single else result


def _zscore(x: np.ndarray) -> np.ndarray:
    """Mean 0, SD 1 per gene; a constant gene becomes zeros. Differences as small as float32's rounding count as none."""
    top, bottom = x.max(axis=0), x.min(axis=0)
    varies = top - bottom > 1e-6 * np.maximum(np.abs(top), np.abs(bottom))
    span = np.where(varies, top - bottom, 1.0)
    z = (x - bottom) / span  # so that neither tiny nor huge values under- or overflow when squared
    z -= z.mean(axis=0)
    sd = np.sqrt(np.mean(z**2, axis=0))
    z /= np.where(varies, sd, 1.0)
    z[:, ~varies] = 0.0
    return z


def _pcc(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.clip(np.mean(_zscore(a) * _zscore(b), axis=0), -1.0, 1.0)


def _ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    c1, c2 = 0.01**2, 0.03**2
    a, b = (x / np.where(x.max(axis=0) > 0, x.max(axis=0), 1.0) for x in (a, b))
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    covariance = np.mean((a - mean_a) * (b - mean_b), axis=0)
    return luminance * (2 * covariance + c2) / (a.var(axis=0) + b.var(axis=0) + c2)


def _js(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    p, q = _distribution(a), _distribution(b)
    middle = (p + q) / 2
    # ln 2 + Σ (p ln p + q ln q) / 2 − Σ m ln (2m) would cancel; relative entropies don't
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    return np.clip(divergence, 0.0, np.log(2))


def _distribution(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0, None)
    top = x.max(axis=0)
    x = np.where(top > 0, x / np.where(top > 0, top, 1.0), 1.0)
    return x / x.sum(axis=0)


def _relative_entropy(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    ratio = np.divide(p, q, out=np.ones_like(p), where=p > 0)
    return np.sum(p * np.log(ratio), axis=0)
