"""The benchmark: folds, plan, runs, predictions from outside, ranking, thinning, robustness, ablation."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from spadit import benchmark, metrics
from spadit.benchmark import Folds, Result, make_folds, make_plan, thin
from spadit.contracts import Benchmark, BenchmarkPlan, Failure, MethodRun
from spadit.errors import InputError, MethodError, SpaditError
from spadit.io import write_h5ad
from spadit.methods import METHODS, Method
from spadit.methods.spadit import VARIANTS, model_method

NAMES = [f"Gene{i}" for i in range(30)]
FAST = ["corr_weighted", "ridge", "knn50", "library_size", "oracle_ridge"]


@pytest.fixture(scope="module")
def pair(make_pair):
    slide, reference, _ = make_pair(n_spots=70, n_cells=80, n_genes=24, n_reference_genes=30)
    return slide, reference, make_folds(benchmark.shared_genes(slide), 4, seed=0)


def run_all(folder, plan, slide, reference, folds, methods=METHODS):
    """What the tasks of a plan leave."""
    for job in plan.jobs:
        run = MethodRun(plan.sample, job["what"], job["method"], job["fold"], job["rate"], job["seed"], "")
        method = methods[job["method"]]
        made = benchmark.try_method(run, method, slide, reference, folds, job["fold"], seed=job["seed"], rate=job["rate"])
        run.to_json(folder / f"{job['name']}.run.json")
        if made is not None:
            write_h5ad(made, folder / f"{job['name']}.h5ad")
    return benchmark.read_parts(folder)


@pytest.fixture(scope="module")
def done(pair, tmp_path_factory):
    """The fast methods on a small slide, all the way."""
    slide, reference, folds = pair
    plan = make_plan("s", folds, FAST, slide.n_obs, reference.n_obs)
    parts = run_all(tmp_path_factory.mktemp("parts"), plan, slide, reference, folds)
    return plan, parts


# ---- folds -----------------------------------------------------------------------------------------------------------


def test_folds_are_the_same_for_ever(tmp_path):
    folds = make_folds(NAMES[:8], 3, seed=7)  # written down once: a change would silently move every published number
    assert folds.folds == [["Gene1", "Gene2", "Gene4"], ["Gene3", "Gene6", "Gene7"], ["Gene0", "Gene5"]]
    folds.to_json(tmp_path / "folds.json")
    assert json.loads((tmp_path / "folds.json").read_text()) == {"seed": 7, "folds": folds.folds}


@settings(deadline=None, max_examples=60)
@given(st.sets(st.text(min_size=1, max_size=6), min_size=5, max_size=40), st.integers(2, 5), st.integers(0, 2**31), st.randoms())
def test_any_genes_come_back_once(tmp_path_factory, names, n_folds, seed, rng):
    order = sorted(names)
    rng.shuffle(order)
    if len(names) - -(-len(names) // n_folds) < 2:
        return
    folds = make_folds(order, n_folds, seed)
    assert folds == make_folds(sorted(names), n_folds, seed)
    assert sorted(folds.genes) == sorted(names) and max(map(len, folds.folds)) - min(map(len, folds.folds)) <= 1
    path = tmp_path_factory.mktemp("f") / "folds.json"
    folds.to_json(path)
    assert Folds.from_json(path, names) == folds


@settings(deadline=None, max_examples=150)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(NAMES),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["seed", "folds", "x"]), inner, max_size=3),
        max_leaves=12,
    )
)
def test_a_wild_file_is_refused_in_words_or_is_right(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("f") / "folds.json"
    path.write_text(json.dumps(content))
    try:
        folds = Folds.from_json(path, NAMES)
    except InputError as error:
        assert "folds.json" in error.message
    else:
        assert len(folds.genes) == len(set(folds.genes)) and set(folds.genes) <= set(NAMES) and all(folds.folds)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"folds": [["Gene1"], ["gene2x"]]}', "the gene gene2x is not shared by slide and reference. Did you mean 'Gene2'"),
        ('{"folds": [["Gene1"], ["Gene2", "Gene1"]]}', "the gene Gene1 is more than once"),
        ('{"folds": [["Gene1"], []]}', "none may be empty"),
        ('{"folds": [["Gene1"]]}', "at least two folds"),
        ('{"seed": "x", "folds": [["Gene1"], ["Gene2"]]}', "doesn't hold folds"),
        ("{", "can't be read as JSON"),
        (json.dumps({"folds": [NAMES[:29], NAMES[29:]]}), "leaves 1 visible genes"),
    ],
)
def test_wrong_files_of_folds(tmp_path, content, said):
    (tmp_path / "folds.json").write_text(content)
    with pytest.raises(InputError, match=said):
        Folds.from_json(tmp_path / "folds.json", NAMES)


def test_fewer_genes_than_folds():
    with pytest.raises(InputError, match="4 shared genes are fewer than 5 folds") as error:
        make_folds(NAMES[:4], 5)
    assert "--folds" in error.value.remedy
    with pytest.raises(InputError, match="1 folds are too few"):
        make_folds(NAMES, 1)


def test_a_file_may_leave_genes_out(pair, tmp_path):
    slide, reference, folds = pair
    some = Folds(0, [folds.folds[0][:2], folds.folds[1][:2]])
    some.to_json(tmp_path / "folds.json")
    folds = Folds.from_json(tmp_path / "folds.json", benchmark.shared_genes(slide))
    seen = []

    def look(part, reference, genes, **options):
        seen.append(set(part.var_names))
        return np.zeros((part.n_obs, len(genes)))

    made, _ = benchmark.run_method(Method("x", "method", "x", "x", look), slide, reference, folds, 0)
    assert seen == [set(benchmark.shared_genes(slide)) - set(folds.folds[0])] and made.var_names.tolist() == folds.folds[0]


# ---- methods and plan ------------------------------------------------------------------------------------------------


def test_choice_of_methods():
    assert benchmark.choose_methods() == benchmark.choose_methods("") == list(METHODS)
    assert {"SpaDiT", "corr_weighted", "library_size", "oracle_ridge"} <= set(METHODS)
    assert benchmark.choose_methods(" ridge ,knn50,") == ["ridge", "knn50"]
    for wanted, said in (("rigde", "Did you mean 'ridge'"), ("ridge,ridge", "twice"), (",", "No method"), ("spadit", "mean 'SpaDiT'")):
        with pytest.raises(SpaditError, match=said):
            benchmark.choose_methods(wanted)


def test_plan(pair, tmp_path):
    _, _, folds = pair
    plan = make_plan("s", folds, ["ridge", "SpaDiT"], 3000, 4000, seed=4, rates=benchmark.RATES, ablation_seeds=2)
    n_folds, names = len(folds.folds), [job["name"] for job in plan.jobs]
    assert len(names) == len(set(names)) == n_folds * (2 * 5 + 2 * len(VARIANTS))
    assert {(job["rate"], job["what"]) for job in plan.jobs} == {
        (0.0, "benchmark"), (0.0, "ablation"), *((rate, "robustness") for rate in (0.1, 0.3, 0.5, 0.7))
    }  # fmt: skip
    assert {job["seed"] for job in plan.jobs if job["what"] == "ablation"} == {4, 5}
    by_size = [make_plan("s", folds, ["SpaDiT"], n, 5000).jobs[0] for n in (1000, 10_000, 100_000)]
    assert by_size[0]["minutes"] < by_size[1]["minutes"] < by_size[2]["minutes"]
    assert by_size[1]["memory_gib"] < by_size[2]["memory_gib"]
    plan.to_json(tmp_path / "plan.json")
    assert BenchmarkPlan.from_json(tmp_path / "plan.json") == plan
    assert not make_plan("s", folds, [], 10, 10).jobs


# ---- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("name", ["corr_weighted", "ridge", "knn50", "library_size"])
def test_no_hidden_gene_leaks_into_a_run(pair, name, rate):
    """Garbage in the hidden genes changes nothing, also where counts are thinned."""
    slide, reference, folds = pair
    spoilt = slide.copy()
    counts = spoilt.layers["counts"].toarray()
    columns = spoilt.var_names.get_indexer(folds.folds[1])
    counts[:, columns] = np.random.default_rng(0).integers(0, 9999, (slide.n_obs, len(columns)))
    spoilt.layers["counts"] = sp.csr_matrix(counts.astype(np.float32))
    first, again = (benchmark.run_method(METHODS[name], s, reference, folds, 1, rate=rate)[0] for s in (slide, spoilt))
    np.testing.assert_array_equal(first.X, again.X)


def broken(how):
    def impute(slide, reference, genes, **options):
        values = np.ones((slide.n_obs, len(genes)), dtype=np.float32)
        if how == "nan":
            values[3, 0] = np.nan
        if how == "shape":
            return values[:-1]
        if how == "raise":
            raise RuntimeError("no\nluck")
        if how == "memory":
            raise MemoryError
        return values

    return Method("ridge", "floor", "x", "x", impute)


@pytest.mark.parametrize(("how", "said"), [("nan", "missing or infinite values"), ("shape", "shape"), ("raise", "RuntimeError: no luck")])
def test_a_failing_method_is_marked_and_the_rest_is_ranked(pair, done, tmp_path, how, said):
    slide, reference, folds = pair
    plan, parts = done
    parts = dict(parts)
    (job,) = [job for job in plan.jobs if job["method"] == "ridge" and job["fold"] == 2]
    run = MethodRun("s", "benchmark", "ridge", 2, 0.0, 0, "")
    assert benchmark.try_method(run, broken(how), slide, reference, folds, 2) is None
    parts[job["name"]] = (run, None)
    benchmark.write_tables("benchmark", tmp_path, plan, parts, slide, folds)
    ranking = pd.read_csv(tmp_path / "ranking.csv", index_col="method")
    assert ranking.loc["ridge", "status"].startswith("failed: ") and said in ranking.loc["ridge", "status"]
    assert "fold 3 of 4" in ranking.loc["ridge", "status"]
    numbers = ["n_genes", "median_pcc", "accuracy_score", "robustness_score", "p", "seconds"]
    assert ranking.loc["ridge", numbers].isna().all() and ranking.index[-1] == "ridge"
    assert ranking.loc["corr_weighted", "median_pcc"] > 0.2 and ranking.loc["corr_weighted", "accuracy_score"] > 0
    assert not (tmp_path / "ridge.h5ad").exists() and "ridge" not in set(pd.read_csv(tmp_path / "metrics.csv")["method"])
    assert Benchmark.from_json(tmp_path / "benchmark.json").failed == {"ridge": ranking.loc["ridge", "status"]}


def test_the_executables(pair, tmp_path, root):
    """From the pair to the ranking by the three programs, SpaDiT's variant among the runs."""
    slide, reference, _ = pair
    write_h5ad(slide, tmp_path / "slide.h5ad")
    write_h5ad(reference, tmp_path / "reference.h5ad")

    def call(program, *arguments):
        command = [sys.executable, root / f"bin/spadit_{program}.py", "--id", "s", "--slide", "slide.h5ad", *arguments]
        subprocess.run([str(part) for part in command], cwd=tmp_path, check=True)

    cuts = ("--max-spots", 50)
    made = ("--output", "folds.json", "--plan", "plan.json")
    given = ("--methods", "ridge,library_size", "--benchmark", "--ablation", 1, "--folds", 2)
    call("folds", "--reference", "reference.h5ad", *cuts, *given, *made)
    (tmp_path / "parts").mkdir()
    plan = BenchmarkPlan.from_json(tmp_path / "plan.json")
    assert (plan.n_spots, plan.n_cells, plan.methods) == (50, reference.n_obs, ["ridge", "library_size"])
    for job in plan.jobs:
        if job["what"] == "benchmark" or (job["method"], job["fold"]) == ("backbone_unet", 0):
            run = [f"--{name}={job[name]}" for name in ("method", "fold", "what", "rate", "seed")]
            small = ("--device", "cpu", "--preset", "default", "--max-steps", 1, "--n-models", 1)
            files = ("--output", f"parts/{job['name']}.h5ad", "--facts", f"parts/{job['name']}.run.json")
            call("method", "--reference", "reference.h5ad", "--folds", "folds.json", *cuts, *run, *small, *files)
    call("rank", "--folds", "folds.json", "--plan", "plan.json", "--parts", "parts", *cuts, "--output", "benchmark")
    call("rank", "--folds", "folds.json", "--plan", "plan.json", "--parts", "parts", "--what", "ablation", *cuts, "--output", "ablation")
    ranking = pd.read_csv(tmp_path / "benchmark/ranking.csv", index_col="method")
    assert (ranking["status"] == "ok").all() and ranking.loc["ridge", "seconds"] > 0 and ranking.loc["ridge", "peak_gib"] > 0.05
    assert ad.read_h5ad(tmp_path / "benchmark/ridge.h5ad").n_obs == 50
    unet = pd.read_csv(tmp_path / "ablation/ablation.csv", index_col="variant").loc["backbone_unet"]
    assert unet["status"].startswith("failed: fold 2 of 2 came to no result")  # the first fold ran
    assert MethodRun.from_json(tmp_path / "parts/s.backbone_unet.seed0.fold0.run.json").status == "ok"


