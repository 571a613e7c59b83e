"""The samplers: from noise to values by the reverse process (paper, Algorithm 2 and Eqs. 7, 10)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from spadit.model.diffusion import Diffusion

SAMPLERS = ("ddpm", "ddim", "one_step")


@torch.no_grad()
def sample(
    diffusion: Diffusion,
    network: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    x: Tensor,
    method: str = "ddpm",
    n_steps: int | None = None,
    generator: torch.Generator | None = None,
    clip: float = 10.0,
    eta: float = 0.0,
) -> Tensor:
    """Draw values by the reverse process.

    Parameters
    ----------
    network
        (x_t, t) -> (output, covariance fraction), the condition already bound to it (Eq. 10).
    x
        Gaussian noise x_T, (batch, values): genes over spots, or windows of spots.
    method
        'ddpm': all T steps with the learned covariance (Algorithm 2). 'ddim': ``n_steps`` steps (50 if not given), deterministic
        unless ``eta`` says otherwise (Song et al., 2021, https://arxiv.org/abs/2010.02502). 'one_step': the network's estimate of
        x_0 at t = T, i.e. the posterior mean given the condition alone (exact for a network trained on squared error of x_0).
    generator
        Of the noise added on the way, on the CPU, so that a seed draws the same on every device.
    clip
        Estimates of x_0 are kept within ±clip (the data are z-scores clipped at the same value).
    eta
        Noise of 'ddim', 0 ... 1. With 1 and all T steps it is DDPM with the fixed variance of the paper's Eq. 5.

    Returns
    -------
    x_0, (batch, values).
    """
    if method not in SAMPLERS:
        raise ValueError(f"Unknown sampler '{method}': one of {', '.join(SAMPLERS)}.")
    count = {"ddpm": diffusion.n_steps, "ddim": min(n_steps or 50, diffusion.n_steps), "one_step": 1}[method]
    times = torch.linspace(diffusion.n_steps - 1, 0, count).round().long().tolist() if count > 1 else [diffusion.n_steps - 1]
    for time, following in zip(times, [*times[1:], None], strict=True):
        t = torch.full((x.shape[0],), time, dtype=torch.long, device=x.device)
        output, fraction = network(x, t)
        x0 = diffusion.x0_of(output, x, t).clamp(-clip, clip)
        if following is None:  # the mean of the first step's posterior is x_0 itself
            return x0
        if method == "ddpm":
            mean, _ = diffusion.posterior(x0, x, t)
            spread = (0.5 * diffusion.learned_log_variance(fraction, t)).exp()
        else:
            mean, spread = ddim_step(diffusion, x0, x, t, torch.full_like(t, following), eta)
        if method == "ddpm" or eta > 0:
            mean = mean + spread * torch.randn(x.shape, generator=generator).to(x)
        x = mean
    return x


def ddim_step(diffusion: Diffusion, x0: Tensor, x_t: Tensor, t: Tensor, following: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a step from t to an earlier time (Song et al., 2021, Eqs. 12 and 16)."""
    alpha_bar, earlier = diffusion.at("alpha_bar", t), diffusion.at("alpha_bar", following)
    spread = eta * ((1 - earlier) / (1 - alpha_bar) * (1 - alpha_bar / earlier)).sqrt()
    noise = (x_t - diffusion.at("signal", t) * x0) / diffusion.at("noise", t)
    return earlier.sqrt() * x0 + (1 - earlier - spread**2).clamp(min=0).sqrt() * noise, spread
