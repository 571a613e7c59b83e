"""How far an imputed gene can be trusted: intervals, the expected correlation (reliability), and a class in plain words.

All of it is learned from genes that the slide measured, each imputed while hidden (cross-fitted). A gene's own errors are never
used for that gene: what is said of fold k's genes comes from the other folds.
"""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
from scipy.stats import norm
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from spadit.metrics import morans_i, neighbours, pcc
from spadit.preprocess import log_normalise, zscore

CLASSES = ("reliable", "use with care", "do not use")
LEVEL = 0.90
MAX_CELLS = 2000
MIN_GENES = 20
"""Fewer cross-fitted genes than this can't teach a regression: every gene then gets their mean as reliability."""


def gene_features(z: np.ndarray, genes: list[str], visible: anndata.AnnData, reference: anndata.AnnData) -> pd.DataFrame:
    """Scalars of a gene that tell something of how well it was imputed, none of which needs its measured values.

    Parameters
    ----------
    z
        What the network imputed, (spots, genes), z-scale.
    genes
        Their names.
    visible
        The slide restricted to the genes that the network saw.
    reference
        Cells × genes.

    Returns
    -------
    DataFrame
        genes × features: the map's spread (a network that is unsure shrinks), its Moran's I, its agreement with the
        correlation-weighted mean of the visible genes, the gene's mean, detection and SD in the reference, and its highest and mean top-5
        correlation with visible genes there.
    """
    cells = np.linspace(0, reference.n_obs - 1, min(MAX_CELLS, reference.n_obs)).round().astype(int)
    values = log_normalise(reference.layers["counts"][cells])[0].tocsc()
    seen = zscore(values[:, reference.var_names.get_indexer(visible.var_names)])
    seen_on_slide = zscore(log_normalise(visible.layers["counts"])[0])
    graph = neighbours(np.asarray(visible.obsm["spatial"]))
    rows = []
    for start in range(0, len(genes), 500):
        part = values[:, reference.var_names.get_indexer(genes[start : start + 500])]
        own = zscore(part)
        correlation = own.T @ seen / len(cells)
        simple_map = seen_on_slide @ np.maximum(correlation, 0).T
        map_z = z[:, start : start + 500]
        strongest = np.sort(np.abs(correlation), axis=1)[:, ::-1]
        mean = np.asarray(part.mean(0)).ravel()
        square = np.asarray(part.multiply(part).mean(0)).ravel()
        rows.append(pd.DataFrame({
            "map_sd": map_z.std(0),
            "map_moran": morans_i(map_z, graph),
            "agreement": pcc(simple_map, map_z),
            "reference_mean": np.log(mean + 1e-3),
            "reference_detected": np.asarray((part > 0).mean(0)).ravel(),
            "reference_sd": np.sqrt(np.maximum(square - mean**2, 0)),
            "highest_correlation": strongest[:, 0],
            "top5_correlation": strongest[:, :5].mean(1),
        }))
    return pd.concat(rows, ignore_index=True).set_index(pd.Index(genes))


def intervals(values: np.ndarray, sd: np.ndarray, truth: np.ndarray, calibration: list[int],
              fold: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """90 % intervals by split-conformal calibration: one width per gene, in units of the gene's expected SD.

    Coverage is marginal: over spots and genes together, not for each gene alone.

    Parameters
    ----------
    values
        Imputed, (spots, genes), log-normalised scale.
    sd
        Expected SD of each gene over the spots, (genes,).
    truth
        Measured values of the calibration genes, (spots, calibration genes).
    calibration
        Their columns in ``values``.
    fold
        Each gene's fold, -1 for genes outside the calibration. A fold is calibrated on the others.

    Returns
    -------
    lower, upper, residual_sd
        (spots, genes) each, float32; lower is at least 0.
    """
    calibration = np.asarray(calibration, dtype=int)
    if len(calibration) == 0:
        nothing = np.full(values.shape, np.nan, dtype=np.float32)
        return nothing, nothing.copy(), nothing.copy()
    error = np.abs(values[:, calibration] - truth) / sd[calibration]
    width, root = np.empty(len(sd)), np.empty(len(sd))
    for k in np.unique(fold):
        others = fold[calibration] != k
        used = error[:, others] if k >= 0 and others.any() else error
        width[fold == k] = np.quantile(used, min(1.0, LEVEL * (1 + 1 / used.size)))
        root[fold == k] = np.sqrt((used.astype(np.float64) ** 2).mean())
    half = (width * sd).astype(np.float32)
    residual_sd = np.broadcast_to((root * sd).astype(np.float32), values.shape).copy()
    return np.maximum(values - half, 0), values + half, residual_sd


def reliability(features: pd.DataFrame, truth: np.ndarray, values: np.ndarray, calibration: list[int],
                fold: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The expected PCC of each imputed gene with its (unknown) true map, and a class.

    A ridge regression from :func:`gene_features` to the PCC of cross-fitted genes. 'reliable': PCC of at least 0.3 with a
    probability of 80 % or more, given the regression's own errors; 'do not use': PCC of at least 0.15 is less likely than not.

    Returns
    -------
    expected
        (genes,), within -1 ... 1.
    classes
        One of :data:`CLASSES` per gene.
    """
    calibration = np.asarray(calibration, dtype=int)
    if len(calibration) == 0:
        return np.zeros(len(features)), [CLASSES[2]] * len(features)
    scores = pcc(truth, values[:, calibration])
    table = features.to_numpy(dtype=float)
    expected, error = np.empty(len(features)), np.empty(len(features))
    for k in np.unique(fold):
        others = fold[calibration] != k if k >= 0 else np.ones(len(calibration), bool)
        rows, y = calibration[others], scores[others]
        if len(rows) < MIN_GENES:
            expected[fold == k] = y.mean() if len(y) else 0.0
            error[fold == k] = y.std() if len(y) > 1 else 1.0
            continue
        scaler = StandardScaler().fit(table[rows])
        model = RidgeCV(alphas=np.logspace(-1, 3, 13), store_cv_results=True).fit(scaler.transform(table[rows]), y)
        expected[fold == k] = model.predict(np.clip(scaler.transform(table[fold == k]), -3, 3))
        errors = model.cv_results_[:, list(model.alphas).index(model.alpha_)]
        error[fold == k] = np.sqrt(errors.mean())
    expected = np.clip(expected, -1, 1)
    good = norm.sf((0.3 - expected) / np.maximum(error, 1e-6))
    usable = norm.sf((0.15 - expected) / np.maximum(error, 1e-6))
    classes = np.where(good >= 0.8, CLASSES[0], np.where(usable < 0.5, CLASSES[2], CLASSES[1]))
    return expected, classes.tolist()
