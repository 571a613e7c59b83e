"""What every peer method must hold to, for its own test file in tests/unit/methods: protocol, same seed same result, and the leak test."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from spadit import metrics
from spadit.methods import METHODS, visible_part


def check_method(name: str, make_pair, tolerance: float = 0.0, least_pcc: float = 0.1) -> None:
    """Runs method ``name`` on a small made-up pair three times; skips when its package isn't installed.

    Parameters
    ----------
    make_pair
        The fixture of tests/conftest.py.
    tolerance
        Largest difference between two runs with one seed; 0: bit for bit.
    least_pcc
        The median PCC over hidden genes that it must reach where genes are easy: a method that runs but imputes nothing is no peer.
    """
    method = METHODS[name]
    if method.missing():
        pytest.skip(f"needs {', '.join(method.missing())}: the extra 'peers'")
    slide, reference, split = make_pair(n_spots=60, n_cells=90, n_genes=40, n_reference_genes=46)
    visible, hidden = split.train + split.validation, split.test
    first, sd = method.impute_log(visible_part(slide, visible), reference, hidden, seed=3)
    assert first.shape == (slide.n_obs, len(hidden)) and first.dtype == np.float32 and np.isfinite(first).all()
    assert sd is None or (sd.shape == first.shape and (sd >= 0).all())

    spoilt = slide.copy()  # the leak test: hidden genes are garbage, the way in is the same
    counts = spoilt.layers["counts"].toarray()
    counts[:, spoilt.var_names.get_indexer(hidden)] = np.random.default_rng(5).integers(0, 100_000, (slide.n_obs, len(hidden)))
    spoilt.layers["counts"] = sp.csr_matrix(counts)
    again, _ = method.impute_log(visible_part(spoilt, visible), reference, hidden, seed=3)
    said = f"{name}: a hidden gene's counts, or chance, change what is imputed"
    np.testing.assert_allclose(again, first, rtol=0, atol=tolerance, err_msg=said)

    other = slide.copy()  # and it does look at the visible genes
    counts = other.layers["counts"].toarray()
    column = other.var_names.get_loc(visible[0])
    counts[:, column] = counts[::-1, column]
    other.layers["counts"] = sp.csr_matrix(counts)
    changed, _ = method.impute_log(visible_part(other, visible), reference, hidden, seed=3)
    assert np.abs(changed - first).max() > tolerance, f"{name}: visible genes leave it unmoved"

    truth = slide.layers["counts"][:, slide.var_names.get_indexer(hidden)].toarray()
    reached = float(np.median(metrics.pcc(np.log1p(truth), first)))
    assert reached >= least_pcc, f"{name}: median PCC {reached:.2f}"
