"""SpaDiT through the protocol."""

import numpy as np
import pytest
from peer_checks import check_method

from spadit import api
from spadit.methods import METHODS, visible_part
from spadit.methods.spadit import to_target
from spadit.settings import PRESETS, Settings


@pytest.fixture
def small(monkeypatch, tiny):
    monkeypatch.setitem(PRESETS, "default", Settings(**tiny))


def test_the_protocol(make_pair, small):
    check_method("SpaDiT", make_pair)


def test_it_is_the_model_that_a_user_fits(make_pair, small):
    slide, reference, split = make_pair()
    part = visible_part(slide, split.train)
    values, sd = METHODS["SpaDiT"].run(part, reference, split.test, seed=2)
    imputed = api.SpaDiT(seed=2, device="cpu").fit(part, reference).impute(split.test)
    assert np.array_equal(values, imputed.X) and np.array_equal(sd, imputed.layers["sd"])


def test_to_target_by_hand():
    counts, own = np.array([[3.0, 0.5]]), 20.0  # at that total
    values, sd = to_target(np.log1p(counts), np.full((1, 2), 0.1), own, 100.0)
    np.testing.assert_allclose(values, np.log1p(5 * counts))
    step = 1e-6
    slope = (np.log1p(5 * np.expm1(np.log1p(counts) + step)) - np.log1p(5 * counts)) / step
    np.testing.assert_allclose(sd, 0.1 * slope, rtol=1e-4)
    assert to_target(counts, counts, own, None)[0] is counts
