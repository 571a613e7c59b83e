"""The coarse maps against plain re-computations; no map of a gene knows its own counts; the stack finds the weights that made the data."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist
from sklearn.kernel_ridge import KernelRidge

from spadit import coarse
from spadit.coarse import (
    MAPS,
    MIN_GENES,
    SCALARS,
    Mapper,
    Spots,
    Stack,
    cluster_rates,
    combine_maps,
    correlation,
    inner_folds,
    make_maps,
    mixture,
)  # fmt: skip
from spadit.metrics import pcc
from spadit.preprocess import log_normalise, zscore

N_CELLS, N_TARGETS, PENALTY = 70, 4, 2.0


class Case:
    """Random spots and cells of genes with a common structure: all that the maps are made of, and the maps."""

    def __init__(self, n_spots=60, n_visible=11, seed=0):
        rng = np.random.default_rng(seed)
        loadings = rng.normal(size=(5, n_visible + N_TARGETS))
        self.coordinates = rng.uniform(size=(n_spots, 2))
        rate = np.exp(0.5 * rng.normal(size=(n_spots, 5)) @ loadings[:, :n_visible])
        self.counts = sp.csr_matrix(rng.poisson(rate).astype(np.float32))
        cells = [rng.normal(size=(N_CELLS, 5)) @ loadings + rng.normal(size=(N_CELLS, n_visible + N_TARGETS)) for _ in range(2)]
        self.views = [zscore(z)[:, :n_visible] for z in cells]
        self.cells = [zscore(z)[:, n_visible:] for z in cells]
        self.correlations = [z.T @ z / N_CELLS for z in self.views]
        self.cross = [z.T @ t / N_CELLS for z, t in zip(self.views, self.cells, strict=True)]
        self.clusters = rng.poisson(20 * np.exp(0.5 * rng.normal(size=(6, 5)) @ loadings)).astype(np.float32)
        rates = cluster_rates(self.clusters, self.clusters[:, :n_visible])
        self.spots = Spots.of(self.counts, coarse.neighbour_mean(self.coordinates), self.views, rates[:, :n_visible])
        self.y = self.spots.y
        self.targets = Mapper(self.y, self.correlations, PENALTY).targets(self.cross, self.cells, rates[:, n_visible:])
        self.maps = make_maps(self.spots, self.targets)

    def __getitem__(self, name):
        return self.maps[:, :, MAPS.index(name)]


@pytest.fixture(scope="module")
def case():
    return Case()


# ---- the maps, one by one --------------------------------------------------------------------------------------------


def test_spots_are_normalised_and_standardised_visible_genes(case):
    counts = case.counts.toarray()
    totals = counts.sum(1)
    values = np.log1p(counts / totals[:, None] * np.median(totals))
    np.testing.assert_allclose(case.spots.y, (values - values.mean(0)) / values.std(0), atol=1e-5)
    logs = np.log1p(totals)
    np.testing.assert_allclose(case.spots.total, (logs - logs.mean()) / logs.std(), atol=1e-5)


def test_correlation_is_pearsons(case):
    expected = np.corrcoef(case.views[0].T, case.cells[0].T)[:11, 11:]
    np.testing.assert_allclose(correlation(case.views[0], case.cells[0]), expected, atol=1e-5)


@pytest.mark.parametrize("view", [0, 1])
def test_ridge_is_kernel_ridge_on_reference_correlations(case, view):
    k, cross = case.correlations[view], case.cross[view]
    expected = case.y @ np.linalg.solve(k + PENALTY * np.eye(len(k)), cross)
    np.testing.assert_allclose(case[f"ridge, {coarse.VIEWS[view]}"], expected, atol=1e-4)


@pytest.mark.parametrize("view", [0, 1])
def test_rbf_is_scikit_learns_kernel_ridge_with_genes_as_samples(case, view):
    genes, hidden = (part[view].T / np.sqrt(N_CELLS) for part in (case.views, case.cells))  # |a - b|² of these is 2 - 2 correlation
    width = 0.7 * np.median(pdist(genes))
    model = KernelRidge(kernel="rbf", gamma=1 / (2 * width**2), alpha=0.3).fit(genes, case.y.T)
    np.testing.assert_allclose(case[f"rbf, {coarse.VIEWS[view]}"], model.predict(hidden).T, atol=1e-4)


@pytest.mark.parametrize("view", [0, 1])
def test_correlation_map_is_a_mean_weighted_by_positive_correlation(case, view):
    for g in range(N_TARGETS):
        weights = [max(0, c) for c in case.cross[view][:, g]]
        expected = sum(w * case.y[:, i] for i, w in enumerate(weights)) / sum(weights)
        np.testing.assert_allclose(case[f"correlation, {coarse.VIEWS[view]}"][:, g], expected, atol=1e-4)


def test_a_gene_that_correlates_with_none_gets_an_empty_correlation_map():
    targets = Mapper(np.ones((5, 2)), [np.eye(2)] * 2, 1.0).targets(
        [np.array([[-0.5], [0.0]])] * 2, [np.zeros((3, 1))] * 2, np.ones((1, 1))
    )
    assert not targets.linear[MAPS.index("correlation, cells")].any() and np.isfinite(targets.linear).all()


@pytest.mark.parametrize("n_visible", [11, 40])  # few genes are decomposed in full, many by Lanczos
def test_components_are_the_slides_principal_components_times_the_genes_share(n_visible):
    case = Case(n_visible=n_visible)
    scores, sizes, vectors = np.linalg.svd(case.y.astype(float), full_matrices=False)
    for i in range(8):
        expected = np.outer(scores[:, i] * sizes[i], vectors[i] @ case.cross[0])
        np.testing.assert_allclose(case[f"component {i + 1}"], expected, atol=2e-3)


def test_few_genes_have_few_components_and_zeros_have_some():
    case = Case(n_visible=4)
    used = [case[f"component {i + 1}"].any() for i in range(8)]
    assert used == [True] * 3 + [False] * 5
    assert coarse.principal_components(np.ones((5, 1))).shape == (1, 0)
    assert np.isfinite(coarse.principal_components(np.zeros((1, 40)))).all()  # one spot


def test_mean_total_and_smoothed_ridge(case):
    np.testing.assert_allclose(case["mean"], np.tile(case.y.mean(1)[:, None], N_TARGETS), atol=1e-5)
    np.testing.assert_allclose(case["total"], np.tile(case.spots.total[:, None], N_TARGETS), atol=1e-6)
    nearest = cdist(case.coordinates, case.coordinates).argsort(1)[:, :9]  # the spot itself and 8 others
    np.testing.assert_allclose(case["smoothed ridge"], case["ridge, cells"][nearest].mean(1), atol=1e-4)


@pytest.mark.parametrize("view", [0, 1])
def test_nearest_is_the_mean_over_the_50_cells_of_highest_cosine(case, view):
    nearest = cdist(case.y, case.views[view], "cosine").argsort(1)[:, :50]
    np.testing.assert_allclose(case[f"nearest, {coarse.VIEWS[view]}"], case.cells[view][nearest].mean(1), atol=1e-5)


def test_nearest_cells_in_blocks_with_few_cells_and_spots_without_counts():
    rng = np.random.default_rng(1)
    y, z = rng.normal(size=(23, 6)).astype(np.float32), rng.normal(size=(80, 6)).astype(np.float32)
    np.testing.assert_array_equal(coarse.nearest_cells(y, z, block=4).toarray(), coarse.nearest_cells(y, z).toarray())
    np.testing.assert_allclose(coarse.nearest_cells(y, z[:7]).toarray(), np.full((23, 7), 1 / 7), rtol=1e-6)
    y[3] = 0
    np.testing.assert_allclose(coarse.nearest_cells(y, z).toarray().sum(1), 1, rtol=1e-5)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 1000))
def test_neighbour_mean_averages_over_the_nearest(n, n_places, seed):
    rng = np.random.default_rng(seed)
    coordinates = rng.uniform(size=(n, 2))
    k = min(9, n)
    nearest = cdist(coordinates, coordinates).argsort(1)[:, :k]
    expected = np.zeros((n, n))
    np.put_along_axis(expected, nearest, 1 / k, axis=1)
    np.testing.assert_allclose(coarse.neighbour_mean(coordinates).toarray(), expected, rtol=1e-6)
    shared = coordinates[rng.integers(0, min(n_places, n), n)]  # many spots in the same place
    average = coarse.neighbour_mean(shared)
    np.testing.assert_allclose(np.asarray(average.sum(1)).ravel(), 1, rtol=1e-5)
    np.testing.assert_allclose(np.bincount(np.repeat(np.arange(n), np.diff(average.indptr))), k)


def test_combined_at_once_is_the_weighted_sum_of_the_maps(case):
    weights = np.random.default_rng(2).normal(size=(N_TARGETS, len(MAPS)))
    expected = np.einsum("sgm,gm->sg", case.maps.astype(float), weights)
    np.testing.assert_allclose(combine_maps(case.spots, case.targets, weights), expected, atol=1e-3)


def test_some_spots_and_some_genes_have_the_same_maps(case):
    rows, columns = np.array([5, 2, 40]), np.array([3, 1])
    some = make_maps(case.spots.take(rows), case.targets.take(columns))
    np.testing.assert_allclose(some, case.maps[np.ix_(rows, columns)], atol=1e-5)
    np.testing.assert_allclose(case.targets.take(columns).strongest, case.targets.strongest[columns])


def test_scalars_are_what_their_names_say(case):
    statistics = np.random.default_rng(3).uniform(size=(N_TARGETS, 3))
    found = dict(zip(SCALARS, coarse.gene_scalars(case.maps, case.targets, statistics).T, strict=True))
    np.testing.assert_allclose(found["reference mean"], np.log(statistics[:, 0] + 1e-3))
    np.testing.assert_allclose(found["reference SD"], np.log(statistics[:, 1] + 1e-3))
    np.testing.assert_allclose(found["detection"], statistics[:, 2])
    absolute = np.sort(np.abs(case.cross[0]), axis=0)[::-1]
    np.testing.assert_allclose(found["highest correlation"], absolute[0], atol=1e-6)
    np.testing.assert_allclose(found["top 5 correlations"], absolute[:5].mean(0), atol=1e-6)
    names = [name.removeprefix("agreement of ") for name in SCALARS if name.startswith("agreement of")]
    assert len(names) == 6
    for g in range(N_TARGETS):
        unit = np.array([case[name][:, g] / case[name][:, g].std() for name in names])
        mean = unit.mean(0)
        assert found["SD of the mean map"][g] == pytest.approx(mean.std(), rel=1e-4)
        assert found["agreement with the mean"][g] == pytest.approx(np.corrcoef(mean, case["mean"][:, g])[0, 1], abs=1e-4)
        for name, own in zip(names, unit, strict=True):
            assert found[f"agreement of {name}"][g] == pytest.approx(np.corrcoef(mean, own)[0, 1], abs=1e-4)


# ---- the penalty -----------------------------------------------------------------------------------------------------


def test_leave_one_gene_out_in_closed_form_equals_fitting_without_the_gene(case, monkeypatch):
    seen = []
    monkeypatch.setattr(coarse, "pcc", lambda truth, imputed: seen.append(imputed) or pcc(truth, imputed))
    chosen = coarse.choose_penalty(case.y, case.correlations[0])
    k, medians = case.correlations[0], []
    for penalty, imputed in zip(coarse.PENALTIES, seen, strict=True):
        for g in range(len(k)):
            others = np.arange(len(k)) != g
            left = k[np.ix_(others, others)] + penalty * np.eye(others.sum())
            np.testing.assert_allclose(imputed[:, g], case.y[:, others] @ np.linalg.solve(left, k[others, g]), atol=2e-3)
        medians.append(np.median(pcc(case.y, imputed)))
    assert chosen == coarse.PENALTIES[int(np.argmax(medians))]


def test_the_noisier_the_reference_the_higher_the_penalty():
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(4, 30))
    y = zscore(rng.normal(size=(300, 4)) @ loadings + rng.normal(size=(300, 30)))
    good, bad = (zscore(rng.normal(size=(n, 4)) @ loadings + noise * rng.normal(size=(n, 30))) for n, noise in ((3000, 0.3), (15, 3)))
    assert coarse.choose_penalty(y, correlation(good, good)) < coarse.choose_penalty(y, correlation(bad, bad))


# ---- like spots and mixtures -----------------------------------------------------------------------------------------


def test_like_spots_are_the_nearest_in_principal_components(case):
    """11 genes have 11 components, so that distances are those of the genes themselves."""
    nearest = np.argsort(cdist(case.y, case.y), axis=1)[:, :30]
    np.testing.assert_allclose(case.spots.like, case.y[nearest].mean(1), atol=1e-4)
    linear = case.targets.linear[MAPS.index("ridge, averaged")]
    np.testing.assert_allclose(case["ridge, averaged, like spots"], case.spots.like @ linear, atol=1e-4)


def test_only_spots_of_the_pool_are_averaged(case):
    """Spots outside the pool get an average of the pool's, and change nobody else's."""
    neighbours, rates, pool = coarse.neighbour_mean(case.coordinates), np.ones((3, 11), dtype=np.float32), np.arange(40)
    before = Spots.of(case.counts, neighbours, case.views, rates, pool)
    counts = case.counts.toarray()
    counts[50] *= 7  # the same profile, so that standardising moves little
    after = Spots.of(sp.csr_matrix(counts), neighbours, case.views, rates, pool)
    assert before.like.shape == (60, 11)
    np.testing.assert_allclose(before.like[:], after.like[:], atol=0.05)


def test_cluster_rates_by_hand():
    counts, visible = np.array([[4.0, 0.0], [0.0, 0.0]]), np.array([[10.0, 90.0], [0.0, 0.0]])
    profile = np.array([0.04, 0.0])  # counts per visible count of the whole reference
    np.testing.assert_allclose(cluster_rates(counts, visible), [[(4 + 50 * 0.04) / 150, 0], profile], rtol=1e-6)


def test_mixture_finds_the_shares_that_made_the_spots():
    rng = np.random.default_rng(0)
    rates = rng.gamma(0.3, size=(4, 60))
    rates /= rates.sum(1, keepdims=True)
    truth = rng.dirichlet(np.ones(4), 50)
    factor = rng.lognormal(sigma=0.1, size=60)  # what the platform makes of each gene
    spots, rates = (300 * truth @ rates * factor).astype(np.float32), rates.astype(np.float32)
    found = mixture(spots, rates)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    assert np.abs(found - truth).mean() < 0.05
    np.testing.assert_allclose(found, mixture(spots, rates, block=7), atol=1e-5)


def test_an_empty_spot_is_an_even_mixture():
    found = mixture(np.zeros((2, 5), dtype=np.float32), np.ones((4, 5), dtype=np.float32))
    np.testing.assert_allclose(found, 0.25)


def test_the_mixture_map_is_the_clusters_rate_on_the_log_scale(case):
    total, rates = np.median(case.counts.toarray().sum(1)), case.targets.rates
    expected = np.log1p(total * case.spots.shares @ rates) - np.log1p(total * case.spots.shares.mean(0) @ rates)
    np.testing.assert_allclose(case["mixture"], expected, atol=1e-4)


# ---- maps as if hidden -----------------------------------------------------------------------------------------------


def folds_of(case, counts=None, n_folds=4, rows=None, seed=0):
    counts = case.counts if counts is None else counts
    rows = np.arange(60) if rows is None else rows
    statistics = np.random.default_rng(0).uniform(size=(11, 3))
    neighbours = coarse.neighbour_mean(case.coordinates)
    clusters = case.clusters[:, :11]
    return inner_folds(counts, rows, neighbours, case.views, case.correlations, clusters, statistics, PENALTY, n_folds, seed)


def spoilt(counts, gene):
    counts = counts.toarray()
    counts[:, gene] = np.random.default_rng(9).integers(0, 10_000, len(counts))
    return sp.csr_matrix(counts)


@pytest.mark.parametrize("rows", [np.arange(60), np.arange(0, 60, 3)], ids=["all spots", "some spots"])
@pytest.mark.parametrize("n_folds", [4, 11, 99])
def test_a_genes_own_counts_do_not_touch_its_maps(case, n_folds, rows):
    before = folds_of(case, n_folds=n_folds, rows=rows)
    for gene in (0, 6):
        after = folds_of(case, spoilt(case.counts, gene), n_folds, rows)
        same = np.array([np.array_equal(before.maps[:, g], after.maps[:, g]) for g in range(11)])
        np.testing.assert_array_equal(same, [np.array_equal(before.scalars[g], after.scalars[g]) for g in range(11)])
        assert same[gene]
        # those of its fold are as blind as the gene itself; all others have seen it
        assert same.sum() in ({1} if n_folds >= 11 else {2, 3})
        assert not np.array_equal(before.y, after.y)


def test_maps_as_if_hidden_are_those_of_a_slide_without_the_gene(case):
    """Also the library sizes: they come from the other genes."""
    found = folds_of(case, n_folds=11)
    for gene in (2, 9):
        seen = np.arange(11) != gene
        views = [z[:, seen] for z in case.views]
        rates = cluster_rates(case.clusters[:, :11], case.clusters[:, :11][:, seen])
        spots = Spots.of(case.counts[:, seen], coarse.neighbour_mean(case.coordinates), views, rates[:, seen])
        mapper = Mapper(spots.y, [k[np.ix_(seen, seen)] for k in case.correlations], PENALTY)
        targets = mapper.targets([k[np.ix_(seen, ~seen)] for k in case.correlations], [z[:, ~seen] for z in case.views], rates[:, ~seen])
        np.testing.assert_allclose(found.maps[:, gene], make_maps(spots, targets)[:, 0], atol=1e-4)
    np.testing.assert_allclose(found.y, zscore(log_normalise(case.counts)[0]), atol=1e-6)


def test_with_some_spots_neighbours_outside_them_still_count(case):
    rows = np.arange(0, 60, 3)
    found, everywhere = folds_of(case, rows=rows), folds_of(case)
    i = MAPS.index("smoothed ridge")
    assert found.maps.shape == (20, 11, len(MAPS)) and found.y.shape == (20, 11)
    # standardised over the spots that are used: the same but for that
    assert np.median(pcc(found.maps[:, :, i], everywhere.maps[rows][:, :, i])) > 0.99
    np.testing.assert_array_equal(found.y, everywhere.y[rows])


def test_folds_are_seeded_and_one_gene_is_too_few(case):
    assert np.array_equal(folds_of(case).maps, folds_of(case).maps)
    assert not np.array_equal(folds_of(case).maps, folds_of(case, seed=1).maps)
    with pytest.raises(ValueError, match="at least 2 visible genes"):
        inner_folds(case.counts[:, :1], np.arange(60), coarse.neighbour_mean(case.coordinates), [z[:, :1] for z in case.views],
                    [k[:1, :1] for k in case.correlations], case.clusters[:, :1], np.ones((1, 3)), PENALTY, 5, 0)  # fmt: skip


# ---- the stack -------------------------------------------------------------------------------------------------------


def made_up(n_genes, effect=0.0, noise=0.1, seed=0, n_spots=80, n_scalars=3):
    """Random maps of unit SD; genes that are their sum with weights w + effect · (scalar 0) on map 0."""
    rng = np.random.default_rng(seed)
    maps = rng.normal(size=(n_spots, n_genes, len(MAPS))).astype(np.float32)
    maps /= maps.std(0)
    scalars = rng.normal(size=(n_genes, n_scalars))
    weights = np.tile(np.linspace(-0.5, 1, len(MAPS)), (n_genes, 1))
    weights[:, 0] += effect * np.clip((scalars[:, 0] - scalars[:, 0].mean()) / max(scalars[:, 0].std(), 1e-9), -3, 3)
    y = np.einsum("sgm,gm->sg", maps, weights) + noise * rng.normal(size=(n_spots, n_genes))
    return maps, y.astype(np.float32), scalars, weights


def test_the_stack_finds_the_weights_that_made_the_genes():
    maps, y, scalars, weights = made_up(40)
    size = np.where(coarse.SHARED_SCALE, 1, np.random.default_rng(1).uniform(0.1, 9, len(MAPS))).astype(np.float32)
    stack, values = Stack.fit(maps * size, y, scalars)  # a map's size says nothing
    np.testing.assert_allclose(stack.weights, weights[0], atol=0.03)
    np.testing.assert_allclose(stack.gene_weights(coarse.gene_scale(maps * size), scalars) * size, weights, atol=0.05)
    assert pcc(y, values).min() > 0.99


def test_components_keep_their_size_gene_by_gene():
    """A gene with no share in a component must not have its noise blown up to the size of the others'."""
    maps, y, scalars, _ = made_up(40)
    i = MAPS.index("component 1")
    maps[:, 0, i] *= 1e-3
    stack, _ = Stack.fit(maps, y, scalars)
    scale = stack.scale(coarse.gene_scale(maps))
    assert scale[0, i] == pytest.approx(scale[1, i]) and scale[0, i] == pytest.approx(1, rel=0.05)
    assert stack.scale(np.full((1, len(MAPS)), 1e-3))[0, MAPS.index("mean")] == pytest.approx(1e-3)
    assert stack.scale(np.zeros((1, len(MAPS))))[0, MAPS.index("mean")] == 1  # an empty map stays empty


