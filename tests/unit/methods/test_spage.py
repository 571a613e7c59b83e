"""SpaGE: principal vectors and weights as its paper defines them."""

import numpy as np
import pytest
from peer_checks import check_method

from spadit.methods import METHODS, visible_part
from spadit.methods.spage import neighbour_weights, principal_vectors


def test_the_protocol(make_pair):
    check_method("SpaGE", make_pair, least_pcc=0.3)


def test_principal_vectors_are_what_two_subspaces_share():
    """The source varies along e1, e2, e3, the target along e1, e2 and e4: two directions are the same, one pair is at right angles."""
    rng = np.random.default_rng(0)
    scale = np.diag([5, 4, 3, 2.0])
    source, target = np.zeros((200, 5)), np.zeros((150, 5))
    source[:, [0, 1, 2]] = rng.normal(size=(200, 3)) @ scale[:3, :3]
    target[:, [0, 1, 3]] = rng.normal(size=(150, 3)) @ scale[:3, :3]
    vectors, cosines = principal_vectors(source, target, 3)
    np.testing.assert_allclose(cosines, [1, 1, 0], atol=1e-8)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(3), atol=1e-8)
    np.testing.assert_allclose(np.linalg.norm(vectors[:2, :2], axis=1), 1, atol=1e-8)
    np.testing.assert_allclose(np.abs(vectors[2]), [0, 0, 1, 0, 0], atol=1e-8)


def test_cosines_are_those_between_the_pairs_of_principal_vectors():
    rng = np.random.default_rng(1)
    source, target = rng.normal(size=(80, 6)) @ rng.normal(size=(6, 6)), rng.normal(size=(70, 6)) @ rng.normal(size=(6, 6))
    a, cosines = principal_vectors(source, target, 3)
    b, same = principal_vectors(target, source, 3)
    np.testing.assert_allclose(cosines, same, atol=1e-10)
    np.testing.assert_allclose(np.abs(a @ b.T), np.diag(cosines), atol=1e-8)


def test_weights_by_hand():
    weights = neighbour_weights(np.array([[0.1, 0.3, 0.6], [0.2, 0.6, 1.5], [0.4, 1.2, 1.3], [1.1, 1.2, 1.3], [0, 0, 0]]))
    np.testing.assert_allclose(weights[0], np.array([0.9, 0.7, 0.4]) / 2)
    np.testing.assert_allclose(weights[1], [0.75, 0.25, 0])
    np.testing.assert_allclose(weights[2], [1, 0, 0])
    np.testing.assert_allclose(weights[3:], 1 / 3)
    np.testing.assert_allclose(weights.sum(1), 1)


def test_a_reference_that_is_the_slide_gives_values_like_its_own(make_pair):
    slide, _, split = make_pair(n_spots=300, n_cells=60, n_genes=40, n_reference_genes=40)
    imputed = METHODS["SpaGE"].impute(visible_part(slide, split.train), slide, split.test)
    truth = np.log1p(slide[:, split.test].layers["counts"].toarray())
    assert np.median([np.corrcoef(truth[:, g], imputed[:, g])[0, 1] for g in range(truth.shape[1])]) > 0.6


@pytest.mark.parametrize("n", [1, 3])
def test_few_genes(make_pair, n):
    slide, reference, split = make_pair(n_spots=8, n_cells=9, n_genes=12, n_reference_genes=12)
    values = METHODS["SpaGE"].impute(visible_part(slide, split.train[:n]), reference, split.test)
    assert np.isfinite(values).all()
