"""The schedules, the forward and the reverse process against formulas worked out by hand, and a sampler that must find a known Gaussian."""

import math

import numpy as np
import pytest
import torch

from spadit.model.diffusion import SCHEDULES, TARGETS, Diffusion, betas


def test_linear_schedule_is_ho_et_al_at_a_thousand_steps():
    beta = betas("linear", 1000)
    assert beta[0] == pytest.approx(1e-4) and beta[-1] == pytest.approx(0.02)
    assert torch.allclose(torch.diff(beta), torch.full((999,), (0.02 - 1e-4) / 999, dtype=torch.float64))


def test_cosine_schedule_by_hand():
    def alpha_bar(share):
        return math.cos((share + 0.008) / 1.008 * math.pi / 2) ** 2

    beta = betas("cosine", 4)
    expected = [1 - alpha_bar(i / 4) / alpha_bar((i - 1) / 4) for i in (1, 2, 3)] + [0.999]
    assert beta.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_last_step_is_almost_pure_noise_and_the_first_almost_none(schedule):
    diffusion = Diffusion(1000, schedule)
    assert diffusion.signal[-1] < 0.01
    assert diffusion.signal[0] > 0.999
    assert (torch.diff(diffusion.alpha_bar) < 0).all()


def test_unknown_words_are_named():
    with pytest.raises(ValueError, match="cosin.*cosine, linear"):
        betas("cosin", 10)
    with pytest.raises(ValueError, match="noise.*x0, epsilon, v"):
        Diffusion(10, target="noise")
    with pytest.raises(ValueError, match="at least one step"):
        betas("cosine", 0)
    with pytest.raises(ValueError, match="euler"):
        Diffusion(10).sample(None, torch.zeros(1, 1), "euler")


@pytest.mark.parametrize("target", TARGETS)
def test_x0_can_be_had_back_from_every_target(target):
    diffusion = Diffusion(1000, "linear", target)
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(5, 7, generator=generator), torch.randn(5, 7, generator=generator)
    t = torch.tensor([0, 10, 200, 400, 600])
    x_t = diffusion.add_noise(x0, t, noise)
    assert torch.allclose(diffusion.x0_of(diffusion.target_of(x0, t, noise), x_t, t), x0, atol=1e-3)


def test_posterior_by_bayes():
    """q(x_{t-1} | x_t, x_0) as the product of two Gaussians, worked out without the code's formulas."""
    beta = betas("linear", 20)
    alpha_bar = torch.cumprod(1 - beta, 0)
    x0, x_t, t = 0.7, -0.4, 12
    prior_mean, prior_variance = alpha_bar[t - 1].sqrt() * x0, 1 - alpha_bar[t - 1]
    likelihood_precision = (1 - beta[t]) / beta[t]
    precision = 1 / prior_variance + likelihood_precision
    mean = (prior_mean / prior_variance + (1 - beta[t]).sqrt() * x_t / beta[t]) / precision
    got_mean, got_log_variance = Diffusion(20, "linear").posterior(torch.tensor([[x0]]), torch.tensor([[x_t]]), torch.tensor([t]))
    assert float(got_mean) == pytest.approx(float(mean), rel=1e-5)
    assert float(got_log_variance.exp()) == pytest.approx(float(1 / precision), rel=1e-5)


def test_the_reverse_mean_is_the_papers():
    """Algorithm 2, line 7: (x_t - (1 - α̂_t) / √(1 - α_t) ε) / √α̂_t equals the posterior mean at the x_0 that ε stands for."""
    diffusion = Diffusion(50, "linear", "epsilon")
    beta = betas("linear", 50).float()
    t, x_t, noise = torch.tensor([30]), torch.tensor([[0.3, -1.2]]), torch.tensor([[0.5, 0.1]])
    mean, _ = diffusion.posterior(diffusion.x0_of(noise, x_t, t), x_t, t)
    by_hand = (x_t - beta[30] / (1 - diffusion.alpha_bar[30]).sqrt() * noise) / (1 - beta[30]).sqrt()
    assert torch.allclose(mean, by_hand, atol=1e-5)


def test_learned_variance_stays_between_its_bounds():
    diffusion = Diffusion(100)
    t = torch.tensor([50])
    low = diffusion.learned_log_variance(torch.tensor([[-50.0]]), t)
    high = diffusion.learned_log_variance(torch.tensor([[50.0]]), t)
    assert float(low) == pytest.approx(float(diffusion.log_variance[50]), rel=1e-5)
    assert float(high) == pytest.approx(float(diffusion.log_beta[50]), rel=1e-5)


def test_masked_entries_take_no_part_in_the_loss():
    diffusion = Diffusion(10)
    x0, noise, t = torch.randn(2, 4), torch.randn(2, 4), torch.tensor([3, 7])
    weight = torch.tensor([[1.0, 0, 1, 1], [1, 1, 0, 1]])
    output, fraction = torch.randn(2, 4), torch.randn(2, 4)
    x_t = diffusion.add_noise(x0, t, noise)
    loss = diffusion.loss(output, fraction, x0, x_t, t, noise, weight)
    garbage = torch.where(weight > 0, output, 1e6)
    assert torch.equal(loss, diffusion.loss(garbage, fraction, x0, x_t, t, noise, weight))
    assert not torch.equal(loss, diffusion.loss(output + 1, fraction, x0, x_t, t, noise, weight))


@pytest.mark.parametrize(("method", "target"), [("ddpm", "x0"), ("ddpm", "epsilon"), ("ddpm", "v"), ("ddim", "x0"), ("ddim", "epsilon")])
def test_samplers_recover_a_known_gaussian(method, target):
    """Data N(2, 0.5²) have a closed-form optimal denoiser; sampling with it must give that Gaussian back."""
    mean, sd = 2.0, 0.5
    diffusion = Diffusion(200, "cosine", target)

    def optimal(x, t):
        signal, noise = diffusion._at("signal", t), diffusion._at("noise", t)
        x0 = mean + signal * sd**2 / (signal**2 * sd**2 + noise**2) * (x - signal * mean)
        epsilon = (x - signal * x0) / noise
        output = {"x0": x0, "epsilon": epsilon, "v": signal * epsilon - noise * x0}[target]
        return output, torch.full_like(x, -20.0)

    generator = torch.Generator().manual_seed(1)
    drawn = diffusion.sample(optimal, torch.randn(4000, 2, generator=generator), method, 100, generator).numpy()
    assert drawn.mean() == pytest.approx(mean, abs=0.03)
    assert drawn.std() == pytest.approx(sd, abs=0.04)
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.05


def test_one_step_is_the_posterior_mean():
    diffusion = Diffusion(1000)
    seen = []

    def network(x, t):
        seen.append(t.tolist())
        return torch.full_like(x, 0.25), torch.zeros_like(x)

    drawn = diffusion.sample(network, torch.randn(2, 3), "one_step")
    assert torch.equal(drawn, torch.full((2, 3), 0.25)) and seen == [[999, 999]]


def test_sampling_is_the_generators():
    diffusion = Diffusion(10)

    def network(x, t):
        return torch.tanh(x), torch.zeros_like(x)

    start = torch.randn(3, 4)
    first, second, other = (diffusion.sample(network, start, "ddpm", generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, other)
