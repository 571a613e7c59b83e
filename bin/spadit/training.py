"""Training (paper, Algorithm 1): what is optimised, for how long, and on which genes.

One :func:`fit` makes one set of networks from the genes it may see. It first trains on most of them and watches the others
(validation genes) to learn after how many steps to stop: gene-wise data are few, a network starts to memorise after some
dozens of steps. Then it trains afresh on all of them for that many steps. Hidden genes take no part in either.
"""

from __future__ import annotations

import dataclasses
import logging
import time
import warnings
from collections.abc import Callable

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from spadit.errors import TrainingError
from spadit.metrics import pcc
from spadit.model.diffusion import Diffusion
from spadit.model.spadit import Network, NetworkSettings

log = logging.getLogger(__name__)
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # it tells of GPUs and tips at every fit


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that can be set about the model. The presets are below."""

    width: int = 96
    depth: int = 3
    n_heads: int = 4
    n_reduced: int = 32
    condition: str = "attention"
    concatenate: bool = True
    n_diffusion_steps: int = 1000
    schedule: str = "cosine"
    target: str = "x0"
    sampler: str = "one_step"
    n_draws: int = 4
    """Noise vectors per imputed gene; the imputed value is the mean over them."""
    mask_nonzero: float = 0.3
    mask_zero: float = 0.1
    """Shares of a gene's non-zero and zero entries (m1, m2) that a training step is scored on."""
    share_from_noise: float = 0.5
    """Share of training draws at t = T, the time that imputation starts from."""
    max_cells: int = 1000
    """Cells of the reference that make up a gene's reference vector; more are subsampled (seeded)."""
    batch_size: int = 64
    learning_rate: float = 5e-4
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    ema: float = 0.95
    max_steps: int = 300
    validate_every: int = 10
    patience: int = 8
    """Validations without improvement before training stops."""
    n_models: int = 3
    """Networks with different seeds, averaged."""


PRESETS = {
    "default": Settings(),
    # the released code's hyperparameters, where they have a meaning in the model as published (predicts noise, Eq. 9)
    "paper": Settings(
        width=256, depth=16, n_heads=16, n_diffusion_steps=10, target="epsilon", sampler="ddpm", share_from_noise=0.0,
        learning_rate=1e-4, max_steps=400, n_models=1, n_draws=1,
    ),
}


@dataclasses.dataclass(frozen=True)
class Genes:
    """What a network is trained on or asked for: genes as samples.

    Parameters
    ----------
    reference
        Reference vectors, z-scored, (genes, cells).
    spatial
        Spatial vectors, z-scored, (genes, spots). None for hidden genes.
    observed_zero
        True where the measured count is zero, (genes, spots): which entries mask m1 (zeros) and which m2 applies to.
    """

    reference: Tensor
    spatial: Tensor | None = None
    observed_zero: Tensor | None = None

    def take(self, index: Tensor) -> Genes:
        """The genes at these positions."""
        return Genes(*(None if part is None else part[index] for part in (self.reference, self.spatial, self.observed_zero)))


@dataclasses.dataclass
class Fit:
    """Trained networks, with the facts of their training."""

    networks: list[Network]
    whole: Tensor
    settings: Settings
    n_steps: int
    validation_pcc: float
    curve: list[dict]
    seconds: float


def steps_generator(seed: int) -> torch.Generator:
    """A random generator of its own, so that nothing else in the process shifts its numbers."""
    return torch.Generator().manual_seed(seed)