def test_weights_of_a_genes_own_are_learned_where_they_gain():
    maps, y, scalars, weights = made_up(MIN_GENES + 20, effect=0.8)
    stack, values = Stack.fit(maps, y, scalars)
    assert stack.correction.any()
    new_maps, new_y, new_scalars, new_weights = made_up(30, effect=0.8, seed=5)
    found = stack.gene_weights(coarse.gene_scale(new_maps), new_scalars)
    assert np.corrcoef(found[:, 0], new_weights[:, 0])[0, 1] > 0.98
    shared = Stack(stack.weights, np.zeros_like(stack.correction), stack.centre, stack.spread, stack.shared)
    plain = np.einsum("sgm,gm->sg", maps, shared.gene_weights(coarse.gene_scale(maps), scalars))
    assert ((values - y) ** 2).mean() < 0.5 * ((plain - y) ** 2).mean()


def test_below_60_genes_all_share_their_weights():
    maps, y, scalars, _ = made_up(MIN_GENES - 1, effect=0.8)
    stack, _ = Stack.fit(maps, y, scalars)
    assert stack.correction.shape == (4, len(MAPS)) and not stack.correction.any()
    found = stack.gene_weights(np.ones((2, len(MAPS))), scalars[:2])
    np.testing.assert_allclose(found[0], found[1])


