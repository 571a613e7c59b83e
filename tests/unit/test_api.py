"""SpaDiT as a user meets it: fit, impute, save, load; and what must not matter doesn't."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from spadit.api import SpaDiT
from spadit.errors import InputError, SpaditError, TrainingError
from spadit.metrics import pcc
from spadit.preprocess import log_normalise

QUICK = {"width": 32, "depth": 1, "n_reduced": 8, "max_steps": 40, "n_models": 1, "n_draws": 2, "learning_rate": 3e-3}


@pytest.fixture(scope="module")
def pair(make_pair):
    return make_pair(n_spots=80, n_cells=90, n_genes=30, n_reference_genes=40)


@pytest.fixture(scope="module")
def model(pair):
    slide, reference, split = pair
    return SpaDiT(seed=0, device="cpu", **QUICK).fit(slide[:, split.train + split.validation], reference, split.validation)


def test_hidden_genes_beat_chance_and_lie_on_the_slides_scale(pair, model):
    slide, _, split = pair
    imputed = model.impute(split.test)
    truth = log_normalise(slide[model.spots].layers["counts"])[0].toarray()[:, slide.var_names.get_indexer(split.test)]
    assert list(imputed.columns) == split.test and list(imputed.index) == sorted(slide.obs_names)
    assert np.median(pcc(truth, imputed.to_numpy())) > 0.3
    assert (imputed.to_numpy() >= 0).all()
    assert imputed.to_numpy().mean() == pytest.approx(truth.mean(), rel=0.5)


def test_order_of_genes_spots_and_cells_does_not_matter(pair, model):
    slide, reference, split = pair
    rng = np.random.default_rng(0)
    known = slide[:, split.train + split.validation]
    shuffled = known[rng.permutation(known.n_obs), rng.permutation(known.n_vars)]
    other = reference[rng.permutation(reference.n_obs), rng.permutation(reference.n_vars)]
    again = SpaDiT(seed=0, device="cpu", **QUICK).fit(shuffled, other, split.validation)
    pd.testing.assert_frame_equal(again.impute(split.test), model.impute(split.test), rtol=1e-4, atol=1e-5)


def test_saved_and_loaded_it_imputes_the_same(pair, model, tmp_path):
    _, reference, split = pair
    model.save(tmp_path / "model")
    loaded = SpaDiT.load(tmp_path / "model", reference, device="cpu")
    genes = split.test + split.unmeasured
    for before, after in zip(model._fit.networks, loaded._fit.networks, strict=True):
        after = after.state_dict()
        assert all(torch.equal(part, after[name]) for name, part in before.state_dict().items())
    # where arrays lie in memory decides how a float32 sum is rounded
    pd.testing.assert_frame_equal(loaded.impute(genes), model.impute(genes), rtol=1e-4, atol=1e-5)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.json", "weights.safetensors"]


def test_a_torn_or_foreign_model_is_refused(pair, model, tmp_path):
    _, reference, _ = pair
    model.save(tmp_path)
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(InputError, match="does not match its checksum"):
        SpaDiT.load(tmp_path, reference)
    content = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(content | {"version": 99}))
    with pytest.raises(InputError, match="another kind or version"):
        SpaDiT.load(tmp_path, reference)
    with pytest.raises(InputError, match="does not hold a SpaDiT model"):
        SpaDiT.load(tmp_path / "nowhere")


def test_another_reference_than_the_models_is_refused(model, make_reference, intermediate, tmp_path):
    model.save(tmp_path)
    with pytest.raises(InputError, match="cells that the model was trained with are not in this reference"):
        SpaDiT.load(tmp_path, intermediate(make_reference(n_cells=20), "reference"))


def test_misuse_is_told_with_the_remedy(pair, model):
    slide, reference, _ = pair
    with pytest.raises(SpaditError, match="Unknown preset 'fats'.*default, paper"):
        SpaDiT("fats")
    with pytest.raises(SpaditError, match="Unknown settings: widht.*width"):
        SpaDiT(widht=3)
    with pytest.raises(TrainingError, match="isn't trained"):
        SpaDiT().impute(["Gene1"])
    with pytest.raises(InputError, match="1 genes are not in the reference, e.g. Nope"):
        model.impute(["Nope"])
    with pytest.raises(TrainingError, match="share 1 genes"):
        SpaDiT(device="cpu").fit(slide[:, :1], reference)
    with pytest.raises(SpaditError, match="Unknown device 'tpu'"):
        SpaDiT(device="tpu")


def test_a_gpu_that_is_not_there_is_said_so():
    if torch.cuda.is_available():
        assert SpaDiT(device="auto").device == "cuda"
    else:
        with pytest.raises(SpaditError, match="torch finds none it can use.*--device auto"):
            SpaDiT(device="cuda")


def test_constant_and_all_zero_genes_and_a_spot_without_counts_do_no_harm(pair):
    slide, reference, split = pair
    slide = slide[:, split.train + split.validation].copy()
    counts = slide.layers["counts"].toarray()
    counts[:, 0], counts[:, 1], counts[3] = 0, 1, 0
    slide.layers["counts"][:] = counts
    imputed = SpaDiT(device="cpu", **{**QUICK, "max_steps": 10}).fit(slide, reference, n_steps=10).impute(split.test)
    assert np.isfinite(imputed.to_numpy()).all()
