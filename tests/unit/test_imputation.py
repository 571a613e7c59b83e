"""From split to h5ad: which model imputes which gene, and the file that a user gets (docs/output.md)."""

import contextlib
import dataclasses
import json
import os
import shutil
import time
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from spadit import __version__, api, imputation
from spadit.api import SpaDiT
from spadit.contracts import Split, Training
from spadit.errors import InputError, TrainingError
from spadit.imputation import FitPlan, fit_plan, impute, plan_fits, reuse, source, train, training_key
from spadit.preprocess import log_normalise
from spadit.split import split_genes
from spadit.uncertainty import CLASSES


@pytest.fixture(scope="module")
def pair(make_pair):
    slide, reference, split = make_pair(n_spots=40, n_cells=50, n_genes=24, n_reference_genes=30)
    rng = np.random.default_rng(0)
    slide = slide[:, rng.permutation(slide.n_vars)].copy()  # genes in no order, and not all of them shared
    reference = reference[:, rng.permutation(reference.n_vars)].copy()
    slide.obs["region"] = ["core", "edge"] * 20
    shared = split.train + split.validation + split.test
    return slide, reference, split_genes(shared[1:], split.unmeasured, "slide", folds=2, seed=5)


@pytest.fixture(scope="module")
def trained(pair, tiny, tmp_path_factory):
    """Folder, training facts, curves, and what was reported."""
    folder, told = tmp_path_factory.mktemp("model"), []
    training, curves = train(*pair, folder, device="cpu", report=lambda *facts: told.append(facts), **tiny)
    return folder, training, curves, told


@pytest.fixture(scope="module")
def path(pair, trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("imputed") / "slide.imputed.h5ad"
    impute(*pair, trained[0], path, trained[1], "cpu", draws=2, counts=True)
    return path


@pytest.fixture(scope="module")
def imputed(path):
    return ad.read_h5ad(path)


# ---- which model is fitted on what -----------------------------------------------------------------------------------


def test_plans_say_who_sees_what():
    split = Split("s", 0, train=["A", "B", "C"], validation=["D"], test=["E"], unmeasured=["U"], folds=[["A", "D"], ["B", "C"]])
    assert plan_fits(split) == [
        FitPlan("evaluation", ["A", "B", "C", "D"], ["E"]),
        FitPlan("fold_0", ["B", "C"], ["A", "D"]),
        FitPlan("fold_1", ["A", "D"], ["B", "C"]),
        FitPlan("delivery", ["A", "B", "C", "D", "E"], ["U"]),
    ]
    split.unmeasured = []
    assert [plan.name for plan in plan_fits(split)] == ["evaluation", "fold_0", "fold_1"]


# ---- training --------------------------------------------------------------------------------------------------------


def test_training_facts_and_curves(pair, trained, tiny):
    folder, training, curves, told = trained
    names = [plan.name for plan in plan_fits(pair[2])]
    assert [fit["name"] for fit in training.fits] == names
    assert sorted(p.name for p in folder.iterdir()) == sorted(names)
    assert [fit["n_visible"] for fit in training.fits] == [len(plan.visible) for plan in plan_fits(pair[2])]
    assert training.parameters["seed"] == 0 and all(training.parameters[name] == value for name, value in tiny.items())
    assert (training.sample, training.preset, training.device) == ("slide", "default", "cpu")
    assert training.n_weights > 1000 and training.seconds > sum(fit["seconds"] for fit in training.fits) * 0.9
    assert list(curves) == ["fit", "mode", "stage", "network", "step", "train_loss", "validation_pcc"]
    assert set(curves["fit"]) == set(names) and set(curves["mode"]) == {"token", "whole_slide"}
    assert np.isfinite(curves["train_loss"]).all()
    assert curves.loc[curves["stage"] == "choose", "validation_pcc"].between(-1, 1).all()
    assert curves.loc[curves["stage"] == "final", "validation_pcc"].isna().all()
    assert [(facts["name"], done, total) for facts, done, total in told] == [(name, i + 1, 4) for i, name in enumerate(names)]


def test_training_facts_can_be_written_and_read(trained, tmp_path):
    trained[1].to_json(tmp_path / "training.json")
    read = dataclasses.asdict(Training.from_json(tmp_path / "training.json"))
    assert read == json.loads(json.dumps(dataclasses.asdict(trained[1])))


def test_a_model_is_handed_its_visible_genes_only(pair, trained, monkeypatch):
    """What it doesn't have it can't leak."""
    slide, reference, split = pair
    handed = {}

    def fit(plan, visible, *rest):
        handed[plan.name] = list(visible.var_names)
        return trained[1].fits[0], trained[2]

    monkeypatch.setattr(imputation, "fit_plan", fit)
    train(slide, reference, split, "nowhere", device="cpu")
    assert handed == {plan.name: plan.visible for plan in plan_fits(split)}


class Killed(BaseException):
    pass


def test_a_killed_training_goes_on_from_its_checkpoints(pair, trained, tiny, tmp_path):
    def until(facts, done, total):
        if done == 2:
            raise Killed

    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(Killed):
        train(*pair, tmp_path / "a", device="cpu", checkpoint=checkpoint, report=until, **tiny)
    assert sorted(p.name for p in checkpoint.iterdir()) == ["evaluation", "fold_0"]
    train(*pair, tmp_path / "b", device="cpu", checkpoint=checkpoint, **tiny)
    for plan in plan_fits(pair[2]):
        files = [folder / plan.name / "weights.safetensors" for folder in (tmp_path / "b", trained[0])]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert checkpoint.exists()  # its caller removes it, when the models are safe


def test_checkpoints_are_named_by_inputs_and_parameters(tmp_path):
    for name in ("slide", "reference", "other"):
        (tmp_path / name).write_text(name)
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "weights").write_text("1")
    slide, reference, other, start = (tmp_path / name for name in ("slide", "reference", "other", "start"))
    keys = [
        training_key(files, parameters)
        for files, parameters in (
            ([slide, reference], {"seed": 0}), ([other, reference], {"seed": 0}), ([slide, other], {"seed": 0}),
            ([slide, reference], {"seed": 1}), ([slide, reference, start], {"seed": 0}),
        )
    ]  # fmt: skip
    assert len(set(keys)) == 5 and keys[0] == training_key([slide, reference], {"seed": 0})
    (tmp_path / "start" / "weights").write_text("2")
    assert training_key([slide, reference, start], {"seed": 0}) not in keys


