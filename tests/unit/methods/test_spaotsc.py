"""SpaOTsc: the plan is the transport that its paper asks for."""

import numpy as np
import pytest
import scipy.stats
from peer_checks import check_method

from spadit.methods import METHODS, spaotsc, visible_part
from spadit.methods.spaotsc import rank_correlation, structure_cost

pytest.importorskip("ot", reason="needs POT: the extra 'peers'")


def test_the_protocol(make_pair):
    check_method("SpaOTsc", make_pair)


def test_rank_correlation_is_spearmans():
    a, b = np.random.default_rng(0).normal(size=(2, 4, 9))
    expected = [[scipy.stats.spearmanr(x, y).statistic for y in b] for x in a]
    np.testing.assert_allclose(rank_correlation(a, b), expected, atol=1e-12)
    assert (rank_correlation(np.ones((1, 9)), b) == 0).all()


def test_structure_cost_is_the_gradient_of_the_quadratic_term():
    rng = np.random.default_rng(1)
    plan = rng.uniform(size=(4, 3))
    cells, spots = (x + x.T for x in (rng.uniform(size=(4, 4)), rng.uniform(size=(3, 3))))
    difference = (cells[:, :, None, None] - spots[None, None]) ** 2  # i, j, k, l
    np.testing.assert_allclose(structure_cost(plan, cells, spots), 2 * np.einsum("ijkl,jl->ik", difference, plan), atol=1e-12)


def test_a_plan_that_pays_for_its_marginals_keeps_them_and_is_sinkhorns(monkeypatch):
    """With a large ρ the marginals are exp(correlation)'s sums, and the plan without structure is exp(-C/ε) scaled by rows and columns."""
    monkeypatch.setattr(spaotsc, "RHO", 1e4)
    monkeypatch.setattr(spaotsc, "N_SINKHORN", 20_000)
    monkeypatch.setattr(spaotsc, "TOLERANCE", 1e-14)
    correlation = np.random.default_rng(2).uniform(-0.5, 0.8, size=(6, 5))
    plan = spaotsc.transport_plan(correlation)
    weight = np.exp(correlation)
    np.testing.assert_allclose(plan.sum(1), weight.sum(1) / weight.sum(), rtol=0.02)
    np.testing.assert_allclose(plan.sum(0), weight.sum(0) / weight.sum(), rtol=0.02)
    scaled = np.log(plan) + np.exp(1 - correlation) ** 2
    centred = scaled - scaled.mean(0) - scaled.mean(1, keepdims=True) + scaled.mean()
    np.testing.assert_allclose(centred, 0, atol=1e-6)


def test_structure_tells_apart_what_expression_can_not(monkeypatch):
    """Two groups of cells and two regions, one pair of each known by expression: the others follow for their distances' sake."""
    monkeypatch.setattr(spaotsc, "ALPHA", 0.9)
    monkeypatch.setattr(spaotsc, "EPSILON", 0.02)
    correlation = np.zeros((4, 4))
    correlation[0, 0] = correlation[2, 2] = 0.9
    near = np.kron(np.eye(2), np.ones((2, 2)))
    plan = spaotsc.transport_plan(correlation, 1 - near, 1 - near)
    assert (plan * near).sum() > 0.8 * plan.sum()
    assert (spaotsc.transport_plan(correlation) * near).sum() < (plan * near).sum()


def test_more_spots_and_cells_than_a_plan_holds(make_pair, monkeypatch):
    slide, reference, split = make_pair(n_spots=50, n_cells=60, n_genes=20, n_reference_genes=24)
    monkeypatch.setattr(spaotsc, "MAX_SPOTS", 20)
    monkeypatch.setattr(spaotsc, "MAX_CELLS", 30)
    first, second = (METHODS["SpaOTsc"].impute(visible_part(slide, split.train), reference, split.test, seed=1) for _ in range(2))
    assert np.array_equal(first, second) and (first.std(0) > 0).all()


def test_empty_spots_cells_and_genes(make_pair):
    slide, reference, split = make_pair(n_spots=9, n_cells=8, n_genes=12, n_reference_genes=12)
    counts = slide.layers["counts"].tolil()
    counts[3] = 0
    slide.layers["counts"] = counts.tocsr()
    counts = reference.layers["counts"].tolil()
    counts[2] = 0
    counts[:, 0] = 0
    reference.layers["counts"] = counts.tocsr()
    assert np.isfinite(METHODS["SpaOTsc"].impute(visible_part(slide, split.train), reference, split.test)).all()
