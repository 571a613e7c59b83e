"""SpaGE: cells and spots are brought into the space that their principal components share, and a spot takes its nearest cells' mean."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA

from spadit.methods.base import Method, reference_log, reference_z, slide_z
from spadit.preprocess import unit_rows

N_VECTORS = 50
"""Principal vectors, where the genes are more than that."""
SHARE_OF_GENES = 0.9
"""With fewer genes: as many vectors as this share of them (the authors take 30 for osmFISH's 32). With all of them nothing is chosen."""
LEAST_COSINE = 0.3
"""Principal vectors less alike than this are dropped."""
N_CELLS = 50
BLOCK = 1 << 24
"""Entries of the spots × cells distances that are held at once."""


def principal_vectors(source: np.ndarray, target: np.ndarray, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of directions in which two data sets' principal subspaces are most alike (PRECISE, Mourragui et al. 2019).

    With orthonormal bases P and Q of the two subspaces (components × genes) and P Qᵀ = U Σ Vᵀ, the source's principal vectors are the
    rows of Uᵀ P, and Σ holds the cosines of the angles to their partners Vᵀ Q.

    Parameters
    ----------
    source, target
        observations × genes, centred or not (PCA centres).
    n
        Components of each; at most the smallest side of either.

    Returns
    -------
    vectors, cosines
        n × genes, orthonormal rows, the most alike first; n.
    """
    bases = [PCA(n, svd_solver="auto", random_state=seed).fit(x.astype(np.float64)).components_ for x in (source, target)]
    u, cosines, _ = np.linalg.svd(bases[0] @ bases[1].T)
    return u.T @ bases[0], cosines


def neighbour_weights(distances: np.ndarray) -> np.ndarray:
    """What each of a spot's nearest cells counts: spots × k, rows that sum to 1.

    Of the n cells at a cosine distance d below 1, each counts (1 - d / Σd) / (n - 1), others nothing. A spot with one such cell takes it,
    a spot without any takes the plain mean of its k.
    """
    near = distances < 1
    d = np.where(near, distances, 0)
    n, total = near.sum(axis=1, keepdims=True), d.sum(axis=1, keepdims=True)
    weights = np.where(near, 1 - np.divide(d, total, out=np.zeros_like(d), where=total > 0), 0)
    weights = np.where(n == 1, near, weights)  # 1 - d/d would be 0
    weights = np.where(n == 0, 1, weights)
    return weights / weights.sum(axis=1, keepdims=True)


def impute(slide, reference, genes, *, seed=0, device="cpu", target=None) -> np.ndarray:
    """spots × genes, log-normalised scale."""
    z_cells, z_spots = reference_z(slide, reference, genes, target)[0], slide_z(slide, target)
    hidden = reference_log(slide, reference, genes, target)[1]
    n_genes = slide.n_vars
    n = N_VECTORS if n_genes > N_VECTORS else int(SHARE_OF_GENES * n_genes)
    vectors, cosines = principal_vectors(z_cells, z_spots, max(1, min(n, len(z_cells), len(z_spots))), seed)
    vectors = vectors[: max(1, int((cosines > LEAST_COSINE).sum()))].T
    cells, spots = unit_rows(z_cells @ vectors), unit_rows(z_spots @ vectors)

    k = min(N_CELLS, len(cells))
    result = np.empty((len(spots), len(genes)), dtype=np.float32)
    step = max(1, BLOCK // max(len(cells), k * max(1, len(genes))))
    for i in range(0, len(spots), step):
        distances = np.maximum(1 - spots[i : i + step] @ cells.T, 0)
        nearest = np.argpartition(distances, k - 1, axis=1)[:, :k]
        weights = neighbour_weights(np.take_along_axis(distances, nearest, axis=1))
        result[i : i + step] = np.einsum("sk,skg->sg", weights, hidden[nearest])
    return result


METHOD = Method(
    "SpaGE",
    "method",
    "weighted mean over the 50 cells nearest to the spot in the principal vectors that cells and spots share",
    "Abdelaal T, Mourragui S, Mahfouz A, Reinders MJT. SpaGE: Spatial Gene Enhancement using scRNA-seq. "
    "Nucleic Acids Res. 48, e107 (2020). doi:10.1093/nar/gkaa740.",
    impute,
    defaults={"principal vectors": N_VECTORS, "of few genes": SHARE_OF_GENES, "least cosine": LEAST_COSINE, "cells": N_CELLS},
    differs="Own implementation. z-scores are clipped at ±10; a spot without a near cell gets the plain mean of its 50.",
    scale="log",
    minutes=1,
)
