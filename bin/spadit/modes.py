"""The two ways SpaDiT looks at a slide, with one interface: whole-slide (the paper's) and token.

- ``whole_slide``: a sample is a gene's vector over all spots (:class:`spadit.model.spadit.Network`). Its size is bound to the slide's.
- ``token``: a sample is a window of neighbouring spots of a gene, with the coarse maps as input; x0 is what the coarse condition misses
  (:class:`spadit.model.token.TokenNetwork`). Any slide fits, and a network trained on one slide can start on another.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from spadit.errors import SpaditError
from spadit.metrics import pcc
from spadit.model.diffusion import Diffusion
from spadit.model.initial import seeded
from spadit.model.spadit import Network, NetworkSettings
from spadit.model.token import TokenNetwork, TokenSettings
from spadit.settings import Settings
from spadit.trainer import Trained, train_network

log = logging.getLogger(__name__)

WINDOW = 32
ORDERS = 2
"""Ways of cutting the slide into windows; imputed values are their mean, so that no spot is always at a border."""
WINDOWS_PER_STEP = 2
SCORED_GENES, SCORED_TOKENS = 128, 1 << 15
"""Held-back genes, and tokens of these, that tell how far a training is; all of them would take longer than the training."""
TOKENS_AT_ONCE = 1 << 16


# ---- windows ---------------------------------------------------------------------------------------------------------


def cut_windows(coordinates: np.ndarray, order: int = 0) -> np.ndarray:
    """Neighbouring spots in windows of 32, (windows, 32): the slide is halved along its longer side until the pieces fit. The last ones
    are filled up by repeating their spots. Odd orders turn the slide by half a right angle first."""
    if order % 2:
        coordinates = coordinates @ (np.array([[1.0, -1.0], [1.0, 1.0]]) / np.sqrt(2))
    pieces, open_pieces = [], [np.arange(len(coordinates))]
    while open_pieces:
        piece = open_pieces.pop()
        if len(piece) <= WINDOW:
            pieces.append(np.resize(piece, WINDOW))
            continue
        points = coordinates[piece]
        axis = int(np.ptp(points, axis=0).argmax())
        piece = piece[np.argsort(points[:, axis], kind="stable")]
        half = -(-len(piece) // (2 * WINDOW)) * WINDOW
        half = half if half < len(piece) else len(piece) // 2
        open_pieces += [piece[half:], piece[:half]]
    return np.array(pieces)


def positions(coordinates: np.ndarray) -> np.ndarray:
    """Where a spot lies, as sines and cosines at two scales of the slide, (spots, 8)."""
    span = np.maximum(np.ptp(coordinates, axis=0), 1e-9).max()
    unit = (coordinates - coordinates.min(0)) / span
    return np.concatenate([wave(np.pi * scale * unit) for scale in (1, 2) for wave in (np.sin, np.cos)], axis=1).astype(np.float32)


# ---- samples ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class WholeSlideSamples:
    """Genes as vectors over all spots. ``zero`` marks measured counts of zero: which of the masks m1, m2 applies to an entry."""

    spatial: Tensor
    zero: Tensor
    reference: Tensor
    whole: Tensor
    settings: Settings

    @property
    def n_genes(self) -> int:
        return len(self.spatial)

    def draw(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """x0 and the masks m1, m2 (Algorithm 1): a step is scored on a random share of a gene's zero and non-zero entries."""
        x0 = self.spatial[index]
        chance = torch.where(self.zero[index], self.settings.mask_zero, self.settings.mask_nonzero)
        weight = (torch.rand(x0.shape, generator=generator) < chance).float()
        return x0, weight, (self.reference[index], self.whole)


