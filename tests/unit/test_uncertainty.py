"""Trust: intervals cover what they should, reliability orders genes, classes mean what they say."""

import json

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from spadit import uncertainty
from spadit.api import FACTS
from spadit.metrics import pcc
from spadit.uncertainty import CLASSES, MIN_GENES, Trust, load_prior

N_VISIBLE = 150


class Genes:
    """Genes × 250 spots of any SD, all made in the same way: the first fact tells how well a gene is imputed, the second nothing."""

    def __init__(self, n=450, seed=0):
        rng = np.random.default_rng(seed)
        quality = rng.uniform(0, 0.9, n)
        self.sd = rng.uniform(0.5, 2, n)
        truth = rng.normal(size=(250, n))
        self.truth = 10 + self.sd * truth
        self.values = 10 + self.sd * (quality * truth + np.sqrt(1 - quality**2) * rng.normal(size=(250, n)))
        self.facts = np.column_stack([quality + 0.05 * rng.normal(size=n), rng.normal(size=n)])
        self.pcc = pcc(self.truth, self.values)

    def fit(self, prior=(0.0, 0.0), n=N_VISIBLE, truth=None):
        truth = self.truth if truth is None else truth
        return Trust.fit(self.facts[:n], truth[:, :n], self.values[:, :n], self.sd[:n], np.array(prior))


@pytest.fixture(scope="module")
def genes():
    return Genes()


@pytest.fixture(scope="module")
def trust(genes):
    return genes.fit()


def inside(genes, trust, which):
    half, _ = trust.widths(trust.expected_pcc(genes.facts), genes.sd)
    return (np.abs(genes.truth - genes.values) <= half)[:, which]


@pytest.mark.parametrize("seed", range(5))
def test_coverage_of_new_genes_is_ninety_percent(seed):
    genes = Genes(seed=seed)
    assert inside(genes, genes.fit(), slice(N_VISIBLE, None)).mean() == pytest.approx(0.9, abs=0.02)


def test_coverage_is_ninety_percent_for_good_and_bad_genes(genes, trust):
    """Because the width follows reliability: with one width for all, good genes would be covered too well."""
    covered = inside(genes, trust, slice(N_VISIBLE, None)).mean(0)
    good = genes.pcc[N_VISIBLE:] > 0.5
    assert covered[good].mean() == pytest.approx(0.9, abs=0.04) and covered[~good].mean() == pytest.approx(0.9, abs=0.04)


def test_width_follows_the_genes_sd_and_reliability(trust):
    sd = np.array([1.0, 3.0, 1.0])
    expected = np.array([0.2, 0.2, 0.8])
    half, error = trust.widths(expected, sd)
    assert half[1] == pytest.approx(3 * half[0])
    assert half[2] / half[0] == pytest.approx(np.sqrt(0.2 / 0.8))  # √(2 (1 - r))
    np.testing.assert_allclose(error / half, error[0] / half[0])
    assert (trust.widths(np.array([1.0, -1.0]), np.ones(2))[0] > 0).all()


def test_expected_error_is_the_rms_error_of_new_genes(genes, trust):
    _, error = trust.widths(trust.expected_pcc(genes.facts), genes.sd)
    relative = (genes.truth - genes.values)[:, N_VISIBLE:] / error[N_VISIBLE:]
    assert np.sqrt((relative**2).mean()) == pytest.approx(1, abs=0.05)


def test_reliability_orders_new_genes_and_is_their_expected_pcc(genes, trust):
    expected = trust.expected_pcc(genes.facts)[N_VISIBLE:]
    assert np.corrcoef(expected, genes.pcc[N_VISIBLE:])[0, 1] > 0.9
    assert expected.mean() == pytest.approx(genes.pcc[N_VISIBLE:].mean(), abs=0.03)
    assert abs(trust.coefficients[1]) < 0.1 * trust.coefficients[0]  # the fact that tells nothing


def test_classes_mean_what_they_say(genes, trust):
    classes = np.array(trust.classes(trust.expected_pcc(genes.facts)))[N_VISIBLE:]
    real = genes.pcc[N_VISIBLE:]
    assert set(classes) == set(CLASSES)
    assert (real[classes == "reliable"] >= 0.3).mean() >= 0.8
    assert (real[classes == "do not use"] < 0.15).mean() > 0.5
    # and none is called less than it could be: the best of the middle class aren't sure enough
    middle = real[classes == "use with care"]
    assert 0.15 < np.median(middle) < 0.5


def test_the_surer_the_regression_the_more_is_reliable(trust):
    expected = np.linspace(-0.2, 0.9, 50)

    def of_error(error):
        made = Trust(trust.centre, trust.spread, trust.coefficients, trust.mean, error, trust.quantile, trust.rms)
        return made.classes(expected)

    assert of_error(0.0) == ["reliable" if e >= 0.3 else "use with care" if e >= 0.15 else "do not use" for e in expected]
    counts = [of_error(error).count("reliable") for error in (0.05, 0.2, 0.4)]
    assert counts[0] > counts[1] > counts[2] > 0
    assert of_error(5.0).count("reliable") == 0


