"""The network of stDiff, its training, and the completion of spots by it. Settings are in :mod:`spadit.methods.stdiff`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from spadit.methods import stdiff
from spadit.methods.networks.training import minimise
from spadit.model.attention import SelfAttention
from spadit.model.embedding import TimeEmbedding
from spadit.model.initial import seeded, zero
from spadit.model.schedule import betas


class Block(nn.Module):
    """DiT block whose attention runs over the cells of a batch, as in stDiff."""

    def __init__(self, width: int, n_heads: int):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False, eps=1e-6) for _ in range(2))
        self.attention = SelfAttention(width, n_heads, "math")
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.modulation = nn.Sequential(nn.SiLU(), zero(nn.Linear(width, 6 * width)))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x, condition: (cells, width) -> (cells, width). The condition shifts, scales and gates both residual paths."""
        paths = (lambda y: self.attention(y[None])[0], self.mlp)
        parts = self.modulation(condition).chunk(6, dim=1)
        for path, norm, (shift, scale, gate) in zip(paths, self.norms, (parts[:3], parts[3:]), strict=True):
            x = x + gate * path(norm(x) * (1 + scale) + shift)
        return x


class Denoiser(nn.Module):
    """Tells the noise in the hidden genes from the cell's visible genes and its noisy hidden ones."""

    def __init__(self, n_visible: int, n_hidden: int):
        super().__init__()
        self.read = nn.Linear(n_visible + n_hidden, stdiff.WIDTH)
        self.condition = nn.Linear(n_visible, stdiff.WIDTH)
        self.time = TimeEmbedding(stdiff.WIDTH)
        self.blocks = nn.ModuleList(Block(stdiff.WIDTH, stdiff.N_HEADS) for _ in range(stdiff.DEPTH))
        self.norm = nn.LayerNorm(stdiff.WIDTH, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Sequential(nn.SiLU(), zero(nn.Linear(stdiff.WIDTH, 2 * stdiff.WIDTH)))
        self.write = zero(nn.Linear(stdiff.WIDTH, n_hidden))

    def forward(self, visible: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        """visible: (cells, visible genes), clean; noisy: (cells, hidden genes); t: (cells,) -> noise, (cells, hidden genes)."""
        condition = self.time(t) + self.condition(visible)
        x = self.read(torch.cat([visible, noisy], dim=1))
        for block in self.blocks:
            x = block(x, condition)
        shift, scale = self.modulation(condition).chunk(2, dim=1)
        return self.write(self.norm(x) * (1 + scale) + shift)


def train(visible: np.ndarray, hidden: np.ndarray, seed: int, device: str = "cpu") -> Denoiser:
    """Train on cells: z-scores of their visible and hidden genes, cells × genes each.

    The visible genes enter clean, the hidden ones noised at a random time, and the loss is the hidden genes' noise told wrong (the mask
    of stDiff). Nothing but ``seed`` decides what is drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    network = seeded(seed, lambda: Denoiser(visible.shape[1], hidden.shape[1])).to(device)
    signal, noise_level = _levels(device)
    x, y = (torch.from_numpy(np.ascontiguousarray(v)).to(device) for v in (visible, hidden))
    optimiser = torch.optim.AdamW(network.parameters(), lr=stdiff.LEARNING_RATE, weight_decay=0.0)
    n = min(stdiff.BATCH_SIZE, len(x))

    def loss() -> Tensor:
        rows = torch.randperm(len(x), generator=generator)[:n].to(device)
        t = torch.randint(stdiff.N_DIFFUSION_STEPS, (n,), generator=generator).to(device)
        noise = torch.randn((n, y.shape[1]), generator=generator).to(device)
        noisy = signal[t, None] * y[rows] + noise_level[t, None] * noise
        return nn.functional.mse_loss(network(x[rows], noisy, t), noise)

    return minimise(network, optimiser, stdiff.N_STEPS, loss)


def _levels(device: str) -> tuple[Tensor, Tensor]:
    """√ᾱ_t and √(1 - ᾱ_t) of the cosine schedule, (times,) each."""
    kept = torch.cumprod(1 - betas("cosine", stdiff.N_DIFFUSION_STEPS), 0)
    return kept.sqrt().float().to(device), (1 - kept).sqrt().float().to(device)


@torch.no_grad()
def complete(network, visible: Tensor, n_hidden: int, generator: torch.Generator) -> Tensor:
    """One completion: from noise to hidden genes in ``N_SAMPLING_STEPS`` steps of the reverse process, the visible genes clean throughout.

    Parameters
    ----------
    network
        (visible, noisy, t) -> noise.
    visible
        (spots, visible genes).

    Returns
    -------
    Tensor
        (spots, hidden genes).
    """
    device = visible.device
    kept = torch.cumprod(1 - betas("cosine", stdiff.N_DIFFUSION_STEPS), 0)
    times = (
        torch.linspace(stdiff.N_DIFFUSION_STEPS - 1, 0, min(stdiff.N_SAMPLING_STEPS, stdiff.N_DIFFUSION_STEPS), dtype=torch.float64)
        .round()
        .long()
    )
    x = torch.randn((len(visible), n_hidden), generator=generator).to(device)
    for i, t in enumerate(times):
        now = float(kept[t])
        then = float(kept[times[i + 1]]) if i + 1 < len(times) else 1.0
        noise = network(visible, x, torch.full((len(x),), int(t), device=device))
        clean = ((x - (1 - now) ** 0.5 * noise) / max(now, 1e-8) ** 0.5).clamp(-10, 10)  # z-scores are clipped at 10
        # the posterior of x at the earlier time, given x now and the clean values (Ho et al. 2020, Eq. 7, for a longer step)
        step = 1 - now / then
        mean = (then**0.5 * step * clean + (now / then) ** 0.5 * (1 - then) * x) / (1 - now)
        spread = (step * (1 - then) / (1 - now)) ** 0.5
        x = mean + spread * torch.randn(x.shape, generator=generator).to(device) if spread > 0 else mean
    return x