def test_values_that_are_no_numbers_are_not_written(pair, trained, tmp_path, monkeypatch):
    made = api.SpaDiT._impute_some

    def spoiled(self, genes, *rest):
        table, arrays = made(self, genes, *rest)
        arrays["sd"] = np.array(arrays["sd"])
        arrays["sd"][3, 0] = np.inf
        return table, arrays

    monkeypatch.setattr(api.SpaDiT, "_impute_some", spoiled)
    with pytest.raises(TrainingError, match="The model 'evaluation' imputes values that are no numbers, for 1 genes"):
        impute(*pair, trained[0], tmp_path / "imputed.h5ad", trained[1], "cpu")


def test_training_starts_from_another_model(pair, trained, tiny, tmp_path):
    settings = {**tiny, "max_steps": 5, "token_learning_rate": 1e-12, "modes": ("token",)}
    train(*pair, tmp_path, device="cpu", start=trained[0] / "delivery", **settings)
    _, first = api.read_model(trained[0] / "delivery")
    _, started = api.read_model(tmp_path / "fold_0")
    names = [name for name in started if name.startswith("token.0.")]
    assert names
    for name in names:
        np.testing.assert_allclose(started[name].numpy(), first[name].numpy(), atol=1e-6)


def test_progress_is_told_while_a_fit_runs(pair, tiny, tmp_path, monkeypatch, capsys):
    slide, reference, split = pair
    monkeypatch.setattr(imputation, "PROGRESS_EVERY", 0.0)
    plan = plan_fits(split)[0]
    fit_plan(plan, slide[:, plan.visible], reference, str(tmp_path), "fast", 0, "cpu", tiny, None, None, "liver_3")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2 and lines[0].startswith("liver_3: evaluation, token network choose 0: step 5 of at most 10, about ")


@pytest.mark.slow
def test_side_by_side_it_is_the_same(pair, trained, tiny, tmp_path):
    training, curves = train(*pair, tmp_path, device="cpu", workers=2, **tiny)
    pd.testing.assert_frame_equal(curves, trained[2], rtol=1e-4)
    for plan in plan_fits(pair[2]):
        one, other = (load_file(folder / plan.name / "weights.safetensors") for folder in (tmp_path, trained[0]))
        assert set(one) == set(other)
        for name, part in one.items():
            np.testing.assert_allclose(part, other[name], rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("allowed", "there", "most", "names"), [("", 4, 2, ["0", "1"]), ("5, GPU-a", 2, 9, ["5", "GPU-a"]), ("", 1, 4, ["0"])]
)
def test_gpus_are_named_as_cuda_is_told_of_them(monkeypatch, allowed, there, most, names):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", allowed)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    assert imputation.gpu_names(most) == names


