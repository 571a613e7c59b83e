"""The schedules, the forward and the reverse process against formulas worked out by hand, and a sampler that must find a known Gaussian."""

import math

import numpy as np
import pytest
import torch

from spadit.model.diffusion import TARGETS, Diffusion
from spadit.model.schedule import SCHEDULES, betas


@pytest.fixture
def four(monkeypatch):
    """Four steps with β = .1, .2, .3, .4, so that α_t = .9, .72, .504, .3024: small enough for pencil and paper."""
    monkeypatch.setattr("spadit.model.diffusion.betas", lambda schedule, n_steps: torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64))
    return Diffusion(4)


def test_linear_schedule_is_ho_et_al_at_a_thousand_steps():
    beta = betas("linear", 1000)
    assert beta[0] == pytest.approx(1e-4) and beta[-1] == pytest.approx(0.02)
    assert torch.allclose(torch.diff(beta), torch.full((999,), (0.02 - 1e-4) / 999, dtype=torch.float64))


def test_cosine_schedule_by_hand():
    beta = betas("cosine", 4)
    assert beta.tolist() == pytest.approx([0.15298784, 0.41695809, 0.70785871, 0.999])
    # ᾱ(s) = cos²((s + .008) / 1.008 · π / 2), over its value at 0
    start = math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    at_half = math.cos((0.5 + 0.008) / 1.008 * math.pi / 2) ** 2
    assert float((1 - beta[:2]).prod()) == pytest.approx(at_half / start)


def test_linear_schedule_of_four_steps_by_hand():
    assert betas("linear", 4).tolist() == pytest.approx([0.025, 0.999, 0.999, 0.999])  # 250 · (1e-4 ... 0.02), cut at .999
    assert betas("linear", 200).tolist()[::199] == pytest.approx([5e-4, 0.1])


def test_tables_of_four_steps_by_hand(four):
    assert four.alpha_bar.tolist() == pytest.approx([0.9, 0.72, 0.504, 0.3024])
    # Eq. 5: (1 - α_{t-1}) / (1 - α_t) β_t = .1 / .28 · .2, .28 / .496 · .3, .496 / .6976 · .4; the first borrows the second's
    assert four.log_variance.exp().tolist() == pytest.approx([0.0714286, 0.0714286, 0.1693548, 0.2844037], rel=1e-5)
    # √α_{t-1} β_t / (1 - α_t) and √α̂_t (1 - α_{t-1}) / (1 - α_t)
    assert four.mean_x0.tolist() == pytest.approx([1, 0.6776309, 0.5132227, 0.4070697], rel=1e-5)
    assert four.mean_xt.tolist() == pytest.approx([0, 0.3194383, 0.4723081, 0.5507453], rel=1e-5, abs=1e-7)


def test_noise_is_added_by_hand(four):
    x_t = four.add_noise(torch.tensor([[2.0, -1.0]]), torch.tensor([1]), torch.tensor([[1.0, 0.5]]))
    assert x_t.tolist()[0] == pytest.approx([2 * 0.8485281 + 0.5291503, -0.8485281 + 0.2645751], rel=1e-5)


def test_bound_by_hand(four):
    """Divergence of two Gaussians at t > 0, Gaussian -log p(x_0 | x_1) at t = 0."""
    x0, x_t, output = torch.tensor([[1.0], [1.0]]), torch.tensor([[0.5], [0.5]]), torch.tensor([[1.5], [1.5]])
    found = four.bound(output, torch.zeros(2, 1), x0, x_t, torch.tensor([0, 2])).squeeze(1).tolist()
    first, third = math.sqrt(0.1 * 0.0714286), math.sqrt(0.3 * 0.1693548)  # a share of 1/2: geometric mean of both bounds
    at_first = 0.5 * math.log(2 * math.pi * first) + 0.5**2 / (2 * first)
    at_third = 0.5 * (math.log(third / 0.1693548) + 0.1693548 / third - 1 + (0.5132227 * 0.5) ** 2 / third)
    assert found == pytest.approx([at_first, at_third], rel=1e-5)


@pytest.mark.parametrize("target", TARGETS)
def test_loss_is_the_squared_error_and_the_bound_teaches_the_covariance_only(target):
    diffusion = Diffusion(10, target=target)
    generator = torch.Generator().manual_seed(0)
    x0, noise, output, fraction = (torch.randn(3, 4, generator=generator) for _ in range(4))
    t, weight = torch.tensor([0, 4, 9]), torch.ones(3, 4)
    x_t = diffusion.add_noise(x0, t, noise)
    output.requires_grad_(), fraction.requires_grad_()
    diffusion.loss(output, fraction, x0, x_t, t, noise, weight).backward()
    assert torch.allclose(output.grad, 2 * (output - diffusion.target_of(x0, t, noise)).detach() / 12)
    assert fraction.grad.abs().min() > 0


