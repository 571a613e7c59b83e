"""Metrics against scipy, scikit-image and numbers worked out by hand, and against properties that hold for any data."""

import numpy as np
import pandas as pd
import pytest
import scipy.spatial.distance
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.metrics import structural_similarity

from spadit import metrics

MEASURES = (metrics.pcc, metrics.spearman, metrics.ssim, metrics.rmse, metrics.js)


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(0)
    truth = np.log1p(rng.poisson(2, (200, 9)).astype(np.float32))
    return truth, (0.5 * truth + rng.normal(0.3, 1, truth.shape)).astype(np.float32)


def per_gene(function, truth, imputed):
    return np.array([function(a, b) for a, b in zip(truth.T.astype(float), imputed.T.astype(float), strict=True)])


def test_pcc_and_spearman_agree_with_scipy(values):
    np.testing.assert_allclose(metrics.pcc(*values), per_gene(lambda a, b: scipy.stats.pearsonr(a, b)[0], *values), atol=1e-12)
    np.testing.assert_allclose(metrics.spearman(*values), per_gene(lambda a, b: scipy.stats.spearmanr(a, b)[0], *values), atol=1e-12)


def test_js_is_the_square_of_scipys_distance(values):
    truth, imputed = values
    expected = per_gene(lambda a, b: scipy.spatial.distance.jensenshannon(a, np.clip(b, 0, None)) ** 2, truth, imputed)
    np.testing.assert_allclose(metrics.js(truth, imputed), expected, atol=1e-12)


def test_js_of_distributions_that_do_not_meet_is_ln_2():
    assert metrics.js(np.array([1.0, 0, 2, 0]), np.array([0, 5.0, 0, 1])) == pytest.approx(np.log(2))


def test_ssim_with_one_window_agrees_with_scikit_image():
    rng = np.random.default_rng(1)
    a, b = rng.uniform(0, 3, (7, 7)), rng.uniform(0, 5, (7, 7))
    expected = structural_similarity(
        a / a.max(), b / b.max(), win_size=7, data_range=1, use_sample_covariance=False, gaussian_weights=False, K1=0.01, K2=0.03
    )
    assert metrics.ssim(a.ravel(), b.ravel()) == pytest.approx(expected, abs=1e-12)


def test_worked_by_hand():
    truth, imputed = np.array([0.0, 1, 2]), np.array([0.0, 2, 1])
    assert metrics.pcc(truth, imputed) == pytest.approx(0.5)
    assert metrics.spearman(truth, imputed) == pytest.approx(0.5)
    assert metrics.rmse(truth, imputed) == pytest.approx(1.0)
    # both divided by 2: means 1/2, variances 1/6, covariance 1/12
    assert metrics.ssim(truth, imputed) == pytest.approx((1 / 6 + 9e-4) / (1 / 3 + 9e-4))
    # p = 0, 1/3, 2/3; q = 0, 2/3, 1/3; their middle is 1/2 twice
    assert metrics.js(truth, imputed) == pytest.approx(np.log(2) / 3 * 0 + (1 / 3) * np.log(2 / 3) + (2 / 3) * np.log(4 / 3))


@pytest.mark.parametrize("constant", [0.0, 0.1, 3.0, -2.0, 1e-12])
def test_a_constant_prediction_scores_zero_not_nan(values, constant):
    truth = values[0]
    imputed = np.full_like(truth, constant)
    for function in (metrics.pcc, metrics.spearman):
        np.testing.assert_array_equal(function(truth, imputed), 0)
        np.testing.assert_array_equal(function(imputed, truth), 0)
    np.testing.assert_allclose(metrics.rmse(truth, imputed), 1)
    uniform = metrics.js(truth, np.ones_like(truth))
    np.testing.assert_allclose(metrics.js(truth, imputed), uniform)
    assert np.isfinite(metrics.ssim(truth, imputed)).all()


