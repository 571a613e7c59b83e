"""The leak test (docs/methods.md): with hidden genes' spatial values replaced by garbage, all that is fitted and imputed stays the same."""

import json

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

from spadit import api
from spadit.imputation import impute, plan_fits, train
from spadit.split import split_genes
from spadit.uncertainty import MIN_GENES


@pytest.fixture(scope="module", params=["default", "paper"])
def preset(request):
    return request.param


@pytest.fixture(scope="module", autouse=True)
def every_part_counts():
    """Both networks add to what is imputed whatever the gate said of so short a training (which is kept, too): a leak in any part shows."""
    gate = api.choose_blend

    def blend(parts, y, seed):
        chosen = gate(parts, y, seed)
        return {name: chosen.get(name, 0.0) + 0.3 for name in parts}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "choose_blend", blend)
        yield


@pytest.fixture(scope="module")
def pair(make_pair):
    slide, reference, split = make_pair(n_spots=40, n_cells=50, n_genes=50, n_reference_genes=54)
    return slide, reference, split_genes(split.train + split.validation + split.test, split.unmeasured, "slide", folds=2)


def with_garbage(slide, genes):
    slide = slide.copy()
    counts = slide.layers["counts"].toarray()
    columns = slide.var_names.get_indexer(genes)
    counts[:, columns] = np.random.default_rng(9).integers(0, 10_000, (slide.n_obs, len(genes)))
    slide.layers["counts"] = sp.csr_matrix(counts)
    return slide


class Run:
    """All that comes of a slide: every model's files, and the imputed slide."""

    def __init__(self, slide, reference, split, folder, preset, settings):
        self.training, self.curves = train(slide, reference, split, folder, preset, 0, "cpu", **settings)
        draws = 1 if preset == "default" else 0
        impute(slide, reference, split, folder, folder / "imputed.h5ad", self.training, "cpu", draws, counts=True)
        self.imputed = ad.read_h5ad(folder / "imputed.h5ad")
        self.files = {}
        for plan in plan_fits(split):
            self.files[plan.name] = {path.name: self.content(path) for path in sorted((folder / plan.name).iterdir())}

    @staticmethod
    def content(path):
        if path.suffix != ".json":
            return path.read_bytes()
        content = json.loads(path.read_text())
        return {name: content[name] for name in content if name != "seconds"}  # the one thing that differs between two equal runs

    def facts(self, name):
        """Of a fit, with its training curve, as they are told to the user."""
        (facts,) = [fit for fit in self.training.fits if fit["name"] == name]
        curve = self.curves[self.curves["fit"] == name].drop(columns="fit")
        return {key: facts[key] for key in facts if "seconds" not in key}, curve.to_csv(index=False)

    def of(self, genes):
        """All that is said of these genes without having measured them."""
        some = self.imputed[:, genes]
        arrays = {name: np.asarray(some.layers[name]) for name in some.layers if name != "observed"} | {"X": np.asarray(some.X)}
        arrays["reliability"] = some.var["reliability"].to_numpy()
        arrays["reliability_class"] = some.var["reliability_class"].to_numpy().astype(str)
        return arrays


@pytest.fixture(scope="module")
def work(pair, preset, tiny, tmp_path_factory):
    """``work(genes)``: the run with garbage in these genes."""

    def build(genes=()):
        slide, reference, split = pair
        return Run(with_garbage(slide, genes), reference, split, tmp_path_factory.mktemp("model"), preset, tiny)

    return build


@pytest.fixture(scope="module")
def clean(work):
    return work()


def assert_same(a, b):
    assert set(a) == set(b) and {"X", "sd", "lower", "upper", "counts"} <= set(a)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def assert_different(a, b):
    """Reliability classes of a few genes may be the same by chance."""
    for name in set(a) - {"reliability_class"}:
        assert not np.array_equal(a[name], b[name]), name


def test_test_genes_are_hidden_from_all_but_the_delivery_fit(pair, clean, work):
    _, _, split = pair
    spoilt = work(split.test)
    for plan in plan_fits(split):
        same = clean.files[plan.name] == spoilt.files[plan.name]
        assert same == (plan.name != "delivery"), plan.name  # the delivery fit has to see them: that is how we know the test can fail
        assert (clean.facts(plan.name) == spoilt.facts(plan.name)) == same
    measured = clean.imputed.var_names[clean.imputed.var["measured"]]
    assert set(split.test) < set(measured)
    assert_same(clean.of(measured), spoilt.of(measured))
    assert_different(clean.of(split.unmeasured), spoilt.of(split.unmeasured))


def test_a_folds_genes_are_hidden_from_its_own_fit(pair, clean, work):
    """What is said of how far to trust its genes comes from its own fit, too."""
    _, _, split = pair
    assert min(len(plan.visible) for plan in plan_fits(split)) >= MIN_GENES  # each learns a reliability of its own
    spoilt = work(split.folds[1])
    assert clean.files["fold_1"] == spoilt.files["fold_1"] and clean.facts("fold_1") == spoilt.facts("fold_1")
    assert_same(clean.of(split.folds[1]), spoilt.of(split.folds[1]))
    for name, genes in (("fold_0", split.folds[0]), ("evaluation", split.test), ("delivery", split.unmeasured)):
        assert clean.files[name] != spoilt.files[name]
        assert_different(clean.of(genes), spoilt.of(genes))


def test_every_part_has_its_share(preset, clean):
    """Else the tests above would not see a leak in the networks."""
    for files in clean.files.values():
        blend = files["model.json"]["blend"]
        assert set(blend) == ({"whole_slide"} if preset == "paper" else {"coarse", "token", "whole_slide"})
        assert min(blend.values()) >= 0.3


@pytest.mark.parametrize("folds", [2, 5])
def test_every_gene_is_imputed_by_a_fit_that_did_not_see_it(make_pair, folds):
    _, _, split = make_pair()
    split = split_genes(split.train + split.validation + split.test, split.unmeasured, folds=folds)
    imputed = []
    for plan in plan_fits(split):
        assert plan.imputes and not set(plan.visible) & set(plan.imputes)
        if plan.name != "delivery":
            assert not set(plan.visible) & set(split.test)
        imputed += plan.imputes
    assert sorted(imputed) == sorted(split.train + split.validation + split.test + split.unmeasured)