class TrainingPlan(lightning.LightningModule):
    """Loss, optimiser and moving average of one network (Algorithm 1)."""

    def __init__(self, network: Network, genes: Genes, whole: Tensor, settings: Settings, n_steps: int, seed: int):
        super().__init__()
        self.network, self.genes, self.whole, self.settings, self.n_steps = network, genes, whole, settings, n_steps
        self.diffusion = Diffusion(settings.n_diffusion_steps, settings.schedule, settings.target)
        self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(settings.ema))
        self.draws = steps_generator(seed)
        self.last_loss = float("nan")

    def training_step(self, index: Tensor, _: int) -> Tensor:
        s, genes = self.settings, self.genes.take(index.cpu())
        x0 = genes.spatial
        n = x0.shape[0]
        t = torch.randint(s.n_diffusion_steps, (n,), generator=self.draws)
        t = torch.where(torch.rand(n, generator=self.draws) < s.share_from_noise, s.n_diffusion_steps - 1, t)
        noise = torch.randn(x0.shape, generator=self.draws)
        chance = torch.where(genes.observed_zero, s.mask_zero, s.mask_nonzero)
        weight = (torch.rand(x0.shape, generator=self.draws) < chance).float()
        x0, t, noise, weight, reference = (part.to(self.device) for part in (x0, t, noise, weight, genes.reference))
        x_t = self.diffusion.add_noise(x0, t, noise)
        output, fraction = self.network(x_t, t, reference, self.whole.to(self.device))
        loss = self.diffusion.loss(output.float(), fraction.float(), x0, x_t, t, noise, weight)
        self.last_loss = float(loss.detach())
        if not np.isfinite(self.last_loss):
            names = ", ".join(str(int(i)) for i in index[:5])
            raise TrainingError(f"The loss is no longer a number at step {self.global_step} (genes number {names}, ...).",
                                "Lower the learning rate, or look for extreme values in the slide.")
        return loss

    def optimizer_step(self, *args, **kwargs) -> None:
        super().optimizer_step(*args, **kwargs)
        self.average.update_parameters(self.network)

    def configure_optimizers(self):
        s = self.settings
        return torch.optim.AdamW(self.network.parameters(), lr=s.learning_rate, weight_decay=s.weight_decay, fused=True)


class Watch(Callback):
    """Follows the validation genes and stops when they no longer improve."""

    def __init__(self, validation: Genes | None, seed: int, record: Callable[[dict], None]):
        self.validation, self.seed, self.record = validation, seed, record
        self.best, self.best_step, self.since = -np.inf, 0, 0

    def on_train_batch_end(self, trainer, plan, *_) -> None:
        step, s = trainer.global_step, plan.settings
        if step % s.validate_every and step != plan.n_steps:
            return
        entry = {"step": step, "train_loss": plan.last_loss, "validation_loss": float("nan"), "validation_pcc": float("nan")}
        if self.validation is not None:
            imputed = sample([plan.average.module], self.validation, plan.whole, s, self.seed)
            truth = self.validation.spatial
            entry["validation_loss"] = float(((imputed - truth) ** 2).mean())
            entry["validation_pcc"] = score = float(np.median(pcc(truth.numpy().T, imputed.numpy().T)))
            if score > self.best:
                self.best, self.best_step, self.since = score, step, 0
            else:
                self.since += 1
                trainer.should_stop = self.since >= s.patience
        self.record(entry)


@torch.no_grad()
def sample(networks: list[Network], genes: Genes, whole: Tensor, settings: Settings, seed: int, batch_size: int = 256) -> Tensor:
    """Impute genes from Gaussian noise (Algorithm 2): the mean over draws and networks, (genes, spots), z-scale.

    Every gene starts from the same noise vectors, so that its values don't depend on which other genes are asked for.
    """
    s = settings
    device = next(networks[0].parameters()).device
    diffusion = Diffusion(s.n_diffusion_steps, s.schedule, s.target).to(device)
    n_spots = networks[0].settings.n_spots
    whole = whole.to(device)
    result = torch.zeros(genes.reference.shape[0], n_spots)
    for start in range(0, len(result), batch_size):
        reference = genes.reference[start : start + batch_size].to(device)
        for network in networks:
            network.eval()
            generator = steps_generator(seed)
            for _ in range(s.n_draws):
                noise = torch.randn(n_spots, generator=generator).to(device).expand(len(reference), -1)

                def denoise(x: Tensor, t: Tensor, network=network, reference=reference) -> tuple[Tensor, Tensor]:
                    return network(x, t, reference, whole)

                drawn = diffusion.sample(denoise, noise, s.sampler, generator=generator)
                result[start : start + batch_size] += drawn.float().cpu()
            network.train()
    return result / (len(networks) * s.n_draws)