def _gpu_seen(folder):
    """Which GPU this process sees, told after all processes have begun."""
    Path(folder, str(os.getpid())).touch()
    while len(os.listdir(folder)) < 3:
        time.sleep(0.05)
    return os.environ.get("CUDA_VISIBLE_DEVICES"), torch.get_num_threads()


def test_each_process_sees_one_gpu_of_its_own(tmp_path):
    with imputation.pool_of(["0", "7", "GPU-a"]) as pool:
        found = [future.result(60) for future in [pool.submit(_gpu_seen, tmp_path) for _ in range(3)]]
    assert sorted(found) == [("0", 1), ("7", 1), ("GPU-a", 1)]


@pytest.mark.parametrize(("gpus", "workers", "used"), [(4, 6, ["0", "1"]), (2, 1, None), (1, 6, None)])
def test_models_are_trained_side_by_side_on_several_gpus(pair, trained, monkeypatch, gpus, workers, used):
    """On two played GPUs: as many at once as there are GPUs, and as there is memory for."""
    found = []

    def pool(devices):
        found.append(devices)
        raise Killed

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(imputation, "pool_of", pool)
    monkeypatch.setattr(imputation, "fit_plan", lambda *given: (trained[1].fits[0], trained[2]))
    with pytest.raises(Killed) if used else contextlib.nullcontext():
        train(*pair, "nowhere", device="cuda", workers=workers, gpus=gpus)
    assert found == ([used] if used else [])


# ---- the imputed slide -----------------------------------------------------------------------------------------------


def test_all_genes_are_there_in_the_slides_order_then_the_references(pair, imputed):
    slide, reference, split = pair
    shared = set(split.train + split.validation + split.test)
    assert len(shared) == 23 < slide.n_vars
    expected = [g for g in slide.var_names if g in shared] + [g for g in reference.var_names if g in split.unmeasured]
    assert list(imputed.var_names) == expected
    assert list(imputed.obs_names) == list(slide.obs_names) and list(imputed.obs["region"]) == list(slide.obs["region"])
    np.testing.assert_array_equal(imputed.obsm["spatial"], slide.obsm["spatial"])


def test_every_value_is_there_but_measurements_that_were_not_made(imputed):
    assert set(imputed.layers) == {"observed", "sd", "lower", "upper", "draw_1", "draw_2", "counts"}
    for name in ("X", "sd", "lower", "upper", "draw_1", "draw_2", "counts"):
        values = imputed.X if name == "X" else imputed.layers[name]
        assert values.dtype == np.float32 and np.isfinite(values).all() and (values >= 0).all(), name
    assert (imputed.layers["lower"] <= imputed.X).all() and (imputed.X < imputed.layers["upper"]).all() and (imputed.layers["sd"] > 0).all()
    assert (imputed.X.std(0) > 0).all()


def test_observed_values_are_measured_ones(pair, imputed):
    slide, _, split = pair
    measured = imputed.var["measured"].to_numpy()
    observed = imputed.layers["observed"]
    assert np.isnan(observed[:, ~measured]).all() and (~measured).sum() == len(split.unmeasured)
    expected = log_normalise(slide[:, imputed.var_names[measured]].layers["counts"])[0].toarray()
    np.testing.assert_allclose(observed[:, measured], expected, rtol=1e-6)


def test_each_column_says_what_it_is(pair, imputed):
    _, _, split = pair
    var = imputed.var
    assert list(var) == ["measured", "split", "fold", "reliability", "reliability_class", "reliability_why"]
    for part in ("train", "validation", "test", "unmeasured"):
        assert set(var.index[var["split"] == part]) == set(getattr(split, part))
    assert list(var["measured"]) == [part != "unmeasured" for part in var["split"]] and var["measured"].dtype == bool
    for k, fold in enumerate(split.folds):
        assert set(var.index[var["fold"] == k]) == set(fold)
    assert set(var.index[var["fold"] == -1]) == set(split.test + split.unmeasured)
    assert var["reliability"].between(-1, 1).all() and var["reliability"].nunique() > 5 and set(var["reliability_class"]) <= set(CLASSES)


def test_where_it_comes_from_is_written_down(trained, imputed):
    facts = imputed.uns["spadit"]
    assert facts["version"] == __version__ and facts["seed"] == 5
    assert json.loads(facts["parameters"]) == json.loads(json.dumps(trained[1].parameters))
    inputs = {role: {"source": f"{role}.h5ad", "sha256": "0" * 64} for role in ("slide", "reference")}
    assert json.loads(facts["inputs"]) == inputs
    assert source(ad.AnnData(shape=(1, 1))) == {}


