"""The backbones between embedding and decoder (paper, "Diffusion with Transformer" and Table 3).

Each maps tokens (batch, tokens, width) and a condition (batch, width) to tokens of the same shape, takes any number of tokens, and
starts as the identity, so that the choice of one is a setting and nothing else.
"""

from __future__ import annotations

from torch import Tensor, nn

from spadit.model.attention import SelfAttention
from spadit.model.decoder import modulate
from spadit.model.initial import zero
from spadit.model.mamba import MambaBlock
from spadit.model.unet import UNet

BACKBONES = ("dit", "transformer", "unet", "mamba")


def mlp(width: int, expansion: int) -> nn.Sequential:
    """The feed-forward part of a transformer block."""
    return nn.Sequential(nn.Linear(width, expansion * width), nn.GELU(approximate="tanh"), nn.Linear(expansion * width, width))


class DiTBlock(nn.Module):
    """Attention and MLP, each on a residual path whose shift, scale and gate come from the condition.

    The layer that makes them starts at zero, so that every block starts as the identity (adaLN-zero,
    Peebles & Xie, 2023, https://arxiv.org/abs/2212.09748).
    """

    def __init__(self, width: int, n_heads: int, expansion: int = 2, attention_backend: str = "auto"):
        super().__init__()
        self.norm_attention = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.norm_mlp = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attention = SelfAttention(width, n_heads, attention_backend)
        self.mlp = mlp(width, expansion)
        self.modulation = nn.Sequential(nn.SiLU(), zero(nn.Linear(width, 6 * width)))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x: (batch, tokens, width), condition: (batch, width) -> (batch, tokens, width)."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(condition).chunk(6, dim=-1)
        x = x + gate_a.unsqueeze(1) * self.attention(modulate(self.norm_attention(x), shift_a, scale_a))
        return x + gate_m.unsqueeze(1) * self.mlp(modulate(self.norm_mlp(x), shift_m, scale_m))


class TransformerBlock(nn.Module):
    """A plain pre-norm transformer block that knows the condition only as something added to the tokens it looks at.

    The last layer of either residual path starts at zero: the identity at the start.
    """

    def __init__(self, width: int, n_heads: int, expansion: int = 2, attention_backend: str = "auto"):
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.norm_mlp = nn.LayerNorm(width)
        self.attention = SelfAttention(width, n_heads, attention_backend)
        self.mlp = mlp(width, expansion)
        zero(self.attention.project)
        zero(self.mlp[-1])

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x: (batch, tokens, width), condition: (batch, width) -> (batch, tokens, width)."""
        condition = condition.unsqueeze(1)
        x = x + self.attention(self.norm_attention(x + condition))
        return x + self.mlp(self.norm_mlp(x + condition))


class Stack(nn.ModuleList):
    """Blocks one after the other, all under the same condition."""

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x: (batch, tokens, width), condition: (batch, width) -> (batch, tokens, width)."""
        for block in self:
            x = block(x, condition)
        return x


def build_backbone(name: str, width: int, depth: int, n_heads: int, attention_backend: str = "auto") -> nn.Module:
    """A backbone by its name.

    Parameters
    ----------
    name
        'dit' (the paper's), 'transformer', 'unet' or 'mamba' (its comparisons in Table 3).
    depth
        Number of blocks; of the U-Net: how often it goes down.
    n_heads, attention_backend
        For those with attention, see :func:`spadit.model.attention.attention`.

    Returns
    -------
    A module: (batch, tokens, width), condition (batch, width) -> (batch, tokens, width).
    """
    if name == "dit":
        return Stack(DiTBlock(width, n_heads, attention_backend=attention_backend) for _ in range(depth))
    if name == "transformer":
        return Stack(TransformerBlock(width, n_heads, attention_backend=attention_backend) for _ in range(depth))
    if name == "unet":
        return UNet(width, depth)
    if name == "mamba":
        return Stack(MambaBlock(width) for _ in range(depth))
    raise ValueError(f"Unknown backbone '{name}': one of {', '.join(BACKBONES)}.")
