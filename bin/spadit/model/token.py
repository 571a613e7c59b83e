"""The token network: a sample is still a gene, seen through windows of neighbouring spots, so that a slide of any size fits.

φ of the paper (Eq. 2) concatenates a gene's spatial and its reference part. Here that is done spot by spot: a token is one spot, made of
the noisy value there (spatial part) and of what the reference lets expect there (the coarse maps, :mod:`spadit.coarse`).
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from spadit.model.backbone import build_backbone
from spadit.model.decoder import Decoder
from spadit.model.embedding import TimeEmbedding, feed_forward


@dataclasses.dataclass(frozen=True)
class TokenSettings:
    """Shape of the token network. The first two come from the data."""

    n_features: int
    n_scalars: int
    width: int = 64
    depth: int = 2
    n_heads: int = 4
    backbone: str = "dit"
    """'dit', 'transformer', 'unet' or 'mamba'. The order of a window's spots matters to the last two."""
    attention_backend: str = "auto"
    """See :func:`spadit.model.attention.attention`."""


class TokenNetwork(nn.Module):
    """ε_θ(x_t, t | c) over windows of spots: linear in spots × genes, with weights that don't depend on the slide's size."""

    def __init__(self, settings: TokenSettings):
        super().__init__()
        s = self.settings = settings
        self.embedding = nn.Linear(1 + s.n_features, s.width)
        self.time = TimeEmbedding(s.width)
        self.condition = feed_forward(s.n_scalars, s.width)
        self.backbone = build_backbone(s.backbone, s.width, s.depth, s.n_heads, s.attention_backend)
        self.decoder = Decoder(s.width, n_tokens=1, n_values=1)

    def forward(self, x: Tensor, t: Tensor, features: Tensor, scalars: Tensor) -> tuple[Tensor, Tensor]:
        """One denoising step.

        Parameters
        ----------
        x
            Noisy values, (windows, spots).
        t
            Time of each window, (windows,).
        features
            What is known of a spot for the window's gene, (windows, spots, features).
        scalars
            What is known of the window's gene, (windows, scalars).

        Returns
        -------
        target, fraction
            Two tensors (windows, spots): see :class:`spadit.model.diffusion.Diffusion`.
        """
        condition = self.time(t) + self.condition(scalars)
        tokens = self.embedding(torch.cat([x.unsqueeze(-1), features], dim=-1))
        return self.decoder(self.backbone(tokens, condition), condition)
