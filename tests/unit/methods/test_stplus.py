"""stPlus: protocol, and that its values are weighted means over cells of the spot's kind."""

import numpy as np
from peer_checks import check_method
from peer_toys import installed, two_types

from spadit.methods import stplus
from spadit.methods.packaged import reference_log


def test_protocol(make_pair, monkeypatch):
    monkeypatch.setattr(stplus, "MAX_EPOCHS", 30)
    check_method("stPlus", make_pair)


def test_a_spot_gets_the_mean_of_cells_of_its_type():
    """The paper's prediction: weights over the nearest cells in the embedding that sum to 1. No value outside the reference's range."""
    method = installed("stPlus")
    slide, reference, hidden, first = two_types()
    values, _ = method.run(slide, reference, hidden, seed=1)
    assert np.mean((values[:, 0] > values[:, 1]) == first) > 0.95
    known = reference_log(slide, reference, hidden).toarray()
    assert (values >= known.min(axis=0) - 1e-5).all() and (values <= known.max(axis=0) + 1e-5).all()


def test_torch_s_default_stays(monkeypatch):
    """The package makes CUDA tensors torch's default when it is imported."""
    import torch

    installed("stPlus")
    stplus._package()
    assert torch.zeros(1).device.type == "cpu" and torch.get_default_dtype() == torch.float32
