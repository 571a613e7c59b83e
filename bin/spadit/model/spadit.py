"""The SpaDiT network: φ, ψ, time, backbone and decoder put together (paper, Figure 1)."""

from __future__ import annotations

import dataclasses

from torch import Tensor, nn

from spadit.model.backbone import build_backbone
from spadit.model.condition import build_condition
from spadit.model.decoder import Decoder
from spadit.model.embedding import LatentEmbedding, TimeEmbedding


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
    """Shape of the network. The first three come from the data.

    ``backbone`` is what Table 3 of the paper compares, ``condition`` and ``concatenate`` what Table 4 does. Its "w/ Common Gene in ψ"
    is a matter of which genes' rows the network is given as ``whole``.
    """

    n_spots: int
    n_cells: int
    n_condition_genes: int
    width: int = 96
    depth: int = 3
    n_heads: int = 4
    n_reduced: int = 32
    condition: str = "attention"
    """ψ: 'attention' (Eq. 1), 'mlp' (Table 4, "w/o Flash-Attention") or 'none' ("w/o Condition ψ")."""
    concatenate: bool = True
    """Put the gene's reference vector beside its spatial vector in φ (False: Table 4, "w/o Concat in φ")."""
    backbone: str = "dit"
    """'dit', 'transformer', 'unet' or 'mamba'."""
    attention_backend: str = "auto"
    """See :func:`spadit.model.attention.attention`."""


class Network(nn.Module):
    """ε_θ(x_t, t | x_ψ) of the paper (Eqs. 6, 7): a gene's noisy spatial vector in, target and diagonal covariance out.

    A sample is a gene: x_t over the slide's spots (noisy), its vector over the reference's cells (always known), and the
    condition ψ made from the whole reference.
    """

    def __init__(self, settings: NetworkSettings):
        super().__init__()
        s = self.settings = settings
        self.embedding = LatentEmbedding(s.n_spots, s.n_cells, s.width, s.concatenate)
        self.time = TimeEmbedding(s.width)
        self.condition = build_condition(s.condition, s.n_condition_genes, s.n_cells, s.width, s.n_reduced, s.attention_backend)
        self.backbone = build_backbone(s.backbone, s.width, s.depth, s.n_heads, s.attention_backend)
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
        tokens = self.backbone(self.embedding(x, reference), condition)
        return self.decoder(tokens, condition)