def train_network(genes: Genes, validation: Genes | None, whole: Tensor, settings: Settings, n_steps: int, seed: int,
                  device: str, record: Callable[[dict], None]) -> tuple[Network, int, float]:
    """Train one network for at most ``n_steps``; returns its moving average, the best step and the validation PCC there."""
    shape = NetworkSettings(
        n_spots=genes.spatial.shape[1], n_cells=genes.reference.shape[1], n_condition_genes=whole.shape[0], width=settings.width,
        depth=settings.depth, n_heads=settings.n_heads, n_reduced=settings.n_reduced, condition=settings.condition,
        concatenate=settings.concatenate,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(shape)
    n = genes.spatial.shape[0]
    batch = min(settings.batch_size, n)
    order = steps_generator(seed)
    sampler = torch.utils.data.RandomSampler(range(n), replacement=False, num_samples=n_steps * batch, generator=order)
    loader = torch.utils.data.DataLoader(torch.arange(n), batch_size=batch, sampler=sampler)
    watch = Watch(validation, seed, record)
    plan = TrainingPlan(network, genes, whole, settings, n_steps, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            max_steps=n_steps, max_epochs=-1, accelerator="cuda" if device == "cuda" else "cpu", devices=1, callbacks=[watch],
            gradient_clip_val=settings.gradient_clip, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, use_distributed_sampler=False,
        )
        trainer.fit(plan, loader)
    return plan.average.module.cpu(), watch.best_step, watch.best


def fit(genes: Genes, validation_index: Tensor, whole: Tensor, settings: Settings, seed: int, device: str = "cpu",
        n_steps: int | None = None, report: Callable[[dict], None] | None = None) -> Fit:
    """Make the networks of one fit.

    Parameters
    ----------
    genes
        The visible genes.
    validation_index
        Positions of those that choose the number of steps. Empty: ``n_steps`` has to be given.
    whole
        The reference the condition is made from, z-scored, (condition genes, cells).
    n_steps
        Train for this long instead of choosing.
    report
        Called with each point of the training curve.
    """
    start = time.perf_counter()
    curve: list[dict] = []
    n = genes.spatial.shape[0]

    def record_as(stage: str, model: int) -> Callable[[dict], None]:
        def record(entry: dict) -> None:
            entry = {"stage": stage, "model": model, **entry}
            curve.append(entry)
            if report:
                report(entry)
        return record

    score = float("nan")
    if n_steps is None:
        if not 0 < len(validation_index) < n:
            raise TrainingError("Choosing the number of steps needs validation genes and training genes; there are "
                                f"{len(validation_index)} validation genes among {n}.",
                                "Give more shared genes, or set the number of steps.")
        seen = torch.ones(n, dtype=torch.bool)
        seen[validation_index] = False
        part, validation = genes.take(seen.nonzero()[:, 0]), genes.take(validation_index)
        choices = [
            train_network(part, validation, whole, settings, settings.max_steps, seed + model, device, record_as("choose", model))
            for model in range(settings.n_models)
        ]
        n_steps = max(settings.validate_every, int(np.median([step for _, step, _ in choices])))
        score = float(np.mean([best for _, _, best in choices]))
    networks = [
        train_network(genes, None, whole, settings, n_steps, seed + model, device, record_as("final", model))[0]
        for model in range(settings.n_models)
    ]
    return Fit(networks, whole, settings, n_steps, score, curve, time.perf_counter() - start)
