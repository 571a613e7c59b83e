"""The evaluation of a slide: which genes are compared with what, the table's columns, the verdict, and files that don't fit."""

import dataclasses
import os
import stat
import subprocess
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spadit import evaluation
from spadit.contracts import Evaluation, Failure
from spadit.errors import InputError
from spadit.evaluation import COLUMNS, MODEL, difference, evaluate, hidden_sets, judge, measured_values, read_imputed, top_genes
from spadit.methods import BASELINES, METHODS

N_METHODS = len(BASELINES) + 1


def build_imputed(slide, split, noise, seed=0):
    """An imputed.h5ad as the contract has it: truth plus noise, and one unmeasured gene."""
    rng = np.random.default_rng(seed)
    shared = [g for g in slide.var_names if slide.var["shared"][g]]
    truth = measured_values(slide, shared).toarray()
    values = truth + rng.normal(size=truth.shape) * truth.std(axis=0) * noise if np.isfinite(noise) else rng.normal(size=truth.shape) + 3
    fold = {g: k for k, part in enumerate(split.folds) for g in part}
    role = {g: name for name in ("train", "validation", "test") for g in getattr(split, name)}
    var = pd.DataFrame(
        {
            "measured": [True] * len(shared) + [False],
            "split": [role[g] for g in shared] + ["unmeasured"],
            "fold": [fold.get(g, -1) for g in shared] + [-1],
            "reliability": rng.uniform(0.1, 0.9, len(shared) + 1),
        },
        index=[*shared, "Unmeasured"],
    )
    x = np.column_stack([values, np.zeros(slide.n_obs)]).astype(np.float32)
    layers = {"lower": x - 1, "upper": x + 1, "sd": np.ones_like(x)}
    layers["observed"] = np.column_stack([truth, np.full(slide.n_obs, np.nan)]).astype(np.float32)
    return ad.AnnData(X=x, obs=slide.obs, var=var, layers=layers, obsm={"spatial": slide.obsm["spatial"]})


@pytest.fixture(scope="module")
def pair(make_pair):
    return make_pair(n_spots=80, n_cells=120, n_genes=40, n_reference_genes=45)


@pytest.fixture(scope="module")
def good(pair):
    slide, reference, split = pair
    return evaluate(build_imputed(slide, split, 0.5), slide, reference, split)


def test_every_shared_gene_is_hidden_once_and_never_visible_to_its_own_fit(pair):
    split = pair[2]
    sets = list(hidden_sets(split))
    assert sorted(g for _, hidden, _ in sets for g in hidden) == sorted(split.train + split.validation + split.test)
    assert all(not set(visible) & set(hidden) and not set(visible) & set(split.test) for visible, hidden, _ in sets)
    assert sets[0] == (split.train + split.validation, split.test, -1)


def test_the_table(pair, good):
    slide, _, split = pair
    table, _ = good
    n = len(split.train) + len(split.validation) + len(split.test)
    assert list(table.columns) == COLUMNS
    assert len(table) == n * N_METHODS and not table.duplicated(["gene", "method"]).any()
    assert list(table["method"].unique()) == [MODEL, *BASELINES]
    model = table[table["method"] == MODEL].set_index("gene")
    assert model[["coverage", "width", "reliability"]].notna().all(axis=None)
    np.testing.assert_allclose(model["width"], 2, atol=1e-5)
    assert table.loc[table["method"] != MODEL, ["coverage", "width", "reliability"]].isna().all(axis=None)
    assert (table.loc[table["split"] == "test", "fold"] == -1).all()
    assert all(model.loc[g, "fold"] == k for k, part in enumerate(split.folds) for g in part)
    assert table.drop(columns=["coverage", "width", "reliability"]).notna().all(axis=None)
    # one truth: Moran's I of a gene is the same in every method's row
    assert (table.groupby("gene")["moran_truth"].nunique() == 1).all()
    assert model["pcc"].median() > 0.8