def test_corrections_that_gain_nothing_are_left_out():
    """With genes that all share their weights, cross-validation finds nothing in most samples, and next to nothing in the others."""
    left_out = 0
    for seed in range(6):
        maps, y, scalars, _ = made_up(MIN_GENES + 20, noise=3, seed=seed)
        stack, _ = Stack.fit(maps, y, scalars, seed)
        left_out += not stack.correction.any()
        assert stack.gene_weights(np.ones((80, len(MAPS))), scalars).std(0).mean() < 0.02
    assert left_out >= 3


@pytest.mark.parametrize("n_genes", [20, MIN_GENES + 20])
def test_a_genes_values_come_from_weights_that_it_did_not_teach(n_genes):
    maps, y, scalars, _ = made_up(n_genes, effect=0.8)
    other = y.copy()
    other[:, 7] += 0.1 * np.random.default_rng(3).normal(size=len(y))  # a little: the strength, chosen over all genes, stays the same
    (before_stack, before), (after_stack, after) = Stack.fit(maps, y, scalars), Stack.fit(maps, other, scalars)
    same = (before == after).all(0)
    assert same[7] and same.sum() == n_genes / 5  # its fold
    assert before_stack.correction.any() == (n_genes >= MIN_GENES)
    assert not np.array_equal(before_stack.weights, after_stack.weights)


def test_one_gene_and_empty_maps_are_no_trouble():
    maps, y, scalars, _ = made_up(1)
    stack, values = Stack.fit(maps, y, scalars)
    assert pcc(y, values)[0] > 0.99 and np.isfinite(stack.weights).all()
    stack, values = Stack.fit(np.zeros_like(maps), y, scalars)
    assert not values.any() and np.isfinite(stack.gene_weights(np.zeros((1, len(MAPS))), scalars)).all()
