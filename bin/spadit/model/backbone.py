"""The backbone: diffusion transformer blocks with adaLN-zero, and the final linear decoder (paper, "Diffusion with Transformer")."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Scale and shift of a normalised token by the condition."""
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


class DiTBlock(nn.Module):
    """Attention and MLP, each on a residual path whose shift, scale and gate come from the condition.

    The layer that makes them starts at zero, so that every block starts as the identity (adaLN-zero,
    Peebles & Xie, 2023, https://arxiv.org/abs/2212.09748).
    """

    def __init__(self, width: int, n_heads: int, expansion: int = 2):
        super().__init__()
        if width % n_heads:
            raise ValueError(f"The width ({width}) has to be a multiple of the number of heads ({n_heads}).")
        self.n_heads = n_heads
        self.norm_attention = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.norm_mlp = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, expansion * width), nn.GELU(approximate="tanh"), nn.Linear(expansion * width, width))
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        nn.init.zeros_(self.modulation[1].weight)
        nn.init.zeros_(self.modulation[1].bias)

    def attention(self, x: Tensor) -> Tensor:
        """Multi-head self-attention over the tokens of a gene: (genes, tokens, width) -> the same."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.project(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x: (genes, tokens, width), condition: (genes, width) -> (genes, tokens, width)."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(condition).chunk(6, dim=-1)
        x = x + gate_a.unsqueeze(1) * self.attention(modulate(self.norm_attention(x), shift_a, scale_a))
        return x + gate_m.unsqueeze(1) * self.mlp(modulate(self.norm_mlp(x), shift_m, scale_m))


class Decoder(nn.Module):
    """Tokens back to the original space: target (noise or clean gene) and diagonal covariance, both (genes, spots).

    Starts at zero, so that an untrained network imputes the mean of a z-scored gene.
    """

    def __init__(self, width: int, n_tokens: int, n_spots: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.linear = nn.Linear(n_tokens * width, 2 * n_spots)
        for layer in (self.modulation[1], self.linear):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """x: (genes, tokens, width) -> two tensors (genes, spots)."""
        shift, scale = self.modulation(condition).chunk(2, dim=-1)
        target, fraction = self.linear(modulate(self.norm(x), shift, scale).flatten(1)).chunk(2, dim=-1)
        return target, fraction