@dataclasses.dataclass
class TokenSamples:
    """Windows of genes. ``target``: (spots, genes); ``maps``: (spots, genes, maps); ``place``: (spots, 8); ``scalars``: per gene."""

    target: Tensor
    maps: Tensor
    place: Tensor
    scalars: Tensor
    windows: list[Tensor]
    genes: Tensor

    @property
    def n_genes(self) -> int:
        return len(self.genes)

    def draw(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """The same few windows of every gene of the batch."""
        genes = self.genes[index]
        order = self.windows[int(torch.randint(len(self.windows), (1,), generator=generator))]
        spots = order[torch.randint(len(order), (min(WINDOWS_PER_STEP, len(order)),), generator=generator)]
        x0 = self.target[spots][:, :, genes].permute(2, 0, 1).reshape(-1, WINDOW)
        features = token_features(self.maps[spots][:, :, genes].permute(2, 0, 1, 3), self.place[spots])
        return x0, torch.ones_like(x0), (features, self.scalars[genes].repeat_interleave(len(spots), 0))


def token_features(maps: Tensor, place: Tensor) -> Tensor:
    """(genes, windows, spots, maps) and (windows, spots, 8) -> (genes · windows, spots, maps + 8)."""
    place = place.unsqueeze(0).expand(len(maps), *place.shape)
    return torch.cat([maps, place], dim=-1).flatten(0, 1)


# ---- the modes -------------------------------------------------------------------------------------------------------


class WholeSlide:
    """The paper's mode: see :class:`spadit.model.spadit.Network`.

    Parameters
    ----------
    y
        Visible genes, z-scored, (spots, genes).
    zero
        True where the measured count is zero, (spots, genes).
    reference
        z-scored vectors of the visible genes, (cells, genes).
    whole
        The reference the condition is made from, (cells, condition genes).
    """

    name = "whole_slide"

    def __init__(self, settings: Settings, n_spots: int, whole: np.ndarray, device: str):
        self.settings, self.device, self.n_spots = settings, device, n_spots
        self.whole = tensor(whole.T).to(device)

    def data(self, y: np.ndarray, zero: np.ndarray, reference: np.ndarray) -> None:
        """What is trained on."""
        self.y = y
        self.spatial, self.zero = tensor(y.T), tensor(zero.T)
        self.reference = tensor(reference.T)

    def build(self, seed: int) -> Network:
        """A fresh network, its weights drawn from the seed."""
        s = self.settings
        shape = NetworkSettings(
            n_spots=self.n_spots,
            n_cells=self.whole.shape[1],
            n_condition_genes=len(self.whole),
            width=s.width,
            depth=s.depth,
            n_heads=s.n_heads,
            n_reduced=s.n_reduced,
            condition=s.condition,
            concatenate=s.concatenate,
            backbone=s.backbone,
        )
        return seeded(seed, lambda: Network(shape))

    def samples(self, genes: np.ndarray) -> WholeSlideSamples:
        index = torch.from_numpy(genes)
        return WholeSlideSamples(self.spatial[index], self.zero[index], self.reference[index], self.whole, self.settings)

    def impute_visible(self, networks: Sequence[nn.Module], genes: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Visible genes from their reference vectors alone, (rows, genes)."""
        return self.impute(networks, self.reference[torch.from_numpy(genes)].numpy().T)[rows]

    def score(self, network: nn.Module, genes: np.ndarray) -> float:
        """Median PCC of visible genes that were kept from the network."""
        return float(np.median(pcc(self.y[:, genes], self.impute_visible([network], genes, np.arange(self.n_spots)))))

    @torch.no_grad()
    def impute(self, networks: Sequence[nn.Module], reference: np.ndarray, block: int = 256) -> np.ndarray:
        """Genes from Gaussian noise (Algorithm 2): the mean over noise vectors and networks, (spots, genes), z-scale.

        Every gene starts from the same noise, so that its values don't depend on which other genes are asked for.
        """
        s = self.settings
        diffusion = Diffusion(s.n_diffusion_steps, s.schedule, s.target).to(self.device)
        vectors = tensor(reference.T)
        result = np.zeros((self.n_spots, len(vectors)), dtype=np.float32)
        for network in networks:
            network.to(self.device).eval()

            def some(start: int, stop: int, network: nn.Module = network) -> None:
                part = vectors[start:stop].to(self.device)
                generator = torch.Generator().manual_seed(0)
                total = np.zeros((self.n_spots, len(part)), dtype=np.float32)
                for _ in range(s.n_noise):
                    noise = torch.randn(self.n_spots, generator=generator).to(self.device).expand(len(part), -1)
                    drawn = diffusion.sample(lambda x, t: network(x, t, part, self.whole), noise, s.sampler, generator=generator)
                    total += drawn.float().cpu().numpy().T
                result[:, start:stop] += total

            in_blocks(len(vectors), block, some, "genes")
            network.cpu()
        return result / (len(networks) * s.n_noise)


class Token:
    """The mode for any size: windows of spots, see :class:`spadit.model.token.TokenNetwork`."""

    name = "token"

    def __init__(self, settings: Settings, coordinates: np.ndarray, n_maps: int, n_scalars: int, device: str):
        self.settings, self.device = settings, device
        self.shape = TokenSettings(
            n_features=n_maps + 8,
            n_scalars=n_scalars,
            width=settings.token_width,
            depth=settings.token_depth,
            n_heads=settings.n_heads,
            backbone=settings.backbone,
        )
        self.place = tensor(positions(coordinates))
        self.windows = [torch.from_numpy(cut_windows(coordinates, order)) for order in range(ORDERS)]

    def data(
        self, residual: np.ndarray, base: np.ndarray, maps: np.ndarray, scalars: np.ndarray, coordinates: np.ndarray, rows: np.ndarray
    ) -> None:
        """What is trained on: what the coarse condition misses at the rows (spots that are learned from)."""
        self.y, self.base = residual + base, base
        self.target, self.maps = tensor(residual), tensor(maps)
        self.scalars = tensor(scalars)
        self.learn_place = self.place[torch.from_numpy(rows)]
        self.learn_windows = [torch.from_numpy(cut_windows(coordinates[rows], order)) for order in range(ORDERS)]

    def build(self, seed: int) -> TokenNetwork:
        """A fresh network, its weights drawn from the seed."""
        return seeded(seed, lambda: TokenNetwork(self.shape))

    def samples(self, genes: np.ndarray) -> TokenSamples:
        return TokenSamples(self.target, self.maps, self.learn_place, self.scalars, self.learn_windows, torch.from_numpy(genes))

    def impute_visible(self, networks: Sequence[nn.Module], genes: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """What the network adds to the coarse condition for visible genes, (rows, genes)."""
        index = torch.from_numpy(genes)
        return self._run(networks, self.maps[:, index], self.scalars[index], self.learn_place, self.learn_windows)

    def score(self, network: nn.Module, genes: np.ndarray) -> float:
        """Median PCC of visible genes that were kept from the network: of some genes, in some windows."""
        genes = genes[np.linspace(0, len(genes) - 1, min(SCORED_GENES, len(genes))).round().astype(int)]
        windows = self.learn_windows[0]
        n_windows = min(len(windows), max(1, SCORED_TOKENS // (WINDOW * len(genes))))
        windows = windows[torch.linspace(0, len(windows) - 1, n_windows).round().long()]
        spots, index = windows.flatten(), torch.from_numpy(genes)
        places = torch.arange(len(spots)).reshape(windows.shape)
        added = self._run([network], self.maps[spots][:, index], self.scalars[index], self.learn_place[spots], [places])
        return float(np.median(pcc(self.y[spots.numpy()][:, genes], self.base[spots.numpy()][:, genes] + added)))

    def impute(self, networks: Sequence[nn.Module], maps: np.ndarray, scalars: np.ndarray) -> np.ndarray:
        """What the networks add to the coarse condition of hidden genes, (spots, genes): their estimate of x0 at t = T, where the noise
        says nothing."""
        return self._run(networks, tensor(maps), tensor(scalars), self.place, self.windows)

    def draw(self, network: nn.Module, maps: np.ndarray, scalars: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """One sample of what is added, (spots, genes), by DDIM from Gaussian noise of the same shape."""
        return self._run([network], tensor(maps), tensor(scalars), self.place, self.windows[:1], tensor(noise))

    @torch.no_grad()
    def _run(
        self,
        networks: Sequence[nn.Module],
        maps: Tensor,
        scalars: Tensor,
        place: Tensor,
        windows: list[Tensor],
        noise: Tensor | None = None,
    ) -> np.ndarray:
        s = self.settings
        diffusion = Diffusion(s.n_diffusion_steps, s.schedule, s.target).to(self.device)
        n_genes = maps.shape[1]
        step = max(1, TOKENS_AT_ONCE // (WINDOW * max(n_genes, 1)))
        total = np.zeros((len(place), n_genes), dtype=np.float32)
        for network in networks:
            network.to(self.device).eval()
            for order in windows:
                part = np.empty_like(total)

                def some(start: int, stop: int, network: nn.Module = network, order: Tensor = order, part: np.ndarray = part) -> None:
                    spots = order[start:stop]
                    features = token_features(maps[spots].permute(2, 0, 1, 3), place[spots]).to(self.device)
                    known = scalars.repeat_interleave(len(spots), 0).to(self.device)
                    begin = torch.zeros(len(features), WINDOW) if noise is None else noise[spots].permute(2, 0, 1).flatten(0, 1)
                    sampler = "one_step" if noise is None else "ddim"
                    made = diffusion.sample(lambda x, t: network(x, t, features, known), begin.to(self.device), sampler)
                    part[spots.flatten().numpy()] = made.float().cpu().reshape(n_genes, -1).T.numpy()

                in_blocks(len(order), step, some, "windows")
                total += part
            network.cpu()
        return total / (len(networks) * len(windows))


def in_blocks(n: int, size: int, work: Callable[[int, int], None], what: str) -> None:
    """``work(start, stop)`` over 0 ... n in blocks; half as many at once whenever the GPU's memory is full.

    Raises
    ------
    SpaditError
        When not even one at a time fits.
    """
    start = 0
    while start < n:
        full = None
        try:
            work(start, min(start + size, n))
        except torch.cuda.OutOfMemoryError as error:
            full = str(error)
        if full is None:
            start += size
            continue
        if size == 1:
            raise SpaditError(f"The GPU's memory doesn't hold one of the {what} ({full}).", "Use a GPU with more memory or the CPU.")
        size = -(-size // 2)  # the next try begins here, when nothing holds the tensors of this one
        torch.cuda.empty_cache()
        log.warning("The GPU's memory is full: %d %s now go through the network at once.", size, what)


def tensor(array: np.ndarray) -> Tensor:
    """A tensor with memory of its own. PyTorch aligns it, and how its products are rounded depends on that: with borrowed memory the same
    numbers would not always give the same bits."""
    return torch.from_numpy(np.ascontiguousarray(array, dtype=None if array.dtype == bool else np.float32)).clone()


# ---- fitting ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class FittedMode:
    """A mode's networks, and what they say of visible genes that were kept from them."""

    networks: list[nn.Module]
    crossfitted: np.ndarray
    """(rows, visible genes)."""
    n_steps: int
    score: float
    curve: list[dict]
    n_lowered: int = 0
    """Times a learning rate was lowered because a loss had diverged, over all its networks."""


def fit_mode(
    mode: WholeSlide | Token,
    n_genes: int,
    rows: np.ndarray,
    seed: int,
    n_steps: int | None = None,
    start: dict | None = None,
    checkpoint: Path | None = None,
    report: Callable[[dict], None] | None = None,
    names: Sequence[str] | None = None,
) -> FittedMode:
    """Train a mode's networks.

    In each of a few folds over the visible genes a network learns from the others and stops where it imputes the fold best; what it says of
    the fold is kept. The final networks learn from all genes for the median of these numbers of steps.

    Parameters
    ----------
    rows
        The spots at which visible genes are wanted back.
    n_steps
        Train for this long instead of choosing.
    start
        Weights to start from, of a network trained elsewhere.
    names
        Of the genes, for messages.
    """
    s = mode.settings
    order = np.random.default_rng(seed).permutation(n_genes)
    n_folds = min(s.network_folds, n_genes) if n_genes > 2 else 0
    crossfitted = np.zeros((len(rows), n_genes), dtype=np.float32)
    curve: list[dict] = []
    steps, scores = [], []
    lowered: list[int] = []

    def run(stage: str, number: int, genes: np.ndarray, limit: int, score: Callable[[nn.Module], float] | None) -> Trained:
        def tell(entry: dict) -> None:
            if report:
                report({"mode": mode.name, "stage": stage, "network": number, **entry})

        network = mode.build(seed + number)
        if start:
            network.load_state_dict(start)
        folder = checkpoint / mode.name / f"{stage}_{number}" if checkpoint else None
        samples = mode.samples(genes)
        samples.names = [names[i] for i in genes] if names is not None else None
        trained = train_network(
            network, samples, s.training(mode.name), limit, seed + number, mode.device, score, folder, tell, s.n_devices
        )
        lowered.extend(trained.lowered)
        curve.extend({"mode": mode.name, "stage": stage, "network": number, **entry} for entry in trained.curve)
        return trained

    for k in range(n_folds):
        held = np.sort(order[k::n_folds])
        others = np.setdiff1d(np.arange(n_genes), held)
        trained = run("choose", k, others, n_steps or s.max_steps, lambda network, held=held: mode.score(network, held))
        crossfitted[:, held] = mode.impute_visible([trained.network], held, rows)
        steps.append(trained.step)
        scores.append(trained.score)
    if n_steps is None:
        n_steps = max(s.validate_every, int(np.median(steps))) if steps else s.max_steps // 4
    networks = [run("final", i, np.arange(n_genes), n_steps, None).network for i in range(s.n_models)]
    return FittedMode(networks, crossfitted, n_steps, float(np.mean(scores)) if scores else float("nan"), curve, len(lowered))
