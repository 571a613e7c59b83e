"""φ, the latent embedding, and the embedding of time (paper, section "Latent Embedding", Eq. 2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def feed_forward(n_in: int, n_out: int) -> nn.Sequential:
    """The paper's "simple feed-forward network": one hidden layer as wide as the output."""
    return nn.Sequential(nn.Linear(n_in, n_out), nn.SiLU(), nn.Linear(n_out, n_out))


class LatentEmbedding(nn.Module):
    """φ: the gene's noisy spatial vector and its reference vector, each projected to one width and concatenated,
    x_φ = x̂_st ⊕ x̂_sc (Eq. 2): a sequence of two tokens.

    Parameters
    ----------
    n_spots, n_cells
        Lengths of the two vectors.
    width
        Width of a token.
    concatenate
        False leaves the reference's token out (Table 4, "w/o Concat in φ").
    """

    def __init__(self, n_spots: int, n_cells: int, width: int, concatenate: bool = True):
        super().__init__()
        self.spatial = nn.Linear(n_spots, width)
        self.reference = feed_forward(n_cells, width) if concatenate else None
        self.n_tokens = 2 if concatenate else 1

    def forward(self, x: Tensor, reference: Tensor) -> Tensor:
        """x: (genes, spots), reference: (genes, cells) -> (genes, tokens, width)."""
        tokens = [self.spatial(x)]
        if self.reference is not None:
            tokens.append(self.reference(reference))
        return torch.stack(tokens, dim=1)


class TimeEmbedding(nn.Module):
    """Sinusoids of t through a small network, as in DiT (Peebles & Xie, 2023, https://arxiv.org/abs/2212.09748)."""

    def __init__(self, width: int, n_frequencies: int = 64):
        super().__init__()
        frequencies = torch.exp(-math.log(10000) * torch.arange(n_frequencies) / n_frequencies)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.network = feed_forward(2 * n_frequencies, width)

    def forward(self, t: Tensor) -> Tensor:
        """t: (genes,) -> (genes, width)."""
        angles = t.float().unsqueeze(-1) * self.frequencies
        return self.network(torch.cat([angles.cos(), angles.sin()], dim=-1))