def test_memory_is_the_pipelines_to_mend(pair):
    with pytest.raises(MemoryError):
        benchmark.try_method(MethodRun("s", "benchmark", "ridge", 0, 0.0, 0, ""), broken("memory"), *pair, 0)


def test_an_absent_package_is_not_run(pair, done, tmp_path):
    slide, reference, folds = pair
    absent = dataclasses.replace(METHODS["ridge"], requires=("no-such-package",))
    run = MethodRun("s", "benchmark", "ridge", 0, 0.0, 0, "")
    assert benchmark.try_method(run, absent, slide, reference, folds, 0) is None
    assert run.status == "not run" and "no-such-package" in run.reason and "spadit/peers" in run.reason and "'peers'" in run.reason
    plan, parts = done
    parts = parts | {job["name"]: (run, None) for job in plan.jobs if job["method"] == "ridge"}
    result = benchmark.collect([job for job in plan.jobs if job["method"] == "ridge"], parts, slide, folds)
    assert result.status == f"not run: {run.reason}" and result.imputed is None


def test_a_killed_task_and_one_that_could_not_start(pair, done, tmp_path):
    slide, _, folds = pair
    plan, parts = done
    jobs = [job for job in plan.jobs if job["method"] == "ridge"]
    parts = {name: part for name, part in parts.items() if name != jobs[1]["name"]}
    assert "fold 2 of 4 came to no result" in benchmark.collect(jobs, parts, slide, folds).status
    Failure("s", "slide", "method", "The disk ate it.", "Feed it.").to_json(tmp_path / f"{jobs[1]['name']}.failure.json")
    parts |= benchmark.read_parts(tmp_path)
    assert benchmark.collect(jobs, parts, slide, folds).status == "failed: The disk ate it. Feed it. (fold 2 of 4)"
    assert benchmark.read_parts(tmp_path / "nowhere") == {}


