"""ψ, the condition embedding: attention of a gene over the whole reference (paper, Eq. 1), and what Table 4 puts in its place."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spadit.model.attention import attention
from spadit.model.embedding import feed_forward

CONDITIONS = ("attention", "mlp", "none")


class ConditionEmbedding(nn.Module):
    """ψ: Q = X_sc W^Q, K = X_sc W^K, V = X_sc W^V; X_ψ = softmax(Q Φ_K(K)ᵀ / √d_k) Φ_V(V) (Eq. 1).

    X_sc has a row per reference gene. Q is needed for the genes at hand only; K and V come from all condition genes and are
    reduced along the genes by the learned Φ_K and Φ_V to ``n_reduced`` rows, so the cost is linear in the genes.

    Table 4's "w/ Common Gene in ψ" is no switch here but a matter of what ``whole`` is given: all genes of the reference, or only
    those that the slide has measured, too.

    Parameters
    ----------
    n_genes, n_cells
        Shape of the reference the condition is made from.
    width
        Width of the output.
    n_reduced
        Rows left by Φ_K and Φ_V.
    attention_backend
        See :func:`spadit.model.attention.attention`.
    """

    def __init__(self, n_genes: int, n_cells: int, width: int, n_reduced: int = 32, attention_backend: str = "auto"):
        super().__init__()
        self.backend = attention_backend
        self.query = nn.Linear(n_cells, width, bias=False)
        self.key = nn.Linear(n_cells, width, bias=False)
        self.value = nn.Linear(n_cells, width, bias=False)
        n_reduced = min(n_reduced, n_genes)
        self.reduce_keys = nn.Linear(n_genes, n_reduced, bias=False)
        self.reduce_values = nn.Linear(n_genes, n_reduced, bias=False)

    def forward(self, reference: Tensor, whole: Tensor) -> Tensor:
        """reference: (genes, cells) of the genes at hand, whole: (condition genes, cells) -> (genes, width)."""
        # Φ(X W) = (Φ X) W: reducing along the genes first spares a product with the whole reference
        keys = self.key(self.reduce_keys(whole.T).T)
        values = self.value(self.reduce_values(whole.T).T)
        query = self.query(reference)
        batched = (part.unsqueeze(0).unsqueeze(0) for part in (query, keys, values))
        return attention(*batched, backend=self.backend)[0, 0]


class MlpCondition(nn.Module):
    """ψ as "a simple MLP" in place of attention (Table 4, "w/o Flash-Attention"): each row of X_sc through a small network."""

    def __init__(self, n_cells: int, width: int):
        super().__init__()
        self.network = feed_forward(n_cells, width)

    def forward(self, reference: Tensor, whole: Tensor) -> Tensor:
        """reference: (genes, cells) of the genes at hand -> (genes, width); ``whole`` has no part in it."""
        return self.network(reference)


class NoCondition(nn.Module):
    """ψ replaced by zeros (Table 4, "w/o Condition ψ")."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, reference: Tensor, whole: Tensor) -> Tensor:
        """(genes, cells) -> zeros (genes, width)."""
        return torch.zeros(reference.shape[0], self.width, device=reference.device, dtype=reference.dtype)


def build_condition(name: str, n_genes: int, n_cells: int, width: int, n_reduced: int = 32, attention_backend: str = "auto") -> nn.Module:
    """ψ by its name in Table 4: 'attention' (Eq. 1), 'mlp' or 'none'. Parameters as of :class:`ConditionEmbedding`."""
    if name == "attention":
        return ConditionEmbedding(n_genes, n_cells, width, n_reduced, attention_backend)
    if name == "mlp":
        return MlpCondition(n_cells, width)
    if name == "none":
        return NoCondition(width)
    raise ValueError(f"Unknown condition '{name}': one of {', '.join(CONDITIONS)}.")
