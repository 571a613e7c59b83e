"""Everything that can be set about the model, and the presets."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spadit.trainer import TrainSettings

MODES = ("token", "whole_slide")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that can be set about the model. The presets are below."""

    modes: tuple[str, ...] = MODES
    """Which networks are trained: see :mod:`spadit.modes`."""
    coarse: bool = True
    """Make the coarse condition. Without it (the paper's preset) what the whole-slide network says is all."""
    neighbours: bool = True
    """Let a spot's neighbours on the slide take part: in one of the coarse maps, and in the token network, which sees them together."""
    inner_folds: int = 6
    """Folds over the visible genes in which their coarse maps are made as if hidden; twice as many where genes are few (less than 60)."""
    network_folds: int = 3
    """Folds over the visible genes that tell how long to train and what a network is worth."""
    n_models: int = 2
    """Networks of each mode with different seeds, averaged."""
    max_cells: int = 4000
    max_spots: int = 4000
    """Spots that are learned from; all are imputed. More are subsampled in windows (seeded)."""
    max_entries: int = 60_000_000
    """Spots × visible genes × maps that are held at once while learning; bounds the memory, by fewer spots."""
    max_whole_spots: int = 6000
    """A slide with more spots does without the whole-slide mode: its output layer grows with the spots."""

    # network
    backbone: str = "dit"
    width: int = 96
    depth: int = 3
    n_heads: int = 4
    n_reduced: int = 32
    condition: str = "attention"
    concatenate: bool = True
    whole_cells: int = 1000
    """Cells that make up a gene's reference vector in whole-slide mode."""
    token_width: int = 64
    token_depth: int = 2

    # diffusion
    n_diffusion_steps: int = 1000
    schedule: str = "cosine"
    target: str = "x0"
    sampler: str = "one_step"
    n_noise: int = 4
    """Noise vectors per imputed gene in whole-slide mode; the imputed value is the mean over them."""
    mask_nonzero: float = 0.3
    mask_zero: float = 0.1
    """Shares of a gene's non-zero and zero entries (m1, m2) that a training step is scored on."""
    share_from_noise: float = 0.5

    # training
    max_steps: int = 100
    validate_every: int = 10
    patience: int = 3
    batch_size: int = 64
    learning_rate: float = 5e-4
    token_batch_size: int = 32
    token_learning_rate: float = 1e-3
    weight_decay: float = 0.02
    gradient_clip: float = 1.0
    ema: float = 0.95
    precision: str = "auto"
    checkpoint_every: int = 50
    n_devices: int = 1

    def training(self, mode: str) -> TrainSettings:
        """What the trainer needs of it."""
        from spadit.trainer import TrainSettings  # not above: it brings PyTorch, and estimates of a slide's needs do without

        names = [f.name for f in dataclasses.fields(TrainSettings) if hasattr(self, f.name)]
        shared = {name: getattr(self, name) for name in names}
        if mode == "token":
            shared |= {"learning_rate": self.token_learning_rate, "batch_size": self.token_batch_size}
        return TrainSettings(**shared)


PRESETS = {
    "default": Settings(),
    "fast": Settings(
        modes=("token",), inner_folds=4, network_folds=2, n_models=1, max_cells=2000, max_spots=2000, max_steps=60, patience=2
    ),
    "accurate": Settings(inner_folds=10, network_folds=5, n_models=5, max_cells=8000, max_spots=8000, max_steps=400, patience=8),
    # the released code's hyperparameters, where they have a meaning in the model as published (predicts noise, Eq. 9)
    "paper": Settings(
        modes=("whole_slide",),
        coarse=False,
        width=256,
        depth=16,
        n_heads=16,
        n_diffusion_steps=10,
        target="epsilon",
        sampler="ddpm",
        share_from_noise=0.0,
        learning_rate=1e-4,
        max_steps=400,
        n_models=1,
        n_noise=1,
        max_whole_spots=1_000_000,
    ),
}
