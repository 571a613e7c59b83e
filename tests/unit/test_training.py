"""Training: a small case is learned, hidden genes are predicted above chance, everything random is the seed's."""

import dataclasses

import numpy as np
import pytest
import torch

from spadit.errors import TrainingError
from spadit.metrics import pcc
from spadit.training import PRESETS, Genes, Settings, fit, sample, train_network

SMALL = Settings(width=32, depth=1, n_reduced=8, max_steps=60, validate_every=10, patience=3, n_models=1, n_draws=2, learning_rate=3e-3)


@pytest.fixture(scope="module")
def genes():
    """40 genes made of 3 programmes that slide and reference share: a gene's cells tell its spots."""
    generator = torch.Generator().manual_seed(0)
    loading = torch.randn(40, 3, generator=generator)

    def view(n):
        x = loading @ torch.randn(3, n, generator=generator) + 0.2 * torch.randn(40, n, generator=generator)
        return (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)

    spatial = view(60)
    return Genes(reference=view(50), spatial=spatial, observed_zero=spatial < -0.5)


def nothing(_):
    pass


def median_pcc(truth, imputed):
    return float(np.median(pcc(truth.numpy().T, imputed.numpy().T)))


def test_hidden_genes_are_imputed_from_noise(genes):
    hidden, visible = genes.take(torch.arange(8)), genes.take(torch.arange(8, 40))
    trained = fit(visible, torch.arange(6), genes.reference, SMALL, seed=0)
    imputed = sample(trained.networks, Genes(hidden.reference), trained.whole, SMALL, seed=0)
    assert median_pcc(hidden.spatial, imputed) > 0.7
    stages = {entry["stage"] for entry in trained.curve}
    assert stages == {"choose", "final"} and trained.n_steps <= SMALL.max_steps and np.isfinite(trained.validation_pcc)


def test_a_tiny_case_is_learned_by_heart(genes):
    few = genes.take(torch.arange(4))
    settings = dataclasses.replace(SMALL, mask_nonzero=1.0, mask_zero=1.0, share_from_noise=1.0)
    network, _, _ = train_network(few, None, genes.reference, settings, 400, 0, "cpu", nothing)
    imputed = sample([network], few, genes.reference, settings, 0)
    assert float(((imputed - few.spatial) ** 2).mean()) < 0.05


def test_same_seed_same_weights_other_seed_others(genes):
    def weights(seed):
        torch.manual_seed(int(torch.randint(1000, (1,))))  # the process's own generator has no say
        return torch.cat([p.flatten() for p in train_network(genes, None, genes.reference, SMALL, 5, seed, "cpu", nothing)[0].parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_a_gene_does_not_depend_on_the_genes_beside_it(genes):
    network, _, _ = train_network(genes, None, genes.reference, SMALL, 20, 0, "cpu", nothing)
    every = sample([network], Genes(genes.reference), genes.reference, SMALL, 0)
    alone = sample([network], Genes(genes.reference[5:6]), genes.reference, SMALL, 0)
    batched = sample([network], Genes(genes.reference), genes.reference, SMALL, 0, batch_size=7)
    assert torch.allclose(every[5:6], alone, atol=1e-5) and torch.allclose(every, batched, atol=1e-5)


def test_training_stops_when_validation_genes_no_longer_improve(genes):
    noise = Genes(genes.reference, torch.randn(40, 60, generator=torch.Generator().manual_seed(1)), genes.observed_zero)
    settings = dataclasses.replace(SMALL, max_steps=2000)
    curve = []
    train_network(noise.take(torch.arange(10, 40)), noise.take(torch.arange(10)), genes.reference, settings, 2000, 0, "cpu", curve.append)
    assert curve[-1]["step"] < 2000
    best = max(curve, key=lambda entry: entry["validation_pcc"])
    assert len(curve) - 1 - curve.index(best) == settings.patience


def test_a_loss_that_is_no_number_stops_the_training(genes):
    broken = Genes(genes.reference, genes.spatial.clone(), torch.zeros_like(genes.observed_zero))
    broken.spatial[3, 4] = float("nan")
    settings = dataclasses.replace(SMALL, mask_nonzero=1.0, batch_size=40)
    with pytest.raises(TrainingError, match="no longer a number at step 0"):
        train_network(broken, None, genes.reference, settings, 5, 0, "cpu", nothing)


@pytest.mark.parametrize("validation", [[], list(range(40))])
def test_validation_genes_have_to_be_some_but_not_all(genes, validation):
    with pytest.raises(TrainingError, match=f"there are {len(validation)} validation genes among 40"):
        fit(genes, torch.tensor(validation, dtype=torch.long), genes.reference, SMALL, 0)


def test_the_papers_preset_runs_and_imputes_by_algorithm_2(genes):
    settings = dataclasses.replace(PRESETS["paper"], width=32, n_heads=4, depth=2)
    network, _, _ = train_network(genes, None, genes.reference, settings, 3, 0, "cpu", nothing)
    imputed = sample([network], genes.take(torch.arange(3)), genes.reference, settings, 0)
    assert imputed.shape == (3, 60) and torch.isfinite(imputed).all() and imputed.std() > 0.1