def test_the_summary(pair, good):
    _, _, split = pair
    table, facts = good
    assert facts.n_test == len(split.test) and facts.n_scored == table["gene"].nunique()
    rows = {(row["method"], row["split"]): row for row in facts.summary}
    assert len(rows) == len(facts.summary) == 2 * N_METHODS
    for (method, part), row in rows.items():
        mine = table[(table["method"] == method) & ((table["split"] == "test") | (part == "all"))]
        assert row["n_genes"] == len(mine)
        assert row["median_pcc"] == pytest.approx(mine["pcc"].median())
        assert row["low"] <= row["median_pcc"] <= row["high"]
        competes = method == MODEL or METHODS[method].ranked
        assert (row["accuracy_score"] is not None) == competes
    assert rows[MODEL, "all"]["accuracy_score"] == 1
    assert facts.coverage == pytest.approx(table.loc[table["method"] == MODEL, "coverage"].mean())
    assert -1 <= facts.reliability_spearman <= 1


def test_the_comparison_is_paired_and_has_no_control_or_ceiling(good):
    table, facts = good
    assert [row["method"] for row in facts.comparison] == ["corr_weighted", "ridge", "knn50"]
    wide = table.pivot(index="gene", columns="method", values="pcc")
    for row in facts.comparison:
        assert row["mean_difference"] == pytest.approx((wide[MODEL] - wide[row["method"]]).mean())
        assert row["low"] <= row["mean_difference"] <= row["high"] and 0 <= row["p"] <= 1


def test_no_other_method_depends_on_what_spadit_imputed(pair, good):
    """Floors, controls and ceiling score the same whatever SpaDiT imputed."""
    slide, reference, split = pair
    other, _ = evaluate(build_imputed(slide, split, 9), slide, reference, split)
    same = [t[t["method"] != MODEL].reset_index(drop=True) for t in (good[0], other)]
    pd.testing.assert_frame_equal(*same)


def test_noise_is_not_predictable(pair):
    slide, reference, split = pair
    _, facts = evaluate(build_imputed(slide, split, np.inf), slide, reference, split)
    assert facts.verdict == "not predictable"
    assert "below 0.10" in facts.reasons[0]
    assert any("does as well or better: its PCC is 0." in reason for reason in facts.reasons)


def test_a_simple_method_that_does_as_well_is_named(pair, good):
    table = good[0].copy()
    floor = max(("corr_weighted", "ridge", "knn50"), key=lambda name: table.loc[table["method"] == name, "pcc"].median())
    of_floor = table[table["method"] == floor].set_index("gene")["pcc"]
    own = table["method"] == MODEL
    table.loc[own, "pcc"] = table.loc[own, "gene"].map(of_floor) - 0.001
    assert any(
        f"The simple method {floor} does as well: its PCC is the same on average" in reason
        for reason in evaluation._facts(table, pair[2], 0).reasons
    )


def test_a_good_slide_passes(good):
    _, facts = good
    assert (facts.verdict, facts.reasons) == ("pass", [])
    assert len(facts.top_genes) == 8
    best = good[0].query("method == @MODEL").set_index("gene")["pcc"]
    assert best[facts.top_genes].is_monotonic_decreasing and best[facts.top_genes[-1]] >= best.drop(facts.top_genes).max()


@pytest.mark.parametrize(
    ("median", "low", "control_low", "verdict", "n_reasons"),
    [
        (0.3, 0.2, 0.1, "pass", 0),
        (0.2, 0.1, 0.1, "pass", 0),
        (0.19, 0.1, 0.1, "warn", 1),
        (0.3, 0.2, 0.0, "warn", 1),
        (0.15, 0.1, -0.1, "not predictable", 2),
        (0.0999, 0.05, 0.1, "not predictable", 1),
        (0.3, 0.0, 0.1, "not predictable", 1),
        (-0.1, -0.2, -0.1, "not predictable", 2),
    ],
)
def test_the_rule(median, low, control_low, verdict, n_reasons):
    whole = {"median_pcc": median, "low": low, "n_genes": 40}
    found, reasons = judge(whole, {"mean_difference": control_low + 0.1, "low": control_low, "high": control_low + 0.2})
    assert (found, len(reasons)) == (verdict, n_reasons)
    assert not any("is 0.10, below 0.10" in reason for reason in reasons)  # 0.0999


def test_the_control_counts_in_the_direction_in_which_it_scores_higher():
    table = pd.DataFrame({"gene": list("ABC") * 2, "method": [MODEL] * 3 + ["library_size"] * 3, "pcc": [0.1, 0.2, 0.3, -0.2, -0.2, 0.1]})
    assert difference(table, "library_size")["mean_difference"] == pytest.approx(0.3)
    assert difference(table, "library_size", either_way=True)["mean_difference"] == pytest.approx(0.1)


