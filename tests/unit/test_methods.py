"""Floors, controls and the ceiling: what they promise, on data where the right answer is known."""

import numpy as np
import pytest
import scipy.stats

from spadit import metrics
from spadit.errors import MethodError
from spadit.evaluation import impute_with_methods, measured_values
from spadit.methods import BASELINES, METHODS, Method, reference_z, slide_z, to_log_scale, visible_part
from spadit.methods.ridge import PENALTY, solve


@pytest.fixture(scope="module")
def hidden_pair(make_pair):
    """slide of the visible genes, reference, hidden genes, their truth."""
    slide, reference, split = make_pair(n_spots=150, n_cells=300, n_genes=40, n_reference_genes=50)
    hidden = split.test + split.validation
    shared = [g for g in slide.var_names if slide.var["shared"][g]]
    truth = measured_values(slide, shared)[:, [shared.index(g) for g in hidden]].toarray()
    return visible_part(slide, split.train), reference, hidden, truth


def median_pcc(name, pair, **options):
    slide, reference, hidden, truth = pair
    return np.median(metrics.pcc(truth, METHODS[name].impute(slide, reference, hidden, truth=truth, **options)))


def test_the_registry_says_who_competes():
    assert [name for name in BASELINES if METHODS[name].ranked] == ["corr_weighted", "ridge", "knn50"]
    assert {name: METHODS[name].kind for name in ("library_size", "mean_z", "oracle_ridge")} == {
        "library_size": "control", "mean_z": "control", "oracle_ridge": "ceiling"
    }  # fmt: skip
    assert all(name == m.name and m.description and m.citation for name, m in METHODS.items())


def test_every_method_of_the_registry_says_what_a_table_must_say():
    for name, method in METHODS.items():
        assert method.name == name and method.licence and method.minutes > 0
        if method.kind == "method":
            assert "doi:" in method.citation or "arXiv" in method.citation or "This project" in method.citation
            assert method.requires or method.differs, f"{name}: own implementations say how they differ from the published one"


@pytest.mark.parametrize(("returned", "said"), [((3, 2), "shape"), ("nan", "missing or infinite"), ("sd", "spread")])
def test_what_a_method_returns_is_checked(hidden_pair, returned, said):
    slide, reference, hidden, _ = hidden_pair
    good = np.zeros((slide.n_obs, len(hidden)))

    def function(*_, **__):
        if returned == "sd":
            return good, np.full_like(good, np.inf)
        return np.full_like(good, np.nan) if returned == "nan" else np.zeros(returned)

    with pytest.raises(MethodError, match=said):
        Method("odd", "method", "", "", function).impute(slide, reference, hidden)


def test_a_missing_package_is_named_with_its_remedy(hidden_pair):
    slide, reference, hidden, _ = hidden_pair
    method = Method("odd", "method", "", "", lambda *_, **__: 1 / 0, requires=("no-such-distribution",))
    assert method.version == "" and method.missing() == ["no-such-distribution"]
    with pytest.raises(MethodError, match=r"no-such-distribution.*spadit\[peers\]"):
        method.impute(slide, reference, hidden)


