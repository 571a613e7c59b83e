"""SpaDiT as a user meets it: fit, impute, save, load; what must not matter doesn't, and odd slides give numbers or a clear error."""

import dataclasses
import json

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from spadit import api
from spadit.api import FACTS, SpaDiT, choose_blend
from spadit.errors import InputError, SpaditError, TrainingError
from spadit.metrics import pcc
from spadit.settings import PRESETS
from spadit.uncertainty import CLASSES

BLEND = {"coarse": 0.8, "token": 0.5, "whole_slide": 0.3}


@pytest.fixture(scope="module")
def pair(make_pair):
    slide, reference, split = make_pair(n_spots=80, n_cells=90, n_genes=30, n_reference_genes=36)
    order = np.random.default_rng(3).permutation(slide.n_obs)  # names in no order
    return slide[order].copy(), reference, split


@pytest.fixture(scope="module")
def visible(pair):
    slide, _, split = pair
    return slide[:, split.train + split.validation].copy()


@pytest.fixture(scope="module")
def truth(pair, visible):
    """The test genes as measured, log-normalised by the visible genes."""
    counts, totals = pair[0][:, pair[2].test].layers["counts"].toarray(), np.asarray(visible.layers["counts"].sum(1))
    return np.log1p(counts / totals * np.median(totals))


@pytest.fixture(scope="module")
def fit(pair, visible, tiny):
    """``fit(slide, reference, preset, arguments of fit, **settings)``, all with a default."""

    def build(slide=None, reference=None, preset="default", arguments=(), **settings):
        model = SpaDiT(preset, seed=0, device="cpu", **{**tiny, **settings})
        return model.fit(visible if slide is None else slide, pair[1] if reference is None else reference, **dict(arguments))

    return build


@pytest.fixture(scope="module")
def model(fit):
    """A model that imputes with all of its parts, whatever the gate said of so short a training."""
    model = fit()
    model.blend = dict(BLEND)
    return model


def networks(model):
    return {f"{name}.{i}.{key}": part for name, f in model._fitted.items() for i, network in enumerate(f.networks)
            for key, part in network.state_dict().items()}  # fmt: skip


def assert_same_networks(a, b):
    a, b = networks(a), networks(b)
    assert list(a) == list(b) and all(torch.equal(part, b[name]) for name, part in a.items())


def assert_close(a, b, atol=1e-4):
    assert list(a.obs_names) == list(b.obs_names) and list(a.var_names) == list(b.var_names) and set(a.layers) == set(b.layers)
    np.testing.assert_allclose(a.X, b.X, atol=atol)
    for name in a.layers:
        np.testing.assert_allclose(a.layers[name], b.layers[name], atol=atol, err_msg=name)
    np.testing.assert_allclose(a.var["reliability"], b.var["reliability"], atol=atol)
    assert list(a.var["reliability_class"]) == list(b.var["reliability_class"])


# ---- what is imputed -------------------------------------------------------------------------------------------------


def test_hidden_genes_beat_chance_and_lie_on_the_slides_scale(pair, truth, fit):
    imputed = fit().impute(pair[2].test)
    assert np.median(pcc(truth, imputed.X)) > 0.5
    shuffled = truth[np.random.default_rng(0).permutation(len(truth))]
    assert np.median(pcc(shuffled, imputed.X)) < 0.3
    np.testing.assert_allclose(imputed.X.mean(), truth.mean(), rtol=0.5)
    inside = (truth >= imputed.layers["lower"]) & (truth <= imputed.layers["upper"])
    assert inside.mean() > 0.6  # 3 genes: tests/unit/test_uncertainty.py has the 90 %


def test_the_result_is_an_anndata_in_the_slides_order(pair, visible, model):
    slide, _, split = pair
    genes = [split.unmeasured[1], *split.test, split.unmeasured[0]]
    imputed = model.impute(genes)
    assert list(imputed.obs_names) == list(slide.obs_names) != sorted(slide.obs_names) and list(imputed.var_names) == genes
    np.testing.assert_array_equal(imputed.obsm["spatial"], slide.obsm["spatial"])
    assert set(imputed.layers) == {"sd", "lower", "upper"} and imputed.X.dtype == np.float32
    assert list(imputed.var) == ["reliability", "reliability_class", "reliability_why"]
    assert imputed.var["reliability_why"].str.len().gt(10).all()
    assert imputed.var["reliability"].between(-1, 1).all() and set(imputed.var["reliability_class"]) <= set(CLASSES)
    lower, upper, sd = (imputed.layers[name] for name in ("lower", "upper", "sd"))
    assert (lower >= 0).all() and (lower <= imputed.X).all() and (imputed.X < upper).all() and (sd > 0).all()
    np.testing.assert_allclose(upper - imputed.X, (upper - imputed.X)[:1].repeat(len(upper), 0), atol=1e-5)  # one width a gene
    assert model.impute([]).shape == (80, 0)


