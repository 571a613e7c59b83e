"""The reference in two views: against plain re-computations, in any order of cells and genes."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from spadit.errors import InputError
from spadit.preprocess import zscore
from spadit.reference import N_NEIGHBOURS, Reference


def annotated(counts, variable=None):
    n_cells, n_genes = counts.shape
    var = pd.DataFrame(index=[f"Gene{i:02}" for i in range(n_genes)])
    if variable is not None:
        var["highly_variable"] = variable
    adata = ad.AnnData(obs=pd.DataFrame(index=[f"cell{i:03}" for i in range(n_cells)]), var=var)
    adata.layers["counts"] = sp.csr_matrix(counts.astype(np.float32))
    return adata


@pytest.fixture(scope="module")
def cells():
    """60 cells × 20 genes; the last gene is not in any cell, cell 3 has no counts of the first 10 genes."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(np.exp(rng.normal(size=(60, 3)) @ rng.normal(size=(3, 20))))
    counts[:, 19] = 0
    counts[3, :10] = 0
    return annotated(counts)


def normalised(counts):
    totals = counts.sum(1, keepdims=True)
    return np.log1p(counts / np.where(totals > 0, totals, 1) * np.median(totals[totals > 0]))


def test_statistics_are_mean_sd_and_detection_of_all_cells(cells):
    counts = cells.layers["counts"].toarray()
    values = normalised(counts)
    for max_cells in (4000, 10):  # also where some of the cells are used: more cells tell more of a mean
        statistics = Reference(cells, max_cells).statistics
        assert list(statistics) == ["mean", "sd", "detected"] and list(statistics.index) == list(cells.var_names)
        np.testing.assert_allclose(statistics["mean"], values.mean(0), rtol=1e-5)
        np.testing.assert_allclose(statistics["sd"], values.std(0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(statistics["detected"], (counts > 0).mean(0), rtol=1e-6)


def test_first_view_has_library_sizes_of_the_visible_genes_alone(cells):
    visible, wanted = cells.var_names[:10], ["Gene12", "Gene03"]
    counts = cells.layers["counts"].toarray().astype(float)
    totals = counts[:, :10].sum(1)
    scale = np.divide(np.median(totals[totals > 0]), totals, out=np.zeros(60), where=totals > 0)
    expected = np.log1p(counts[:, [12, 3]] * scale[:, None])
    found, _ = Reference(cells).vectors(wanted, visible)
    assert totals[3] == 0 and found.dtype == np.float32
    np.testing.assert_allclose(found, (expected - expected.mean(0)) / expected.std(0), atol=1e-4)


def two_groupings():
    """3 × 16 cells that are alike by the first 12 genes, and in another way by the next 12; one gene more is noise."""
    rng = np.random.default_rng(1)
    first = np.repeat(np.arange(3), N_NEIGHBOURS + 1)
    second = rng.permutation(first)
    profiles = np.repeat(np.eye(3), 4, axis=1) * 40 + 2
    counts = np.column_stack([profiles[first], profiles[second], np.zeros(len(first))]) + rng.poisson(2, size=(len(first), 25))
    return counts, (first, second)


@pytest.mark.parametrize("named", [0, 1])
def test_second_view_averages_over_cells_that_are_alike_by_the_highly_variable_genes(named):
    counts, groups = two_groupings()
    variable = np.arange(25) // 12 == named
    reference = Reference(annotated(counts, variable))
    assert reference.highly_variable == [f"Gene{i:02}" for i in np.flatnonzero(variable)]
    _, found = reference.vectors(["Gene24", "Gene00"], ["Gene00", "Gene01"])
    values = normalised(counts)[:, [24, 0]]  # over all genes
    expected = np.array([values[groups[named] == g].mean(0) for g in groups[named]])
    np.testing.assert_allclose(found, (expected - expected.mean(0)) / expected.std(0), atol=1e-4)


def test_without_named_genes_the_most_variable_are_used(cells):
    assert Reference(cells).highly_variable == list(cells.var_names)  # fewer than 2,000: all


def test_order_of_cells_and_genes_does_not_matter(cells):
    rng = np.random.default_rng(2)
    cells = cells.copy()
    cells.var["highly_variable"] = np.arange(20) % 3 > 0
    shuffled = cells[rng.permutation(60), rng.permutation(20)].copy()
    for max_cells in (4000, 25):
        a, b = Reference(cells, max_cells), Reference(shuffled, max_cells)
        assert a.cells == b.cells and list(a.genes) == list(b.genes) and a.highly_variable == b.highly_variable
        pd.testing.assert_frame_equal(a.statistics, b.statistics, rtol=1e-6)
        views = [made.vectors(["Gene11", "Gene02"], cells.var_names[:9]) for made in (a, b)]
        for x, y in zip(*views, strict=True):
            np.testing.assert_allclose(x, y, atol=1e-5)


def test_many_cells_are_subsampled_by_seed_or_by_name(cells):
    some = Reference(cells, 25, seed=3)
    assert len(some.cells) == 25 == len(set(some.cells)) and set(some.cells) <= set(cells.obs_names)
    assert some.cells == Reference(cells, 25, seed=3).cells != Reference(cells, 25, seed=4).cells
    named = Reference(cells, cells=some.cells)
    assert named.cells == some.cells
    for x, y in zip(named.vectors(["Gene11"], ["Gene00"]), some.vectors(["Gene11"], ["Gene00"]), strict=True):
        assert x.shape == (25, 1)
        np.testing.assert_allclose(x, y, atol=1e-5)
    counts = cells[some.cells].layers["counts"].toarray().astype(float)
    scale = np.divide(np.median(counts[:, 0][counts[:, 0] > 0]), counts[:, 0], out=np.zeros(25), where=counts[:, 0] > 0)
    np.testing.assert_allclose(some.vectors(["Gene11"], ["Gene00"])[0], zscore(np.log1p(counts[:, [11]] * scale[:, None])), atol=1e-4)


def test_a_cell_that_is_not_there_is_told(cells):
    with pytest.raises(InputError, match="2 cells that the model was trained with are not in this reference"):
        Reference(cells, cells=["cell001", "stranger", "another"])


def test_an_undetected_gene_is_all_zero_and_an_unknown_one_is_told(cells):
    reference = Reference(cells)
    assert reference.statistics.loc["Gene19"].tolist() == [0, 0, 0]
    assert not any(view.any() for view in reference.vectors(["Gene19"], cells.var_names[:10]))
    with pytest.raises(InputError, match="2 genes are not in the reference, e.g. Nope, Nix"):
        reference.vectors(["Nope", "Gene01", "Nix"], ["Gene00"])
    with pytest.raises(InputError, match="1 genes are not in the reference, e.g. Nope"):
        reference.vectors(["Gene01"], ["Nope"])


def test_one_cell_and_cells_without_visible_counts_give_numbers(cells):
    assert all(np.isfinite(view).all() for view in Reference(cells[:1]).vectors(["Gene01"], ["Gene02"]))
    assert all(np.isfinite(view).all() for view in Reference(cells).vectors(["Gene01"], ["Gene19"]))
