"""The training loop of these networks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def minimise(network: nn.Module, optimiser: torch.optim.Optimizer, n_steps: int, loss: Callable[[], Tensor]) -> nn.Module:
    """Take steps with clipped gradients at a one-cycle rate (up to the optimiser's own); ``loss`` draws a batch at each call.

    Returns
    -------
    Module
        The network, in eval mode.
    """
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, optimiser.param_groups[0]["lr"], total_steps=max(n_steps, 2))
    for _ in range(n_steps):
        optimiser.zero_grad()
        loss().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        rates.step()
    return network.eval()