def test_facts_beyond_those_seen_do_not_run_away(trust):
    wild = np.array([[1e9, trust.centre[1]], [-1e9, trust.centre[1]]])
    for slope, expected in ((0.2, [0.7, -0.5]), (9, [1, -1])):
        made = Trust(trust.centre, trust.spread, np.array([slope, 0]), 0.1, trust.error, trust.quantile, trust.rms)
        np.testing.assert_allclose(made.expected_pcc(wild), expected)


# ---- what other slides taught ----------------------------------------------------------------------------------------


def test_with_few_genes_the_prior_is_used_as_it_is(genes):
    n = MIN_GENES - 1
    trust = genes.fit((0.7, -0.2), n)
    np.testing.assert_allclose(trust.coefficients, np.array([0.7, -0.2]) * genes.pcc[:n].std())
    assert trust.mean == pytest.approx(genes.pcc[:n].mean())
    plain = genes.fit((0.0, 0.0), n)
    np.testing.assert_allclose(plain.expected_pcc(genes.facts), genes.pcc[:n].mean())


def test_with_more_genes_the_slide_corrects_the_prior(genes, trust):
    wrong = genes.fit((-0.5, 0.5))
    np.testing.assert_allclose(wrong.coefficients, trust.coefficients, atol=0.05)
    few = genes.fit((0.9, 0.0), MIN_GENES)  # a good prior helps where genes are few
    expected = few.expected_pcc(genes.facts)[N_VISIBLE:]
    assert np.corrcoef(expected, genes.pcc[N_VISIBLE:])[0, 1] > 0.9
    assert not np.allclose(few.coefficients, np.array([0.9, 0.0]) * genes.pcc[:MIN_GENES].std(), atol=1e-6)


def test_the_prior_file_is_read_by_the_names_of_facts(tmp_path, monkeypatch):
    assert load_prior(FACTS).shape == (len(FACTS),) and np.isfinite(load_prior(FACTS)).all()
    known = set(json.loads(uncertainty.PRIOR.read_text(encoding="utf-8"))["coefficients"])
    assert known <= set(FACTS)  # a name that no fact has is a coefficient that is never used
    (tmp_path / "prior.json").write_text('{"coefficients": {"detection": 0.5, "gone": 9}}')
    monkeypatch.setattr(uncertainty, "PRIOR", tmp_path / "prior.json")
    assert list(load_prior(("reference mean", "detection"))) == [0.0, 0.5]


# ---- what must not matter --------------------------------------------------------------------------------------------


def test_a_genes_own_errors_do_not_make_its_own_expectation(genes, monkeypatch):
    """The error of the regression is of genes that it did not learn from: one that learns facts by heart looks as bad as it is."""
    rng = np.random.default_rng(3)
    n = 30
    facts = rng.normal(size=(n, 25))  # nearly as many facts as genes, none says anything
    monkeypatch.setattr(uncertainty, "RidgeCV", lambda alphas: Ridge(1e-6))
    trust = Trust.fit(facts, genes.truth[:, :n], genes.values[:, :n], genes.sd[:n], np.zeros(25))
    by_heart = trust.expected_pcc(facts) - genes.pcc[:n]
    assert np.sqrt((by_heart**2).mean()) < 0.5 * genes.pcc[:n].std() < 0.5 * trust.error


def test_order_of_genes_does_not_matter_to_what_is_expected(genes, trust):
    """But for the folds in which the regression's own error is found."""
    order = np.random.default_rng(4).permutation(N_VISIBLE)
    other = Trust.fit(genes.facts[order], genes.truth[:, order], genes.values[:, order], genes.sd[order], np.zeros(2))
    np.testing.assert_allclose(other.expected_pcc(genes.facts), trust.expected_pcc(genes.facts), atol=1e-6)
    assert other.quantile == pytest.approx(trust.quantile, rel=0.02) and other.error == pytest.approx(trust.error, rel=0.1)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_one_gene_and_constant_genes_give_numbers(genes, n):
    trust = genes.fit(n=n)
    expected = trust.expected_pcc(genes.facts)
    assert np.isfinite(expected).all() and all(np.isfinite(part).all() for part in trust.widths(expected, genes.sd))
    flat = Trust.fit(np.ones((n, 2)), np.zeros((9, n)), np.zeros((9, n)), np.full(n, 1e-3), np.ones(2))
    expected = flat.expected_pcc(np.ones((4, 2)))
    assert list(expected) == [0] * 4 and set(flat.classes(expected)) == {"do not use"}
