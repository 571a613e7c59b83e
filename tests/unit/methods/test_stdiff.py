"""stDiff: the reverse process is the right one, the visible genes stay as given, and what cells teach is learned."""

import numpy as np
import pytest
import torch
from peer_checks import check_method

from spadit.methods import METHODS, stdiff, visible_part
from spadit.methods.networks.stdiff import complete, train
from spadit.model.schedule import betas


@pytest.fixture
def small(monkeypatch):
    """A budget for tests: training of a second or two."""
    for name, value in {"WIDTH": 32, "DEPTH": 2, "N_HEADS": 4, "N_STEPS": 200, "BATCH_SIZE": 64, "N_SAMPLING_STEPS": 15}.items():
        monkeypatch.setattr(stdiff, name, value)


def test_the_protocol(make_pair, small):
    check_method("stDiff", make_pair)


def test_global_random_state_is_left_alone(make_pair, small, monkeypatch):
    monkeypatch.setattr(stdiff, "N_STEPS", 3)
    slide, reference, split = make_pair()
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = METHODS["stDiff"].impute(visible_part(slide, split.train), reference, split.test, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(6)
    assert np.array_equal(first, METHODS["stDiff"].impute(visible_part(slide, split.train), reference, split.test, seed=1))
    assert not np.array_equal(first, METHODS["stDiff"].impute(visible_part(slide, split.train), reference, split.test, seed=2))


def test_visible_genes_stay_as_given_at_every_step():
    """The network is asked about the very same visible genes from the first step to the last."""
    visible = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    given = visible.clone()
    seen = []

    def network(known, noisy, t):
        seen.append((known.clone(), int(t[0])))
        return torch.zeros_like(noisy)

    out = complete(network, visible, 3, torch.Generator().manual_seed(1))
    assert out.shape == (7, 3) and torch.equal(visible, given)
    assert len(seen) == stdiff.N_SAMPLING_STEPS and all(torch.equal(known, given) for known, _ in seen)
    times = [t for _, t in seen]
    assert times == sorted(times, reverse=True) and times[0] == stdiff.N_DIFFUSION_STEPS - 1 and times[-1] == 0


def test_the_reverse_process_draws_from_the_right_gaussian():
    """Hidden genes that are N(a·visible, s²): with the noise that is right for it, completions have that mean and spread."""
    a, s, n = 1.5, 0.5, 4000
    kept = torch.cumprod(1 - betas("cosine", stdiff.N_DIFFUSION_STEPS), 0).float()

    def network(known, noisy, t):
        k = kept[t][:, None]
        return (1 - k).sqrt() * (noisy - k.sqrt() * a * known) / (k * s**2 + 1 - k)

    known = torch.full((n, 1), 0.8)
    drawn = complete(network, known, 1, torch.Generator().manual_seed(0)).numpy()
    assert drawn.mean() == pytest.approx(a * 0.8, abs=0.05)
    assert drawn.std() == pytest.approx(s, abs=0.07)


def test_what_cells_teach_is_learned(small):
    """A hidden gene that is a visible one again, and one that is its opposite."""
    rng = np.random.default_rng(0)
    visible = rng.normal(size=(200, 3)).astype(np.float32)
    network = train(visible, np.stack([visible[:, 0], -visible[:, 1]], 1), seed=0)
    spots = torch.from_numpy(rng.normal(size=(100, 3)).astype(np.float32))
    drawn = complete(network, spots, 2, torch.Generator().manual_seed(0)).numpy()
    assert np.corrcoef(drawn[:, 0], spots[:, 0])[0, 1] > 0.8
    assert np.corrcoef(drawn[:, 1], spots[:, 1])[0, 1] < -0.8


def test_few_spots_cells_and_genes_without_counts(make_pair, small, monkeypatch):
    monkeypatch.setattr(stdiff, "N_STEPS", 3)
    slide, reference, split = make_pair(n_spots=3, n_cells=4, n_genes=12, n_reference_genes=12)
    counts = reference.layers["counts"].tolil()
    counts[1] = 0
    counts[:, reference.var_names.get_loc(split.test[0])] = 0
    reference.layers["counts"] = counts.tocsr()
    values = METHODS["stDiff"].impute(visible_part(slide, split.train[:2]), reference, split.test)
    assert np.isfinite(values).all()
