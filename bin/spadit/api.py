"""The model as a user meets it: ``SpaDiT(...).fit(slide, reference).impute(genes)``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from spadit.errors import InputError, SpaditError, TrainingError
from spadit.files import write_text
from spadit.model.spadit import Network, NetworkSettings
from spadit.preprocess import log_normalise, zscore
from spadit.training import PRESETS, Fit, Genes, Settings, fit, sample

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
CLIP = 10.0


def choose_device(device: str) -> str:
    """'cpu' or 'cuda' from 'auto', 'cpu' or 'cuda'.

    Raises
    ------
    SpaditError
        When a GPU was asked for and none can be used.
    """
    available = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if available else "cpu"
    if device == "cuda" and not available:
        raise SpaditError("A GPU was asked for (--device cuda) but torch finds none it can use.",
                          "Check the driver with nvidia-smi and the container's GPU option, or use --device auto.")
    if device not in ("cpu", "cuda"):
        raise SpaditError(f"Unknown device '{device}'.", "Use auto, cpu or cuda.")
    return device


def dense_genes(data: anndata.AnnData, genes: list[str]) -> np.ndarray:
    """Counts of these genes, dense, (observations, genes)."""
    counts = data.layers["counts"][:, data.var_names.get_indexer(genes)]
    return counts.toarray() if hasattr(counts, "toarray") else np.asarray(counts)


def to_expression(z: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Log-normalised values (spots × genes) from standardised ones and each gene's expected mean and SD.

    The network shrinks what it is unsure of. The map's shape is kept; its spread becomes the one expected of the gene, so that
    imputed and measured genes can be seen on one scale. How unsure a gene is stands in its reliability and interval instead.
    """
    spread = z.std(0)
    return np.maximum(z / np.where(spread > 1e-6, spread, 1) * sd + mean, 0).astype(np.float32)


