"""Intervals cover what they should, reliability orders genes, and a gene's own errors are never used for it."""

import numpy as np
import pandas as pd
import pytest

from spadit.metrics import pcc
from spadit.uncertainty import CLASSES, gene_features, intervals, reliability


@pytest.fixture
def errors():
    """200 genes × 300 spots; the first feature tells how good a gene is; genes 0-149 are in 5 folds, the others have none."""
    rng = np.random.default_rng(0)
    quality = rng.uniform(0, 0.9, 200)
    truth = rng.normal(size=(300, 200))
    values = quality * truth + np.sqrt(1 - quality**2) * rng.normal(size=(300, 200))
    fold = np.where(np.arange(200) < 150, np.arange(200) % 5, -1)
    features = pd.DataFrame({"useful": quality + 0.05 * rng.normal(size=200), "noise": rng.normal(size=200)})
    return truth, values, fold, features


def test_coverage_of_new_genes_is_ninety_percent(errors):
    truth, values, fold, _ = errors
    values, truth = values + 10, truth + 10  # away from zero, where the lower end is cut
    lower, upper, sd = intervals(values, np.ones(200), truth[:, :150], list(range(150)), fold)
    inside = (truth >= lower) & (truth <= upper)
    assert inside[:, 150:].mean() == pytest.approx(0.9, abs=0.02)
    assert inside[:, :150].mean() == pytest.approx(0.9, abs=0.01)
    assert sd[0, 199] == pytest.approx(np.sqrt(((values - truth)[:, :150] ** 2).mean()), rel=1e-3)


def test_width_follows_the_genes_sd_and_nothing_is_below_zero(errors):
    truth, values, fold, _ = errors
    sd = np.linspace(1, 3, 200)
    lower, upper, _ = intervals(np.abs(values), sd, np.abs(truth[:, :150]), list(range(150)), fold)
    half = upper - np.abs(values)
    outside = fold == -1
    np.testing.assert_allclose(half[0, outside] / sd[outside], half[0, outside][0] / sd[outside][0], rtol=1e-4)
    assert (lower >= 0).all()


def test_a_genes_own_errors_are_not_used_for_it(errors):
    truth, values, fold, features = errors
    calibration = list(range(150))
    before = intervals(values, np.ones(200), truth[:, :150], calibration, fold)
    expected, _ = reliability(features, truth[:, :150], values, calibration, fold)
    spoilt = truth[:, :150].copy()
    own = np.flatnonzero(fold[:150] == 2)
    spoilt[:, own] = np.random.default_rng(1).normal(size=(300, len(own))) * 50
    after = intervals(values, np.ones(200), spoilt, calibration, fold)
    expected_after, _ = reliability(features, spoilt, values, calibration, fold)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a[:, own], b[:, own])
        assert not np.array_equal(a[:, fold == 1], b[:, fold == 1])
    np.testing.assert_array_equal(expected[own], expected_after[own])
    assert not np.array_equal(expected[fold == 1], expected_after[fold == 1])


def test_reliability_predicts_the_pcc_of_new_genes_and_classes_mean_what_they_say(errors):
    truth, values, fold, features = errors
    expected, classes = reliability(features, truth[:, :150], values, list(range(150)), fold)
    real = pcc(truth, values)
    new = fold == -1
    assert np.corrcoef(expected[new], real[new])[0, 1] > 0.9
    classes = np.array(classes)
    assert set(classes) == set(CLASSES)
    assert (real[classes == "reliable"] >= 0.3).mean() >= 0.8
    assert (real[classes == "do not use"] < 0.15).mean() > 0.5


def test_few_genes_get_their_mean_and_none_get_do_not_use(errors):
    truth, values, fold, features = errors
    few = np.where(np.arange(200) < 10, fold, -1)
    expected, _ = reliability(features, truth[:, :10], values, list(range(10)), few)
    assert expected[-1] == pytest.approx(pcc(truth[:, :10], values[:, :10]).mean())
    expected, classes = reliability(features, truth[:, :0], values, [], np.full(200, -1))
    assert not expected.any() and set(classes) == {"do not use"}
    assert np.isnan(intervals(values, np.ones(200), truth[:, :0], [], np.full(200, -1))[0]).all()


def test_features_know_only_visible_genes(make_pair):
    slide, reference, split = make_pair()
    known = split.train + split.validation
    z = np.random.default_rng(0).normal(size=(slide.n_obs, len(split.test)))
    features = gene_features(z, split.test, slide[:, known], reference)
    assert list(features.index) == split.test and np.isfinite(features.to_numpy()).all()
    np.testing.assert_allclose(features["map_sd"], z.std(0))
    log = reference[:, split.test].layers["counts"].toarray() > 0
    np.testing.assert_allclose(features["reference_detected"], log.mean(0))
