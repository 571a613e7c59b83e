"""stDiff: a diffusion model learns from cells what the hidden genes are, given the visible ones; spots are completed by it.

The network is in networks/stdiff.py.
"""

from __future__ import annotations

import numpy as np

from spadit.methods.base import Method, reference_z, slide_z

WIDTH = 128
DEPTH = 4
N_HEADS = 8
N_STEPS = 1500
"""Of training."""
BATCH_SIZE = 256
LEARNING_RATE = 1e-3
N_DIFFUSION_STEPS = 1500
N_SAMPLING_STEPS = 50
N_SAMPLES = 4
"""Completions of a spot that are averaged."""


def impute(slide, reference, genes, *, seed=0, device="cpu", target=None) -> tuple[np.ndarray, np.ndarray]:
    """spots × genes, z-scale: mean of N_SAMPLES completions, and their standard deviation."""
    import torch

    from spadit.methods.networks.stdiff import complete, train

    network = train(*reference_z(slide, reference, genes, target), seed, device)
    spots = torch.from_numpy(slide_z(slide, target)).to(device)
    generator = torch.Generator().manual_seed(seed + 1)
    order = torch.randperm(len(spots), generator=generator)  # attention runs over a batch: it should hold any kind of spot
    samples = np.empty((N_SAMPLES, len(spots), len(genes)), dtype=np.float32)
    for k in range(N_SAMPLES):
        for rows in order.tensor_split(-(-len(order) // BATCH_SIZE)):
            samples[k, rows.numpy()] = complete(network, spots[rows.to(device)], len(genes), generator).cpu().numpy()
    return samples.mean(axis=0), samples.std(axis=0)


METHOD = Method(
    "stDiff",
    "method",
    "diffusion model over cells, trained to complete hidden genes from visible ones and applied to spots",
    "Li K, Li J, Tao Y, Wang F. stDiff: a diffusion model for imputing spatial transcriptomics through single-cell transcriptomics. "
    "Brief. Bioinform. 25, bbae171 (2024). doi:10.1093/bib/bbae171.",
    impute,
    defaults={
        "width": WIDTH,
        "blocks": DEPTH,
        "heads": N_HEADS,
        "training steps": N_STEPS,
        "batch": BATCH_SIZE,
        "learning rate": LEARNING_RATE,
        "diffusion steps": N_DIFFUSION_STEPS,
        "sampling steps": N_SAMPLING_STEPS,
        "samples averaged": N_SAMPLES,
    },
    differs="Own implementation, cut to minutes on a CPU: width 128 and 4 blocks (original: 512 or 1,024 "
    "and 6), 1,500 training steps of 256 cells at a higher learning rate (900 epochs of up to 2,048), 50 of 1,500 sampling "
    "steps. Values are z-scores (scaled to -1 ... 1), cells aren't "
    "augmented by noise, and 4 samples are averaged (1).",
    scale="z",
    minutes=4,
)
