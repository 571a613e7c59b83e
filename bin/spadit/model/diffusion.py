"""The diffusion: forward process, reverse process, losses and samplers (paper, Eqs. 3-10, Algorithms 1 and 2).

Notation. The paper writes β_t, α̂_t = 1 - β_t and α_t = Π α̂_i; here these are ``beta``, ``alpha`` and ``alpha_bar``.
Time runs from 1 to T in the paper and from 0 to T - 1 in the code. x is a batch of genes, shape (genes, spots).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

TARGETS = ("x0", "epsilon", "v")
SCHEDULES = ("cosine", "linear")


def betas(schedule: str, n_steps: int) -> Tensor:
    """The noise schedule β_1 ... β_T, float64.

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


class Diffusion(nn.Module):
    """Forward and reverse process over vectors of spots.

    Parameters
    ----------
    n_steps
        T.
    schedule
        'cosine' or 'linear', see :func:`betas`.
    target
        What the network's first output is: the clean gene ('x0'), the noise ('epsilon', the paper's Eq. 9) or the
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
        # variance of q(x_{t-1} | x_t, x_0); 0 at the first step, whose logarithm is taken from the second (Eq. 5)
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

    def _at(self, table: str, t: Tensor) -> Tensor:
        return getattr(self, table)[t].unsqueeze(-1)

    def add_noise(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t given x_0 (closed form of Eq. 3): √α_t x_0 + √(1 - α_t) ε. The paper's text drops the second root; Algorithm 1 has it."""
        return self._at("signal", t) * x0 + self._at("noise", t) * noise

    def target_of(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """What the network should output for a gene (x0), at time t, under this noise."""
        if self.target == "x0":
            return x0
        if self.target == "epsilon":
            return noise
        return self._at("signal", t) * noise - self._at("noise", t) * x0

    def x0_of(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The clean gene that a network output stands for."""
        if self.target == "x0":
            return output
        if self.target == "epsilon":
            return (x_t - self._at("noise", t) * output) / self._at("signal", t).clamp(min=1e-4)
        return self._at("signal", t) * x_t - self._at("noise", t) * output

    def posterior(self, x0: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(x_{t-1} | x_t, x_0): the reverse step of Eqs. 4 and 5 for a known x_0."""
        mean = self._at("mean_x0", t) * x0 + self._at("mean_xt", t) * x_t
        return mean, self._at("log_variance", t).expand_as(mean)

    def learned_log_variance(self, fraction: Tensor, t: Tensor) -> Tensor:
        """The diagonal covariance from the network's second output, between the posterior variance and β_t on a log scale
        (Nichol & Dhariwal, 2021, Eq. 15)."""
        share = (fraction.tanh() + 1) / 2
        return share * self._at("log_beta", t) + (1 - share) * self._at("log_variance", t)

    def loss(self, output: Tensor, fraction: Tensor, x0: Tensor, x_t: Tensor, t: Tensor, noise: Tensor, weight: Tensor) -> Tensor:
        """Training objective: weighted squared error of the target (Eq. 9) plus 0.001 of the variational bound (Eq. 8) for the
        covariance alone (hybrid loss of Nichol & Dhariwal, 2021).

        Parameters
        ----------
        output, fraction
            The network's two outputs, (genes, spots).
        weight
            (genes, spots), 0 where an entry is masked out of the loss.
        """
        total = weight.sum().clamp(min=1)
        squared = (weight * (output - self.target_of(x0, t, noise)) ** 2).sum() / total
        with torch.no_grad():
            true_mean, true_log_variance = self.posterior(x0, x_t, t)
            mean, _ = self.posterior(self.x0_of(output, x_t, t), x_t, t)
        log_variance = self.learned_log_variance(fraction, t)
        ratio = true_log_variance - log_variance
        divergence = 0.5 * (ratio.exp() - ratio - 1 + (true_mean - mean) ** 2 * (-log_variance).exp())
        return squared + 1e-3 * (weight * divergence).sum() / total

    @torch.no_grad()
    def sample(self, network: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], x: Tensor, method: str = "ddpm",
               n_steps: int | None = None, generator: torch.Generator | None = None, clip: float = 10.0) -> Tensor:
        """Draw genes by the reverse process (Algorithm 2).

        Parameters
        ----------
        network
            (x_t, t) -> (output, covariance fraction), the condition already bound to it.
        x
            Gaussian noise x_T, (genes, spots).
        method
            'ddpm': all T steps with the learned covariance. 'ddim': ``n_steps`` deterministic steps
            (Song et al., 2021, https://arxiv.org/abs/2010.02502). 'one_step': the network's estimate of x_0 at t = T, i.e.
            the posterior mean given the condition alone (exact for a network trained on squared error of x_0).
        clip
            Estimates of x_0 are kept within ±clip (the data are z-scores clipped at the same value).
        """
        if method not in ("ddpm", "ddim", "one_step"):
            raise ValueError(f"Unknown sampler '{method}': one of ddpm, ddim, one_step.")
        count = {"ddpm": self.n_steps, "ddim": min(n_steps or 50, self.n_steps), "one_step": 1}[method]
        times = torch.linspace(self.n_steps - 1, 0, count).round().long().tolist() if count > 1 else [self.n_steps - 1]
        for index, time in enumerate(times):
            t = torch.full((x.shape[0],), time, dtype=torch.long, device=x.device)
            output, fraction = network(x, t)
            x0 = self.x0_of(output, x, t).clamp(-clip, clip)
            if method == "ddpm":
                mean, _ = self.posterior(x0, x, t)
                if time == 0:
                    return mean
                draw = torch.randn(x.shape, generator=generator).to(x)
                x = mean + (0.5 * self.learned_log_variance(fraction, t)).exp() * draw
            elif index + 1 == len(times):
                return x0
            else:
                noise = (x - self._at("signal", t) * x0) / self._at("noise", t).clamp(min=1e-4)
                x = self.add_noise(x0, torch.full_like(t, times[index + 1]), noise)
        return x
