import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spadit.preprocess import highly_variable, log_normalise, zscore


@pytest.fixture
def counts(make_slide):
    return make_slide().X


def test_log_normalise_is_the_textbook_formula(counts):
    dense = counts.toarray().astype(np.float64)
    values, totals, target = log_normalise(counts)
    assert values.format == "csr" and values.dtype == np.float32
    np.testing.assert_array_equal(totals, dense.sum(1))
    assert target == np.median(dense.sum(1))
    np.testing.assert_allclose(values.toarray(), np.log1p(dense / dense.sum(1, keepdims=True) * target), rtol=1e-6)


def test_the_library_size_comes_from_the_mask_and_all_genes_are_returned(counts):
    dense = counts.toarray().astype(np.float64)
    mask = np.arange(30) < 12
    values, totals, target = log_normalise(counts, mask, target=100.0)
    np.testing.assert_array_equal(totals, dense[:, :12].sum(1))
    assert target == 100.0 and values.shape == counts.shape
    np.testing.assert_allclose(values.toarray(), np.log1p(dense / totals[:, None] * 100), rtol=1e-6)


@pytest.mark.parametrize("garbage", [0.0, 1e6, np.nan, np.inf, -5.0])
def test_hidden_genes_change_no_bit_of_visible_ones(counts, garbage):
    mask = np.arange(30) % 3 > 0
    expected, totals, target = log_normalise(counts, mask)
    expected_z = zscore(expected[:, mask])
    dense = counts.toarray()
    dense[:, ~mask] = garbage
    with np.errstate(all="ignore"):
        values, totals2, target2 = log_normalise(sp.csr_matrix(dense), mask)
    assert target == target2
    np.testing.assert_array_equal(totals, totals2)
    np.testing.assert_array_equal(values[:, mask].toarray(), expected[:, mask].toarray())
    np.testing.assert_array_equal(zscore(values[:, mask]), expected_z)


def test_spots_without_visible_counts_get_zeros(counts):
    dense = counts.toarray()
    dense[3, :20] = 0
    values, totals, target = log_normalise(sp.csr_matrix(dense), np.arange(30) < 20)
    assert totals[3] == 0 and not values.toarray()[3].any() and np.isfinite(values.data).all()
    values, _, target = log_normalise(sp.csr_matrix((5, 4), dtype=np.float32))
    assert target == 1.0 and values.nnz == 0


def test_the_input_is_not_changed(counts):
    before = counts.copy()
    log_normalise(counts, np.arange(30) < 5)
    zscore(counts)
    assert (before != counts).nnz == 0


def test_a_mask_of_the_wrong_length_is_refused(counts):
    with pytest.raises(ValueError, match="30 genes"):
        log_normalise(counts, np.ones(5, dtype=bool))


def test_zscore_of_sparse_and_dense(counts):
    dense = counts.toarray().astype(np.float64)
    expected = (dense - dense.mean(0)) / dense.std(0)
    for values in (counts, counts.tocsc(), dense, dense.astype(np.float32)):
        result = zscore(values, clip=100)
        assert result.dtype == np.float32 and isinstance(result, np.ndarray)
        np.testing.assert_allclose(result, expected, atol=2e-5)


def test_zscore_clips_and_constant_genes_become_zeros():
    values = np.zeros((1000, 4), dtype=np.float32)
    values[0, 0] = 5
    values[:, 1] = 0.1
    values[:, 2] = 123456.7
    values[::2, 3] = 1
    for form in (values, sp.csr_matrix(values)):
        z = zscore(form)
        assert z[0, 0] == 10.0 and not z[:, 1:3].any()
        np.testing.assert_allclose(z[:, 3], np.where(np.arange(1000) % 2, -1, 1), atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(1, 6)), elements=st.integers(0, 1000).map(float)))
def test_any_counts_give_finite_numbers(dense):
    values, totals, target = log_normalise(sp.csr_matrix(dense))
    assert np.isfinite(values.data).all() and (values.data >= 0).all() and target > 0
    z = zscore(values)
    assert np.isfinite(z).all() and np.abs(z).max() <= 10
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-3)


def test_highly_variable_finds_the_varying_genes():
    rng = np.random.default_rng(0)
    rate = np.tile(rng.uniform(1, 30, size=300), (200, 1))
    rate[:100, :20] *= 1.9  # the mean stays, the variance doesn't
    rate[100:, :20] *= 0.1
    counts = sp.csr_matrix(rng.poisson(rate).astype(np.float32))
    chosen = highly_variable(counts, 40)
    assert chosen.dtype == bool and chosen.shape == (300,) and chosen.sum() == 40 and chosen[:20].sum() >= 15
    assert highly_variable(counts, 300).all() and highly_variable(counts, 2000).all()
    batch = np.repeat(["a", "b"], 100)[rng.permutation(200)]
    assert highly_variable(counts, 40, batch).sum() == 40 and highly_variable(counts, 40, batch)[:20].sum() >= 15
    tiny = np.array(["a"] * 195 + ["b"] * 5)  # a batch too small to be looked at alone
    np.testing.assert_array_equal(highly_variable(counts, 40, tiny), chosen)
