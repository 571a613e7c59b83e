"""novoSpaRc: protocol, and that it lays cells out along a gradient."""

import numpy as np
import pytest
from peer_checks import check_method
from peer_toys import gradient, installed

from spadit import metrics
from spadit.methods import novosparc


def test_protocol(make_pair):
    check_method("novoSpaRc", make_pair)


def test_a_gradient_is_reconstructed():
    """The paper's first example: one axis, cells from all of it."""
    method = installed("novoSpaRc")
    slide, reference, hidden, truth = gradient()
    values, _ = method.run(slide, reference, hidden)
    assert np.median(metrics.pcc(truth, values)) > 0.8


def test_cells_and_spots_beyond_the_limits_are_left_out_and_filled(monkeypatch):
    method = installed("novoSpaRc")
    monkeypatch.setattr(novosparc, "MAX_CELLS", 80)
    monkeypatch.setattr(novosparc, "MAX_SPOTS", 40)
    slide, reference, hidden, truth = gradient()
    values, _ = method.run(slide, reference, hidden, seed=2)
    again, _ = method.run(slide, reference, hidden, seed=2)
    assert len(np.unique(values, axis=0)) == 40
    np.testing.assert_array_equal(values, again)
    assert np.median(metrics.pcc(truth, values)) > 0.7


@pytest.mark.parametrize("fails", [1, 3])
def test_weaker_regularisation_is_given_up_when_numbers_fail(fails):
    """As the package means to do: ten times as much, until 0.5."""

    class Tissue:
        tried = []

        def reconstruct(self, epsilon, **_):
            self.tried.append(epsilon)
            self.gw = np.full((3, 2), np.nan if len(self.tried) <= fails else 1 / 6)

    tissue = Tissue()
    Tissue.tried.clear()
    if fails == 1:
        assert novosparc._transport(tissue).sum() == pytest.approx(1)
        assert tissue.tried == pytest.approx([0.005, 0.05])
    else:
        with pytest.raises(novosparc.MethodError, match="found no transport"):
            novosparc._transport(tissue)