def test_draws_are_samples_around_the_values_with_the_expected_error(pair, model):
    genes = pair[2].unmeasured
    imputed = model.impute(genes, draws=3)
    assert set(imputed.layers) == {"sd", "lower", "upper", "draw_1", "draw_2", "draw_3"}
    plain = model.impute(genes)
    np.testing.assert_array_equal(plain.X, imputed.X)
    draws = np.array([imputed.layers[f"draw_{i}"] for i in (1, 2, 3)])
    assert (draws >= 0).all() and not np.allclose(draws[0], draws[1], atol=1e-3)
    free = (imputed.X > 4 * imputed.layers["sd"]).all(0)  # genes whose draws aren't cut at 0
    errors = np.sqrt(((draws - imputed.X) ** 2).mean(1))
    np.testing.assert_allclose(errors[:, free], np.tile(imputed.layers["sd"][0, free], (3, 1)), rtol=1e-2)
    assert (errors <= imputed.layers["sd"][0] * 1.01).all() and (errors > 0).all()
    np.testing.assert_array_equal(model.impute(genes, draws=1).layers["draw_1"], draws[0])
    alone = model.impute(genes[2:3], draws=1).layers["draw_1"]  # a gene's draws don't depend on what else is imputed
    np.testing.assert_allclose(alone, draws[0][:, 2:3], atol=1e-3)


def test_counts_are_brought_back_to_the_spots_total(pair, visible, model):
    imputed = model.impute(pair[2].test, counts=True)
    totals = np.asarray(visible.layers["counts"].sum(1)).ravel()
    expected = np.expm1(imputed.X.astype(float)) * (totals / np.median(totals))[:, None]
    np.testing.assert_allclose(imputed.layers["counts"], expected, rtol=1e-4)
    assert set(imputed.layers) == {"sd", "lower", "upper", "counts"}


def test_genes_imputed_in_blocks_or_alone_are_the_same(pair, model, monkeypatch):
    genes = pair[2].unmeasured + pair[2].test
    at_once = model.impute(genes)
    assert_close(model.impute(genes[2:4]), at_once[:, genes[2:4]], 1e-5)
    monkeypatch.setattr(api, "BLOCK", 1)
    assert len(list(model.impute_blocks(genes))) == len(genes)
    assert_close(model.impute(genes), at_once, 1e-5)


def test_the_token_network_is_given_hidden_genes_as_it_was_given_visible_ones(pair, fit, monkeypatch):
    given = []
    for name in ("data", "impute"):
        method = getattr(api.Token, name)
        monkeypatch.setattr(api.Token, name, lambda mode, *rest, method=method: given.append(rest) or method(mode, *rest))
    model = fit()
    model.blend = dict(BLEND)
    imputed = model.impute(pair[2].test)
    ((_, base, learned, learned_scalars, *_), (_, maps, scalars)) = given
    np.testing.assert_allclose(learned[:, :, -1], base)
    model.blend = {"coarse": 1.0}
    coarse_alone = model.impute(pair[2].test)
    assert pcc(maps[model._given_order][:, :, -1], coarse_alone.X).min() > 0.9  # the coarse condition, but for what is cut at 0
    assert imputed.shape == coarse_alone.shape and not np.allclose(imputed.X, coarse_alone.X, atol=1e-3)
    own = ~api.coarse.SHARED_SCALE
    for some in (learned, maps):
        spread = some[:, :, :-1][:, :, own].std(0)
        np.testing.assert_allclose(spread[spread > 0.1], 1, rtol=1e-3)
        assert (spread > 0.1).mean() > 0.9
    assert np.abs(learned_scalars).max() <= 3 and np.abs(scalars).max() <= 3
    np.testing.assert_allclose(learned_scalars.mean(0), 0, atol=0.3)
    facts = model.reference.statistics.loc[pair[2].test, "detected"].to_numpy()
    i = api.coarse.SCALARS.index("detection")
    expected = np.clip((facts - model._stack.centre[i]) / model._stack.spread[i], -3, 3)
    np.testing.assert_allclose(scalars[:, i], expected, atol=1e-6)


