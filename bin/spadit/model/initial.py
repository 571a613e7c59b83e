"""First weights of networks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def seeded(seed: int, make: Callable[[], nn.Module]) -> nn.Module:
    """Build a network whose first weights come from the seed and leave the process's generator alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def zero(layer: nn.Module) -> nn.Module:
    """The layer with all its parameters set to zero, for residual paths that have to start silent."""
    for part in layer.parameters():
        nn.init.zeros_(part)
    return layer
