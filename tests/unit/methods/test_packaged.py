"""What methods from packages have in common: nothing gets out of the room they run in, and odd data doesn't stop them."""

import logging
import os
import random

import numpy as np
import pytest
from peer_toys import data, installed

from spadit.errors import MethodError
from spadit.methods import gimvi, packaged, stplus, tangram
from spadit.preprocess import log_normalise

PEERS = ("Tangram", "gimVI", "novoSpaRc", "stPlus")


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(tangram, "N_EPOCHS", 10)
    monkeypatch.setattr(gimvi, "N_EPOCHS", 3)
    monkeypatch.setattr(stplus, "MAX_EPOCHS", 3)


def odd(n_spots=13, n_cells=11, n_genes=5, n_hidden=3):
    """Few of everything; the last gene, spot and cell have no counts, and so has the last hidden gene."""
    rng = np.random.default_rng(0)
    names = [f"G{i}" for i in range(n_genes + n_hidden)]
    spots, cells = rng.poisson(3, (n_spots, n_genes)), rng.poisson(3, (n_cells, n_genes + n_hidden))
    spots[-1], cells[-1], cells[:, -1] = 0, 0, 0
    spots[:, n_genes - 1] = 0
    return data(spots, names[:n_genes], rng.uniform(size=(n_spots, 2))), data(cells, names), names[n_genes:]


@pytest.mark.parametrize("name", PEERS)
def test_few_and_empty_spots_cells_and_genes(name, quick):
    method = installed(name)
    slide, reference, hidden = odd()
    values, _ = method.run(slide, reference, hidden)
    assert values.shape == (13, 3) and values[:, :2].any()


@pytest.mark.parametrize("name", PEERS)
def test_nothing_in_common_is_said(name):
    method = installed(name)
    slide, reference, hidden = odd()
    slide.layers["counts"] = slide.layers["counts"] * 0
    with pytest.raises(MethodError, match="needs a visible gene that is detected"):
        method.run(slide, reference, hidden)
    slide, reference, hidden = odd(n_cells=1)
    with pytest.raises(MethodError, match="at least .* cells"):
        method.run(slide, reference, hidden)


@pytest.mark.parametrize("name", PEERS)
def test_inputs_and_surroundings_stay_as_they_are(name, quick, tmp_path, monkeypatch, capfd):
    import torch

    method = installed(name)
    monkeypatch.chdir(tmp_path)
    slide, reference, hidden = odd()
    before = slide.layers["counts"].toarray(), reference.layers["counts"].toarray()
    np.random.seed(1), torch.manual_seed(1), random.seed(1)
    first = np.random.rand(), float(torch.rand(1)), random.random()
    np.random.seed(1), torch.manual_seed(1), random.seed(1)
    facts = torch.get_num_threads(), logging.getLogger().level, logging.root.manager.disable, dict(os.environ), os.getcwd()
    method.run(slide, reference, hidden, seed=7)
    assert (np.random.rand(), float(torch.rand(1)), random.random()) == first
    assert (torch.get_num_threads(), logging.getLogger().level, logging.root.manager.disable, dict(os.environ), os.getcwd()) == facts
    assert not list(tmp_path.iterdir()) and capfd.readouterr().out == ""
    np.testing.assert_array_equal(slide.layers["counts"].toarray(), before[0])
    np.testing.assert_array_equal(reference.layers["counts"].toarray(), before[1])


def test_the_room_is_left_as_found_after_a_failure(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    state = np.random.get_state()[1].copy()
    with pytest.raises(KeyError), packaged.closed_room(3):
        print("said")
        open("written", "w").close()
        os.environ["SET_INSIDE"] = "1"
        raise KeyError("x")
    assert os.getcwd() == str(tmp_path) and not list(tmp_path.iterdir()) and "SET_INSIDE" not in os.environ
    assert capsys.readouterr().out == "" and (np.random.get_state()[1] == state).all()


def test_expected_counts_are_normalised_as_a_slide_is():
    """The slide's own counts as what is expected give the slide's own values; a spot's scale doesn't matter."""
    slide, reference, _ = odd()
    counts = slide.layers["counts"].toarray()
    values = packaged.expected_to_log(np.hstack([counts, counts]) * np.arange(1, 14)[:, None], slide)
    np.testing.assert_allclose(values, log_normalise(slide.layers["counts"])[0].toarray(), rtol=1e-6)


def test_most_variable_genes_in_their_order():
    slide, reference, _ = odd(n_cells=40)
    names = list(reference.var_names)
    values = packaged.reference_log(slide, reference, names).toarray()
    top = set(np.array(names)[np.argsort(-values.var(axis=0))[:3]])
    assert packaged.most_variable(slide, reference, names, 3) == [g for g in names if g in top]
    assert packaged.most_variable(slide, reference, names, 100) == names
