"""gimVI: protocol, and that a type's hidden marker is imputed where the type is."""

import numpy as np
import pytest
from peer_checks import check_method
from peer_toys import installed, two_types

from spadit.methods import gimvi


def test_protocol(make_pair, monkeypatch):
    monkeypatch.setattr(gimvi, "N_EPOCHS", 100)
    check_method("gimVI", make_pair)


def test_a_type_s_hidden_marker_is_found_where_the_type_is():
    """What the paper's imputation rests on: spots and cells of one type share a place in the latent space."""
    method = installed("gimVI")
    slide, reference, hidden, first = two_types()
    values, _ = method.run(slide, reference, hidden, seed=1)
    difference = values[:, 0] - values[:, 1]
    assert np.mean((difference > 0) == first) > 0.95


@pytest.mark.parametrize("sizes", [(143, 60), (1500, 2000), (2, 2), (144, 286), (3, 129)])
def test_no_batch_of_one(sizes):
    """Batch normalisation fails on it."""
    batch = gimvi._batch_size(*sizes)
    assert 1 < batch <= 128 and all(int(np.ceil(0.9 * n)) % batch != 1 for n in sizes)