# ---- ranking ---------------------------------------------------------------------------------------------------------


def test_tables_against_a_hand_computation(pair, done, tmp_path):
    slide, _, folds = pair
    plan, parts = done
    benchmark.write_tables("benchmark", tmp_path, plan, parts, slide, folds)
    table, ranking = pd.read_csv(tmp_path / "metrics.csv"), pd.read_csv(tmp_path / "ranking.csv", index_col="method")
    assert table.columns.tolist() == benchmark.METRICS_COLUMNS
    assert ["method", *ranking.columns] == benchmark.RANKING_COLUMNS
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["metrics.csv", "ranking.csv", "benchmark.json", *(f"{name}.h5ad" for name in FAST)]
    )
    counts = slide.layers["counts"].toarray()[:, slide.var["shared"]]
    total = counts.sum(1)
    truth = np.log1p(counts / total[:, None] * np.median(total))
    position = {gene: i for i, gene in enumerate(benchmark.shared_genes(slide))}
    for name in FAST:
        imputed = ad.read_h5ad(tmp_path / f"{name}.h5ad")
        assert imputed.obs_names.equals(slide.obs_names) and sorted(imputed.var_names) == sorted(folds.genes)
        assert all(gene in folds.folds[k] for gene, k in imputed.var["fold"].items())
        own = table[table["method"] == name].set_index("gene")
        for i, gene in enumerate(imputed.var_names):
            expected = scipy.stats.pearsonr(truth[:, position[gene]], imputed.X[:, i].astype(float)).statistic
            assert own.loc[gene, "pcc"] == pytest.approx(expected, abs=1e-5)
        assert ranking.loc[name, "median_pcc"] == pytest.approx(own["pcc"].median(), abs=1e-5)
        assert ranking.loc[name, "mean_js"] == pytest.approx(own["js"].mean(), abs=1e-5)
        assert ranking.loc[name, "robustness_score"] == pytest.approx((own["pcc"] > 0.5).mean(), abs=1e-5)
        assert ranking.loc[name, "low"] <= ranking.loc[name, "median_pcc"] <= ranking.loc[name, "high"]
    floors = [name for name in ranking.index if ranking.loc[name, "kind"] == "floor"]
    assert ranking.index.tolist()[:3] == floors == sorted(floors, key=lambda name: -ranking.loc[name, "median_pcc"])
    assert ranking.loc[["library_size", "oracle_ridge"], ["accuracy_score", "p", "difference"]].isna().all(axis=None)
    # paired tests against the best, Holm by hand
    wide = table.pivot(index="gene", columns="method", values="pcc")
    p = [scipy.stats.wilcoxon(wide[floors[0]] - wide[name]).pvalue for name in floors[1:]]
    small, large = sorted(p)
    expected = {small: min(1, 2 * small), large: min(1, max(2 * small, large))}
    for name, value in zip(floors[1:], p, strict=True):
        assert ranking.loc[name, "p"] == pytest.approx(expected[value], rel=1e-4)
        assert ranking.loc[name, "difference"] == pytest.approx((wide[name] - wide[floors[0]]).mean(), abs=1e-5)
        assert ranking.loc[name, "difference_low"] <= ranking.loc[name, "difference"] <= ranking.loc[name, "difference_high"]
    medians = table[table["method"].isin(floors)].groupby("method")[benchmark.MEASURES].median()
    ranks = medians["pcc"].rank() + medians["ssim"].rank() + (-medians["rmse"]).rank() + (-medians["js"]).rank()
    for name in floors:
        assert ranking.loc[name, "accuracy_score"] == pytest.approx(ranks[name] / 12, abs=1e-5)