def test_slides_that_are_learned_from_in_part_are_imputed_in_whole(pair, fit):
    model = fit(max_spots=32)
    model.blend = dict(BLEND)
    imputed = model.impute(pair[2].test, draws=1)
    assert imputed.n_obs == 80 and np.isfinite(imputed.X).all() and np.isfinite(imputed.layers["draw_1"]).all()
    for name in ("token", "whole_slide"):
        assert len(model._fitted[name].crossfitted) in (16, 32)  # a window; the slide has one of 16 spots
    tight = fit(max_entries=1)  # memory for a window only
    assert len(tight._fitted["token"].crossfitted) in (16, 32)
    assert set(fit(max_whole_spots=79)._fitted) == {"token"} and set(fit(max_whole_spots=80)._fitted) == {"token", "whole_slide"}


# ---- what must not matter --------------------------------------------------------------------------------------------


def test_order_of_genes_spots_and_cells_does_not_matter(pair, visible, model, fit):
    _, reference, split = pair
    rng = np.random.default_rng(0)
    shuffled = visible[rng.permutation(visible.n_obs), rng.permutation(visible.n_vars)].copy()
    other = reference[rng.permutation(reference.n_obs), rng.permutation(reference.n_vars)].copy()
    again = fit(shuffled, other)
    for name, part in networks(again).items():  # where arrays lie in memory decides how a float32 sum is rounded
        assert torch.allclose(part, networks(model)[name], atol=1e-4)
    again.blend = dict(BLEND)
    imputed = again.impute(split.test, draws=1)
    assert list(imputed.obs_names) == list(shuffled.obs_names)
    assert_close(imputed[visible.obs_names], model.impute(split.test, draws=1))


def test_the_unit_of_the_coordinates_does_not_matter(pair, visible, model, fit):
    """Pixels, positions of a chip or micrometres from any origin: only who lies near whom is used, and the place within the slide."""
    other = visible.copy()
    other.obsm["spatial"] = visible.obsm["spatial"] / 0.2125 + 5000.0
    again = fit(other)
    for name, part in networks(again).items():
        assert torch.allclose(part, networks(model)[name], atol=1e-4)
    again.blend = dict(BLEND)
    assert_close(again.impute(pair[2].test, draws=1), model.impute(pair[2].test, draws=1))


@pytest.mark.parametrize("neighbours", [True, False])
def test_where_spots_lie_matters_where_neighbours_take_part(pair, visible, fit, neighbours):
    moved = visible.copy()
    moved.obsm["spatial"] = visible.obsm["spatial"][::-1].copy()
    moved.obsm["spatial"][:, 0] **= 2
    values = []
    for slide in (visible, moved):
        found = fit(slide, neighbours=neighbours)
        found.blend = dict(BLEND)
        values.append(found.impute(pair[2].test).X)
    assert np.array_equal(*values) != neighbours


def test_genes_of_the_slide_that_the_reference_lacks_do_not_matter(pair, visible, model, fit):
    _, reference, split = pair
    less = reference[:, [gene for gene in reference.var_names if gene not in visible.var_names[:3]]].copy()
    assert fit(visible, less, arguments={"n_steps": 1}).genes == sorted(visible.var_names[3:])


def test_seed_is_all_that_is_random(visible, model, fit, pair, tiny):
    torch.manual_seed(99)
    np.random.seed(99)
    assert_same_networks(fit(), model)
    other = SpaDiT(seed=1, device="cpu", **tiny).fit(visible, pair[1])
    assert not any(torch.equal(a, networks(other)[name]) for name, a in networks(model).items() if name.endswith("embedding.weight"))


# ---- presets and the gate --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("preset", "modes"), [("default", {"token", "whole_slide"}), ("fast", {"token"}), ("paper", {"whole_slide"})])
def test_presets_fit_and_impute(pair, fit, preset, modes):
    model = fit(preset=preset)
    imputed = model.impute(pair[2].test)
    assert set(model._fitted) == modes and np.isfinite(imputed.X).all()
    assert set(model.blend) <= modes | {"coarse"} and (preset == "paper") == ("coarse" not in model.blend)
    facts = model.facts
    assert set(facts["best_step"]) == modes and facts["n_visible"] == 27 and -1 <= facts["validation_pcc"] <= 1
    assert facts["n_weights"] == sum(part.numel() for part in networks(model).values())
    assert set(facts["seconds_per_part"]) == modes | {"coarse", "trust", "total"}
    assert set(model.curve["mode"]) == modes and {"choose", "final"} == set(model.curve["stage"])


