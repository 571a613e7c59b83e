"""The noise schedules β_1 ... β_T."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SCHEDULES = ("cosine", "linear")


def betas(schedule: str, n_steps: int) -> Tensor:
    """The noise schedule β_1 ... β_T, (T,), float64.

    'cosine': Nichol & Dhariwal, 2021 (https://arxiv.org/abs/2102.09672), Eq. 17, β clipped at 0.999.
    'linear': Ho et al., 2020 (https://arxiv.org/abs/2006.11239), 1e-4 ... 0.02 for T = 1000, stretched for other T.
    """
    if n_steps < 1:
        raise ValueError(f"A diffusion needs at least one step, not {n_steps}.")
    if schedule == "cosine":
        t = torch.arange(n_steps + 1, dtype=torch.float64) / n_steps
        alpha_bar = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
        return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)
    if schedule == "linear":
        scale = 1000 / n_steps
        return torch.linspace(scale * 1e-4, scale * 0.02, n_steps, dtype=torch.float64).clamp(max=0.999)
    raise ValueError(f"Unknown schedule '{schedule}': one of {', '.join(SCHEDULES)}.")