def test_the_rule_is_told_with_its_thresholds(good):
    assert "0.10" in good[1].rule and "0.20" in good[1].rule and "library_size" in good[1].rule


def test_top_genes_are_never_badly_imputed_ones():
    assert top_genes(pd.Series({"A": 0.5, "B": -0.1, "C": 0.0, "D": 0.7})) == ["D", "A"]


def test_same_seed_same_numbers_whatever_the_cells_cap(pair, monkeypatch):
    slide, reference, split = pair
    monkeypatch.setattr(evaluation, "MAX_CELLS", 50)
    first, second = (evaluate(build_imputed(slide, split, 0.5), slide, reference, split, seed=4) for _ in range(2))
    pd.testing.assert_frame_equal(first[0], second[0])
    assert dataclasses.asdict(first[1]) == dataclasses.asdict(second[1])


def test_a_slide_without_intervals_or_reliability_is_scored_all_the_same(pair):
    slide, reference, split = pair
    imputed = build_imputed(slide, split, 0.5)
    del imputed.layers["lower"], imputed.var["reliability"]
    _, facts = evaluate(imputed, slide, reference, split)
    assert np.isnan(facts.coverage) and np.isnan(facts.reliability_spearman) and facts.verdict == "pass"


@pytest.mark.parametrize("fault", ["spots", "gene", "nan", "split"])
def test_files_that_do_not_belong_together(pair, fault):
    slide, reference, split = pair
    imputed = build_imputed(slide, split, 0.5)
    if fault == "spots":
        imputed = imputed[::-1].copy()
    elif fault == "gene":
        imputed = imputed[:, imputed.var_names != split.test[0]].copy()
    elif fault == "nan":
        imputed.X[3, imputed.var_names.get_loc(split.test[0])] = np.nan
    else:
        split = dataclasses.replace(split, folds=split.folds[1:])
    with pytest.raises(InputError, match=split.sample) as caught:
        evaluate(imputed, slide, reference, split)
    assert caught.value.remedy
    assert fault not in ("gene", "nan") or split.test[0] in caught.value.message


def test_read_imputed_reads_measured_genes_only(pair, save):
    slide, _, split = pair
    imputed = build_imputed(slide, split, 0.5)
    read = read_imputed(save(imputed))
    assert list(read.var_names) == list(imputed.var_names[:-1])
    for name in ("lower", "upper"):
        np.testing.assert_array_equal(read.layers[name], imputed.layers[name][:, :-1])
    np.testing.assert_array_equal(read.X, imputed.X[:, :-1])


def run(root, *arguments):
    command = [sys.executable, str(root / "bin" / "spadit_evaluate.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_the_executable(pair, save, root, tmp_path):
    slide, reference, split = pair
    assert os.stat(root / "bin" / "spadit_evaluate.py").st_mode & stat.S_IXUSR
    split.to_json(tmp_path / "split.json")
    files = [
        "--id", "slide", "--imputed", save(build_imputed(slide, split, 0.5), "imputed.h5ad"), "--slide", save(slide, "slide.h5ad"),
        "--reference", save(reference, "reference.h5ad"), "--split", tmp_path / "split.json", "--failure", tmp_path / "failure.json",
    ]  # fmt: skip
    done = run(root, *files, "--metrics", tmp_path / "m.csv", "--facts", tmp_path / "e.json")
    assert done.returncode == 0, done.stderr
    assert list(pd.read_csv(tmp_path / "m.csv").columns) == COLUMNS
    assert Evaluation.from_json(tmp_path / "e.json").verdict == "pass"
    assert not (tmp_path / "failure.json").exists()


def test_the_executable_tells_a_broken_file(pair, save, root, tmp_path):
    slide, reference, split = pair
    split.to_json(tmp_path / "split.json")
    (tmp_path / "imputed.h5ad").write_bytes(b"not HDF5")
    done = run(
        root, "--id", "slide", "--imputed", tmp_path / "imputed.h5ad", "--slide", save(slide, "slide.h5ad"), "--reference",
        save(reference, "reference.h5ad"), "--split", tmp_path / "split.json", "--failure", tmp_path / "failure.json",
        "--metrics", tmp_path / "m.csv", "--facts", tmp_path / "e.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "imputed.h5ad" in Failure.from_json(tmp_path / "failure.json").reason
    assert not (tmp_path / "m.csv").exists() and not (tmp_path / "e.json").exists()