def test_each_gene_is_imputed_by_the_model_that_may(pair, trained, imputed):
    slide, reference, split = pair
    for plan in plan_fits(split):
        model = SpaDiT.load(trained[0] / plan.name, slide[:, plan.visible], reference, "cpu")
        expected = model.impute(plan.imputes, draws=2, counts=True)
        for name in ("X", "sd", "lower", "upper", "draw_2", "counts"):
            found = imputed[:, plan.imputes]
            a, b = (part.X if name == "X" else part.layers[name] for part in (found, expected))
            np.testing.assert_allclose(a, b, atol=1e-5, err_msg=f"{plan.name} {name}")
        np.testing.assert_allclose(found.var["reliability"], expected.var["reliability"], atol=1e-6)
        assert list(found.var["reliability_class"]) == list(expected.var["reliability_class"])


def test_a_genes_spots_lie_side_by_side_in_the_file(pair, path):
    slide, _, split = pair
    gene = split.test[0]
    with h5py.File(path) as file:
        for name in ("X", "layers/observed", "layers/sd", "layers/draw_1"):
            data = file[name]
            assert data.chunks == (40, 1) and data.compression == "gzip" and data.dtype == np.float32
    backed = ad.read_h5ad(path, backed="r")
    try:
        assert backed[:, gene].X[:].shape == (40, 1)
    finally:
        backed.file.close()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_long_columns_are_cut_and_read_back_as_they_were(tmp_path, dtype):
    """What threads compress is what HDF5 itself reads, chunk by chunk and to the bit, the last chunk being partly filled."""
    values = np.random.default_rng(0).normal(size=(10_000, 3)).astype(np.float32)
    with h5py.File(tmp_path / "long.h5", "w") as file, imputation._Writer(2) as writer:
        made = imputation._dataset(file, "X", (10_000, 4), dtype)
        assert made.chunks == (imputation.ROWS_PER_CHUNK, 1) and np.isnan(made[:2]).all()
        writer.write({"X": values[:, :2], "not asked for": values}, {"X": made}, np.array([2, 0]))
        writer.write({"X": values[:, 2:]}, {"X": made}, np.array([3]))
        assert np.isnan(made[:, 3]).all() and not np.isnan(made[:, 2]).any()  # compressed while the next block is made
        writer.flush()
    with h5py.File(tmp_path / "long.h5") as file:
        found = file["X"][:]
    np.testing.assert_array_equal(found[:, [2, 0, 3]], values.astype(dtype))
    assert np.isnan(found[:, 1]).all()


def test_only_the_layers_that_were_asked_for_are_written_as_the_type_asked_for(pair, trained, imputed, tmp_path):
    path = tmp_path / "small.h5ad"
    impute(*pair, trained[0], path, device="cpu", layers="counts, sd", dtype="float16")
    found = ad.read_h5ad(path)
    assert set(found.layers) == {"observed", "sd", "counts"} and found.X.dtype == np.float16 == found.layers["sd"].dtype
    np.testing.assert_allclose(found.X.astype(np.float32), imputed.X, rtol=5e-4, atol=1e-6)
    assert found.layers["counts"].dtype == np.float32  # a count may be larger than float16 can hold
    np.testing.assert_allclose(found.layers["counts"], imputed.layers["counts"], rtol=1e-5)
    assert list(found.var["reliability_class"]) == list(imputed.var["reliability_class"])
    impute(*pair, trained[0], path, device="cpu", layers="none")
    assert set(ad.read_h5ad(path).layers) == {"observed"}


def test_layers_and_types_that_do_not_exist_are_told(pair, trained, tmp_path):
    assert imputation.chosen_layers(None) == imputation.chosen_layers("") == ("sd", "lower", "upper")
    assert imputation.chosen_layers("upper,sd") == ("sd", "upper") and imputation.chosen_layers("none") == ()
    for wrong in ("sd,uper", "none,sd"):
        with pytest.raises(InputError, match="is no layer that can be written. Use some of sd, lower, upper, counts, or none alone"):
            imputation.chosen_layers(wrong)
    with pytest.raises(InputError, match="'float8' is no type that values can be written as. Use float32 or float16"):
        impute(*pair, trained[0], tmp_path / "x.h5ad", device="cpu", dtype="float8")
    assert not (tmp_path / "x.h5ad").exists()


def test_the_reference_is_made_ready_once(pair, trained, tmp_path, monkeypatch):
    made = []
    first = api.Reference.__init__
    monkeypatch.setattr(api.Reference, "__init__", lambda self, *rest: (made.append(1), first(self, *rest))[1])
    impute(*pair, trained[0], tmp_path / "x.h5ad", device="cpu")
    assert len(made) == 1