def test_the_bound_is_least_at_the_true_error():
    """The covariance is learned: among all fractions the bound picks the variance nearest to posterior variance + squared error."""
    diffusion = Diffusion(50, "linear")
    t, x_t, x0 = torch.full((201,), 20), torch.zeros(201, 1), torch.zeros(201, 1)
    fraction = torch.linspace(-3, 3, 201).unsqueeze(1)
    wrong_by = 0.5 * ((diffusion.log_beta[20].exp() - diffusion.log_variance[20].exp()).sqrt() / diffusion.mean_x0[20])
    log_variance = diffusion.learned_log_variance(fraction, t)
    best = diffusion.bound(x0 + wrong_by, fraction, x0, x_t, t).argmin()
    expected = diffusion.log_variance[20].exp() + (diffusion.mean_x0[20] * wrong_by) ** 2
    assert float(log_variance[best].exp()) == pytest.approx(float(expected), rel=0.01)


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
    """Algorithm 2, line 7, and Eq. 4 with the root that it lacks: (x_t - (1 - α̂_t) / √(1 - α_t) ε) / √α̂_t equals the posterior
    mean at the x_0 that ε stands for."""
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


MEAN, SD = 2.0, 0.5


def optimal(diffusion):
    """The denoiser that is best for data N(2, 0.5²), in closed form, in whatever the diffusion wants to hear."""

    def network(x, t):
        signal, noise = diffusion.at("signal", t), diffusion.at("noise", t)
        x0 = MEAN + signal * SD**2 / (signal**2 * SD**2 + noise**2) * (x - signal * MEAN)
        epsilon = (x - signal * x0) / noise
        output = {"x0": x0, "epsilon": epsilon, "v": signal * epsilon - noise * x0}[diffusion.target]
        return output, torch.full_like(x, -20.0)

    return network


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("method", "eta"), [("ddpm", 0.0), ("ddim", 0.0), ("ddim", 1.0)])
def test_samplers_recover_a_known_gaussian(method, eta, target):
    diffusion = Diffusion(200, "cosine", target)
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(4000, 2, generator=generator)
    drawn = diffusion.sample(optimal(diffusion), start, method, 100, generator, eta=eta).numpy()
    assert drawn.mean() == pytest.approx(MEAN, abs=0.03)
    assert drawn.std() == pytest.approx(SD, abs=0.04)
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.05


def test_ddim_with_all_noise_and_all_steps_is_ddpm():
    """Song et al., section 4.1: η = 1 gives back DDPM with the posterior variance (the least the learned covariance can be)."""
    diffusion = Diffusion(30, "linear")
    start = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    ddpm = diffusion.sample(optimal(diffusion), start, "ddpm", generator=torch.Generator().manual_seed(1))
    ddim = diffusion.sample(optimal(diffusion), start, "ddim", 30, torch.Generator().manual_seed(1), eta=1.0)
    assert torch.allclose(ddpm, ddim, atol=1e-4)


def test_ddim_step_by_hand(four):
    """From t = 4 to t = 1 (times 3 and 0) without noise: √.9 x_0 + √.1 ε with ε = (x - √.3024 x_0) / √.6976."""
    seen = []

    def network(x, t):
        seen.append((int(t[0]), x.tolist()[0][0]))
        return torch.full_like(x, 0.5), torch.zeros_like(x)

    drawn = four.sample(network, torch.tensor([[1.0]]), "ddim", 2)
    noise = (1 - 0.3024**0.5 * 0.5) / 0.6976**0.5
    assert [time for time, _ in seen] == [3, 0]
    assert seen[1][1] == pytest.approx(0.9**0.5 * 0.5 + 0.1**0.5 * noise, rel=1e-5)
    assert drawn.tolist() == [[0.5]]


@pytest.mark.parametrize("method", ["ddpm", "ddim", "one_step"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 32), (50, 2), (0, 4)])
def test_any_shape_can_be_sampled(method, shape):
    for n_steps in (1, 2, 7):
        diffusion = Diffusion(n_steps)
        drawn = diffusion.sample(lambda x, t: (x.tanh() + 0 * t[:, None], torch.zeros_like(x)), torch.randn(shape), method, 3)
        assert drawn.shape == shape and drawn.isfinite().all()


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
