"""What a slide is expected to need: the formulas, and what is said before the work starts."""

import dataclasses
import logging

import pytest

from spadit import api, coarse, resources
from spadit.contracts import Resources
from spadit.errors import SpaditError
from spadit.imputation import plan_fits
from spadit.resources import CONSTANTS, Sizes, check_room, needs, room_for_training, sizes_of, terms, workers_that_fit
from spadit.settings import PRESETS

SMALL = Sizes(n_spots=1000, n_cells=1000, n_shared=100, n_unmeasured=200, n_counts=60_000)
AMOUNTS = [field.name for field in dataclasses.fields(Resources) if field.name.endswith(("_gib", "_minutes"))]


def test_constants_of_other_modules_are_the_same():
    assert len(coarse.MAPS) == resources.N_MAPS and api.BLOCK == resources.BLOCK


def test_every_term_has_a_constant():
    for preset in PRESETS.values():
        for name, found in terms(SMALL, preset).items():
            assert not found or set(found) == set(CONSTANTS[name])


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("what", ["n_spots", "n_cells", "n_shared", "n_unmeasured", "n_counts"])
def test_a_larger_slide_never_needs_less(preset, what):
    """Except for what the whole-slide mode takes, which large slides do without."""
    before = needs(SMALL, preset=preset)
    for factor in (2, 5):
        after = needs(dataclasses.replace(SMALL, **{what: factor * getattr(SMALL, what)}), preset=preset)
        assert all(getattr(after, name) >= getattr(before, name) for name in AMOUNTS)
        before = after


def test_memory_of_a_fit_is_bounded_by_the_settings_but_for_the_slide_itself():
    """Ten times the spots: far less than ten times the memory."""
    sizes = dataclasses.replace(SMALL, n_spots=20_000, n_counts=10**6)
    larger = dataclasses.replace(sizes, n_spots=200_000, n_counts=10**7)
    assert needs(larger).fit_gib < 8 * needs(sizes).fit_gib


def test_fewer_steps_take_less_time_and_fast_less_memory():
    assert needs(SMALL, max_steps=2, n_models=1).fit_minutes < needs(SMALL).fit_minutes
    large = dataclasses.replace(SMALL, n_spots=5000, n_shared=1000)
    assert needs(large, preset="fast").fit_gib == needs(large).fast_gib < needs(large, preset="accurate").fit_gib


def test_estimates_are_rounded_to_two_digits():
    assert [resources._up(x) for x in (0, 0.0123, 1.21, 99.4, 1234)] == [0, 0.013, 1.3, 100, 1300]


def test_sizes_are_read_from_the_files_of_pair(make_pair, tmp_path):
    slide, reference, split = make_pair()
    for data, name in ((slide, "slide"), (reference, "reference")):
        data.write_h5ad(tmp_path / f"{name}.h5ad")
    found = sizes_of(tmp_path / "slide.h5ad", tmp_path / "reference.h5ad", split)
    assert (found.n_spots, found.n_cells) == (slide.n_obs, reference.n_obs)
    assert (found.n_shared, found.n_unmeasured) == (int(slide.var["shared"].sum()), len(split.unmeasured))
    assert found.n_counts == slide.layers["counts"].nnz + reference.layers["counts"].nnz and found.n_fits == len(plan_fits(split))


def expected(tmp_path, **changed):
    found = dataclasses.replace(needs(SMALL, "s"), n_fits=7, fit_gib=4.0, fast_gib=2.0, impute_gib=3.0, disk_gib=1.0, **changed)
    found.to_json(tmp_path / "resources.json")
    return tmp_path / "resources.json"


@pytest.mark.parametrize(("memory", "workers"), [(100, 6), (21, 4), (9, 1), (3, 1)])
def test_as_many_models_are_trained_at_once_as_fit(tmp_path, memory, workers):
    assert room_for_training(expected(tmp_path), 6, memory, 50) == workers


def test_a_slide_that_does_not_fit_is_refused_with_the_remedy(tmp_path, caplog):
    with pytest.raises(
        SpaditError, match="s: training is expected to need 4.0 GiB of memory, and 2.6 GiB are there.*more memory, or --preset fast"
    ):
        room_for_training(expected(tmp_path), 6, 2.6, 50)
    with pytest.raises(SpaditError) as refused:
        room_for_training(expected(tmp_path), 6, 1.5, 50)
    assert "--preset fast" not in refused.value.remedy  # it wouldn't fit, either
    with pytest.raises(SpaditError, match="disk space.*gene list"):
        room_for_training(expected(tmp_path), 6, 100, 0.5)
    with caplog.at_level(logging.WARNING):
        assert room_for_training(expected(tmp_path), 6, 3.5, 0.9) == 1
    assert len(caplog.records) == 2 and "It is tried." in caplog.text


def test_a_limit_of_the_container_counts(monkeypatch):
    monkeypatch.setattr(resources.Path, "read_text", lambda self, **_: str(2**30))
    assert resources.memory_here() == 1
    monkeypatch.setattr(resources.Path, "read_text", lambda self, **_: "max\n")
    assert resources.memory_here() > 1


def test_nothing_is_said_where_there_is_room(caplog):
    check_room("s: training", 1, 2, "memory", "")
    assert workers_that_fit(needs(SMALL), 1, 64) == 1 and not caplog.records
