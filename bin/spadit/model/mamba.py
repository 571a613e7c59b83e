"""The Mamba backbone (paper, Table 3, "Backbone w/Mamba"): selective state-space blocks in plain torch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spadit.model.initial import zero


class SelectiveScan(nn.Module):
    """The selective state-space model S6 of Gu & Dao, 2023 (https://arxiv.org/abs/2312.00752), Algorithm 2.

    h_i = exp(Δ_i A) h_{i-1} + Δ_i B_i x_i,  y_i = C_i h_i + D x_i,  with Δ, B and C made from x_i: each token decides what of it is
    kept. A is diagonal and negative (their section 3.6). The scan is a loop, since sequences here have 2 to 32 tokens.

    Parameters
    ----------
    width
        Number of channels, each with a state of its own.
    n_states
        Length of a channel's state h.
    """

    def __init__(self, width: int, n_states: int = 16):
        super().__init__()
        self.rank = max(1, width // 32)
        self.n_states = n_states
        self.select = nn.Linear(width, self.rank + 2 * n_states, bias=False)
        self.step = nn.Linear(self.rank, width)
        self.log_a = nn.Parameter(torch.arange(1, n_states + 1).float().log().repeat(width, 1))
        self.d = nn.Parameter(torch.ones(width))
        # Δ starts between .001 and .1 (their section 3.6), here evenly on a log scale; the bias is its inverse under softplus
        start = torch.exp(torch.rand(width) * math.log(100) + math.log(1e-3))
        with torch.no_grad():
            self.step.bias.copy_(start + torch.log(-torch.expm1(-start)))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, width) -> the same; token i depends on the tokens up to i. Float32 inside, as states add up."""
        low, b, c = self.select(x).split([self.rank, self.n_states, self.n_states], dim=-1)
        delta, value, b, c = F.softplus(self.step(low)).float(), x.float(), b.float(), c.float()
        a = -self.log_a.float().exp()
        state = value.new_zeros(*value.shape[::2], self.n_states)
        seen = []
        for delta_i, drive_i, b_i, c_i in zip(*(part.unsqueeze(-1).unbind(1) for part in (delta, delta * value, b, c)), strict=True):
            state = torch.addcmul((delta_i * a).exp() * state, drive_i, b_i.transpose(1, 2))
            seen.append((state @ c_i).squeeze(-1))
        return (torch.stack(seen, dim=1) + self.d * value).to(x.dtype)


class MambaBlock(nn.Module):
    """A pre-norm Mamba block (Gu & Dao, 2023, Figure 3): a causal convolution and a selective scan, gated by a second branch.

    The tokens have no direction, so the block reads them forwards and backwards with the same weights and adds the two up. The
    condition is added to the tokens it looks at. The last layer starts at zero: the identity at the start.
    """

    def __init__(self, width: int, expansion: int = 2, kernel: int = 4):
        super().__init__()
        inner = expansion * width
        self.norm = nn.LayerNorm(width)
        self.enter = nn.Linear(width, 2 * inner, bias=False)
        self.convolution = nn.Conv1d(inner, inner, kernel, groups=inner)
        self.scan = SelectiveScan(inner)
        self.leave = zero(nn.Linear(inner, width, bias=False))

    def read(self, x: Tensor) -> Tensor:
        """Causal convolution and scan: (batch, tokens, inner) -> the same."""
        padded = F.pad(x.transpose(1, 2), (self.convolution.kernel_size[0] - 1, 0))
        return self.scan(F.silu(self.convolution(padded).transpose(1, 2)))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x: (batch, tokens, width), condition: (batch, width) -> (batch, tokens, width)."""
        value, gate = self.enter(self.norm(x + condition.unsqueeze(1))).chunk(2, dim=-1)
        forwards, backwards = self.read(torch.cat([value, value.flip(1)])).chunk(2)
        return x + self.leave((forwards + backwards.flip(1)) * F.silu(gate))
