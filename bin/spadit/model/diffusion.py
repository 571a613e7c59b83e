"""The diffusion: forward process, targets, posterior and loss (paper, Eqs. 3-5, 8 and 9, Algorithm 1).

Notation. The paper writes β_t, α̂_t = 1 - β_t and α_t = Π α̂_i; here these are ``beta``, ``alpha`` and ``alpha_bar``. Time runs from
1 to T in the paper and from 0 to T - 1 in the code. x is (batch, values): genes over the spots of a slide, or windows of spots.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from spadit.model import sampling
from spadit.model.schedule import betas

TARGETS = ("x0", "epsilon", "v")


class Diffusion(nn.Module):
    """Forward and reverse process over vectors of values.

    Parameters
    ----------
    n_steps
        T.
    schedule
        'cosine' or 'linear', see :func:`spadit.model.schedule.betas`.
    target
        What the network's first output is: the clean values ('x0'), the noise ('epsilon', the paper's Eq. 9) or the
        velocity ('v', Salimans & Ho, 2022, https://arxiv.org/abs/2202.00512).
    """

    def __init__(self, n_steps: int = 1000, schedule: str = "cosine", target: str = "x0"):
        super().__init__()
        if target not in TARGETS:
            raise ValueError(f"Unknown target '{target}': one of {', '.join(TARGETS)}.")
        self.n_steps, self.target = n_steps, target
        beta = betas(schedule, n_steps)
        alpha_bar = torch.cumprod(1 - beta, 0)
        previous = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
        # Eq. 5: 0 at the first step, whose logarithm is taken from the second (as Nichol & Dhariwal do; no sampler uses it)
        variance = beta * (1 - previous) / (1 - alpha_bar)
        log_variance = torch.log(torch.cat([variance[1:2] if n_steps > 1 else beta[:1], variance[1:]]))
        tables = {
            "alpha_bar": alpha_bar,
            "signal": alpha_bar.sqrt(),
            "noise": (1 - alpha_bar).sqrt(),
            "mean_x0": beta * previous.sqrt() / (1 - alpha_bar),
            "mean_xt": (1 - previous) * (1 - beta).sqrt() / (1 - alpha_bar),
            "log_variance": log_variance,
            "log_beta": beta.log(),
        }
        for name, table in tables.items():
            self.register_buffer(name, table.float(), persistent=False)

    sample = sampling.sample

    def at(self, table: str, t: Tensor) -> Tensor:
        """A table's value for each time: (batch,) -> (batch, 1)."""
        return getattr(self, table)[t].unsqueeze(-1)

    def add_noise(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t given x_0 (closed form of Eq. 3): √α_t x_0 + √(1 - α_t) ε. The paper's text drops the second root; Algorithm 1 has it."""
        return self.at("signal", t) * x0 + self.at("noise", t) * noise

    def target_of(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """What the network should output for clean values x0, at time t, under this noise."""
        if self.target == "x0":
            return x0
        if self.target == "epsilon":
            return noise
        return self.at("signal", t) * noise - self.at("noise", t) * x0

    def x0_of(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The clean values that a network output stands for."""
        if self.target == "x0":
            return output
        if self.target == "epsilon":
            return (x_t - self.at("noise", t) * output) / self.at("signal", t).clamp(min=1e-4)
        return self.at("signal", t) * x_t - self.at("noise", t) * output

    def posterior(self, x0: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(x_{t-1} | x_t, x_0): the reverse step of Eqs. 4 and 5 for a known x_0.

        As in Ho et al., 2020, Eqs. 6, 7 and 11. The paper prints 1/α_t for 1/√α̂_t in Eq. 4, and swaps α̂ and α and writes β_1 for
        β_t in Eq. 5.
        """
        mean = self.at("mean_x0", t) * x0 + self.at("mean_xt", t) * x_t
        return mean, self.at("log_variance", t).expand_as(mean)

    def learned_log_variance(self, fraction: Tensor, t: Tensor) -> Tensor:
        """The diagonal covariance from the network's second output, between the posterior variance and β_t on a log scale
        (Nichol & Dhariwal, 2021, Eq. 15)."""
        share = (fraction.tanh() + 1) / 2
        return share * self.at("log_beta", t) + (1 - share) * self.at("log_variance", t)

    def bound(self, output: Tensor, fraction: Tensor, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Each value's term of the variational bound (Eq. 8), (batch, values), in nats: the divergence of the network's reverse step
        from the posterior, at the first step -log p(x_0 | x_1). The network's mean is held fixed: this teaches the covariance only."""
        with torch.no_grad():
            true_mean, true_log_variance = self.posterior(x0, x_t, t)
            mean, _ = self.posterior(self.x0_of(output, x_t, t), x_t, t)
        log_variance = self.learned_log_variance(fraction, t)
        ratio = true_log_variance - log_variance
        rest = torch.where(t.unsqueeze(-1) == 0, math.log(2 * math.pi) + log_variance, ratio.exp() - ratio - 1)
        return 0.5 * (rest + (true_mean - mean) ** 2 * (-log_variance).exp())

    def loss(self, output: Tensor, fraction: Tensor, x0: Tensor, x_t: Tensor, t: Tensor, noise: Tensor, weight: Tensor) -> Tensor:
        """Training objective: weighted squared error of the target (Eq. 9) plus 0.001 of the variational bound for the covariance
        (hybrid loss, Nichol & Dhariwal, 2021, Eq. 16, with the mean over the steps where they have the sum: a network that passes
        all values through a narrow layer never gets near x_0 at small t, and the sum would drown the squared error).

        Parameters
        ----------
        output, fraction
            The network's two outputs, (batch, values).
        x0, x_t, noise
            Clean and noisy values and the noise between them, (batch, values).
        t
            Time of each sample, (batch,).
        weight
            (batch, values), 0 where an entry is masked out of the loss.
        """
        total = weight.sum().clamp(min=1)
        squared = (output - self.target_of(x0, t, noise)) ** 2
        return (weight * (squared + 1e-3 * self.bound(output, fraction, x0, x_t, t))).sum() / total