def test_tables_are_the_same_to_the_digit(pair, done, tmp_path):
    slide, reference, folds = pair
    plan, parts = done
    for name in ("a", "b", "c", "c/parts"):
        (tmp_path / name).mkdir()
    benchmark.write_tables("benchmark", tmp_path / "a", plan, parts, slide, folds)
    benchmark.write_tables("benchmark", tmp_path / "b", plan, dict(reversed(list(parts.items()))), slide, folds)
    for name in ("metrics.csv", "ranking.csv", "benchmark.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    again = run_all(tmp_path / "c/parts", plan, slide, reference, folds)
    benchmark.write_tables("benchmark", tmp_path / "c", plan, again, slide, folds)
    assert (tmp_path / "a/metrics.csv").read_bytes() == (tmp_path / "c/metrics.csv").read_bytes()


def made_up(pcc: dict[str, np.ndarray]):
    """Results and a table in which each method has these PCCs and nothing else to tell them apart."""
    table = pd.concat(
        [
            pd.DataFrame({"gene": NAMES[: len(v)], "method": name, "fold": 0, "pcc": v, "spearman": v, "ssim": v, "rmse": 1 - v, "js": 0.1})
            for name, v in pcc.items()
        ],
        ignore_index=True,
    )
    something = ad.AnnData(np.zeros((1, 1)))
    return [Result(name, "ok", something, outside=name not in METHODS) for name in pcc], table


def test_a_winner_and_no_clear_winner():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.3, 0.6, 20)
    folds = Folds(0, [NAMES[:10], NAMES[10:20]])
    clear = {"ridge": base, "corr_weighted": base + 0.05 + rng.normal(0, 0.01, 20), "knn50": base - 0.1, "oracle_ridge": base + 0.3}
    ranking, facts = benchmark.rank(*made_up(clear), "s", 100, folds)
    assert facts.best == ["corr_weighted"] and facts.winner.startswith("corr_weighted is best (median PCC 0.")
    assert ranking["method"].tolist() == ["corr_weighted", "ridge", "knn50", "oracle_ridge"]
    close = clear | {"corr_weighted": base + rng.normal(0.001, 0.05, 20)}
    ranking, facts = benchmark.rank(*made_up(close), "s", 100, folds)
    assert facts.winner.startswith("No clear winner between") and set(facts.best) == {"ridge", "corr_weighted"}
    assert ranking.set_index("method").loc[facts.best[1], "p"] >= 0.05 > ranking.set_index("method").loc["knn50", "p"]
    _, facts = benchmark.rank(*made_up({"ridge": base}), "s", 100, folds)
    assert facts.winner.startswith("Only ridge could be ranked")
    _, facts = benchmark.rank(*made_up({"ridge": base - 0.5, "knn50": base - 0.6}), "s", 100, folds)
    assert "hardly better than chance" in facts.winner
    ranking, facts = benchmark.rank([Result("ridge", "failed: x")], pd.DataFrame(columns=benchmark.METRICS_COLUMNS), "s", 100, folds)
    assert facts.best == [] and "No method" in facts.winner and ranking["median_pcc"].isna().all()


