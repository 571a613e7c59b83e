"""The final linear decoder, and the modulation by the condition that it shares with the blocks (paper, "Diffusion with Transformer")."""

from __future__ import annotations

from torch import Tensor, nn

from spadit.model.initial import zero


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Shift and scale of normalised tokens by the condition: (batch, tokens, width) with two (batch, width)."""
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


class Decoder(nn.Module):
    """Tokens back to the original space: target (noise, clean gene or velocity) and diagonal covariance of every value.

    Starts at zero, so that an untrained network imputes the mean of a z-scored gene.

    Parameters
    ----------
    width
        Width of a token.
    n_tokens
        How many tokens in a row are decoded together: all of a gene's tokens in the whole-slide network, 1 in the token network.
    n_values
        How many values they stand for: all spots, or 1.
    """

    def __init__(self, width: int, n_tokens: int, n_values: int):
        super().__init__()
        self.n_tokens = n_tokens
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Sequential(nn.SiLU(), zero(nn.Linear(width, 2 * width)))
        self.linear = zero(nn.Linear(n_tokens * width, 2 * n_values))

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """x: (batch, tokens, width), condition: (batch, width) -> two tensors (batch, tokens / n_tokens · n_values)."""
        shift, scale = self.modulation(condition).chunk(2, dim=-1)
        groups = modulate(self.norm(x), shift, scale).unflatten(1, (-1, self.n_tokens)).flatten(2)
        target, fraction = self.linear(groups).chunk(2, dim=-1)
        return target.flatten(1), fraction.flatten(1)
