"""Training of one network (paper, Algorithm 1), whatever its samples are: checkpoints, exact resume, precision, devices, progress.

:func:`train_network` knows nothing of slides. It asks :class:`Samples` for clean vectors of genes, adds noise to them, and has the
network tell the clean from the noisy. Everything random comes from one generator on the CPU, seeded by the caller, so that nothing
else in the process matters and a checkpoint can bring the very same training back. For that the network must draw no random numbers
itself (no dropout).
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import logging
import math
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import lightning
import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import get_ema_multi_avg_fn

from spadit.errors import TrainingError
from spadit.files import finished
from spadit.model.diffusion import Diffusion

log = logging.getLogger(__name__)
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # it tells of GPUs and tips at every fit

PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
CHECKPOINT_FILES = ("state_0.safetensors", "state_1.safetensors")
"""Written in turn, so that the one before is whole whatever happens to the newest."""
CHECKPOINT_VERSION = 2
RUNAWAY = 10.0
"""A training whose loss is this many times what it was at first, and of 1, has diverged: what is learned is standardised, so that a network
that says nothing has a loss of about 1."""
SLOWER = 0.25
"""What the learning rate is multiplied by then."""
MAX_LOWERED = 3
"""Times that is done before the training is given up."""


class Diverged(TrainingError):
    """The loss is no longer a number, or far above what it was at first: a lower learning rate may help."""


class Samples(Protocol):
    """What a network is trained on."""

    n_genes: int
    names: Sequence[str]
    """Of the genes, for messages. Optional."""

    def draw(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """A training batch of the genes at these positions.

        Parameters
        ----------
        index
            Positions of genes, (genes,), int64, on the CPU.
        generator
            The only source of random numbers to use. What is drawn depends on ``index`` and it alone: with a checkpoint there is one
            more round of draws, from another generator, to know the data by.

        Returns
        -------
        x0
            Clean vectors, (batch, length), float32; a gene may give several rows.
        weight
            Weight of each entry in the loss, (batch, length), float32.
        inputs
            What the network gets after (x_t, t): batch-first tensors, or constants. A big constant should already lie on the
            device that is trained on, or else it is copied there at every step.
        """


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """How a network is trained."""

    n_diffusion_steps: int = 1000
    schedule: str = "cosine"
    target: str = "x0"
    share_from_noise: float = 0.5
    """Share of training draws at t = T, the time that imputation starts from."""
    batch_size: int = 64
    """Genes a step."""
    learning_rate: float = 5e-4
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    """Largest norm of a step's gradient; 0 doesn't clip."""
    one_cycle: bool = False
    """One-cycle learning rate over the steps (Smith & Topin, 2018, https://arxiv.org/abs/1708.07120) instead of a constant one."""
    ema: float = 0.95
    """Decay of the moving average of the weights. It starts low, so that the first weights are soon forgotten."""
    max_steps: int = 300
    """For the caller, where validation genes choose the number of steps."""
    validate_every: int = 10
    patience: int = 8
    """Validations without improvement before training stops."""
    precision: str = "auto"
    """'32', 'bf16', 'fp16', or 'auto': on a GPU bf16, fp16 where it has no bf16; 32 on the CPU."""
    checkpoint_every: int = 50
    """Steps."""


@dataclasses.dataclass
class Trained:
    """A trained network, with the facts of its training."""

    network: nn.Module
    """The moving average of the weights at ``step``, on the CPU, in eval mode."""
    step: int
    """The best step; the last one when there was no score."""
    score: float
    """The best score; NaN when there was none."""
    curve: list[dict]
    """step, train_loss (mean over the steps since the last entry), validation_score (NaN when there is none)."""
    lowered: list[int] = dataclasses.field(default_factory=list)
    """Steps at which the learning rate was lowered because the loss had diverged."""


def choose_precision(precision: str, device: str, n_devices: int = 1) -> str:
    """Lightning's name for a precision of :class:`TrainSettings` on 'cpu' or 'cuda'.

    Several GPUs are not asked what they can do, since that would keep other processes from using them: they get bf16.

    Raises
    ------
    ValueError
        When there is no such precision.
    """
    if precision == "auto":
        # compute capability 8 (A100) has bf16; older ones only emulate it, slowly
        new = device == "cuda" and (n_devices > 1 or torch.cuda.get_device_capability()[0] >= 8)
        precision = "32" if device != "cuda" else "bf16" if new else "fp16"
    if precision not in PRECISIONS:
        raise ValueError(f"Unknown precision '{precision}': one of auto, {', '.join(PRECISIONS)}.")
    return PRECISIONS[precision]


class Training(lightning.LightningModule):
    """The steps of one training, and the state that a checkpoint of it holds.

    Optimisation is manual (lightning's word), because a batch may have to go through the network in parts.
    """

    def __init__(
        self,
        network: nn.Module,
        samples: Samples,
        settings: TrainSettings,
        n_steps: int,
        seed: int,
        score: Callable[[nn.Module], float] | None,
        checkpoint: Path | None,
        report: Callable[[dict], None] | None,
    ):
        super().__init__()
        self.automatic_optimization = False
        self.network, self.samples, self.settings, self.n_steps, self.seed = network, samples, settings, n_steps, seed
        self.score, self.checkpoint, self.report = score, checkpoint, report
        self.diffusion = Diffusion(settings.n_diffusion_steps, settings.schedule, settings.target)
        self.average = copy.deepcopy(network).requires_grad_(False)
        self.average_pairs = list(self.average.parameters()), list(network.parameters())
        self.batch_size = min(settings.batch_size, samples.n_genes)
        # the state, together with the weights, their average and the optimiser
        self.generator = torch.Generator().manual_seed(seed)
        self.order = torch.empty(0, dtype=torch.long)  # genes still to come in this round
        self.step, self.finished = 0, False
        self.losses: list[Tensor] = []  # of the steps since the last entry of the curve
        self.batches: list[Tensor] = []  # the genes of each, known since this process began; not part of the state
        self.first_loss: float | None = None
        self.lowered: list[int] = []
        self.curve: list[dict] = []
        self.best: dict[str, Tensor] = {}
        self.best_step, self.best_score = 0, float("nan")
        self.optimiser_state: dict[int, dict[str, Tensor]] = {}  # as loaded; configure_optimizers hands it on
        self.slot = 0  # the checkpoint file that is written next
        self.probe = self.probe_data() if checkpoint else torch.empty(0)
        self.good = self.state()  # the last state that was fine: what a training goes on from when its loss diverges
        if checkpoint:
            self.load()

    # A step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        s = self.settings
        fused = self.trainer.precision != PRECISIONS["fp16"]  # a fused one unscales fp16 gradients itself, after they were clipped
        learning_rate = s.learning_rate * SLOWER ** len(self.lowered)
        optimiser = torch.optim.AdamW(self.network.parameters(), lr=learning_rate, weight_decay=s.weight_decay, fused=fused)
        if self.optimiser_state:
            optimiser.load_state_dict({"state": self.optimiser_state, "param_groups": optimiser.state_dict()["param_groups"]})
            self.optimiser_state = {}
        self.rate = OneCycleLR(optimiser, learning_rate, total_steps=self.n_steps) if s.one_cycle else None
        if self.rate and self.step:  # the rate depends on the step alone: there is nothing else to restore
            self.rate.last_epoch = self.step - 1
            self.rate.step()
        return optimiser

    def on_fit_start(self) -> None:
        self.n_parts = self.trainer.world_size
        if self.trainer.world_size > 1:
            torch.set_num_threads(1)  # OpenMP's threads don't survive the fork
        self.network.train()
        self.first_step, self.start = self.step, time.perf_counter()

    def training_step(self, *_) -> None:
        index = self.next_genes()
        while (loss := self.add_gradients(index)) is None:
            self.n_parts = min(2 * self.n_parts, self.batch_size)
            log.warning(
                "The GPU's memory doesn't hold step %d: a batch of %d genes now goes through the network in %d parts.",
                self.step + 1,
                self.batch_size,
                self.n_parts,
            )
            torch.cuda.empty_cache()
        self.optimizers().step()
        if self.rate:
            self.rate.step()
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        get_ema_multi_avg_fn(decay)(*self.average_pairs, None)
        self.losses.append(loss)
        self.batches.append(index)
        self.step += 1

    def next_genes(self) -> Tensor:
        """The positions of the next batch: every gene once a round, in another order each round."""
        while len(self.order) < self.batch_size:
            self.order = torch.cat([self.order, torch.randperm(self.samples.n_genes, generator=self.generator)])
        index, self.order = self.order.tensor_split([self.batch_size])
        return index

    def add_gradients(self, index: Tensor) -> Tensor | None:
        """Gradients of the mean loss of these genes, in :attr:`n_parts` parts; returns the loss, None when the GPU's memory is full.

        With several devices each takes one part.
        """
        self.optimizers().zero_grad()
        n_devices = self.trainer.world_size
        parts = [self.draw(part) for part in index.tensor_split(self.n_parts)]
        # Diffusion.loss is a mean by weight: scaled back by their weights the parts add up to the mean over the whole batch
        weights = [float(weight.sum()) for _, weight, *_ in parts]
        loss = torch.zeros((), device=self.device)
        try:
            for part in range(self.global_rank, self.n_parts, n_devices):
                share = max(weights[part], 1) / max(sum(weights), 1)
                part_loss = share * self.loss_of(*parts[part])
                self.manual_backward(n_devices * part_loss)  # DDP takes the mean over the devices
                loss += part_loss.detach()
        except torch.cuda.OutOfMemoryError as error:
            if n_devices > 1 or self.n_parts == self.batch_size:
                raise TrainingError(
                    f"The GPU's memory doesn't hold {math.ceil(self.batch_size / self.n_parts)} genes at a time ({error}).",
                    "Use a GPU with more memory, one GPU instead of several, a smaller network or the CPU.",
                ) from error
            return None  # the next try begins after this block, when nothing holds the tensors of this one
        return loss

    def draw(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple]:
        """x0, weight, t, noise and further inputs for these genes, on the CPU (Algorithm 1)."""
        s = self.settings
        x0, weight, inputs = self.samples.draw(index, self.generator)
        n = x0.shape[0]
        t = torch.randint(s.n_diffusion_steps, (n,), generator=self.generator)
        t = torch.where(torch.rand(n, generator=self.generator) < s.share_from_noise, s.n_diffusion_steps - 1, t)
        return x0, weight, t, torch.randn(x0.shape, generator=self.generator), inputs

    def loss_of(self, x0: Tensor, weight: Tensor, t: Tensor, noise: Tensor, inputs: tuple) -> Tensor:
        """The loss of what :meth:`draw` gave."""
        x0, weight, t, noise, *inputs = (part.to(self.device) for part in (x0, weight, t, noise, *inputs))
        x_t = self.diffusion.add_noise(x0, t, noise)
        output, fraction = self.network(x_t, t, *inputs)
        return self.diffusion.loss(output.float(), fraction.float(), x0, x_t, t, noise, weight)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.settings.gradient_clip > 0:  # not by lightning's own clip_gradients, which refuses a fused optimiser under bf16, too
            nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.gradient_clip)

    # Between steps

    def on_train_batch_end(self, *_) -> None:  # here and not in the step, because automatic mixed precision ends with the step
        s, last = self.settings, self.step == self.n_steps
        if self.step % s.validate_every == 0 or last:
            self.look()
        self.finished = last or self.trainer.should_stop
        if self.step % s.checkpoint_every == 0 or self.finished:
            self.keep()

    def look(self) -> None:
        """Add an entry to the curve; keep the moving average when it is the best so far; stop when it hasn't been for long."""
        losses = self.checked_losses()
        for average, current in zip(self.average.buffers(), self.network.buffers(), strict=True):
            average.copy_(current)
        score = float("nan")
        if self.score:
            if self.trainer.is_global_zero:
                with torch.no_grad():
                    score = float(self.score(self.average.eval()))
            score = self.trainer.strategy.broadcast(score)
            if score > self.best_score or not self.best and score == score:
                self.best_step, self.best_score = self.step, score
                self.best = {name: part.cpu().clone() for name, part in self.average.state_dict().items()}
        self.curve.append({"step": self.step, "train_loss": float(losses.mean()), "validation_score": score})
        self.losses, self.batches = [], []
        stop = self.score is not None and sum(entry["step"] > self.best_step for entry in self.curve) >= self.settings.patience
        self.trainer.should_stop = stop
        if self.report and self.trainer.is_global_zero:
            left = 0 if stop else self.n_steps - self.step
            seconds = (time.perf_counter() - self.start) / (self.step - self.first_step) * left
            self.report({**self.curve[-1], "n_steps": self.n_steps, "seconds_left": seconds})

    def checked_losses(self) -> Tensor:
        """The losses since the last entry of the curve, (steps,). They are looked at rarely: a GPU has to be waited for.

        Raises
        ------
        TrainingError
            When what the network is trained on is no number.
        Diverged
            When a loss is no number, or the weights aren't, or the losses are far above those at first.
        """
        losses = torch.stack([loss.cpu() for loss in self.losses]) if self.losses else torch.empty(0)
        broken = (~losses.isfinite()).nonzero()
        remedy = "Lower the learning rate, or look for extreme values in the slide."
        if len(broken):
            step = self.step - len(losses) + int(broken[0])
            batch = self.batches[step - self.step] if step - self.step >= -len(self.batches) else torch.empty(0, dtype=torch.long)
            self.check_data(batch, step)
            raise Diverged(f"The loss is no longer a number at step {step}{self.named(batch)}.", remedy)
        if not all(bool(part.isfinite().all()) for part in self.average.parameters()):
            raise Diverged(f"The loss is no longer a number at step {self.step}: the weights aren't.", remedy)
        if self.first_loss is None and len(losses):
            self.first_loss = float(losses[0])
        if len(losses) >= self.settings.validate_every and float(losses.mean()) > self.limit():
            raise Diverged(
                f"The loss at step {self.step}, {float(losses.mean()):.3g}, is far above the {self.first_loss:.3g} at first"
                f"{self.named(self.batches[-1]) if self.batches else ''}.",
                remedy,
            )
        return losses

    def limit(self) -> float:
        """The loss from which on a training has diverged."""
        return RUNAWAY * max(self.first_loss or 0, 1)

    def named(self, batch: Tensor) -> str:
        """The genes of a batch, in words."""
        names = getattr(self.samples, "names", None)
        if not len(batch):
            return ""
        shown = ", ".join(str(names[i]) if names is not None else f"number {i}" for i in batch[:5].tolist())
        return f" (its batch: genes {shown}{f' and {len(batch) - 5} others' if len(batch) > 5 else ''})"

    def check_data(self, batch: Tensor, step: int) -> None:
        """Raises TrainingError when a gene of this batch has values that are no numbers: no learning rate mends that."""
        generator = torch.Generator().manual_seed(self.seed)

        def fine(gene: Tensor) -> bool:
            x0, _, inputs = self.samples.draw(gene.reshape(1), generator)
            return all(bool(part.isfinite().all()) for part in (x0, *inputs))

        bad = [int(gene) for gene in batch if not fine(gene)]
        if bad:
            said = f"The loss is no longer a number at step {step}: what the network is given isn't{self.named(torch.tensor(bad))}."
            raise TrainingError(said, "Look for extreme values of these genes in the slide and the reference.")

    # Checkpoints: one file each, so that weights and facts always belong together

    def fingerprint(self) -> str:
        """Of all that has to be the same for a checkpoint to be this training's."""
        shapes = [[name, list(part.shape), str(part.dtype)] for name, part in self.network.state_dict().items()]
        facts = [
            CHECKPOINT_VERSION,
            dataclasses.asdict(self.settings),
            self.n_steps,
            self.seed,
            self.score is not None,
            self.samples.n_genes,
            shapes,
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def probe_data(self) -> Tensor:
        """Some values of every gene and of the first weights: a training on other genes (that this one must not know, say) has others.

        They are compared with a tolerance and not hashed, because another machine or number of threads may round otherwise.
        """
        generator = torch.Generator().manual_seed(self.seed)
        values = [part.detach().flatten()[:64] for part in self.network.parameters()]
        for index in torch.arange(self.samples.n_genes).split(self.batch_size):
            x0, *_ = self.samples.draw(index, generator)
            values.append(x0[:, :: math.ceil(x0.shape[1] / 64)].flatten())
        return torch.cat([part.float().cpu() for part in values])

    def state(self, losses: Tensor | None = None) -> tuple[dict[str, Tensor], dict]:
        """All that this training needs to go on from here: copies of its tensors, on the CPU, and its facts."""
        losses = torch.empty(0) if losses is None else losses
        tensors = {"generator": self.generator.get_state(), "order": self.order, "losses": losses, "probe": self.probe}
        for name, part in (("network", self.network), ("average", self.average)):
            tensors.update({f"{name}.{key}": value for key, value in part.state_dict().items()})
        tensors.update({f"best.{key}": value for key, value in self.best.items()})
        if self._trainer is not None:
            for i, state in self.trainer.optimizers[0].state_dict()["state"].items():
                tensors.update({f"optimiser.{i}.{key}": value for key, value in state.items()})
        tensors = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
        facts = {
            "fingerprint": self.fingerprint(),
            "step": self.step,
            "finished": self.finished,
            "curve": list(self.curve),
            "best_step": self.best_step,
            "best_score": self.best_score,
            "lowered": list(self.lowered),
            "first_loss": self.first_loss,
        }
        return tensors, facts

    def keep(self) -> None:
        """Take this state for good, if its losses are: into memory, and onto the disk where there is a place for it."""
        losses = self.checked_losses()
        if self.trainer.is_global_zero and not bool((losses > self.limit()).any()):  # it may be on its way to diverge
            self.good = self.state(losses)
            self.save()

    def save(self) -> None:
        """Write the good state in place of the older of the two checkpoints, whole or not at all."""
        if not self.checkpoint:
            return
        tensors, facts = self.good
        self.checkpoint.mkdir(parents=True, exist_ok=True)
        with finished(self.checkpoint / CHECKPOINT_FILES[self.slot]) as temporary:
            save_file(tensors, temporary, metadata={"training": json.dumps(facts), "checksum": checksum(tensors, facts)})
        self.slot = 1 - self.slot

    def load(self) -> None:
        """Take up the newest state among the checkpoints that is whole and this training's, if there is one."""
        for unfinished in self.checkpoint.glob(".state_*"):  # of a training that was killed while it wrote
            shutil.rmtree(unfinished, ignore_errors=True)
        found = {}
        for slot, name in enumerate(CHECKPOINT_FILES):
            if state := self.read(self.checkpoint / name):
                found[slot] = state
        if found:
            newest = max(found, key=lambda slot: (len(found[slot][1]["lowered"]), found[slot][1]["step"]))
            self.slot = 1 - newest
            self.take(found[newest])
            log.info("Training goes on from step %d of %s.", self.step, self.checkpoint / CHECKPOINT_FILES[newest])

    def read(self, path: Path) -> tuple[dict[str, Tensor], dict] | None:
        """The state in a checkpoint; None, with a word on it, when it is torn or another training's."""
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                facts, sum_then = json.loads(file.metadata()["training"]), file.metadata()["checksum"]
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - it isn't a dict
            if sum_then != checksum(tensors, facts):
                raise ValueError("the checksum doesn't match")
            if facts["fingerprint"] != self.fingerprint() or not same_values(tensors["probe"], self.probe):
                log.warning("The checkpoint %s is of another training (settings, seed or data); it is ignored.", path)
                return None
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            log.warning("The checkpoint %s can't be read (%s); it is ignored.", path, error)
            return None
        return tensors, facts

    def take(self, state: tuple[dict[str, Tensor], dict]) -> None:
        """Go on from this state."""
        tensors, facts = self.good = state

        def part(prefix: str) -> dict[str, Tensor]:
            return {name[len(prefix) :]: value.clone() for name, value in tensors.items() if name.startswith(prefix)}

        self.network.load_state_dict(part("network."))
        self.average.load_state_dict(part("average."))
        self.best, self.optimiser_state = part("best."), {}
        for name, value in part("optimiser.").items():
            i, key = name.split(".")
            self.optimiser_state.setdefault(int(i), {})[key] = value
        self.generator.set_state(tensors["generator"])
        self.order, self.losses, self.batches = tensors["order"], list(tensors["losses"]), []
        for name in ("step", "finished", "best_step", "best_score", "first_loss"):
            setattr(self, name, facts[name])
        self.curve, self.lowered = list(facts["curve"]), list(facts["lowered"])

    def slow_down(self, trouble: Diverged) -> None:
        """Go back to the last good state with a lower learning rate. Raises ``trouble`` when that was done often enough."""
        if len(self.lowered) == MAX_LOWERED:
            raise Diverged(f"{trouble.message} A lower learning rate was tried {MAX_LOWERED} times.", trouble.remedy) from trouble
        tensors, facts = self.good
        self.take((tensors, {**facts, "lowered": [*facts["lowered"], self.step]}))
        log.warning("%s The training goes on from step %d with a lower learning rate.", trouble.message, self.step)
        self.save()

    def result(self) -> Trained:
        """What came of it."""
        if self.best:
            self.average.load_state_dict(self.best)
        network = self.average.cpu().eval().requires_grad_(True)
        return Trained(network, self.best_step if self.best else self.step, self.best_score, self.curve, self.lowered)


def checksum(tensors: dict[str, Tensor], facts: dict) -> str:
    """SHA-256 of these facts and tensors, in the order of their names."""
    value = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(tensors):
        value.update(name.encode())
        value.update(tensors[name].reshape(-1).view(torch.uint8).numpy())
    return value.hexdigest()


def same_values(a: Tensor, b: Tensor) -> bool:
    """The same numbers to rounding; a number that is none equals itself."""
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-3, equal_nan=True)


