"""The U-Net backbone (paper, Table 3, "Backbone w/Unet"): down and up along the tokens, with skip connections."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spadit.model.decoder import modulate
from spadit.model.initial import zero


class ConvolutionBlock(nn.Module):
    """A residual convolution over three neighbouring tokens, its input shifted and scaled by the condition
    (FiLM, Perez et al., 2018, https://arxiv.org/abs/1709.07871)."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.film = nn.Sequential(nn.SiLU(), zero(nn.Linear(width, 2 * width)))
        self.convolution = nn.Conv1d(width, width, kernel_size=3, padding=1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x: (batch, tokens, width), condition: (batch, width) -> (batch, tokens, width)."""
        shift, scale = self.film(condition).chunk(2, dim=-1)
        inner = F.silu(modulate(self.norm(x), shift, scale))
        return x + self.convolution(inner.transpose(1, 2)).transpose(1, 2)


class UNet(nn.Module):
    """A 1-D U-Net (Ronneberger et al., 2015, https://arxiv.org/abs/1505.04597) over the tokens.

    Each level down halves the tokens (mean of two neighbours; a single token stays), each level up doubles them and takes in what
    the level had on the way down. The width stays the same throughout. The last layer starts at zero: the identity at the start.
    The whole-slide network has two tokens only, so that all levels below the first see one.

    Parameters
    ----------
    width
        Width of a token.
    depth
        Number of levels.
    """

    def __init__(self, width: int, depth: int):
        super().__init__()
        self.down = nn.ModuleList(ConvolutionBlock(width) for _ in range(depth))
        self.middle = ConvolutionBlock(width)
        self.merge = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(depth))
        self.up = nn.ModuleList(ConvolutionBlock(width) for _ in range(depth))
        self.last = zero(nn.Linear(width, width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x: (batch, tokens, width), condition: (batch, width) -> (batch, tokens, width)."""
        inner, skipped = x, []
        for block in self.down:
            inner = block(inner, condition)
            skipped.append(inner)
            inner = F.avg_pool1d(inner.transpose(1, 2), kernel_size=2, ceil_mode=True).transpose(1, 2)
        inner = self.middle(inner, condition)
        for merge, block in zip(self.merge, self.up, strict=True):
            skip = skipped.pop()
            wide = inner.repeat_interleave(2, dim=1)[:, : skip.shape[1]]
            inner = block(merge(torch.cat([wide, skip], dim=-1)), condition)
        return x + self.last(inner)
