"""The leak test (docs/methods.md): with hidden genes' spatial values replaced by garbage, all that is fitted and imputed stays the same."""

import numpy as np
import pytest
import scipy.sparse as sp

from spadit.imputation import impute, plan_fits, train

QUICK = {"width": 16, "depth": 1, "n_reduced": 4, "max_steps": 20, "n_models": 2, "n_draws": 1, "patience": 2}


@pytest.fixture(scope="module")
def pair(make_pair):
    return make_pair(n_spots=40, n_cells=50, n_genes=30, n_reference_genes=36)


def with_garbage(slide, genes):
    slide = slide.copy()
    counts = slide.layers["counts"].toarray()
    columns = slide.var_names.get_indexer(genes)
    counts[:, columns] = np.random.default_rng(9).integers(0, 10_000, (slide.n_obs, len(genes)))
    slide.layers["counts"] = sp.csr_matrix(counts)
    return slide


def everything(slide, reference, split, folder):
    training, _ = train(slide, reference, split, folder, seed=0, device="cpu", **QUICK)
    return impute(slide, reference, split, folder, training, device="cpu"), training


@pytest.fixture(scope="module")
def clean(pair, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean")
    return everything(*pair, folder), folder


def fitted_files(folder, name):
    return {path.name: path.read_bytes() for path in sorted((folder / name).iterdir())}


def test_test_genes_are_hidden_from_all_but_the_delivery_fit(pair, clean, tmp_path):
    slide, reference, split = pair
    (imputed, training), folder = clean
    spoilt, spoilt_training = everything(with_garbage(slide, split.test), reference, split, tmp_path)
    for plan in plan_fits(split):
        same = fitted_files(folder, plan.name) == fitted_files(tmp_path, plan.name)
        assert same == (plan.name != "delivery"), plan.name  # the delivery fit has to see them: that is how we know the test can fail
    measured = imputed.var["measured"].to_numpy()
    np.testing.assert_array_equal(spoilt.X[:, measured], imputed.X[:, measured])
    for name in ("lower", "upper", "sd"):
        np.testing.assert_array_equal(spoilt.layers[name][:, measured], imputed.layers[name][:, measured])
    for name in ("reliability", "reliability_class"):
        assert spoilt.var.loc[measured, name].equals(imputed.var.loc[measured, name])
    assert [fit["best_step"] for fit in training.fits] == [fit["best_step"] for fit in spoilt_training.fits]


def test_a_folds_genes_are_hidden_from_its_own_fit(pair, clean, tmp_path):
    slide, reference, split = pair
    (imputed, _), folder = clean
    spoilt, _ = everything(with_garbage(slide, split.folds[2]), reference, split, tmp_path)
    assert fitted_files(folder, "fold_2") == fitted_files(tmp_path, "fold_2")
    assert fitted_files(folder, "fold_1") != fitted_files(tmp_path, "fold_1")
    genes = split.folds[2]
    np.testing.assert_array_equal(spoilt[:, genes].X, imputed[:, genes].X)
    # what is said of the fold's own trust comes from the other folds' fits, which saw the garbage: only that the fold's own errors stay out
    assert not np.array_equal(spoilt[:, split.folds[1]].X, imputed[:, split.folds[1]].X)


def test_every_gene_is_imputed_by_a_fit_that_did_not_see_it(pair):
    _, _, split = pair
    imputed = []
    for plan in plan_fits(split):
        assert not set(plan.visible) & set(plan.imputes)
        assert plan.validation is None or set(plan.validation) <= set(plan.visible)
        if plan.name != "delivery":
            assert not set(plan.visible) & set(split.test)
        imputed += plan.imputes
    assert sorted(imputed) == sorted(split.train + split.validation + split.test + split.unmeasured)
