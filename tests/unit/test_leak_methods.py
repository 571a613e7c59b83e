"""The leak test for floors and controls: garbage in the hidden genes' spatial values changes no prediction by one bit."""

import numpy as np
import pytest
import scipy.sparse as sp

from spadit.evaluation import hidden_sets, impute_with_methods, score_methods
from spadit.methods import BASELINES, METHODS


def garbage(slide, genes, how):
    slide = slide.copy()
    counts = slide.layers["counts"].toarray()
    columns = slide.var_names.get_indexer(genes)
    rng = np.random.default_rng(5)
    counts[:, columns] = {
        "huge": rng.integers(0, 100_000, (slide.n_obs, len(genes))),
        "zero": np.zeros((slide.n_obs, len(genes))),
        "nan": np.full((slide.n_obs, len(genes)), np.nan),
        "shuffled": rng.permutation(counts[:, columns]),
    }[how]
    slide.layers["counts"] = sp.csr_matrix(counts.astype(np.float32))
    return slide


@pytest.mark.parametrize("how", ["huge", "zero", "nan", "shuffled"])
def test_hidden_genes_leave_no_trace(make_pair, how):
    slide, reference, split = make_pair(n_spots=50, n_cells=60, n_genes=30, n_reference_genes=36)
    for visible, hidden, _ in hidden_sets(split):
        clean = dict(impute_with_methods(slide, reference, visible, hidden, seed=3))
        spoilt = dict(impute_with_methods(garbage(slide, hidden, how), reference, visible, hidden, seed=3))
        assert set(clean) == {name for name in BASELINES if METHODS[name].kind != "ceiling"}
        for name in clean:
            np.testing.assert_array_equal(clean[name], spoilt[name], err_msg=name)


def test_the_test_would_notice_a_leak(make_pair):
    """Garbage in a visible gene must change every prediction: otherwise the test above proves nothing."""
    slide, reference, split = make_pair(n_spots=50, n_cells=60, n_genes=30, n_reference_genes=36)
    visible, hidden, _ = next(hidden_sets(split))
    clean = dict(impute_with_methods(slide, reference, visible, hidden))
    spoilt = dict(impute_with_methods(garbage(slide, visible[:3], "huge"), reference, visible, hidden))
    assert all(not np.array_equal(clean[name], spoilt[name]) for name in clean)


def test_scores_of_a_fold_do_not_depend_on_the_test_genes_counts(make_pair):
    """Only the truth may change with hidden genes: the spread and smoothness of what floors impute does not."""
    slide, reference, split = make_pair(n_spots=50, n_cells=60, n_genes=30, n_reference_genes=36)
    floors = [name for name in BASELINES if METHODS[name].kind != "ceiling"]
    sets = list(hidden_sets(split))
    clean, spoilt = (score_methods(s, reference, sets, methods=floors) for s in (slide, garbage(slide, split.test, "huge")))
    assert clean["moran_imputed"].equals(spoilt["moran_imputed"])
    assert not clean["pcc"].equals(spoilt["pcc"])