def test_a_negative_prediction_does_not_turn_the_sign_of_ssim():
    truth = np.array([1.0, 2, 3, 4])
    assert metrics.ssim(truth, truth - 10) < 1
    assert np.sign(metrics.ssim(truth, -truth - 1)) == np.sign(-metrics.ssim(truth, truth - 10))


arrays = hnp.arrays(np.float64, st.tuples(st.integers(2, 30), st.integers(1, 4)), elements=st.floats(-100, 100, width=32))


@settings(max_examples=60, deadline=None)
@given(arrays, st.integers(0, 2**32 - 1))
def test_ranges_and_the_identity_of_rmse_and_pcc(truth, seed):
    imputed = np.random.default_rng(seed).normal(size=truth.shape)
    for function in MEASURES:
        about = metrics.METRICS[function.__name__]
        result = function(truth, imputed)
        # SSIM's bounds hold for values that are not negative
        checked = function(np.abs(truth), np.abs(imputed)) if function is metrics.ssim else result
        assert np.isfinite(result).all()
        assert (checked >= about.low - 1e-9).all() and (checked <= about.high + 1e-9).all()
    varies = np.ptp(truth, axis=0) > 1e-6 * np.abs(truth).max(axis=0)
    expected = np.where(varies, np.sqrt(np.maximum(0, 2 * (1 - metrics.pcc(truth, imputed)))), 1)
    np.testing.assert_allclose(metrics.rmse(truth, imputed), expected, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(arrays, st.floats(0.125, 100), st.floats(-50, 50))
def test_correlation_ignores_scale_and_shift(truth, scale, shift):
    rng = np.random.default_rng(0)
    imputed = rng.normal(size=truth.shape)
    np.testing.assert_allclose(metrics.pcc(truth, imputed * scale + shift), metrics.pcc(truth, imputed), atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(arrays)
def test_a_perfect_prediction_is_best_by_every_measure(truth):
    varies = np.ptp(truth, axis=0) > 1e-6 * np.abs(truth).max(axis=0)
    np.testing.assert_allclose(metrics.pcc(truth, truth), varies, atol=1e-9)
    np.testing.assert_allclose(metrics.spearman(truth, truth), varies, atol=1e-9)
    np.testing.assert_allclose(metrics.rmse(truth, truth), 0, atol=1e-9)
    np.testing.assert_allclose(metrics.js(truth, truth), 0, atol=1e-9)
    np.testing.assert_allclose(metrics.ssim(truth, truth), 1, atol=1e-9)


def test_genes_do_not_depend_on_each_other_or_on_blocks(values, monkeypatch):
    whole = [function(*values) for function in MEASURES]
    monkeypatch.setattr(metrics, "BLOCK", 1)
    for function, expected in zip(MEASURES, whole, strict=True):
        np.testing.assert_allclose(function(*values), expected, rtol=1e-12)
        assert function(values[0][:, 3], values[1][:, 3]) == pytest.approx(expected[3], rel=1e-12)


def test_wrong_shapes_and_values_are_refused(values):
    with pytest.raises(ValueError, match="one shape"):
        metrics.pcc(values[0], values[1][:, :2])
    with pytest.raises(ValueError, match="finite"):
        metrics.pcc(values[0], np.full_like(values[1], np.nan))


def test_coverage_and_width_by_hand():
    truth = np.array([[1.0, 1], [2, 2], [3, 3], [4, 4]])
    lower, upper = truth - 1, truth + 1
    upper[0, 1] = 0.5
    np.testing.assert_array_equal(metrics.coverage(truth, lower, upper), [1, 0.75])
    np.testing.assert_allclose(metrics.width(lower, upper), [2, 1.625])


def test_morans_i_by_hand_and_by_double_sum():
    line = np.stack([np.arange(4.0), np.zeros(4)], axis=1)
    graph = metrics.neighbours(line + np.array([[0, 0], [0.1, 0], [0.3, 0], [0.6, 0]]), k=1)  # neighbours: 1, 0, 1, 2
    values = np.array([1.0, 1, 0, 0])
    assert metrics.morans_i(values, graph) == pytest.approx((1 + 1 - 1 + 1) / 4)
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(50, 3)), metrics.neighbours(rng.uniform(size=(50, 2)))
    z, dense = x - x.mean(axis=0), w.toarray()
    expected = [50 / dense.sum() * (dense * np.outer(z[:, g], z[:, g])).sum() / (z[:, g] ** 2).sum() for g in range(3)]
    np.testing.assert_allclose(metrics.morans_i(x, w), expected)
    assert metrics.morans_i(np.ones(50), w) == 0


def test_neighbours_leave_out_the_spot_itself_even_where_spots_coincide():
    graph = metrics.neighbours(np.zeros((9, 2)))
    assert graph.diagonal().sum() == 0
    np.testing.assert_allclose(graph.sum(axis=1), 1)
    assert metrics.neighbours(np.zeros((1, 2))).nnz == 0


def test_morans_i_tells_smooth_from_random():
    rng = np.random.default_rng(0)
    spatial = rng.uniform(size=(400, 2))
    graph = metrics.neighbours(spatial)
    smooth, noise = np.sin(6 * spatial[:, 0]), rng.normal(size=400)
    assert metrics.morans_i(smooth, graph) > 0.9
    assert abs(metrics.morans_i(noise, graph)) < 0.12


def test_accuracy_score_by_hand():
    table = pd.DataFrame(
        {"pcc": [0.3, 0.2, 0.1], "ssim": [0.3, 0.3, 0.1], "rmse": [1.1, 1.2, 1.3], "js": [0.5, 0.2, 0.5]}, index=["a", "b", "c"]
    )
    expected = {"a": (3 + 2.5 + 3 + 1.5) / 12, "b": (2 + 2.5 + 2 + 3) / 12, "c": (1 + 1 + 1 + 1.5) / 12}
    assert metrics.accuracy_score(table).to_dict() == pytest.approx(expected)
    with pytest.raises(ValueError, match="two methods"):
        metrics.accuracy_score(table.iloc[:1])


def test_robustness_score():
    assert metrics.robustness_score(np.array([0.6, 0.5, 0.51, -1])) == 0.5
    assert np.isnan(metrics.robustness_score(np.array([])))


def test_bootstrap_interval_is_seeded_and_covers():
    rng = np.random.default_rng(0)
    draw = rng.normal(1, 1, 100)
    first = metrics.bootstrap_interval(draw, "median", seed=3)
    assert first == metrics.bootstrap_interval(draw, "median", seed=3) != metrics.bootstrap_interval(draw, "median", seed=4)
    assert first[0] < np.median(draw) < first[1]
    hits = [low < 1 < high for low, high in (metrics.bootstrap_interval(rng.normal(1, 1, 60), "mean", 0, 500) for _ in range(200))]
    assert 0.88 < np.mean(hits) <= 0.99
    assert np.isnan(metrics.bootstrap_interval(np.array([]))).all()
    assert metrics.bootstrap_interval(np.array([0.4])) == (0.4, 0.4)


def test_wilcoxon_and_holm():
    rng = np.random.default_rng(0)
    a = rng.normal(size=40)
    assert metrics.paired_wilcoxon(a, a) == 1
    assert metrics.paired_wilcoxon(a + 1, a) < 1e-6
    b = a + rng.normal(0.2, 1, 40)
    assert metrics.paired_wilcoxon(a, b) == scipy.stats.wilcoxon(a - b).pvalue
    np.testing.assert_allclose(metrics.holm([0.04, 0.01, 0.03]), [0.06, 0.03, 0.06])
    assert metrics.holm([0.6, 0.7]).max() == 1
    assert len(metrics.holm([])) == 0


def test_every_measure_is_described():
    for name, about in metrics.METRICS.items():
        assert about.name == name and about.label and about.definition and about.low < about.high
        assert about.better in ("higher", "lower", "")