def test_the_spots_total_is_told_of():
    base = np.random.default_rng(0).uniform(0.3, 0.6, 20)
    _, facts = benchmark.rank(*made_up({"ridge": base, "library_size": -base - 0.01}), "s", 100, Folds(0, [NAMES[:10], NAMES[10:20]]))
    assert "not better than the spot's total alone" in facts.notes[0]  # in the direction in which it scores higher


# ---- predictions from outside ----------------------------------------------------------------------------------------


@pytest.fixture
def outside(pair):
    slide, _, folds = pair
    table = pd.DataFrame(np.random.default_rng(1).random((slide.n_obs, len(folds.genes))), slide.obs_names, folds.genes)
    return table.assign(more=1.0).iloc[::-1]  # another order, another gene


def test_predictions_from_outside_go_through_the_same_door(pair, done, outside, tmp_path):
    slide, _, folds = pair
    plan, parts = done
    outside.to_csv(tmp_path / "mine.csv")
    whole = ad.AnnData(sp.csr_matrix(outside.to_numpy()), obs=outside.iloc[:, :0], var=outside.iloc[:0].T)
    whole.write_h5ad(tmp_path / "mine.h5ad")
    (tmp_path / "out").mkdir()
    given = {"mine": tmp_path / "mine.csv", "same": tmp_path / "mine.h5ad", "gone": tmp_path / "gone.csv"}
    benchmark.write_tables("benchmark", tmp_path / "out", plan, parts, slide, folds, given)
    ranking = pd.read_csv(tmp_path / "out/ranking.csv", index_col="method")
    assert ranking.loc["mine", "kind"] == "outside" and ranking.loc["mine", "accuracy_score"] > 0 and ranking.loc["mine", "p"] < 0.05
    assert ranking.loc["mine", "median_pcc"] == ranking.loc["same", "median_pcc"] and abs(ranking.loc["mine", "median_pcc"]) < 0.2
    assert ranking.loc["gone", "status"].startswith("failed: gone.csv can't be read")
    facts = Benchmark.from_json(tmp_path / "out/benchmark.json")
    assert "can't be checked" in facts.notes[0] and "mine" in facts.notes[0]
    back = ad.read_h5ad(tmp_path / "out/mine.h5ad")
    np.testing.assert_allclose(back.X, outside.loc[slide.obs_names, back.var_names].to_numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.iloc[1:], "1 of 70 spots are missing"),
        (lambda t: t.drop(columns="Gene3"), "1 of 24 genes are missing, the first is 'Gene3'"),
        (lambda t: t.assign(Gene4=np.nan), "missing or infinite values, the first is 'Gene4'"),
        (lambda t: t.assign(Gene4="x"), "not all values are numbers"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "spots occur twice"),
    ],
)
def test_wrong_predictions(pair, outside, tmp_path, change, said):
    slide, _, folds = pair
    change(outside).to_csv(tmp_path / "mine.csv")
    with pytest.raises(MethodError, match=said):
        benchmark.read_prediction(tmp_path / "mine.csv", slide, folds)


