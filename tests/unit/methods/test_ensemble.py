"""The ensemble takes what is best on visible genes, and nothing else plays a part."""

import numpy as np
import pytest
from peer_checks import check_method

from spadit.methods import METHODS, Method, ensemble, visible_part

CHEAP = ("corr_weighted", "ridge", "SpaGE")


@pytest.fixture
def cheap(monkeypatch):
    """The ensemble of cheap candidates, in place of the registry's."""
    method = METHODS["ensemble"]
    function = lambda *data, **options: ensemble.impute(*data, **options, candidates=CHEAP)  # noqa: E731
    monkeypatch.setitem(METHODS, "ensemble", Method(**{**vars(method), "function": function}))


def test_the_protocol(make_pair, cheap):
    check_method("ensemble", make_pair, least_pcc=0.3)


def test_every_candidate_is_a_ranked_method():
    assert all(METHODS[name].ranked for name in ensemble.CANDIDATES) and "ensemble" not in ensemble.CANDIDATES


def test_genes_are_divided_whatever_their_order():
    genes = [f"g{i}" for i in range(23)]
    seen, asked = ensemble.divide(genes, 1)
    assert len(asked) == 5 and set(seen) | set(asked) == set(genes) and not set(seen) & set(asked)
    assert set(ensemble.divide(genes[::-1], 1)[1]) == set(asked) and set(ensemble.divide(genes, 2)[1]) != set(asked)


def made_up(name, value, seen):
    def function(slide, reference, genes, *, seed, device, target):
        seen.append((name, set(slide.var_names), set(genes)))
        truth = value(slide, genes)
        return truth

    return Method(name, "method", "", "", function, scale="log")


def test_the_best_on_hidden_visible_genes_is_taken(make_pair, monkeypatch):
    slide, reference, split = make_pair()
    whole = slide[:, split.train].layers["counts"].toarray()
    columns = {g: whole[:, i] for i, g in enumerate(split.train)}
    rng = np.random.default_rng(0)

    def right(part, genes):  # knows visible genes by heart
        return np.stack([np.log1p(columns.get(g, np.zeros(slide.n_obs))) for g in genes], axis=1)

    def wrong(part, genes):
        return rng.normal(size=(slide.n_obs, len(genes)))

    calls = []
    monkeypatch.setitem(METHODS, "wrong", made_up("wrong", wrong, calls))
    monkeypatch.setitem(METHODS, "right", made_up("right", right, calls))
    part = visible_part(slide, split.train)
    name, scores = ensemble.choose(part, reference, seed=3, candidates=("wrong", "right"))
    assert name == "right" and scores["right"] > 0.8 > scores["wrong"]
    calls.clear()
    values = ensemble.impute(part, reference, split.test, seed=3, candidates=("wrong", "right"))
    assert values.shape == (slide.n_obs, len(split.test))
    (_, seen, asked), _, (last, everything, final) = calls
    assert not seen & asked and seen | asked == set(split.train)
    assert last == "right" and everything == set(split.train) and final == set(split.test)


def test_missing_and_failing_candidates_are_left_out(make_pair, monkeypatch, caplog):
    slide, reference, split = make_pair()

    def fails(*_, **__):
        raise RuntimeError("out of luck")

    monkeypatch.setitem(METHODS, "fails", Method("fails", "method", "", "", fails))
    monkeypatch.setitem(METHODS, "absent", Method("absent", "method", "", "", fails, requires=("no-such-distribution",)))
    part = visible_part(slide, split.train)
    name, scores = ensemble.choose(part, reference, candidates=("absent", "fails", "ridge", "corr_weighted"))
    assert set(scores) == {"ridge", "corr_weighted"} and name in scores and "out of luck" in caplog.text
    with pytest.raises(ValueError, match="failed"):
        ensemble.choose(part, reference, candidates=("fails", "fails"))
    with pytest.raises(ValueError, match="installed"):
        ensemble.choose(part, reference, candidates=("absent",))


def test_few_genes_choose_nothing(make_pair):
    slide, reference, split = make_pair()
    assert ensemble.choose(visible_part(slide, split.train[:5]), reference) == (ensemble.CANDIDATES[0], {})