def test_presets_are_what_they_are_named_for():
    default, fast, accurate, paper = (PRESETS[name] for name in ("default", "fast", "accurate", "paper"))
    for name in ("max_steps", "n_models", "max_spots", "max_cells", "network_folds", "inner_folds"):
        assert getattr(fast, name) <= getattr(default, name) <= getattr(accurate, name)
    assert fast != default != accurate and set(accurate.modes) == {"token", "whole_slide"}
    # as released: batch 64, hidden 256, depth 16, heads 16, 10 steps, cosine, 1e-4, masks 0.3 and 0.1; predicts noise
    assert (paper.batch_size, paper.width, paper.depth, paper.n_heads, paper.n_diffusion_steps) == (64, 256, 16, 16, 10)
    assert (paper.schedule, paper.learning_rate, paper.mask_nonzero, paper.mask_zero) == ("cosine", 1e-4, 0.3, 0.1)
    assert (paper.target, paper.sampler, paper.modes, paper.coarse) == ("epsilon", "ddpm", ("whole_slide",), False)


def test_settings_reach_the_trainer():
    changes = {"learning_rate": 1.0, "token_learning_rate": 2.0, "batch_size": 3, "token_batch_size": 4, "ema": 0.5}
    settings = dataclasses.replace(PRESETS["default"], **changes)
    token, whole = settings.training("token"), settings.training("whole_slide")
    assert (token.learning_rate, token.batch_size, whole.learning_rate, whole.batch_size) == (2.0, 4, 1.0, 3)
    assert token.ema == whole.ema == 0.5 and token.patience == settings.patience and token.target == settings.target


def test_the_paper_preset_says_what_the_whole_slide_network_says(pair, fit):
    model = fit(preset="paper")
    assert model.blend == {"whole_slide": 1.0}
    imputed = model.impute(pair[2].test)
    model._stack.weights[:] = 1e6  # the coarse condition plays no part
    np.testing.assert_array_equal(model.impute(pair[2].test).X, imputed.X)


def parts_of(n_spots=60, n_genes=40, seed=0):
    rng = np.random.default_rng(seed)
    parts = {name: rng.normal(size=(n_spots, n_genes)).astype(np.float32) for name in ("coarse", "token", "whole_slide")}
    return parts, 0.3 * rng.normal(size=(n_spots, n_genes))


def test_the_gate_takes_what_adds_with_its_weight():
    parts, noise = parts_of()
    y = 0.9 * parts["coarse"] + 0.5 * parts["token"] + 0.2 * parts["whole_slide"] + noise
    blend = choose_blend(parts, y, 0)
    assert set(blend) == set(parts)
    assert list(blend.values()) == pytest.approx([0.9, 0.5, 0.2], abs=0.03)
    y = 0.9 * parts["coarse"] + 0.2 * parts["whole_slide"] + noise
    blend = choose_blend(parts, y, 0)
    assert blend["whole_slide"] == pytest.approx(0.2, abs=0.03) and blend.get("token", 0) < 0.03


def test_the_gate_refuses_what_adds_nothing():
    refused = 0
    for seed in range(10):
        parts, noise = parts_of(seed=seed)
        blend = choose_blend(parts, 0.9 * parts["coarse"] + noise, seed)
        assert max(blend.get("token", 0), blend.get("whole_slide", 0)) < 0.03
        refused += blend == {"coarse": 1.0}
    assert refused >= 5


def test_the_gate_refuses_what_would_have_to_be_taken_away_and_what_is_empty():
    parts, noise = parts_of()
    y = 0.9 * parts["coarse"] - 0.5 * parts["token"] + noise
    assert "token" not in choose_blend(parts, y, 0)
    assert choose_blend({name: parts[name] for name in ("coarse", "token")}, y, 0) == {"coarse": 1.0}
    y = y + 0.5 * parts["whole_slide"]  # beside one that helps it is refused alone
    blend = choose_blend(parts, y, 0)
    assert set(blend) == {"coarse", "whole_slide"} and blend["whole_slide"] == pytest.approx(0.5, abs=0.05)
    zero = {"coarse": parts["coarse"], "token": np.zeros_like(noise, dtype=np.float32)}  # as of too few genes to train in folds
    assert choose_blend(zero, 0.9 * parts["coarse"], 0) == {"coarse": 1.0}
    assert choose_blend({"coarse": parts["coarse"]}, y, 0) == {"coarse": 1.0}