def test_predictions_of_other_folds(pair, outside, tmp_path):
    slide, _, folds = pair
    data = ad.AnnData(outside[folds.genes].to_numpy(), obs=outside.iloc[:, :0], var=pd.DataFrame(index=folds.genes))
    data.var["fold"] = 0
    data.write_h5ad(tmp_path / "mine.h5ad")
    with pytest.raises(MethodError, match="other folds"):
        benchmark.read_prediction(tmp_path / "mine.h5ad", slide, folds)


# ---- thinning, robustness --------------------------------------------------------------------------------------------


def test_thinning_is_binomial(make_pair):
    slide, *_ = make_pair(n_spots=400, n_cells=20, n_genes=30)
    slide.layers["counts"] = sp.csr_matrix(np.full(slide.shape, 20, dtype=np.float32))
    for rate in benchmark.RATES:
        kept = thin(slide, rate, seed=1).layers["counts"].toarray()
        n, p = kept.size, 1 - rate
        assert (kept == np.rint(kept)).all() and kept.min() >= 0 and kept.max() <= 20
        assert abs(kept.mean() - 20 * p) < 4 * np.sqrt(20 * p * rate / n)  # four standard errors
        assert kept.var() == pytest.approx(20 * p * rate, rel=0.08)
        spots = np.corrcoef(kept[:, 0], kept[:, 1])[0, 1]
        assert abs(spots) < 0.2  # genes are drawn independently