def test_spread_has_no_offset_on_the_log_scale(hidden_pair):
    slide, reference, hidden, _ = hidden_pair
    ones = np.ones((slide.n_obs, len(hidden)), dtype=np.float32)
    values, sd = Method("odd", "method", "", "", lambda *_, **__: (0 * ones, ones)).impute_log(slide, reference, hidden)
    upper = to_log_scale(ones, slide, reference, hidden)
    np.testing.assert_allclose(sd, upper - values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", BASELINES)
def test_the_protocol(name, hidden_pair):
    slide, reference, hidden, truth = hidden_pair
    first = METHODS[name].impute(slide, reference, hidden, seed=1, truth=truth)
    assert first.shape == truth.shape and first.dtype == np.float32 and np.isfinite(first).all()
    np.testing.assert_array_equal(first, METHODS[name].impute(slide, reference, hidden, seed=1, truth=truth))
    with pytest.raises(ValueError, match="visible"):
        METHODS[name].impute(slide, reference, [slide.var_names[0]], truth=truth[:, :1])


def test_floors_find_what_is_there_and_controls_do_not(hidden_pair):
    for name in ("corr_weighted", "ridge", "knn50"):
        assert median_pcc(name, hidden_pair) > 0.4, name
    assert median_pcc("library_size", hidden_pair) < 0.3
    assert median_pcc("oracle_ridge", hidden_pair) > median_pcc("library_size", hidden_pair)


def test_corr_weighted_by_hand(hidden_pair):
    slide, reference, hidden, _ = hidden_pair
    z_visible, z_hidden = reference_z(slide, reference, hidden[:1])
    weights = [max(0, np.mean(z_visible[:, v] * z_hidden[:, 0])) for v in range(slide.n_vars)]
    expected = np.average(slide_z(slide), axis=1, weights=weights)
    np.testing.assert_allclose(METHODS["corr_weighted"].impute(slide, reference, hidden[:1])[:, 0], expected, atol=1e-5)


def test_knn50_by_hand(hidden_pair):
    slide, reference, hidden, _ = hidden_pair
    z_visible, z_hidden = reference_z(slide, reference, hidden)
    spot = slide_z(slide)[7]
    cosine = z_visible @ spot / np.linalg.norm(z_visible, axis=1)
    expected = z_hidden[np.argsort(-cosine)[:50]].mean(axis=0)
    np.testing.assert_allclose(METHODS["knn50"].impute(slide, reference, hidden)[7], expected, atol=1e-5)


def test_library_size_is_the_visible_total_and_nothing_else(hidden_pair):
    slide, reference, hidden, _ = hidden_pair
    totals = np.asarray(slide.layers["counts"].sum(axis=1)).ravel()
    imputed = METHODS["library_size"].impute(slide, reference, hidden)
    assert (imputed == imputed[:, :1]).all()
    assert scipy.stats.spearmanr(imputed[:, 0], totals).statistic == pytest.approx(1)


@pytest.mark.parametrize("shape", [(60, 20), (20, 60), (30, 30)])
def test_ridge_solution_minimises_its_loss_whichever_side_is_solved(shape):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=shape), rng.normal(size=(shape[0], 3))
    weights = solve(x, y)
    penalty = PENALTY * np.trace(x.T @ x / shape[0])
    gradient = x.T @ (x @ weights - y) / shape[0] + penalty * weights
    assert np.abs(gradient).max() < 1e-5


def test_the_ceiling_predicts_no_spot_from_itself(make_pair):
    """With a truth of pure noise a prediction that had seen the spot would follow it."""
    slide, reference, split = make_pair(n_spots=200, n_cells=60, n_genes=40, n_reference_genes=45)
    noise = np.random.default_rng(0).normal(size=(slide.n_obs, len(split.test)))
    imputed = METHODS["oracle_ridge"].impute(visible_part(slide, split.train), reference, split.test, truth=noise)
    assert metrics.pcc(noise, imputed).mean() < 0.15  # fitted with the spots themselves it would be about 0.4
    with pytest.raises(ValueError, match="truth"):
        METHODS["oracle_ridge"].impute(visible_part(slide, split.train), reference, split.test)


def test_the_truth_reaches_the_ceiling_only(hidden_pair):
    slide, reference, hidden, truth = hidden_pair
    for name in BASELINES:
        method = METHODS[name]
        with_truth, other = (method.impute(slide, reference, hidden, truth=t) for t in (truth, truth[::-1]))
        assert np.array_equal(with_truth, other) == (method.kind != "ceiling"), name


def test_log_scale_is_the_references(hidden_pair):
    slide, reference, hidden, _ = hidden_pair
    values = to_log_scale(np.zeros((slide.n_obs, len(hidden))), slide, reference, hidden)
    counts = reference[:, list(slide.var_names) + hidden].layers["counts"].toarray().astype(float)
    totals = counts[:, : slide.n_vars].sum(axis=1)
    expected = np.log1p(counts[:, slide.n_vars :] / totals[:, None] * np.median(totals)).mean(axis=0)
    np.testing.assert_allclose(values[0], expected, rtol=1e-4)


def test_genes_and_cells_without_counts_give_constants_not_nan(make_pair):
    slide, reference, split = make_pair(n_spots=30, n_cells=40, n_genes=30, n_reference_genes=30)
    counts = reference.layers["counts"].tolil()
    counts[:, reference.var_names.get_loc(split.test[0])] = 0
    counts[3] = 0
    reference.layers["counts"] = counts.tocsr()
    spots = slide.layers["counts"].tolil()
    spots[5] = 0
    slide.layers["counts"] = spots.tocsr()
    for name, values in impute_with_methods(slide, reference, split.train, split.test):
        assert np.isfinite(values).all(), name
        if METHODS[name].kind == "floor":
            assert np.ptp(values[:, 0]) == 0, name


def test_few_cells_and_few_genes(make_pair):
    slide, reference, split = make_pair(n_spots=8, n_cells=9, n_genes=12, n_reference_genes=12)
    for name, values in impute_with_methods(slide, reference, split.train[:2], split.test, truth=np.eye(8)[:, : len(split.test)]):
        assert values.shape == (8, len(split.test)) and np.isfinite(values).all(), name
