"""The score network of SpatialScope, its training, and the drawing of cells by it. Settings are in :mod:`spadit.methods.spatialscope`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from spadit.methods import spatialscope
from spadit.methods.networks.training import minimise
from spadit.model.initial import seeded, zero


class Score(nn.Module):
    """The score ∇ log p(x) of cells of a type, blurred by noise of standard deviation σ.

    A network F makes the clean cell from the noisy one, D = c_skip x + c_out F(c_in x, type, log σ) (Karras et al. 2022), and Tweedie's
    formula makes the score: (D - x) / σ². With F = 0, as at the start, it is the score of a Gaussian of standard deviation ``spread``.
    """

    def __init__(self, n_genes: int, spread: float):
        super().__init__()
        self.spread = spread
        self.read = nn.Linear(2 * n_genes + 1, spatialscope.WIDTH)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(spatialscope.WIDTH),
                nn.Linear(spatialscope.WIDTH, 2 * spatialscope.WIDTH),
                nn.SiLU(),
                nn.Linear(2 * spatialscope.WIDTH, spatialscope.WIDTH),
            )
            for _ in range(spatialscope.DEPTH)
        )
        self.write = zero(nn.Linear(spatialscope.WIDTH, n_genes))

    def clean(self, x: Tensor, centre: Tensor, sigma: Tensor) -> Tensor:
        """E[cell | x]: (cells, genes) of noisy cells about their type's mean, that mean (cells, genes), σ (cells, 1)."""
        scale = (sigma**2 + self.spread**2).sqrt()
        h = self.read(torch.cat([x / scale, centre, sigma.log() / 4], dim=1))
        for block in self.blocks:
            h = h + block(h)
        return self.spread**2 / scale**2 * x + sigma * self.spread / scale * self.write(h)

    def forward(self, x: Tensor, centre: Tensor, sigma: Tensor) -> Tensor:
        """The score, (cells, genes)."""
        return (self.clean(x, centre, sigma) - x) / sigma**2


def train(cells: np.ndarray, types: np.ndarray, centres: np.ndarray, seed: int, device: str = "cpu") -> Score:
    """Denoising score matching on cells about their type's mean.

    Parameters
    ----------
    cells
        z-scores, cells × genes.
    types
        cells: rows of ``centres``.
    centres
        Mean z-scores of each type, types × genes.
    """
    generator = torch.Generator().manual_seed(seed)
    about = cells - centres[types]
    network = seeded(seed, lambda: Score(cells.shape[1], max(float(about.std()), 1e-3))).to(device)
    x, c, kind = (torch.from_numpy(np.ascontiguousarray(v)).to(device) for v in (about, centres, types))
    optimiser = torch.optim.Adam(network.parameters(), lr=spatialscope.LEARNING_RATE)
    n = min(spatialscope.BATCH_SIZE, len(x))
    first, last = np.log(spatialscope.SIGMAS)

    def loss() -> Tensor:
        rows = torch.randperm(len(x), generator=generator)[:n].to(device)
        sigma = torch.exp(last + (first - last) * torch.rand((n, 1), generator=generator)).to(device)
        noise = torch.randn((n, x.shape[1]), generator=generator).to(device)
        noisy = x[rows] + sigma * noise
        # every level weighs the same: the error of the clean cell in units of what F is scaled by
        unit = sigma * network.spread / (sigma**2 + network.spread**2).sqrt()
        return (((network.clean(noisy, c[kind[rows]], sigma) - x[rows]) / unit) ** 2).mean()

    return minimise(network, optimiser, spatialscope.N_STEPS, loss)


def mixture(logs: Tensor) -> Tensor:
    """The log-normalised value of a spot made of these cells: the mean of what is linear, (spots, cells, genes) -> (spots, genes)."""
    return torch.logsumexp(logs, dim=1) - np.log(logs.shape[1])


def pull(logs: Tensor, spots: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
    """What of a spot its cells don't explain yet, as the cells' share in it.

    It is -½ ∇_x ‖spot - mixture‖² in z-scores: (spots, cells, visible genes).
    """
    rest = spots - (mixture(logs) - mean) / sd
    return torch.softmax(logs, dim=1) * rest[:, None]


@torch.no_grad()
def langevin(network, centres: Tensor, spots: Tensor, mean: Tensor, sd: Tensor, generator: torch.Generator) -> Tensor:
    """Cells drawn from the posterior given their spots, by annealed Langevin dynamics (Song & Ermon 2019).

    At noise level σ a cell moves along its score and along the gradient of log N(spot; mixture of its cells, SPOT_NOISE² + σ²).

    Parameters
    ----------
    network
        (x, centre, σ) -> score.
    centres
        Mean z-scores of the cells' types, (spots, cells, genes); the visible genes first.
    spots
        z-scores of the visible genes, (spots, visible genes).
    mean, sd
        Of all genes' log-normalised values in the reference, (genes,).

    Returns
    -------
    Tensor
        z-scores, (spots, cells, genes).
    """
    n_spots, n_cells, n_genes = centres.shape
    n_visible, device = spots.shape[1], centres.device
    flat = centres.reshape(-1, n_genes)
    seen_mean, seen_sd = mean[:n_visible], sd[:n_visible]
    sigmas = torch.logspace(*np.log10(spatialscope.SIGMAS), spatialscope.N_LEVELS, dtype=torch.float64).tolist()
    x = sigmas[0] * torch.randn(flat.shape, generator=generator).to(device)
    for sigma in sigmas:
        level, step = torch.full((len(x), 1), sigma, device=device), spatialscope.STEP * sigma**2
        for _ in range(spatialscope.STEPS_PER_LEVEL):
            gradient = network(x, flat, level)
            logs = (x + flat).reshape(centres.shape)[:, :, :n_visible].clamp(-10, 10) * seen_sd + seen_mean
            likelihood = pull(logs, spots, seen_mean, seen_sd) / (spatialscope.SPOT_NOISE**2 + sigma**2)
            gradient[:, :n_visible] += likelihood.reshape(-1, n_visible)
            x = x + step * gradient + (2 * step) ** 0.5 * torch.randn(x.shape, generator=generator).to(device)
    x = x + sigmas[-1] ** 2 * network(x, flat, torch.full((len(x), 1), sigmas[-1], device=device))
    return (x + flat).reshape(centres.shape).clamp(-10, 10)  # z-scores of cells are clipped there