def test_thinning_is_seeded_and_each_genes_own(make_pair):
    slide, *_ = make_pair()
    first = thin(slide, 0.5, seed=1).layers["counts"]
    assert (first != thin(slide, 0.5, seed=1).layers["counts"]).nnz == 0
    assert (first != thin(slide, 0.5, seed=2).layers["counts"]).nnz > 0
    assert (first != thin(slide[:, ::-1].copy(), 0.5, seed=1)[:, slide.var_names].layers["counts"]).nnz == 0
    assert (thin(slide, 0.0).layers["counts"] != slide.layers["counts"]).nnz == 0
    assert first.max() <= slide.layers["counts"].max() and slide.layers["counts"].sum() > first.sum()
    with pytest.raises(ValueError, match="rate"):
        thin(slide, 1.0)


def test_robustness(pair, tmp_path):
    slide, reference, folds = pair
    plan = make_plan("s", folds, ["corr_weighted", "ridge"], slide.n_obs, reference.n_obs, rates=(0.3, 0.9))
    parts = run_all(tmp_path, plan, slide, reference, folds)
    gone = next(job["name"] for job in plan.jobs if job["rate"] == 0.9 and job["method"] == "ridge")
    benchmark.write_tables("robustness", tmp_path, plan, {k: v for k, v in parts.items() if k != gone}, slide, folds)
    table, per_gene = pd.read_csv(tmp_path / "robustness.csv"), pd.read_csv(tmp_path / "robustness_metrics.csv")
    assert table.columns.tolist() == benchmark.ROBUSTNESS_COLUMNS and per_gene.columns.tolist() == benchmark.ROBUSTNESS_METRICS_COLUMNS
    table = table.set_index(["method", "rate"])
    assert len(table) == 6 and table.loc[("ridge", 0.9), "status"].startswith("failed") and np.isnan(table.loc[("ridge", 0.9), "mean_pcc"])
    means = table.loc["corr_weighted", "mean_pcc"]
    assert means[0.0] > means[0.9]  # less is known
    wide = per_gene[per_gene["method"] == "corr_weighted"].pivot(index="gene", columns="rate", values="pcc")
    assert table.loc[("corr_weighted", 0.3), "robustness_score"] == pytest.approx((wide[0.3] > 0.5).mean(), abs=1e-5)
    both = ((wide[0.3] > 0.5) & (wide[0.0] > 0.5)).mean()
    assert table.loc[("corr_weighted", 0.3), "robustness_score_both"] == pytest.approx(both, abs=1e-5)