def test_progress_ends_with_all_genes_and_blocks_change_nothing(pair, trained, imputed, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(api, "BLOCK", 1)
    gate = imputation.SpaDiT.load
    monkeypatch.setattr(imputation.SpaDiT, "load", lambda *arguments: with_networks(gate(*arguments)))
    path = tmp_path / "blocks.h5ad"
    impute(*pair, trained[0], path, device="cpu", report=lambda done, total: told.append((done, total)))
    n = imputed.n_vars
    assert told == [(i + 1, n) for i in range(n)]
    monkeypatch.setattr(api, "BLOCK", 1 << 26)
    impute(*pair, trained[0], tmp_path / "at_once.h5ad", device="cpu", report=lambda done, total: told.append((done, total)))
    assert told[n:] == [(done, n) for done in np.cumsum([len(plan.imputes) for plan in plan_fits(pair[2])])]
    blocks, at_once = ad.read_h5ad(path), ad.read_h5ad(tmp_path / "at_once.h5ad")
    np.testing.assert_allclose(blocks.X, at_once.X, atol=1e-5)
    assert set(blocks.layers) == {"observed", "sd", "lower", "upper"}
    assert not np.allclose(at_once.X, imputed.X, atol=1e-3)


def with_networks(model):
    """The model with all its parts in use, whatever the gate said of so short a training."""
    model.blend = {"coarse": 0.8, "token": 0.5, "whole_slide": 0.3}
    return model


def test_a_slide_that_lacks_no_gene_needs_no_delivery(pair, tiny, trained, tmp_path):
    slide, reference, split = pair
    other = Split(**{name: getattr(split, name) for name in ("sample", "seed", "train", "validation", "test", "folds")}, unmeasured=[])
    for plan in plan_fits(other):
        shutil.copytree(trained[0] / plan.name, tmp_path / plan.name)
    impute(slide, reference, other, tmp_path, tmp_path / "imputed.h5ad", device="cpu")
    found = ad.read_h5ad(tmp_path / "imputed.h5ad")
    assert found.shape == (40, 23) and found.var["measured"].all() and not np.isnan(found.layers["observed"]).any()


def test_a_model_that_is_missing_is_told(pair, trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "fold_1")
    with pytest.raises(InputError, match="fold_1 does not hold a SpaDiT model"):
        impute(*pair, tmp_path / "model", tmp_path / "imputed.h5ad", device="cpu")


# ---- trained before --------------------------------------------------------------------------------------------------


def test_models_of_an_earlier_run_impute_the_same(pair, trained, imputed, tmp_path):
    slide, reference, split = pair
    reuse(trained[0], split, tmp_path / "model")
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == sorted(plan.name for plan in plan_fits(split))
    impute(slide, reference, split, tmp_path / "model", tmp_path / "again.h5ad", device="cpu")
    np.testing.assert_allclose(ad.read_h5ad(tmp_path / "again.h5ad").X, imputed.X, atol=1e-5)


def test_models_of_another_split_or_slide_are_refused(pair, trained, tmp_path):
    slide, reference, split = pair
    shared = split.train + split.validation + split.test
    with pytest.raises(InputError, match="'evaluation'.*saw other genes.*--seed, --split_ratio and --folds"):
        reuse(trained[0], split_genes(shared, split.unmeasured, folds=2, seed=6), tmp_path / "a")
    with pytest.raises(InputError, match="no model 'fold_2'.*the folder 'model' of a slide"):
        more = Split(split.sample, 5, split.train, split.validation, split.test, split.unmeasured, [*split.folds, split.folds[0][:1]])
        reuse(trained[0], more, tmp_path / "b")
    with pytest.raises(InputError, match="no model 'evaluation'"):
        reuse(tmp_path / "nowhere", split, tmp_path / "c")
    shutil.copytree(trained[0], tmp_path / "torn")
    for content in ("{", "{}"):
        (tmp_path / "torn" / "evaluation" / "model.json").write_text(content)
        with pytest.raises(InputError, match="no model 'evaluation'"):
            reuse(tmp_path / "torn", split, tmp_path / "d")
    other = slide.copy()
    other.layers["counts"].data[0] += 1  # the same names, other numbers: imputing tells
    reuse(trained[0], split, tmp_path / "e")
    with pytest.raises(InputError, match="fitted on other counts"):
        impute(other, reference, split, tmp_path / "e", tmp_path / "imputed.h5ad", device="cpu")
