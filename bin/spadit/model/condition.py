"""ψ, the condition embedding: attention of a gene over the whole reference (paper, Eq. 1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConditionEmbedding(nn.Module):
    """ψ: Q = X_sc W^Q, K = X_sc W^K, V = X_sc W^V; X_ψ = softmax(Q Φ_K(K)ᵀ / √d_k) Φ_V(V) (Eq. 1).

    X_sc has a row per reference gene. Q is needed for the genes at hand only; K and V come from all condition genes and are
    reduced along the genes by the learned Φ_K and Φ_V to ``n_reduced`` rows, so the cost is linear in the genes.

    Parameters
    ----------
    n_genes, n_cells
        Shape of the reference the condition is made from.
    width
        Width of the output.
    n_reduced
        Rows left by Φ_K and Φ_V.
    """

    def __init__(self, n_genes: int, n_cells: int, width: int, n_reduced: int = 32):
        super().__init__()
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
        return F.scaled_dot_product_attention(*batched)[0, 0]


class NoCondition(nn.Module):
    """ψ replaced by zeros (Table 4, "w/o Condition ψ")."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, reference: Tensor, whole: Tensor) -> Tensor:
        """(genes, cells) -> zeros (genes, width)."""
        return torch.zeros(reference.shape[0], self.width, device=reference.device, dtype=reference.dtype)
