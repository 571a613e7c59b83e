"""The SpaDiT network: φ, ψ, time, DiT blocks and decoder put together (paper, Figure 1)."""

from __future__ import annotations

import dataclasses

from torch import Tensor, nn

from spadit.model.backbone import Decoder, DiTBlock
from spadit.model.condition import ConditionEmbedding, NoCondition
from spadit.model.embedding import LatentEmbedding, TimeEmbedding


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
    """Shape of the network. The first three come from the data."""

    n_spots: int
    n_cells: int
    n_condition_genes: int
    width: int = 96
    depth: int = 3
    n_heads: int = 4
    n_reduced: int = 32
    condition: str = "attention"
    """'attention' (Eq. 1) or 'none'."""
    concatenate: bool = True
    """Put the gene's reference vector beside its spatial vector in φ."""


class Network(nn.Module):
    """ε_θ(x_t, t | x_ψ) of the paper: a gene's noisy spatial vector in, target and diagonal covariance out.

    A sample is a gene: x_t over the slide's spots (noisy), its vector over the reference's cells (always known), and the
    condition ψ made from the whole reference.
    """

    def __init__(self, settings: NetworkSettings):
        super().__init__()
        s = self.settings = settings
        self.embedding = LatentEmbedding(s.n_spots, s.n_cells, s.width, s.concatenate)
        self.time = TimeEmbedding(s.width)
        if s.condition == "attention":
            self.condition = ConditionEmbedding(s.n_condition_genes, s.n_cells, s.width, s.n_reduced)
        elif s.condition == "none":
            self.condition = NoCondition(s.width)
        else:
            raise ValueError(f"Unknown condition '{s.condition}': 'attention' or 'none'.")
        self.blocks = nn.ModuleList(DiTBlock(s.width, s.n_heads) for _ in range(s.depth))
        self.decoder = Decoder(s.width, self.embedding.n_tokens, s.n_spots)

    def forward(self, x: Tensor, t: Tensor, reference: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
        """One denoising step.

        Parameters
        ----------
        x
            Noisy genes x_t, (genes, spots).
        t
            Time of each gene, (genes,), 0 ... T - 1.
        reference
            The genes' reference vectors (z-scores), (genes, cells).
        whole
            The reference the condition is made from (z-scores), (condition genes, cells).

        Returns
        -------
        target, fraction
            Two tensors (genes, spots): see :class:`spadit.model.diffusion.Diffusion`.
        """
        condition = self.time(t) + self.condition(reference, whole)
        tokens = self.embedding(x, reference)
        for block in self.blocks:
            tokens = block(tokens, condition)
        return self.decoder(tokens, condition)
