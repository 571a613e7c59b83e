"""SpatialScope: the score is that of a known distribution, and Langevin dynamics draws from a known posterior."""

import numpy as np
import pytest
import torch
from peer_checks import check_method

from spadit.methods import METHODS, spatialscope, visible_part
from spadit.methods.networks.spatialscope import langevin, mixture, pull, train


@pytest.fixture
def small(monkeypatch):
    """A budget for tests: training of a second or two."""
    for name, value in {"WIDTH": 48, "DEPTH": 2, "N_STEPS": 300, "N_LEVELS": 8, "STEPS_PER_LEVEL": 3, "N_SAMPLES": 4}.items():
        monkeypatch.setattr(spatialscope, name, value)


def test_the_protocol(make_pair, small):
    check_method("SpatialScope", make_pair)


def test_the_score_is_that_of_a_known_gaussian(monkeypatch):
    """Cells of N(mean of the type, Σ): the score at noise σ is -(Σ + σ²)⁻¹ (x - mean)."""
    monkeypatch.setattr(spatialscope, "N_STEPS", 1000)
    monkeypatch.setattr(spatialscope, "WIDTH", 48)
    rng = np.random.default_rng(0)
    covariance = np.array([[1.0, 0.8, 0], [0.8, 1.0, 0], [0, 0, 0.3]])
    types = rng.integers(0, 2, 4000)
    centres = np.array([[1.0, -1, 0], [-2, 0, 1]], dtype=np.float32)
    about = rng.multivariate_normal(np.zeros(3), covariance, 4000).astype(np.float32)
    network = train(centres[types] + about, types, centres, seed=0)
    for sigma in (0.3, 1.0):
        x = rng.multivariate_normal(np.zeros(3), covariance + sigma**2 * np.eye(3), 500).astype(np.float32)
        expected = -x @ np.linalg.inv(covariance + sigma**2 * np.eye(3))
        with torch.no_grad():
            got = network(torch.from_numpy(x), torch.from_numpy(centres[types[:500]]), torch.full((500, 1), sigma)).numpy()
        assert np.sqrt(((got - expected) ** 2).mean()) < 0.25 * expected.std(), sigma


def test_pull_is_the_gradient_of_the_likelihood():
    generator = torch.Generator().manual_seed(0)
    x, spots = torch.randn(4, 3, 5, generator=generator, dtype=torch.float64), torch.randn(4, 5, generator=generator, dtype=torch.float64)
    mean, sd = torch.rand(5, dtype=torch.float64, generator=generator), 1 + torch.rand(5, dtype=torch.float64, generator=generator)
    x.requires_grad_()
    loss = -0.5 * ((spots - (mixture(x * sd + mean) - mean) / sd) ** 2).sum()
    loss.backward()
    torch.testing.assert_close(x.grad, pull((x * sd + mean).detach(), spots, mean, sd))


def test_a_mixture_is_the_mean_of_what_is_linear():
    logs = torch.log1p(torch.tensor([[[3.0], [0.0], [6.0]]]))
    assert mixture(logs).item() == pytest.approx(np.log1p(3))


def test_langevin_draws_from_a_known_posterior(monkeypatch):
    """One cell per spot, Gaussian prior with known score: posterior mean and spread of the hidden gene in closed form."""
    monkeypatch.setattr(spatialscope, "N_LEVELS", 30)
    monkeypatch.setattr(spatialscope, "STEPS_PER_LEVEL", 20)
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]])
    score = lambda x, centre, sigma: -x @ torch.linalg.inv(covariance + sigma[0] ** 2 * torch.eye(2))  # noqa: E731
    n, seen = 3000, 1.2
    generator = torch.Generator().manual_seed(0)
    drawn = langevin(score, torch.zeros(n, 1, 2), torch.full((n, 1), seen), torch.zeros(2), torch.ones(2), generator)
    gain = 0.8 / (1 + spatialscope.SPOT_NOISE**2)
    assert drawn[:, 0, 1].mean().item() == pytest.approx(gain * seen, abs=0.1)
    assert drawn[:, 0, 1].std().item() == pytest.approx((1 - 0.8 * gain) ** 0.5, abs=0.1)


def test_types_of_a_spot_are_those_it_is_made_of(monkeypatch):
    monkeypatch.setattr(spatialscope, "N_CELLS", 2)
    centres = np.array([[3.0, 0, 0], [0, 3, 0], [0, 0, 3]])
    mean, sd = np.ones(3), np.ones(3)
    spots = np.log((np.exp(centres[[0, 1, 0]] + 1) + np.exp(centres[[0, 2, 1]] + 1)) / 2) - 1
    assert [sorted(row) for row in spatialscope.types_of_spots(spots, centres, mean, sd)] == [[0, 0], [1, 2], [0, 1]]


def test_global_random_state_is_left_alone(make_pair, small, monkeypatch):
    monkeypatch.setattr(spatialscope, "N_STEPS", 3)
    slide, reference, split = make_pair()
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    METHODS["SpatialScope"].impute(visible_part(slide, split.train), reference, split.test)
    assert torch.equal(states[0], torch.random.get_rng_state()) and np.array_equal(states[1], np.random.get_state()[1])


def test_few_spots_cells_and_genes_without_counts(make_pair, small, monkeypatch):
    monkeypatch.setattr(spatialscope, "N_STEPS", 3)
    slide, reference, split = make_pair(n_spots=3, n_cells=4, n_genes=12, n_reference_genes=12)
    counts = reference.layers["counts"].tolil()
    counts[1] = 0
    counts[:, reference.var_names.get_loc(split.test[0])] = 0
    reference.layers["counts"] = counts.tocsr()
    values = METHODS["SpatialScope"].impute(visible_part(slide, split.train[:2]), reference, split.test)
    assert np.isfinite(values).all()
