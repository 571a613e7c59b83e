"""Tangram: protocol, and that it finds which cell sits where."""

import numpy as np
from peer_checks import check_method
from peer_toys import data, installed

from spadit import metrics
from spadit.methods import tangram


def test_protocol(make_pair, monkeypatch):
    monkeypatch.setattr(tangram, "N_EPOCHS", 300)
    check_method("Tangram", make_pair)


def test_every_cell_goes_where_it_came_from():
    """The paper's check: spots that are the cells themselves, shuffled, are put together again."""
    method = installed("Tangram")
    rng = np.random.default_rng(0)
    names = [f"Gene{i}" for i in range(40)]
    cells = rng.poisson(rng.gamma(0.5, 8, (30, 40)))
    order = rng.permutation(30)
    slide = data(cells[order][:, :30], names[:30], rng.uniform(size=(30, 2)))
    values, _ = method.run(slide, data(cells, names), names[30:])
    assert np.median(metrics.pcc(np.log1p(cells[order][:, 30:]), values)) > 0.9


def test_genes_whose_names_differ_in_case_only_stay_apart(monkeypatch):
    """The package lower-cases names."""
    method = installed("Tangram")
    monkeypatch.setattr(tangram, "N_EPOCHS", 20)
    rng = np.random.default_rng(0)
    counts = rng.poisson(3, (20, 6))
    counts[:, 5] = 0
    names = ["a", "A", "b", "c", "d", "D"]
    values, _ = method.run(data(counts[:, :4], names[:4], rng.uniform(size=(20, 2))), data(counts, names), names[4:])
    assert (values[:, 0] > 0).all() and not values[:, 1].any(), "d is expressed, D is in no cell"