def train_network(
    network: nn.Module,
    samples: Samples,
    settings: TrainSettings,
    n_steps: int,
    seed: int,
    device: str = "cpu",
    score: Callable[[nn.Module], float] | None = None,
    checkpoint: Path | None = None,
    report: Callable[[dict], None] | None = None,
    n_devices: int = 1,
) -> Trained:
    """Train one network for at most ``n_steps``.

    On the CPU a training that was ended at any moment and is started again with the same arguments gives the same weights, curve and
    best step, to the bit, as one that wasn't. When the loss diverges, training goes on from the last good state with a lower learning rate,
    :data:`MAX_LOWERED` times at most (with one device; with several it is an error at once).

    Parameters
    ----------
    network
        (x_t, t, *inputs) -> (output, fraction), see :class:`spadit.model.diffusion.Diffusion`. It is trained itself, and was
        initialised by the caller.
    samples
        What to train on.
    n_steps
        Steps of the optimiser.
    seed
        Of everything random here.
    device
        'cpu' or 'cuda'.
    score
        How good a network is, higher is better: it is asked about the moving average every ``validate_every`` steps, and training
        stops when it wasn't better ``patience`` times. The network is where it is trained, in eval mode.
    checkpoint
        Directory that outlives the task. What it has of this very training is taken up; what it has of another is overwritten, so
        each training needs its own.
    report
        Called with each entry of the curve, and n_steps and seconds_left (an estimate). With several devices it is called in
        another process.
    n_devices
        More than one: each works on its share of a batch, in a process forked from this one. CUDA must not be in use before.

    Raises
    ------
    TrainingError
        When the loss diverges whatever the learning rate, what is to be learned holds values that are no numbers, or not even one gene
        fits into the GPU's memory.
    """
    if n_steps < 1 or samples.n_genes < 1:
        raise TrainingError(f"There is nothing to train: {n_steps} steps on {samples.n_genes} genes.")
    n_devices = min(n_devices, settings.batch_size, samples.n_genes)
    with tempfile.TemporaryDirectory() as scratch:
        if n_devices > 1 and checkpoint is None:
            checkpoint = Path(scratch)  # the processes hand their result back by it
        training = Training(network, samples, settings, n_steps, seed, score, checkpoint and Path(checkpoint), report)
        while not training.finished:
            try:
                run(training, device, n_devices)
                break
            except Diverged as trouble:
                training.slow_down(trouble)
        if not training.finished:  # it is another process's
            training.load()
        return training.result()


def run(training: Training, device: str, n_devices: int) -> None:
    """Let lightning do the steps that are left."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            max_epochs=1,
            accelerator="cuda" if device == "cuda" else "cpu",
            devices=n_devices,
            strategy=DDPStrategy(start_method="fork") if n_devices > 1 else "auto",
            precision=choose_precision(training.settings.precision, device, n_devices),
            plugins=[LightningEnvironment()],  # a job of SLURM's or MPI's isn't lightning's to share among tasks
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        try:
            trainer.fit(training, range(training.step, training.n_steps))  # each step draws its batch itself
        except SIGTERMException:  # raised after a whole step: the time is up, or the node is wanted back
            training.keep()
            raise SystemExit(128 + 15) from None
