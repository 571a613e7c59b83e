"""The expected level of a hidden gene: a known relation is found, and no gene tells of itself."""

import numpy as np
import pytest

from spadit.scale import Scale, crossfitted_scale, to_expression


@pytest.fixture(scope="module")
def genes():
    """Statistics of 200 genes in the reference, and mean and SD on the slide, that follow from them."""
    rng = np.random.default_rng(0)
    statistics = np.column_stack([rng.uniform(0.05, 2, 200), rng.uniform(0.1, 1, 200), rng.uniform(0.05, 1, 200)])
    logs = np.log(statistics[:, :2] + 1e-3)
    mean = np.exp(0.3 + 0.6 * logs[:, 0] + 0.2 * logs[:, 1] - 0.5 * statistics[:, 2])
    sd = np.exp(-0.8 + 0.1 * logs[:, 0] + 0.4 * logs[:, 1] + 0.3 * statistics[:, 2])
    return mean, sd, statistics


def test_a_known_relation_is_found(genes):
    mean, sd, statistics = genes
    half = np.arange(200) < 100
    for found, truth in zip(Scale.fit(mean[half], sd[half], statistics[half]).expected(statistics[~half]), (mean, sd), strict=True):
        np.testing.assert_allclose(found, truth[~half], rtol=0.1)
        assert np.corrcoef(np.log(found), np.log(truth[~half]))[0, 1] > 0.99


def test_what_is_expected_stays_within_what_was_seen(genes):
    mean, sd, statistics = genes
    wild = np.array([[1e6, 1e6, 1.0], [0, 0, 0]])
    for found, seen in zip(Scale.fit(mean, sd, statistics).expected(wild), (mean, sd), strict=True):
        assert found.min() >= seen.min() and found.max() <= seen.max() + 2e-3
        assert found[0] == pytest.approx(seen.max(), rel=0.01)


def test_order_of_genes_does_not_matter(genes):
    mean, sd, statistics = genes
    order = np.random.default_rng(1).permutation(200)
    a, b = Scale.fit(mean, sd, statistics), Scale.fit(mean[order], sd[order], statistics[order])
    np.testing.assert_allclose(a.coefficients, b.coefficients, atol=1e-8)
    np.testing.assert_array_equal(a.bounds, b.bounds)


@pytest.mark.parametrize(("n", "n_folds"), [(200, 10), (7, 10), (2, 10), (25, 4)])
def test_no_gene_tells_of_its_own_level(genes, n, n_folds):
    mean, sd, statistics = (part[:n] for part in genes)
    before = np.array(crossfitted_scale(mean, sd, statistics, n_folds))
    for gene in (0, n - 1):
        other = mean.copy(), sd.copy()
        for part in other:
            part[gene] = 77.0
        after = np.array(crossfitted_scale(*other, statistics, n_folds))
        blind = np.arange(n) % min(n, n_folds) == gene % min(n, n_folds)
        assert blind[gene]
        same = (before == after).all(0)
        assert same[blind].all() and not same[~blind].all()


def test_crossfitted_is_close_to_the_truth_and_one_gene_has_but_itself(genes):
    mean, sd, statistics = genes
    for found, truth in zip(crossfitted_scale(mean, sd, statistics), (mean, sd), strict=True):
        assert np.corrcoef(np.log(found), np.log(truth))[0, 1] > 0.98
    found = crossfitted_scale(mean[:1], sd[:1], statistics[:1])
    assert (found[0][0], found[1][0]) == (pytest.approx(mean[0], rel=0.01), pytest.approx(sd[0], rel=0.01))


def test_a_silent_slide_gives_numbers():
    zeros = np.zeros(5)
    assert all(np.isfinite(part).all() for part in Scale.fit(zeros, zeros, np.zeros((5, 3))).expected(np.ones((2, 3))))


def test_maps_get_the_genes_mean_and_sd_and_keep_their_shape():
    z = np.random.default_rng(2).normal(size=(500, 3)) * [0.01, 1, 30] + [5, 0, 0]
    z -= z.mean(0)
    mean, sd = np.array([4.0, 5.0, 6.0]), np.array([0.5, 1.0, 0.25])
    values = to_expression(z, mean, sd)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values.mean(0), mean, rtol=1e-5)
    np.testing.assert_allclose(values.std(0), sd, rtol=1e-4)
    assert all(np.corrcoef(values[:, g], z[:, g])[0, 1] > 0.9999 for g in range(3))
    np.testing.assert_allclose(to_expression(z[:, :1], mean[:1], sd[:1], spread=np.full(1, 2.0)), z[:, :1] / 2 * sd[0] + mean[0], rtol=1e-4)


def test_all_is_above_zero_in_the_maps_order_and_of_the_expected_mean():
    z = np.column_stack([np.linspace(-1, 1, 11), np.zeros(11)])
    values = to_expression(z, np.array([0.1, 0.7]), np.array([1.0, 1.0]))
    assert values.min() > 0 and (np.diff(values[:, 0]) > 0).all()
    assert values[0, 0] < 0.1 * values[-1, 0]
    np.testing.assert_allclose(values.mean(0), [0.1, 0.7], rtol=1e-6)
    np.testing.assert_allclose(values[:, 1], 0.7, rtol=1e-6)