# ---- SpaDiT and its variants -----------------------------------------------------------------------------------------


def test_spadit_keeps_the_protocol(make_pair, tiny):
    """As peer_checks.check_method, with networks that take seconds."""
    from spadit.methods import visible_part

    slide, reference, split = make_pair(n_spots=60, n_cells=90, n_genes=40, n_reference_genes=46)
    method = model_method(**tiny)
    visible = split.train + split.validation
    (values, sd), again = (method.impute_log(visible_part(slide, visible), reference, split.test, seed=3) for _ in range(2))
    np.testing.assert_array_equal(values, again[0])
    assert values.shape == sd.shape == (60, len(split.test)) and (sd >= 0).all()
    truth = np.log1p(slide.layers["counts"][:, slide.var_names.get_indexer(split.test)].toarray())
    assert np.median(metrics.pcc(truth, values)) > 0.3
    assert method.defaults["max_steps"] == tiny["max_steps"] and model_method(max_steps=None).defaults == METHODS["SpaDiT"].defaults


def test_ablation(make_pair, tiny, tmp_path):
    slide, reference, _ = make_pair(n_spots=40, n_cells=40, n_genes=16, n_reference_genes=30)
    folds = make_folds(benchmark.shared_genes(slide), 2)
    plan = make_plan("s", folds, [], slide.n_obs, reference.n_obs, ablation_seeds=2)
    variants = {name: model_method(name, **tiny) for name in VARIANTS}
    parts = run_all(tmp_path, plan, slide, reference, folds, variants)
    assert all(run.status == "ok" for run, _ in parts.values()), {run.reason for run, _ in parts.values()}
    seen = {}
    for name in VARIANTS:  # a variant is another network: it says something else
        seen[name] = ad.read_h5ad(parts[f"s.{name}.seed0.fold0"][1]).X
    assert sum(np.array_equal(a, b) for a in seen.values() for b in seen.values()) == len(seen)
    gone = "s.condition_mlp.seed1.fold1"
    benchmark.write_tables("ablation", tmp_path, plan, {k: v for k, v in parts.items() if k != gone}, slide, folds)
    table, per_gene = pd.read_csv(tmp_path / "ablation.csv"), pd.read_csv(tmp_path / "ablation_metrics.csv")
    assert table.columns.tolist() == benchmark.ABLATION_COLUMNS and per_gene.columns.tolist() == benchmark.ABLATION_METRICS_COLUMNS
    assert table["group"].tolist() == ["backbone"] * 4 + ["parts"] * 5
    failed = table[table["variant"] == "condition_mlp"].iloc[0]
    assert failed["status"].startswith("failed") and np.isnan(failed["accuracy_score_mean"])
    names = table.loc[table["group"] == "backbone", "variant"].tolist()
    scores = []
    for seed in (0, 1):
        medians = per_gene[(per_gene["seed"] == seed) & per_gene["method"].isin(names)].groupby("method")[benchmark.MEASURES].median()
        scores.append(metrics.accuracy_score(medians))
    found = table[table["group"] == "backbone"].set_index("variant")
    for name in names:
        assert found.loc[name, "accuracy_score_mean"] == pytest.approx(np.mean([s[name] for s in scores]), abs=1e-5)
        assert found.loc[name, "accuracy_score_sd"] == pytest.approx(np.std([s[name] for s in scores], ddof=1), abs=1e-5)
    assert (table["n_seeds"] == 2).all()
