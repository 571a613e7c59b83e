"""Windows, samples and both modes: every spot is seen, masks are drawn as told, tiny cases are learned, seeds and blocks behave."""

import dataclasses
import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from spadit import modes
from spadit.errors import SpaditError
from spadit.metrics import pcc
from spadit.modes import (
    WINDOW,
    Token,
    TokenSamples,
    WholeSlide,
    WholeSlideSamples,
    cut_windows,
    fit_mode,
    positions,
    seeded,
    token_features,
)
from spadit.settings import Settings

TINY = Settings(
    width=16, depth=1, n_heads=2, n_reduced=4, token_width=16, token_depth=1, network_folds=2, n_models=1, n_noise=2, max_steps=10,
    validate_every=5, n_diffusion_steps=50, precision="32", learning_rate=3e-3, token_learning_rate=3e-3,
)  # fmt: skip


def same_networks(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


# ---- windows ---------------------------------------------------------------------------------------------------------


def check_windows(coordinates, order):
    windows = cut_windows(coordinates, order)
    n = len(coordinates)
    assert windows.shape == (-(-n // WINDOW), WINDOW)
    assert set(windows.ravel()) == set(range(n))
    sizes = [len(set(window)) for window in windows]
    assert sum(sizes) == n  # no spot is in two windows
    assert sorted(sizes)[1:] == [WINDOW] * (len(windows) - 1)  # at most one is filled up


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("n", [1, 5, 31, 32, 33, 64, 65, 1000])
def test_windows_cover_every_spot_once(n, order):
    check_windows(np.random.default_rng(n).uniform(size=(n, 2)), order)
    check_windows(np.ones((n, 2)), order)  # all in one place


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 400), st.integers(0, 1), st.integers(1, 6), st.integers(0, 2**20))
def test_any_number_of_spots_in_any_places_is_covered(n, order, n_places, seed):
    rng = np.random.default_rng(seed)
    check_windows(rng.integers(0, n_places, size=(n, 2)) * rng.uniform(0, 1e6, size=2), order)


@pytest.mark.parametrize("order", [0, 1])
def test_neighbours_stay_together(order):
    grid = np.stack(np.meshgrid(np.arange(32), np.arange(32)), -1).reshape(-1, 2)
    coordinates = grid + np.random.default_rng(0).uniform(0, 0.1, (1024, 2))
    windows = cut_windows(coordinates, order)
    # 32 spots of a grid lie in 32 squares: their mean distance is far below that of spots at random (about 17)
    assert np.mean([cdist(coordinates[w], coordinates[w]).mean() for w in windows]) < 4
    neighbour = cdist(coordinates, coordinates).argsort(1)[:, 1]
    window_of = np.empty(1024, int)
    window_of[windows.ravel()] = np.repeat(np.arange(32), WINDOW)
    assert (window_of == window_of[neighbour]).mean() > 0.7


def test_spots_in_a_row_are_cut_where_they_stand():
    coordinates = np.column_stack([np.zeros(96), np.random.default_rng(0).permutation(96)])
    windows = sorted(sorted(coordinates[w, 1].astype(int)) for w in cut_windows(coordinates))
    assert windows == [list(range(i, i + 32)) for i in (0, 32, 64)]


def test_odd_orders_cut_elsewhere():
    coordinates = np.random.default_rng(1).uniform(size=(512, 2))
    straight, turned = ({frozenset(w) for w in cut_windows(coordinates, order)} for order in (0, 1))
    assert not straight & turned


def test_positions_are_waves_over_the_slide_whatever_its_units():
    coordinates = np.random.default_rng(2).uniform(size=(50, 2)) * [3, 1]
    place = positions(coordinates)
    assert place.shape == (50, 8) and np.abs(place).max() <= 1
    np.testing.assert_allclose(positions(coordinates * 1000 + 77), place, atol=1e-4)
    x = (coordinates[:, 0] - coordinates[:, 0].min()) / np.ptp(coordinates[:, 0])
    np.testing.assert_allclose(place[:, 0], np.sin(np.pi * x), atol=1e-5)
    np.testing.assert_allclose(place[:, 6], np.cos(2 * np.pi * x), atol=1e-5)
    assert np.isfinite(positions(np.ones((3, 2)))).all()


# ---- samples ---------------------------------------------------------------------------------------------------------


def test_whole_slide_masks_are_drawn_apart_for_zeros_and_others():
    rng = torch.Generator().manual_seed(0)
    spatial, zero = torch.randn(6, 4000, generator=rng), torch.rand(6, 4000, generator=rng) < 0.4
    reference = torch.randn(6, 5, generator=rng)
    s = dataclasses.replace(TINY, mask_nonzero=0.3, mask_zero=0.1)
    samples = WholeSlideSamples(spatial, zero, reference, torch.ones(2, 5), s)
    index = torch.tensor([4, 1, 1])
    x0, weight, (vectors, whole) = samples.draw(index, rng)
    assert samples.n_genes == 6 and torch.equal(x0, spatial[index]) and torch.equal(vectors, reference[index]) and whole.shape == (2, 5)
    assert set(weight.unique().tolist()) == {0.0, 1.0}
    assert float(weight[~zero[index]].mean()) == pytest.approx(0.3, abs=0.02)
    assert float(weight[zero[index]].mean()) == pytest.approx(0.1, abs=0.02)
    assert not torch.equal(weight[1], weight[2]) and not torch.equal(samples.draw(index, rng)[1], weight)


def test_a_tokens_value_maps_place_and_scalars_belong_together():
    n_spots, n_genes = 70, 5
    spot, gene = torch.arange(n_spots).float(), torch.arange(n_genes).float()
    target = spot[:, None] + 1000 * gene
    maps = torch.stack([target + 0.25, target + 0.5], -1)
    windows = [torch.from_numpy(cut_windows(np.random.default_rng(0).uniform(size=(n_spots, 2)), order)) for order in (0, 1)]
    samples = TokenSamples(target, maps, spot[:, None].expand(-1, 8), gene[:, None], windows, torch.tensor([4, 0, 2]))
    assert samples.n_genes == 3
    seen, orders = set(), set()
    for seed in range(30):
        x0, weight, (features, scalars) = samples.draw(torch.tensor([2, 0]), torch.Generator().manual_seed(seed))
        assert x0.shape == weight.shape == (4, WINDOW) and weight.all() and features.shape == (4, WINDOW, 10) and scalars.shape == (4, 1)
        spots, genes = x0 % 1000, (x0 // 1000)[:, :1]
        assert genes.ravel().tolist() == [2, 2, 4, 4] and torch.equal(scalars, genes)  # positions 2 and 0 of the genes 4, 0, 2
        assert torch.equal(features[..., 0], x0 + 0.25) and torch.equal(features[..., 1], x0 + 0.5)
        assert torch.equal(features[..., 2], spots) and torch.equal(features[..., 9], spots)
        assert torch.equal(spots[:2], spots[2:])  # the same windows of every gene
        seen |= set(spots.ravel().tolist())
        orders |= {order for order in (0, 1) for row in spots if any(torch.equal(row, w.float()) for w in windows[order])}
    assert seen == set(range(n_spots)) and orders == {0, 1}


def test_token_features_put_maps_and_place_side_by_side():
    maps, place = torch.randn(3, 2, WINDOW, 5), torch.randn(2, WINDOW, 8)
    features = token_features(maps, place)
    assert features.shape == (6, WINDOW, 13)
    assert torch.equal(features[3], torch.cat([maps[1, 1], place[1]], 1))


# ---- tiny cases ------------------------------------------------------------------------------------------------------


def whole_slide(n_genes=40, n_spots=50, n_cells=30, seed=0, **more):
    """Genes that are sums of 3 factors in space and in the reference: what the one says, the other tells."""
    rng = np.random.default_rng(seed)
    loadings = rng.normal(size=(3, n_genes))
    y, cells = (factors @ loadings for factors in (rng.normal(size=(n_spots, 3)), rng.normal(size=(n_cells, 3))))
    y, cells = ((part / part.std(0)).astype(np.float32) for part in (y, cells))
    mode = WholeSlide(dataclasses.replace(TINY, **more), n_spots, cells[:, :10], "cpu")
    mode.data(y, y < -0.5, cells)
    return mode


def token(n_genes=20, n_spots=80, seed=0, rows=None, **more):
    """What the coarse condition misses is half of the first map for genes of scalar 1, and minus half for those of scalar -1."""
    rng = np.random.default_rng(seed)
    coordinates = rng.uniform(size=(n_spots, 2))
    rows = np.arange(n_spots) if rows is None else rows
    maps = rng.normal(size=(n_spots, n_genes, 3)).astype(np.float32)[rows]
    sign = np.where(np.arange(n_genes) % 2, 1.0, -1.0)
    residual = (0.5 * maps[:, :, 0] * sign).astype(np.float32)
    mode = Token(dataclasses.replace(TINY, **more), coordinates, 3, 1, "cpu")
    base = rng.normal(size=residual.shape).astype(np.float32)
    mode.data(residual, base, maps, sign[:, None], coordinates, rows)
    return mode


def test_whole_slide_mode_learns_a_tiny_case():
    mode = whole_slide(max_steps=80, validate_every=20, patience=9)
    fitted = fit_mode(mode, 40, np.arange(50), 0)
    assert np.median(pcc(mode.y, fitted.crossfitted)) > 0.8
    assert fitted.score == pytest.approx(np.median(pcc(mode.y, fitted.crossfitted)), abs=0.1)
    mode.reference = mode.reference[torch.randperm(40, generator=torch.Generator().manual_seed(0))]  # each gene has another's cells
    fitted = fit_mode(mode, 40, np.arange(50), 0)
    assert np.median(pcc(mode.y, fitted.crossfitted)) < 0.45  # so much comes of three factors alone


def test_token_mode_learns_a_tiny_case():
    mode = token(max_steps=120, validate_every=30, patience=9, token_learning_rate=1e-2)
    fitted = fit_mode(mode, 20, np.arange(80), 0)
    assert np.median(pcc(mode.target.numpy(), fitted.crossfitted)) > 0.8
    # the score is that of coarse condition and network together
    both = np.median(pcc(mode.y, mode.base + fitted.crossfitted))
    assert fitted.score == pytest.approx(both, abs=0.1) and both > np.median(pcc(mode.y, mode.base)) + 0.05


def test_token_mode_learns_from_some_spots_and_imputes_all():
    rows = np.arange(0, 80, 2)
    mode = token(rows=rows)
    fitted = fit_mode(mode, 20, rows, 0)
    assert fitted.crossfitted.shape == (40, 20)
    maps, scalars = np.random.default_rng(5).normal(size=(80, 2, 3)).astype(np.float32), np.ones((2, 1))
    assert mode.impute(fitted.networks, maps, scalars).shape == (80, 2)


# ---- seeds, blocks, means --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [whole_slide, token])
def test_networks_come_from_the_seed_alone(make):
    mode = make()
    state = torch.get_rng_state()
    a = mode.build(3)
    torch.rand(5)
    assert same_networks(a, mode.build(3)) and not same_networks(a, mode.build(4))
    torch.set_rng_state(state)
    seeded(3, lambda: torch.nn.Linear(2, 2))
    assert torch.equal(torch.get_rng_state(), state)
    n_spots = len(mode.y)
    first, second, other = (fit_mode(make(), 20, np.arange(n_spots), seed, 3) for seed in (0, 0, 1))
    assert same_networks(first.networks[0], second.networks[0]) and not same_networks(first.networks[0], other.networks[0])
    np.testing.assert_array_equal(first.crossfitted, second.crossfitted)


def lively(mode, *numbers):
    """Networks that say something: fresh ones end in zeros."""
    made = []
    for number in numbers:
        network = mode.build(number)
        generator = torch.Generator().manual_seed(number)
        for part in network.parameters():
            part.data += 0.1 * torch.randn(part.shape, generator=generator)
        made.append(network)
    return made


def test_whole_slide_imputes_in_blocks_what_it_imputes_at_once():
    mode = whole_slide()
    networks, vectors = lively(mode, 1, 2), mode.reference.numpy().T
    at_once = mode.impute(networks, vectors)
    assert at_once.std() > 0.1
    np.testing.assert_allclose(mode.impute(networks, vectors, block=7), at_once, atol=1e-5)
    np.testing.assert_allclose(mode.impute(networks, vectors[:, [9, 4]]), at_once[:, [9, 4]], atol=1e-5)
    np.testing.assert_allclose(np.mean([mode.impute([n], vectors) for n in networks], 0), at_once, atol=1e-5)
    genes, rows = np.array([3, 0]), np.array([8, 1, 2])
    np.testing.assert_allclose(mode.impute_visible(networks, genes, rows), at_once[np.ix_(rows, genes)], atol=1e-5)


@pytest.mark.parametrize("sampler", ["one_step", "ddpm", "ddim"])
def test_whole_slide_is_the_mean_over_noise_vectors(sampler):
    one, many = whole_slide(n_noise=1, sampler=sampler), whole_slide(n_noise=8, sampler=sampler)
    vectors = one.reference.numpy().T[:, :3]
    a, b = (mode.impute(lively(mode, 1), vectors) for mode in (one, many))
    assert not np.allclose(a, b) and np.isfinite(b).all()
    np.testing.assert_array_equal(many.impute(lively(many, 1), vectors), b)


def inputs(mode, n_genes=6):
    rng = np.random.default_rng(7)
    return rng.normal(size=(mode.place.shape[0], n_genes, 3)).astype(np.float32), rng.normal(size=(n_genes, 1))


def test_token_imputes_in_blocks_what_it_imputes_at_once(monkeypatch):
    mode = token()
    networks, (maps, scalars) = lively(mode, 1, 2), inputs(mode)
    at_once = mode.impute(networks, maps, scalars)
    assert at_once.std() > 0.1
    np.testing.assert_allclose(mode.impute(networks, maps[:, [4, 1]], scalars[[4, 1]]), at_once[:, [4, 1]], atol=1e-5)
    np.testing.assert_allclose(np.mean([mode.impute([n], maps, scalars) for n in networks], 0), at_once, atol=1e-5)
    monkeypatch.setattr(modes, "TOKENS_AT_ONCE", 1)  # a window at a time
    np.testing.assert_allclose(mode.impute(networks, maps, scalars), at_once, atol=1e-5)


def test_token_imputes_the_mean_over_both_ways_of_cutting(monkeypatch):
    mode = token()
    networks, (maps, scalars) = lively(mode, 1), inputs(mode)
    both, windows = mode.impute(networks, maps, scalars), mode.windows
    parts = []
    for order in windows:
        mode.windows = [order]
        parts.append(mode.impute(networks, maps, scalars))
    assert not np.allclose(*parts)
    np.testing.assert_allclose(np.mean(parts, 0), both, atol=1e-5)


def test_draws_differ_by_noise():
    mode = token()
    (network,), (maps, scalars) = lively(mode, 1), inputs(mode)
    first, again, other = (
        mode.draw(network, maps, scalars, np.random.default_rng(seed).normal(size=(80, 6)).astype(np.float32)) for seed in (1, 1, 2)
    )
    assert first.shape == (80, 6)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other, atol=1e-3) and np.isfinite(other).all()


@pytest.mark.parametrize("what", ["whole_slide", "token", "draws"])
def test_a_full_gpu_imputes_fewer_at_once_and_the_same(what, caplog):
    mode = whole_slide() if what == "whole_slide" else token()
    networks, rows = lively(mode, 1), []

    def run():
        if what == "whole_slide":
            return mode.impute(networks, mode.reference.numpy().T)
        noise = np.random.default_rng(1).normal(size=(80, 6))
        return mode.impute(networks, *inputs(mode)) if what == "token" else mode.draw(networks[0], *inputs(mode), noise)

    def full(most):
        def before(_network, given):
            rows.append(len(given[0]))
            if len(given[0]) > most:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")

        return networks[0].register_forward_pre_hook(before)

    at_once = run()
    hook = full(6)
    with caplog.at_level(logging.WARNING):
        again = run()
    assert max(rows) > 6 and rows[-1] <= 6 and "The GPU's memory is full" in caplog.text
    np.testing.assert_allclose(again, at_once, atol=1e-4 if what == "draws" else 1e-5)
    hook.remove()
    full(0)
    with pytest.raises(SpaditError, match="The GPU's memory doesn't hold one of the (genes|windows)"):
        run()


# ---- fitting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [whole_slide, token])
def test_no_gene_is_imputed_by_a_network_that_saw_it(make):
    """With one look at the score, a held-back gene can't even choose the number of steps."""
    clean, spoilt = make(validate_every=10), make(validate_every=10)
    values = spoilt.spatial if make is whole_slide else spoilt.target
    gene = 5
    (values[gene] if make is whole_slide else values[:, gene])[:] = 50
    rows = np.arange(len(clean.y))
    before, after = (fit_mode(mode, 20, rows, 0).crossfitted for mode in (clean, spoilt))
    same = (before == after).all(0)
    assert same[gene] and same.sum() == 10  # its fold of two


def test_the_number_of_steps_is_chosen_in_folds_or_given():
    told = []
    fitted = fit_mode(token(n_models=2, network_folds=3), 20, np.arange(80), 0, report=told.append)
    stages = {(entry["stage"], entry["network"]) for entry in fitted.curve}
    assert stages == {("choose", 0), ("choose", 1), ("choose", 2), ("final", 0), ("final", 1)}
    assert len(fitted.networks) == 2 and not same_networks(*fitted.networks)
    chosen = [[e for e in fitted.curve if e["stage"] == "choose" and e["network"] == k] for k in range(3)]
    best = [max(curve, key=lambda e: e["validation_score"]) for curve in chosen]
    assert fitted.n_steps == max(5, np.median([e["step"] for e in best]))
    assert fitted.score == pytest.approx(np.mean([e["validation_score"] for e in best]))
    assert [{k: v for k, v in e.items() if k not in ("n_steps", "seconds_left")} for e in told] == fitted.curve
    assert all(e["mode"] == "token" for e in told)
    given = fit_mode(token(), 20, np.arange(80), 0, n_steps=7)
    assert given.n_steps == 7 and max(e["step"] for e in given.curve if e["stage"] == "final") == 7


@pytest.mark.parametrize("make", [whole_slide, token])
def test_two_genes_are_too_few_for_folds(make):
    fitted = fit_mode(make(n_genes=2), 2, np.arange(50 if make is whole_slide else 80), 0)
    assert not fitted.crossfitted.any() and np.isnan(fitted.score) and {e["stage"] for e in fitted.curve} == {"final"}
    assert fitted.n_steps == TINY.max_steps // 4


def test_training_starts_from_given_weights():
    mode = token(token_learning_rate=1e-12)
    first = lively(mode, 9)[0].state_dict()
    fitted = fit_mode(mode, 20, np.arange(80), 0, n_steps=2, start=first)
    for name, part in fitted.networks[0].state_dict().items():
        assert torch.allclose(part, first[name], atol=1e-6)
    with pytest.raises(RuntimeError, match="size mismatch"):
        fit_mode(token(token_width=32), 20, np.arange(80), 0, n_steps=2, start=first)


def test_each_network_has_its_own_checkpoint(tmp_path):
    settings = {"n_models": 2, "checkpoint_every": 5}
    fitted = fit_mode(token(**settings), 20, np.arange(80), 0, checkpoint=tmp_path)
    assert {str(p.parent.relative_to(tmp_path)) for p in tmp_path.rglob("state_*.safetensors")} == {
        f"token/{name}" for name in ("choose_0", "choose_1", "final_0", "final_1")
    }
    again = fit_mode(token(**settings), 20, np.arange(80), 0, checkpoint=tmp_path, report=lambda entry: pytest.fail("trained again"))
    assert all(same_networks(a, b) for a, b in zip(fitted.networks, again.networks, strict=True))
    np.testing.assert_array_equal(fitted.crossfitted, again.crossfitted)
