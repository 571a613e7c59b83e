"""SpatialScope: a score model learns what cells of each type look like; cells are then drawn that together make up each spot.

The network is in networks/spatialscope.py.
"""

from __future__ import annotations

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from spadit.methods.base import Method, reference_log, reference_z, slide_z

N_TYPES = 12
CELLS_PER_TYPE = 20
"""Types are clusters of the reference: so many, and fewer where that would leave less cells than this to one."""
N_COMPONENTS = 30
N_CELLS = 3
"""In a spot, the same in all."""
WIDTH = 192
DEPTH = 3
N_STEPS = 2000
"""Of training."""
BATCH_SIZE = 256
LEARNING_RATE = 1e-3
SIGMAS = (2.0, 0.1)
"""The first and last level of noise, in standard deviations of a gene in the reference."""
N_LEVELS = 12
STEPS_PER_LEVEL = 3
STEP = 0.15
"""Of the Langevin dynamics, in units of the noise's variance."""
SPOT_NOISE = 0.7
"""Standard deviation of a spot's z-scores about those of its cells: half of a visible gene's variance."""
N_SAMPLES = 12
"""Of the posterior, averaged: where little is known of a gene, a few draws are noise."""
BLOCK = 2000
"""Spots that are sampled at once."""


def cluster(values: np.ndarray, seed: int) -> np.ndarray:
    """Types of cells: k-means on principal components. cells × genes -> cells, int64."""
    n_types = max(1, min(N_TYPES, len(values) // CELLS_PER_TYPE))
    parts = PCA(min(N_COMPONENTS, *values.shape), random_state=seed).fit_transform(values.astype(np.float64))
    if n_types == 1 or len(np.unique(parts, axis=0)) < n_types:
        return np.zeros(len(values), dtype=np.int64)
    return KMeans(n_types, n_init=3, random_state=seed).fit_predict(parts).astype(np.int64)


def types_of_spots(spots: np.ndarray, centres: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """The types of each spot's cells, chosen one after the other so that the types' means together come closest to the spot.

    Parameters
    ----------
    spots
        z-scores of visible genes, spots × genes.
    centres
        Mean z-scores of the types, types × genes.
    mean, sd
        Of the genes' log-normalised values in the reference.

    Returns
    -------
    numpy.ndarray
        spots × N_CELLS, rows of ``centres``.
    """
    linear = np.exp(centres * sd + mean)
    total = np.zeros_like(spots, dtype=np.float64)
    chosen = np.empty((len(spots), N_CELLS), dtype=np.int64)
    for k in range(N_CELLS):
        errors = np.stack([((np.log((total + t) / (k + 1)) - mean) / sd - spots) ** 2 @ np.ones(spots.shape[1]) for t in linear], axis=1)
        chosen[:, k] = errors.argmin(axis=1)
        total += linear[chosen[:, k]]
    return chosen


def impute(slide, reference, genes, *, seed=0, device="cpu", target=None) -> tuple[np.ndarray, np.ndarray]:
    """spots × genes, log-normalised scale: mean of N_SAMPLES draws of the spot's cells, and its standard deviation over draws."""
    import torch

    from spadit.methods.networks.spatialscope import langevin, mixture, train

    cells = np.concatenate(reference_z(slide, reference, genes, target), axis=1)
    logs = np.concatenate(reference_log(slide, reference, genes, target), axis=1).astype(np.float64)
    mean, sd = logs.mean(axis=0), logs.std(axis=0)
    sd = np.where(sd > 1e-6, sd, 1.0)
    types = cluster(cells, seed)
    centres = np.stack([cells[types == k].mean(axis=0) for k in range(types.max() + 1)])
    network = train(cells, types, centres, seed, device)

    spots, n_visible = slide_z(slide, target), slide.n_vars
    chosen = types_of_spots(spots, centres[:, :n_visible], mean[:n_visible], sd[:n_visible])
    generator = torch.Generator().manual_seed(seed + 1)
    put = lambda v: torch.from_numpy(np.ascontiguousarray(v, dtype=np.float32)).to(device)  # noqa: E731
    m, s = put(mean), put(sd)
    samples = np.empty((N_SAMPLES, len(spots), len(genes)), dtype=np.float32)
    for k in range(N_SAMPLES):
        for i in range(0, len(spots), BLOCK):
            drawn = langevin(network, put(centres[chosen[i : i + BLOCK]]), put(spots[i : i + BLOCK]), m, s, generator)
            samples[k, i : i + BLOCK] = mixture((drawn * s + m)[:, :, n_visible:]).cpu().numpy()
    return samples.mean(axis=0), samples.std(axis=0)


METHOD = Method(
    "SpatialScope",
    "method",
    "score-based generative model of cells by type, and Langevin dynamics that draws cells which together make up the spot",
    "Wan X, Xiao J, Tam SST, Cai M, Sugimura R, Wang Y, Wan X, Lin Z, Wu AR, Yang C. Integrating "
    "spatial and single-cell transcriptomics data using deep generative models with SpatialScope. "
    "Nat. Commun. 14, 7848 (2023). doi:10.1038/s41467-023-43629-w.",
    impute,
    defaults={
        "types": N_TYPES,
        "cells per spot": N_CELLS,
        "width": WIDTH,
        "blocks": DEPTH,
        "training steps": N_STEPS,
        "batch": BATCH_SIZE,
        "noise levels": N_LEVELS,
        "steps per level": STEPS_PER_LEVEL,
        "spot noise": SPOT_NOISE,
        "samples averaged": N_SAMPLES,
    },
    differs="Own implementation, cut to minutes on a CPU: 2,000 training steps of a network of 3 blocks (original: 10,000 epochs of a "
    "U-Net on 4 GPUs), 12 noise levels of 3 steps (232 of 5), 12 draws averaged. Types are k-means clusters, every spot has 3 cells "
    "(nuclei are segmented from the image), their types are the closest mixture of type means (a Poisson model with a spatial prior), and "
    "the spot's likelihood is Gaussian in z-scores of log-normalised values, which also takes the place of the model of platform effects.",
    scale="log",
    minutes=4,
)