class SpaDiT:
    """Imputes genes that a slide did not measure, from a single-cell reference.

    Parameters
    ----------
    preset
        'default' or 'paper' (the published hyperparameters): see :data:`spadit.training.PRESETS`.
    seed
        Of everything random. Same seed, same numbers.
    device
        'auto', 'cpu' or 'cuda'.
    **settings
        Fields of :class:`spadit.training.Settings` to change.

    Examples
    --------
    >>> model = SpaDiT(seed=0).fit(slide, reference)  # AnnData with layers['counts']
    >>> imputed = model.impute(["Gad1", "Sst"])  # spots × genes, log-normalised scale
    """

    def __init__(self, preset: str = "default", seed: int = 0, device: str = "auto", **settings):
        if preset not in PRESETS:
            raise SpaditError(f"Unknown preset '{preset}'.", f"Use one of: {', '.join(PRESETS)}.")
        fields = {f.name for f in dataclasses.fields(Settings)}
        unknown = sorted(set(settings) - fields)
        if unknown:
            raise SpaditError(f"Unknown settings: {', '.join(unknown)}.", f"Known ones are: {', '.join(sorted(fields))}.")
        self.preset, self.seed = preset, seed
        self.settings = dataclasses.replace(PRESETS[preset], **settings)
        self.device = choose_device(device)
        self._fit: Fit | None = None

    def fit(self, slide: anndata.AnnData, reference: anndata.AnnData, validation_genes: list[str] | None = None,
            n_steps: int | None = None, report: Callable[[dict], None] | None = None) -> SpaDiT:
        """Train on every gene of ``slide`` that ``reference`` has. A gene to be hidden must not be in ``slide``.

        Parameters
        ----------
        slide
            Spots × genes, raw counts in ``layers['counts']``. Library sizes come from these genes alone.
        reference
            Cells × genes, raw counts in ``layers['counts']``; ``var['highly_variable']``, if there, names the condition's genes.
        validation_genes
            Those among the slide's genes that choose the number of training steps. Default: a seeded 2/9 (the paper's 7:2).
        n_steps
            Train for this long and choose nothing.
        report
            Called with each point of the training curve.

        Raises
        ------
        TrainingError
            When there are too few genes, or the loss is no longer a number.
        """
        known = set(reference.var_names)
        self.genes = sorted(gene for gene in slide.var_names if gene in known)
        if len(self.genes) < 2:
            raise TrainingError(f"The slide and the reference share {len(self.genes)} genes; at least 2 are needed to train.")
        # everything is put in the order of names, so that results don't depend on the order of spots, cells or genes
        self.spots = sorted(slide.obs_names)
        draw = np.random.default_rng(self.seed)
        cells = np.array(sorted(reference.obs_names))
        if len(cells) > self.settings.max_cells:
            cells = cells[np.sort(draw.choice(len(cells), self.settings.max_cells, replace=False))]
        self.cells = cells.tolist()
        if "highly_variable" in reference.var:
            self.condition_genes = sorted(reference.var_names[reference.var["highly_variable"].to_numpy(bool)])
        else:
            self.condition_genes = sorted(reference.var_names)

        counts = dense_genes(slide[self.spots], self.genes)
        values, _, self.target_sum = log_normalise(counts)
        values = values.toarray()
        reference_vectors = self._reference_vectors(reference)
        visible = Genes(
            reference=reference_vectors(self.genes),
            spatial=torch.from_numpy(zscore(values, CLIP).T.astype(np.float32)),
            observed_zero=torch.from_numpy(counts.T == 0),
        )
        self._fit_scale(values, self._reference_statistics.loc[self.genes])
        if validation_genes is None:
            shuffled = draw.permutation(len(self.genes))
            validation = shuffled[: max(1, round(len(self.genes) * 2 / 9))]
        else:
            validation = np.array([i for i, gene in enumerate(self.genes) if gene in set(validation_genes)], dtype=int)
        self._fit = fit(visible, torch.from_numpy(np.sort(validation)), reference_vectors(self.condition_genes), self.settings,
                        self.seed, self.device, n_steps, report)
        return self

    def impute(self, genes: list[str], reference: anndata.AnnData | None = None) -> pd.DataFrame:
        """Impute genes of the reference at every spot.

        Parameters
        ----------
        genes
            Names in the reference. Their values on the slide, if it has any, play no part.
        reference
            Needed once after :meth:`load`, which doesn't bring the reference's counts.

        Returns
        -------
        DataFrame
            Spots (in the order of their names) × genes, log-normalised scale.
        """
        values = to_expression(*self.impute_standardised(genes, reference))
        return pd.DataFrame(values, index=self.spots, columns=list(genes))

    def impute_standardised(self, genes: list[str], reference: anndata.AnnData | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As :meth:`impute`, in parts: z-scale values (spots × genes), shrunk where the network is unsure, and each gene's expected
        mean and SD over spots (genes,) on the log-normalised scale. :func:`to_expression` puts them together."""
        if self._fit is None:
            raise TrainingError("The model isn't trained.", "Call fit() or load() first.")
        if reference is not None:
            self._reference_vectors(reference)
        if self._vectors is None:
            raise InputError("A loaded model needs the reference to impute from.", "Pass reference=... once.")
        missing = [gene for gene in genes if gene not in self._reference_statistics.index]
        if missing:
            raise InputError(f"{len(missing)} genes are not in the reference, e.g. {', '.join(missing[:5])}.")
        drawn = sample(self._fit.networks, Genes(self._vectors(genes)), self._fit.whole, self.settings, self.seed)
        mean, sd = self._expected_scale(self._reference_statistics.loc[list(genes)])
        return drawn.numpy().T, mean, sd

    def _reference_vectors(self, reference: anndata.AnnData) -> Callable[[list[str]], torch.Tensor]:
        """A function that gives the z-scored reference vectors of genes, (genes, cells)."""
        missing = set(self.cells) - set(reference.obs_names)
        if missing:
            raise InputError(f"{len(missing)} cells that the model was trained with are not in this reference.",
                             "Give the reference that the model was trained with.")
        values, _, _ = log_normalise(reference.layers["counts"])
        mean = np.asarray(values.mean(0)).ravel()
        square = np.asarray(values.multiply(values).mean(0)).ravel()
        detected = np.asarray((reference.layers["counts"] > 0).mean(0)).ravel()
        self._reference_statistics = pd.DataFrame(
            {"mean": mean, "sd": np.sqrt(np.maximum(square - mean**2, 0)), "detected": detected}, index=reference.var_names
        )
        chosen = values[reference.obs_names.get_indexer(self.cells)]
        positions = reference.var_names

        def vectors(genes: list[str]) -> torch.Tensor:
            return torch.from_numpy(zscore(chosen[:, positions.get_indexer(genes)], CLIP).T.astype(np.float32))

        self._vectors = vectors
        return vectors

    def _fit_scale(self, values: np.ndarray, statistics: pd.DataFrame) -> None:
        """Learn a gene's mean and SD on the slide from its mean, SD and detection in the reference: ridge over the visible genes.

        A hidden gene's own level on the slide can't be known; this is the best guess, and it is only needed to give values on
        the slide's scale. Correlations don't depend on it.
        """
        mean, sd = values.mean(0), values.std(0)
        features = self._scale_features(statistics)
        penalty = np.eye(features.shape[1])
        penalty[0, 0] = 0
        targets = np.column_stack([np.log(mean + 1e-3), np.log(sd + 1e-3)])
        self._scale = np.linalg.solve(features.T @ features + penalty, features.T @ targets)
        self._scale_range = np.array([targets.min(0), targets.max(0)])

    @staticmethod
    def _scale_features(statistics: pd.DataFrame) -> np.ndarray:
        return np.column_stack([np.ones(len(statistics)), np.log(statistics["mean"] + 1e-3), np.log(statistics["sd"] + 1e-3),
                                statistics["detected"]])

    def _expected_scale(self, statistics: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        logs = np.clip(self._scale_features(statistics) @ self._scale, *self._scale_range)
        mean, sd = np.exp(logs).T
        return mean, sd

    @property
    def facts(self) -> dict:
        """Of the training: n_visible, best_step, validation_pcc, seconds, n_weights."""
        f = self._fit
        return {"n_visible": len(self.genes), "best_step": f.n_steps, "validation_pcc": f.validation_pcc, "seconds": f.seconds,
                "n_weights": sum(p.numel() for network in f.networks for p in network.parameters())}

    @property
    def curve(self) -> pd.DataFrame:
        """The training curve: stage, model, step, train_loss, validation_loss, validation_pcc."""
        return pd.DataFrame(self._fit.curve)

    def save(self, directory: str | Path) -> None:
        """Weights as safetensors, everything else as JSON."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        tensors = {f"network_{i}.{name}": part.contiguous() for i, network in enumerate(self._fit.networks)
                   for name, part in network.state_dict().items()}
        tensors["whole"] = self._fit.whole.contiguous()
        save_file(tensors, directory / "weights.safetensors")
        content = {
            "kind": "spadit_model", "version": FORMAT_VERSION, "preset": self.preset, "seed": self.seed,
            "settings": dataclasses.asdict(self.settings), "network": dataclasses.asdict(self._fit.networks[0].settings),
            "genes": self.genes, "spots": self.spots, "cells": self.cells, "condition_genes": self.condition_genes,
            "target_sum": self.target_sum, "scale": self._scale.tolist(), "scale_range": self._scale_range.tolist(),
            "n_steps": self._fit.n_steps,
            "weights_sha256": hashlib.sha256((directory / "weights.safetensors").read_bytes()).hexdigest(),
        }
        write_text(directory / "model.json", json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, directory: str | Path, reference: anndata.AnnData | None = None, device: str = "auto") -> SpaDiT:
        """Read a saved model back.

        Raises
        ------
        InputError
            When the files are missing, torn, or of an unknown version.
        """
        directory = Path(directory)
        try:
            content = json.loads((directory / "model.json").read_text(encoding="utf-8"))
            found = hashlib.sha256((directory / "weights.safetensors").read_bytes()).hexdigest()
        except (OSError, json.JSONDecodeError) as error:
            raise InputError(f"{directory} does not hold a SpaDiT model: {error}.") from error
        if content.get("kind") != "spadit_model" or content.get("version") != FORMAT_VERSION:
            raise InputError(f"{directory}/model.json is of another kind or version than this revision reads ({FORMAT_VERSION}).")
        if found != content["weights_sha256"]:
            raise InputError(f"{directory}/weights.safetensors does not match its checksum in model.json.",
                             "Copy or train the model again.")
        model = cls(content["preset"], content["seed"], device, **content["settings"])
        model.genes, model.spots, model.cells = content["genes"], content["spots"], content["cells"]
        model.condition_genes, model.target_sum = content["condition_genes"], content["target_sum"]
        model._scale, model._scale_range = np.array(content["scale"]), np.array(content["scale_range"])
        tensors = load_file(directory / "weights.safetensors")
        networks = []
        for i in range(model.settings.n_models):
            network = Network(NetworkSettings(**content["network"]))
            prefix = f"network_{i}."
            network.load_state_dict({name[len(prefix):]: part for name, part in tensors.items() if name.startswith(prefix)})
            networks.append(network.to(model.device).eval())
        model._fit = Fit(networks, tensors["whole"], model.settings, content["n_steps"], float("nan"), [], 0.0)
        model._vectors = None
        if reference is not None:
            model._reference_vectors(reference)
        return model