def test_the_gate_is_cross_validated_over_genes():
    """A part that is right for one gene and wrong for the others fits well, and helps no gene that the weights were not fitted on."""
    parts, noise = parts_of(n_genes=10)
    parts = {name: parts[name] for name in ("coarse", "token")}
    y = 0.9 * parts["coarse"] + noise
    parts["token"] *= 0.5
    y[:, 4] += parts["token"][:, 4] * 4
    parts["token"][:, 4] *= 4
    both = np.stack([part.ravel() for part in parts.values()], 1)
    assert np.linalg.lstsq(both, y.ravel(), rcond=None)[0][1] > 0.5  # what least squares over all genes would give it
    assert choose_blend(parts, y, 0) == {"coarse": 1.0}


# ---- saving, loading, starting from ----------------------------------------------------------------------------------


def test_saved_and_loaded_it_imputes_the_same(pair, visible, model, tmp_path):
    slide, reference, split = pair
    model.save(tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.json", "weights.safetensors"]
    genes = split.test + split.unmeasured
    expected = model.impute(genes, draws=1, counts=True)
    loaded = SpaDiT.load(tmp_path / "model", visible, reference, device="cpu")
    assert_same_networks(loaded, model)
    assert_close(loaded.impute(genes, draws=1, counts=True), expected, 1e-5)
    assert loaded.settings == model.settings and loaded.facts == model.facts and loaded.curve.empty
    # genes that the model didn't see and another order are no other slide
    rng = np.random.default_rng(1)
    shuffled = slide[rng.permutation(80), rng.permutation(slide.n_vars)]
    imputed = SpaDiT.load(tmp_path / "model", shuffled, reference[rng.permutation(90)], device="cpu").impute(genes, draws=1, counts=True)
    assert list(imputed.obs_names) == list(shuffled.obs_names)
    assert_close(imputed[visible.obs_names], expected)
    loaded.save(tmp_path / "again")
    for name in ("weights.safetensors", "model.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()


def test_a_torn_or_foreign_model_is_refused(pair, visible, model, tmp_path):
    reference = pair[1]
    model.save(tmp_path)
    weights, content = tmp_path / "weights.safetensors", json.loads((tmp_path / "model.json").read_text())
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(InputError, match="does not match its checksum"):
        SpaDiT.load(tmp_path, visible, reference)
    for other in ({"version": 99}, {"kind": "split"}):
        (tmp_path / "model.json").write_text(json.dumps(content | other))
        with pytest.raises(InputError, match="another kind or version"):
            SpaDiT.load(tmp_path, visible, reference)
    (tmp_path / "model.json").write_text('{"kind": ')
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="does not hold a SpaDiT model"):
            SpaDiT.load(folder, visible, reference)


def test_another_slide_or_reference_is_refused(pair, visible, model, make_reference, intermediate, tmp_path):
    reference = pair[1]
    model.save(tmp_path)
    with pytest.raises(InputError, match="cells that the model was trained with are not in this reference"):
        SpaDiT.load(tmp_path, visible, intermediate(make_reference(n_cells=20), "reference"))
    for other in (visible[:, 1:], visible[1:]):
        with pytest.raises(InputError, match="fitted on another slide"):
            SpaDiT.load(tmp_path, other, reference)
    other = visible.copy()
    other.layers["counts"].data[0] += 1
    with pytest.raises(InputError, match="fitted on other counts.*train again"):
        SpaDiT.load(tmp_path, other, reference)
    with pytest.raises(InputError, match="fitted on other counts"):
        SpaDiT.load(tmp_path, visible, reference[:, reference.var_names != visible.var_names[0]])


def test_training_starts_from_another_slides_token_network(model, fit, make_slide, intermediate, tmp_path):
    model.save(tmp_path / "model")
    other = intermediate(make_slide(n_spots=50, n_genes=24, seed=7), "slide")
    begun = {"start": tmp_path / "model", "n_steps": 1}
    started = fit(other, arguments=begun, token_learning_rate=1e-12)
    first = model._fitted["token"].networks[0].state_dict()
    fresh = started._mode("token").build(0).state_dict()
    for name, part in started._fitted["token"].networks[0].state_dict().items():
        assert torch.allclose(part, first[name], atol=1e-6)
    assert not all(torch.equal(first[name], part) for name, part in fresh.items())
    for settings in ({"token_width": 32}, {"token_depth": 2}, {"n_heads": 4}, {"backbone": "unet"}):
        with pytest.raises(InputError, match="no token network of this shape.*same settings"):
            fit(other, arguments=begun, **settings)
    fit(other, arguments={"n_steps": 1}, modes=("whole_slide",)).save(tmp_path / "whole")
    with pytest.raises(InputError, match="no token network"):
        fit(other, arguments={"start": tmp_path / "whole"})
    with pytest.raises(InputError, match="does not hold a SpaDiT model"):
        fit(other, arguments={"start": tmp_path / "nowhere"})


def test_a_number_of_steps_can_be_given(fit):
    model = fit(arguments={"n_steps": 7})
    assert model.facts["best_step"] == {"token": 7, "whole_slide": 7}
    final = model.curve[model.curve["stage"] == "final"]
    assert final.groupby("mode")["step"].max().to_dict() == {"token": 7, "whole_slide": 7}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", [("token", "choose", 1, 5), ("whole_slide", "final", 0, 5)])
def test_a_killed_training_goes_on_from_its_checkpoint(pair, model, fit, tmp_path, moment):
    def until(entry):
        if (entry["mode"], entry["stage"], entry["network"], entry["step"]) == moment:
            raise Killed

    with pytest.raises(Killed):
        fit(arguments={"checkpoint": tmp_path, "report": until}, validate_every=5, checkpoint_every=2)
    told = []
    again = fit(arguments={"checkpoint": tmp_path, "report": told.append}, validate_every=5, checkpoint_every=2)
    assert (told[0]["mode"], told[0]["stage"], told[0]["network"], told[0]["step"]) == moment  # all before it was there
    uninterrupted = fit(checkpoint_every=2)
    assert_same_networks(again, uninterrupted)
    assert again.blend == uninterrupted.blend and again.curve.equals(uninterrupted.curve)
    again.blend = uninterrupted.blend = dict(BLEND)
    np.testing.assert_array_equal(again.impute(pair[2].test).X, uninterrupted.impute(pair[2].test).X)


# ---- misuse ----------------------------------------------------------------------------------------------------------


def test_misuse_is_told_with_the_remedy(pair, visible, model, fit):
    reference = pair[1]
    with pytest.raises(SpaditError, match="Unknown preset 'fats'.*default, fast, accurate, paper"):
        SpaDiT("fats")
    with pytest.raises(SpaditError, match="Unknown settings: widht.*width"):
        SpaDiT(widht=3)
    with pytest.raises(SpaditError, match="Unknown modes: graph.*token, whole_slide"):
        SpaDiT(modes=("graph", "token"))
    with pytest.raises(SpaditError, match="Only the whole-slide mode can do without.*modes="):
        SpaDiT(coarse=False)
    with pytest.raises(SpaditError, match="Unknown device 'tpu'.*auto, cpu or cuda"):
        SpaDiT(device="tpu")
    with pytest.raises(TrainingError, match=r"isn't trained.*fit\(\) or load\(\)"):
        SpaDiT().impute(["Gene1"])
    with pytest.raises(InputError, match="1 genes are not in the reference, e.g. Nope"):
        model.impute(["Nope"])
    with pytest.raises(InputError, match=f"1 genes are visible to this model, e.g. {visible.var_names[0]}.*Leave them out"):
        model.impute([pair[2].test[0], visible.var_names[0]])
    with pytest.raises(SpaditError, match="Draws come from the token mode.*modes="):
        fit(modes=("whole_slide",), arguments={"n_steps": 1}).impute(pair[2].test, draws=1)
    for n in (0, 1):
        with pytest.raises(TrainingError, match=f"share {n} genes; at least 2"):
            fit(visible[:, :n])
    with pytest.raises(TrainingError, match="share 0 genes"):
        fit(reference=reference[:, [gene for gene in reference.var_names if gene not in visible.var_names]])


def test_a_gpu_that_is_not_there_is_said_so():
    if torch.cuda.is_available():
        assert SpaDiT(device="auto").device == "cuda"
    else:
        assert SpaDiT(device="auto").device == "cpu"
        with pytest.raises(SpaditError, match="torch finds none it can use.*--device auto"):
            SpaDiT(device="cuda")


@pytest.mark.parametrize("setting", ["learning_rate", "token_learning_rate"])
def test_a_training_that_runs_away_is_an_error(fit, setting):
    with pytest.raises(TrainingError, match="no longer a number.*Lower the learning rate"):
        fit(**{setting: 1e30})


# ---- odd slides ------------------------------------------------------------------------------------------------------


def assert_numbers(imputed):
    assert np.isfinite(imputed.X).all() and all(np.isfinite(imputed.layers[name]).all() for name in imputed.layers)
    assert np.isfinite(imputed.var["reliability"]).all() and set(imputed.var["reliability_class"]) <= set(CLASSES)


def with_counts(visible, change):
    slide = visible.copy()
    counts = slide.layers["counts"].toarray()
    change(counts)
    slide.layers["counts"] = sp.csr_matrix(counts)
    return slide


def test_constant_and_all_zero_genes_and_a_spot_without_counts_do_no_harm(pair, truth, visible, fit):
    def change(counts):
        counts[:, 0], counts[:, 1], counts[3] = 0, 1, 0

    model = fit(with_counts(visible, change))
    model.blend = dict(BLEND)
    imputed = model.impute(pair[2].test, draws=1, counts=True)
    assert_numbers(imputed)
    assert np.median(pcc(np.delete(truth, 3, 0), np.delete(imputed.X, 3, 0))) > 0.5
    assert not imputed.layers["counts"][3].any()  # a spot without counts has none of hidden genes


@pytest.mark.parametrize("level", [0, 2])
def test_a_slide_where_nothing_varies_gives_numbers_that_say_nothing(pair, visible, fit, level):
    imputed = fit(with_counts(visible, lambda counts: counts.fill(level))).impute(pair[2].test)
    assert_numbers(imputed)
    assert np.abs(imputed.X - imputed.X[0]).max() < 1e-5
    assert set(imputed.var["reliability_class"]) == {"do not use"}


@pytest.mark.parametrize("n_genes", [2, 3, 38])  # 38: more than are decomposed in full
@pytest.mark.parametrize("n_spots", [1, 2, 5])
def test_few_spots_and_few_genes_give_numbers(make_slide, make_reference, intermediate, fit, n_spots, n_genes):
    slide, reference = intermediate(make_slide(n_spots, n_genes), "slide"), intermediate(make_reference(60, 40), "reference")
    model = fit(slide, reference, arguments={"n_steps": 2})
    imputed = model.impute(["Gene38", "Gene39"], draws=1)
    assert imputed.shape == (n_spots, 2)
    assert_numbers(imputed)


def test_two_visible_genes_are_enough_and_their_networks_are_not_used(pair, visible, fit):
    model = fit(visible[:, :2])
    assert model.blend == {"coarse": 1.0}  # there were no genes to see what networks are worth
    assert_numbers(model.impute(pair[2].test))


def test_a_gene_without_counts_in_the_reference_is_not_called_reliable(pair, fit):
    _, reference, split = pair
    reference = reference.copy()
    counts = reference.layers["counts"].toarray()
    counts[:, reference.var_names.get_loc(split.test[0])] = 0
    reference.layers["counts"] = sp.csr_matrix(counts)
    model = fit(reference=reference)
    imputed = model.impute(split.test)
    assert_numbers(imputed)
    others = imputed.var["reliability"].drop(split.test[0])
    assert imputed.var["reliability"].iloc[0] < others.min() and list(model.crossfitted_facts) == [*FACTS, "pcc"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"backbone": "resnet"}, "Unknown backbone 'resnet'.*dit, transformer, unet, mamba"),
        ({"condition": "cnn"}, "Unknown condition"),
        ({"target": "x1"}, "Unknown target"),
        ({"sampler": "euler"}, "Unknown sampler"),
        ({"schedule": "sigmoid"}, "Unknown schedule"),
        ({"width": 90}, r"width \(90\) is not a multiple of n_heads"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_any_work(settings, said):
    with pytest.raises(SpaditError, match=said):
        SpaDiT(**settings)


def test_a_start_needs_the_token_mode(make_pair):
    slide, reference, _ = make_pair()
    with pytest.raises(SpaditError, match="token network"):
        SpaDiT(modes=("whole_slide",)).fit(slide, reference, start="somewhere")
