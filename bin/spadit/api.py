"""The model as a user meets it: ``SpaDiT(...).fit(slide, reference).impute(genes)``."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from spadit import coarse
from spadit.errors import InputError, SpaditError, TrainingError
from spadit.files import read_json, write_text
from spadit.io import sha256
from spadit.metrics import morans_i, neighbours, pcc
from spadit.model.backbone import BACKBONES
from spadit.model.condition import CONDITIONS
from spadit.model.diffusion import TARGETS
from spadit.model.sampling import SAMPLERS
from spadit.model.schedule import SCHEDULES
from spadit.modes import WINDOW, FittedMode, Token, WholeSlide, cut_windows, fit_mode
from spadit.preprocess import log_normalise, zscore
from spadit.reference import Reference
from spadit.scale import Scale, crossfitted_scale, to_expression
from spadit.settings import MODES, PRESETS, Settings
from spadit.uncertainty import Trust, load_prior

log = logging.getLogger(__name__)

FORMAT_VERSION = 3
FILES = ("model.json", "weights.safetensors")
"""Of a saved model."""
CONTENT = {
    "preset": str,
    "seed": int,
    "settings": dict,
    "genes": list,
    "spots": list,
    "cells": list,
    "counts_sha256": str,
    "blend": dict,
    "trust": dict,
    "modes": dict,
    "weights_sha256": str,
}
"""What model.json has to hold, with its type."""
FACTS = (*coarse.SCALARS, "SD of the map", "Moran's I of the map", "agreement of the modes")
"""What reliability is read from."""
CHOICES = {"backbone": BACKBONES, "condition": CONDITIONS, "target": TARGETS, "sampler": SAMPLERS, "schedule": SCHEDULES}
"""Settings that are one of several words."""
BLOCK = 1 << 26
"""Spots × genes × maps that are imputed at once."""
PLAIN_BLOCK = 1 << 24
"""Spots × genes that are imputed at once where no network asks for the maps themselves (256 genes at most)."""
ARRAYS = {
    "stack": ("weights", "correction", "centre", "spread", "shared"),
    "scale": ("coefficients", "bounds"),
    "trust": ("centre", "spread", "coefficients"),
}


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
        raise SpaditError(
            "A GPU was asked for (--device cuda) but torch finds none it can use.",
            "Check the driver with nvidia-smi and the container's GPU option, or use --device auto.",
        )
    if device not in ("cpu", "cuda"):
        raise SpaditError(f"Unknown device '{device}'.", "Use auto, cpu or cuda.")
    return device


class SpaDiT:
    """Imputes genes that a slide did not measure, from a single-cell reference.

    Parameters
    ----------
    preset
        'default', 'fast', 'accurate', or 'paper' (the published hyperparameters): see :data:`spadit.settings.PRESETS`.
    seed
        Of everything random. Same seed, same numbers.
    device
        'auto', 'cpu' or 'cuda'.
    **settings
        Fields of :class:`spadit.settings.Settings` to change.

    Examples
    --------
    >>> model = SpaDiT(seed=0).fit(slide, reference)  # AnnData with raw counts in layers['counts'], obsm['spatial']
    >>> imputed = model.impute(["Gad1", "Sst"])  # AnnData, spots × genes, log-normalised scale
    >>> imputed.var["reliability"]  # the PCC to be expected
    """

    def __init__(self, preset: str = "default", seed: int = 0, device: str = "auto", **settings):
        if preset not in PRESETS:
            raise SpaditError(f"Unknown preset '{preset}'.", f"Use one of: {', '.join(PRESETS)}.")
        fields = {f.name for f in dataclasses.fields(Settings)}
        unknown = sorted(set(settings) - fields)
        if unknown:
            raise SpaditError(f"Unknown settings: {', '.join(unknown)}.", f"Known ones are: {', '.join(sorted(fields))}.")
        if "modes" in settings:
            settings["modes"] = (settings["modes"],) if isinstance(settings["modes"], str) else tuple(settings["modes"])
            wrong = sorted(set(settings["modes"]) - set(MODES))
            if wrong:
                raise SpaditError(f"Unknown modes: {', '.join(wrong)}.", f"Use some of: {', '.join(MODES)}.")
        self.preset, self.seed = preset, seed
        self.settings = dataclasses.replace(PRESETS[preset], **settings)
        for name, known in CHOICES.items():
            if getattr(self.settings, name) not in known:
                raise SpaditError(f"Unknown {name} '{getattr(self.settings, name)}'.", f"Use one of: {', '.join(known)}.")
        for width in ("width", "token_width"):
            if getattr(self.settings, width) % self.settings.n_heads:
                said = f"{width} ({getattr(self.settings, width)}) is not a multiple of n_heads ({self.settings.n_heads})."
                raise SpaditError(said, "Change one of them.")
        if not self.settings.coarse and self.settings.modes != ("whole_slide",):
            raise SpaditError(
                "Only the whole-slide mode can do without the coarse condition.", "Set modes=('whole_slide',), or coarse=True."
            )
        self.device = choose_device(device)
        self._fitted: dict[str, FittedMode] | None = None

    # ---- fitting -----------------------------------------------------------------------------------------------------

    def fit(
        self,
        slide: anndata.AnnData,
        reference: anndata.AnnData | Reference,
        n_steps: int | None = None,
        start: str | Path | None = None,
        checkpoint: str | Path | None = None,
        report: Callable[[dict], None] | None = None,
    ) -> SpaDiT:
        """Learn from every gene of ``slide`` that ``reference`` has. A gene to be hidden must not be in ``slide``.

        Parameters
        ----------
        slide
            Spots × genes, raw counts in ``layers['counts']``, places in ``obsm['spatial']``. Library sizes come from these genes alone.
        reference
            Cells × genes, raw counts in ``layers['counts']``; ``var['highly_variable']``, if there, names the genes that say which
            cells are alike and that the condition ψ is made from.
        n_steps
            Train networks for this long and choose nothing.
        start
            Folder of a saved model, of any slide, whose token network this one starts from.
        checkpoint
            Folder that outlives the task: a training that was killed goes on from there.
        report
            Called with each point of the training curves.

        Raises
        ------
        TrainingError
            When there are too few genes, or the loss is no longer a number.
        """
        begun = time.perf_counter()
        s = self.settings
        if start and "token" not in s.modes:
            raise SpaditError("A training starts from another slide's token network, and this one has none.", "Use modes=('token', ...).")
        self._prepare(slide, reference)
        n_genes = len(self.genes)
        if n_genes < 2:
            raise TrainingError(f"The slide and the reference share {n_genes} genes; at least 2 are needed to train.")
        rows = self._rows(n_genes)
        statistics = self._statistics(self.genes)
        self.penalty = coarse.choose_penalty(self._y[rows], self._correlations[0])
        self._mapper = None
        n_folds = s.inner_folds if n_genes >= coarse.MIN_GENES else 2 * s.inner_folds  # a fold should not take much of a small panel
        inner = coarse.inner_folds(
            self._counts, rows, self._neighbours, self._views, self._correlations, self._clusters, statistics, self.penalty, n_folds,
            self.seed,
        )  # fmt: skip
        self._stack, base = coarse.Stack.fit(inner.maps, inner.y, inner.scalars, self.seed)
        map_scale = coarse.gene_scale(inner.maps)
        seconds = {"coarse": time.perf_counter() - begun}

        self._fitted, parts = {}, {"coarse": base}
        for name in self._modes():
            clock = time.perf_counter()
            mode = self._mode(name)
            first = None
            if name == "token":
                maps = self._token_maps(inner.maps, map_scale, base)
                mode.data(inner.y - base, base, maps, self._stack.standardised(inner.scalars), self._places, rows)
                first = read_start(start, mode.shape) if start else None
            else:
                mode.data(self._y, np.asarray(self._counts.todense() == 0), self._views[0][self._whole_cells])
            folder = Path(checkpoint) if checkpoint else None
            self._fitted[name] = fit_mode(mode, n_genes, rows, self.seed, n_steps, first, folder, report, self.genes)
            parts[name] = self._fitted[name].crossfitted
            seconds[name] = time.perf_counter() - clock

        clock = time.perf_counter()
        self.blend = choose_blend(parts, inner.y, self.seed) if s.coarse else {"whole_slide": 1.0}
        z = sum(weight * parts[name] for name, weight in self.blend.items())
        values = log_normalise(self._counts)[0][rows].toarray()
        mean, sd = values.mean(0), values.std(0)
        self._scale = Scale.fit(mean, sd, statistics)
        expected_mean, expected_sd = crossfitted_scale(mean, sd, statistics)
        imputed = to_expression(z, expected_mean, expected_sd)
        facts = self._facts(inner.scalars, z, {name: parts[name] for name in self.blend}, self._coordinates[rows])
        self._trust = Trust.fit(facts, values, imputed, expected_sd, load_prior(FACTS))
        self.crossfitted_facts = pd.DataFrame(facts, index=self.genes, columns=list(FACTS)).assign(pcc=pcc(values, imputed))
        self._score = float(self.crossfitted_facts["pcc"].median())
        seconds["trust"] = time.perf_counter() - clock
        self.seconds = seconds | {"total": time.perf_counter() - begun}
        return self

    def _prepare(self, slide: anndata.AnnData, reference: anndata.AnnData | Reference, cells: list[str] | None = None) -> None:
        """What fitting and a loaded model both need of slide and reference. Everything is put in the order of names, so that results
        don't depend on the order of spots, cells or genes."""
        s = self.settings
        self.reference = reference if isinstance(reference, Reference) else Reference(reference, s.max_cells, self.seed, cells)
        known = set(self.reference.genes)
        self.genes = sorted(gene for gene in slide.var_names if gene in known)
        self.spots = sorted(slide.obs_names)
        self._given_order = pd.Index(self.spots).get_indexer(slide.obs_names)
        rows, columns = slide.obs_names.get_indexer(self.spots), slide.var_names.get_indexer(self.genes)
        self._counts = sp.csr_matrix(slide.layers["counts"])[rows][:, columns]
        self._coordinates = np.asarray(slide.obsm["spatial"], dtype=float)[rows, :2]
        if not self.genes:
            return
        # without neighbours a spot's place is a random one: what looks around it then sees spots from anywhere
        self._places = self._coordinates if s.neighbours else np.random.default_rng(self.seed).uniform(size=self._coordinates.shape)
        self._neighbours = coarse.neighbour_mean(self._places)
        self._views = self.reference.vectors(self.genes, self.genes)
        self._correlations = [coarse.correlation(z, z) for z in self._views]
        self._clusters = self.reference.cluster_counts(self.genes)
        self._spots = None
        values, self._totals, self.target_sum = log_normalise(self._counts)
        self._y = zscore(values, coarse.CLIP)
        n_cells = len(self.reference.cells)
        draw = np.random.default_rng(self.seed)
        self._whole_cells = np.sort(draw.choice(n_cells, s.whole_cells, replace=False)) if n_cells > s.whole_cells else np.arange(n_cells)

    def _rows(self, n_genes: int) -> np.ndarray:
        """The spots that are learned from: all, or whole windows of them (seeded)."""
        n = len(self.spots)
        limit = min(self.settings.max_spots, max(WINDOW, self.settings.max_entries // (n_genes * len(coarse.MAPS))))
        if n <= limit:
            return np.arange(n)
        windows = cut_windows(self._places)
        chosen = np.random.default_rng(self.seed).permutation(len(windows))[: max(1, limit // WINDOW)]
        return np.unique(windows[chosen])

    def _modes(self) -> list[str]:
        """The modes that are trained on a slide of this size."""
        small = len(self.spots) <= self.settings.max_whole_spots or not self.settings.coarse
        if "whole_slide" in self.settings.modes and not small:
            log.info("%d spots are more than max_whole_spots: the whole-slide mode is left out.", len(self.spots))
        return [name for name in self.settings.modes if name != "whole_slide" or small]

    def _mode(self, name: str) -> WholeSlide | Token:
        if name == "token":
            return Token(self.settings, self._places, len(coarse.MAPS) + 1, len(coarse.SCALARS), self.device)
        whole = self.reference.vectors(self.reference.highly_variable, self.genes)[0][self._whole_cells]
        return WholeSlide(self.settings, len(self.spots), whole, self.device)

    def _statistics(self, genes: Sequence[str]) -> np.ndarray:
        return self.reference.statistics.loc[list(genes)].to_numpy()

    def _token_maps(self, maps: np.ndarray, scale: np.ndarray, base: np.ndarray) -> np.ndarray:
        """What a token holds beside the noisy value: the scaled maps and the coarse condition, (spots, genes, maps + 1)."""
        return np.concatenate([maps / self._stack.scale(scale).astype(np.float32), base[:, :, None]], axis=2)

    def _facts(self, scalars: np.ndarray, z: np.ndarray, parts: dict[str, np.ndarray], coordinates: np.ndarray) -> np.ndarray:
        """(genes, facts) in the order of :data:`FACTS`."""
        pairs = list(itertools.combinations(parts.values(), 2))
        agreement = np.mean([pcc(a, b) for a, b in pairs], axis=0) if pairs else np.zeros(z.shape[1])
        return np.column_stack([scalars, z.std(0), morans_i(z, neighbours(coordinates)), agreement])

    # ---- imputing ----------------------------------------------------------------------------------------------------

    def impute(self, genes: Sequence[str], draws: int = 0, counts: bool = False) -> anndata.AnnData:
        """Impute genes of the reference at every spot.

        Parameters
        ----------
        genes
            Names in the reference that the model did not see on the slide.
        draws
            Samples to keep beside the imputed values, in ``layers['draw_1']`` ...: from the diffusion of the token mode, their spread
            brought to the error that is expected of the gene.
        counts
            Add ``layers['counts']``: the expected counts, exp(X) - 1 brought back to the spot's total over the visible genes.

        Returns
        -------
        AnnData
            Spots (in the slide's order) × genes. ``X``: imputed values, log-normalised scale. ``layers['sd'|'lower'|'upper']``: expected
            error and 90 % interval. ``var``: ``reliability`` (the PCC to be expected), ``reliability_class`` and ``reliability_why``.

        Raises
        ------
        InputError
            When a gene isn't in the reference, or is one that the model saw.
        """
        blocks = list(self.impute_blocks(genes, draws, counts))
        var = (
            pd.concat([table for table, _ in blocks])
            if blocks
            else pd.DataFrame(columns=["reliability", "reliability_class", "reliability_why"])
        )
        layers = {name: np.concatenate([arrays[name] for _, arrays in blocks], axis=1) for name in (blocks[0][1] if blocks else {})}
        names = np.array(self.spots)[self._given_order]
        x = layers.pop("X", np.zeros((len(names), 0), dtype=np.float32))
        return anndata.AnnData(
            X=x, obs=pd.DataFrame(index=names), var=var, layers=layers, obsm={"spatial": self._coordinates[self._given_order]}
        )

    def impute_blocks(
        self, genes: Sequence[str], draws: int = 0, counts: bool = False
    ) -> Iterator[tuple[pd.DataFrame, dict[str, np.ndarray]]]:
        """As :meth:`impute`, some genes at a time, so that memory doesn't grow with their number: yields (var, 'X' and layers)."""
        if self._fitted is None:
            raise TrainingError("The model isn't trained.", "Call fit() or load() first.")
        genes = list(genes)
        seen = sorted(set(genes) & set(self.genes))
        if seen:
            raise InputError(
                f"{len(seen)} genes are visible to this model, e.g. {', '.join(seen[:5])}.",
                "Leave them out of the slide that it is fitted on, and they are imputed as hidden ones.",
            )
        if draws and "token" not in self._fitted:
            raise SpaditError("Draws come from the token mode, which this model lacks.", "Fit it with modes=('token', ...).")
        missing = [gene for gene in genes if gene not in self.reference.statistics.index]
        if missing:
            raise InputError(f"{len(missing)} genes are not in the reference, e.g. {', '.join(missing[:5])}.")
        rows = self._rows(len(self.genes))
        if self._mapper is None:
            self._mapper = coarse.Mapper(self._y[rows], self._correlations, self.penalty)
        if self._spots is None:  # of all spots, which learning has no need of
            rates = coarse.cluster_rates(self._clusters, self._clusters)
            self._y = None  # held once
            self._spots = coarse.Spots.of(self._counts, self._neighbours, self._views, rates, rows)
            self._y = self._spots.y
        needs_maps = bool(self.blend.get("token")) or draws > 0
        step = BLOCK // (len(self.spots) * len(coarse.MAPS)) if needs_maps else min(256, PLAIN_BLOCK // len(self.spots))
        step = max(1, step)
        modes = {name: self._mode(name) for name in self._fitted if self.blend.get(name) or (draws and name == "token")}
        learn = self._spots.take(rows)
        for first in range(0, len(genes), step):
            yield self._impute_some(genes[first : first + step], rows, learn, modes, needs_maps, draws, counts)

    def _impute_some(
        self, genes: list[str], rows: np.ndarray, learn: coarse.Spots, modes: dict, needs_maps: bool, draws: int, counts: bool
    ) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
        cells = self.reference.vectors(genes, self.genes)
        rates = coarse.cluster_rates(self.reference.cluster_counts(genes), self._clusters)
        targets = self._mapper.targets([coarse.correlation(a, b) for a, b in zip(self._views, cells, strict=True)], cells, rates)
        statistics = self._statistics(genes)
        some = coarse.make_maps(learn, targets)
        scale, scalars = coarse.gene_scale(some), coarse.gene_scalars(some, targets, statistics)
        weights = self._stack.gene_weights(scale, scalars)
        parts = {"coarse": coarse.combine_maps(self._spots, targets, weights)} if self.settings.coarse else {}
        if needs_maps:
            everywhere = some if len(rows) == len(self.spots) else coarse.make_maps(self._spots, targets)
            maps = self._token_maps(everywhere, scale, parts["coarse"])
            known = self._stack.standardised(scalars)
            parts["token"] = modes["token"].impute(self._fitted["token"].networks, maps, known)
        if "whole_slide" in modes:
            parts["whole_slide"] = modes["whole_slide"].impute(self._fitted["whole_slide"].networks, cells[0][self._whole_cells])
        z = sum(weight * parts[name] for name, weight in self.blend.items())
        facts = self._facts(scalars, z[rows], {name: parts[name][rows] for name in self.blend}, self._coordinates[rows])
        mean, sd = self._scale.expected(statistics)
        expected = self._trust.expected_pcc(facts)
        half, error = self._trust.widths(expected, sd)
        values = to_expression(z, mean, sd)
        arrays = {
            "X": values,
            "sd": np.broadcast_to(error.astype(np.float32), values.shape),
            "lower": np.maximum(values - half, 0).astype(np.float32),
            "upper": (values + half).astype(np.float32),
        }
        for i in range(draws):
            network = self._fitted["token"].networks[i % len(self._fitted["token"].networks)]
            noise = gene_noise(genes, len(self.spots), self.seed, i)
            deviation = modes["token"].draw(network, maps, known, noise) - parts["token"]
            deviation *= error / np.maximum(np.sqrt((deviation**2).mean(0)), 1e-9)
            arrays[f"draw_{i + 1}"] = np.maximum(values + deviation, 0).astype(np.float32)
        if counts:
            arrays["counts"] = (np.expm1(values) * (self._totals / self.target_sum)[:, None]).astype(np.float32)
        var = pd.DataFrame(
            {
                "reliability": expected,
                "reliability_class": self._trust.classes(expected),
                "reliability_why": self._trust.reasons(facts, FACTS),
            },
            index=pd.Index(genes, name=None),
        )
        return var, {name: np.ascontiguousarray(array[self._given_order]) for name, array in arrays.items()}

    # ---- facts, saving, loading --------------------------------------------------------------------------------------

    @property
    def facts(self) -> dict:
        """Of the fit: n_visible, best_step (per mode), validation_pcc (median PCC of visible genes, imputed as if hidden), blend (weight of
        each part), seconds (per part), n_lowered (times a learning rate was lowered because a loss had diverged), n_weights."""
        fitted = self._fitted.values()
        return {
            "n_visible": len(self.genes),
            "best_step": {name: f.n_steps for name, f in self._fitted.items()},
            "validation_pcc": self._score,
            "blend": self.blend,
            "seconds": self.seconds["total"],
            "seconds_per_part": self.seconds,
            "n_lowered": sum(f.n_lowered for f in fitted),
            "n_weights": sum(p.numel() for f in fitted for network in f.networks for p in network.parameters()),
        }

    @property
    def curve(self) -> pd.DataFrame:
        """The training curves: mode, stage, network, step, train_loss, validation_score (median PCC)."""
        columns = ["mode", "stage", "network", "step", "train_loss", "validation_score"]
        return pd.DataFrame([entry for f in self._fitted.values() for entry in f.curve], columns=columns)

    def save(self, directory: str | Path) -> None:
        """Weights as safetensors, everything else as JSON."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        tensors = {
            f"{name}.{i}.{key}": part.contiguous()
            for name, f in self._fitted.items()
            for i, network in enumerate(f.networks)
            for key, part in network.state_dict().items()
        }
        for owner, names in ARRAYS.items():
            tensors |= {f"{owner}.{name}": torch.from_numpy(np.array(getattr(getattr(self, f"_{owner}"), name))) for name in names}
        save_file(tensors, directory / "weights.safetensors")
        content = {
            "kind": "spadit_model",
            "version": FORMAT_VERSION,
            "preset": self.preset,
            "seed": self.seed,
            "settings": dataclasses.asdict(self.settings),
            "genes": self.genes,
            "spots": self.spots,
            "cells": self.reference.cells,
            "counts_sha256": self._checksum(),
            "penalty": self.penalty,
            "blend": self.blend,
            "score": self._score,
            "seconds": self.seconds,
            "trust": {name: getattr(self._trust, name) for name in ("mean", "error", "quantile", "rms")},
            "modes": {name: {"n_networks": len(f.networks), "n_steps": f.n_steps, "score": f.score} for name, f in self._fitted.items()},
            "weights_sha256": hashlib.sha256((directory / "weights.safetensors").read_bytes()).hexdigest(),
        }
        write_text(directory / "model.json", json.dumps(content, indent=1) + "\n")

    def _checksum(self) -> str:
        parts = (self._counts.indptr.astype(np.int64), self._counts.indices.astype(np.int64), self._counts.data.astype(np.float32))
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()

    @classmethod
    def load(cls, directory: str | Path, slide: anndata.AnnData, reference: anndata.AnnData | Reference, device: str = "auto") -> SpaDiT:
        """Read a saved model back, for the slide and reference it was fitted on (a saved model holds neither). The models of one training
        share a reference: what the first one has made of it (``reference``) serves the others.

        Raises
        ------
        InputError
            When the files are missing, torn, or of an unknown version, or slide or reference are others.
        """
        content, tensors = read_model(directory)
        try:
            return cls._restore(directory, content, tensors, slide, reference, device)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            if "out of memory" in str(error) or "can't allocate memory" in str(error):
                raise
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise InputError(f"The model in {directory} is damaged ({reason}).", "Copy or train the model again.") from error

    @classmethod
    def _restore(cls, directory, content: dict, tensors: dict, slide: anndata.AnnData, reference: anndata.AnnData, device: str) -> SpaDiT:
        model = cls(content["preset"], content["seed"], device, **content["settings"])
        absent = sorted(set(content["genes"]) - set(slide.var_names))
        if absent or set(content["spots"]) != set(slide.obs_names):
            raise InputError(
                f"The model in {directory} was fitted on another slide: its spots or genes differ.",
                "Give the slide that the model was fitted on.",
            )
        if isinstance(reference, Reference) and reference.cells != content["cells"]:
            raise InputError(
                f"The model in {directory} was trained with other cells than those of the reference made ready.",
                "Give the reference as it was read.",
            )
        model._prepare(slide[:, content["genes"]], reference, content["cells"])
        if model.genes != content["genes"] or model._checksum() != content["counts_sha256"]:
            raise InputError(
                f"The model in {directory} was fitted on other counts than this slide's.",
                "Give the slide and reference that the model was fitted on, or train again.",
            )
        model.penalty, model.blend, model._score, model.seconds = content["penalty"], content["blend"], content["score"], content["seconds"]
        arrays = {owner: {name: tensors[f"{owner}.{name}"].numpy() for name in names} for owner, names in ARRAYS.items()}
        model._stack, model._scale = coarse.Stack(**arrays["stack"]), Scale(**arrays["scale"])
        model._trust = Trust(**arrays["trust"], **content["trust"])
        model._mapper, model._fitted = None, {}
        for name, facts in content["modes"].items():
            mode, networks = model._mode(name), []
            for i in range(facts["n_networks"]):
                network, prefix = mode.build(0), f"{name}.{i}."
                network.load_state_dict({key[len(prefix) :]: part for key, part in tensors.items() if key.startswith(prefix)})
                networks.append(network.eval())
            model._fitted[name] = FittedMode(networks, np.zeros((0, 0)), facts["n_steps"], facts["score"], [])
        return model


def gene_noise(genes: Sequence[str], n_spots: int, seed: int, draw: int) -> np.ndarray:
    """Gaussian noise, (spots, genes) float32. A gene's depends on its name, the seed and the draw alone: not on what else is imputed."""
    words = [hashlib.sha256(f"{seed}\n{draw}\n{gene}".encode()).digest() for gene in genes]
    columns = [np.random.default_rng(np.frombuffer(word, np.uint32)).standard_normal(n_spots, np.float32) for word in words]
    return np.stack(columns, axis=1) if columns else np.zeros((n_spots, 0), np.float32)


def read_model(directory: str | Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """model.json and weights of a saved model.

    Raises
    ------
    InputError
        When the files are missing, torn, or of an unknown version.
    """
    directory = Path(directory)
    description, weights = (directory / name for name in FILES)
    for path in (description, weights):
        if not path.is_file():
            raise InputError(
                f"{directory} does not hold a SpaDiT model: there is no file {path.name}.", "Give the folder of a saved model."
            )
        if path.is_symlink() and not path.resolve().is_relative_to(directory.resolve()):
            raise InputError(f"{directory}/{path.name} is a link to a file elsewhere, which is not followed.", "Copy the model itself.")
    try:
        content = read_json(description, "a model", remedy="Copy or train the model again.")
    except InputError as error:
        raise InputError(f"{directory} does not hold a SpaDiT model: {error.message}", error.remedy) from error
    if not isinstance(content, dict) or content.get("kind") != "spadit_model" or content.get("version") != FORMAT_VERSION:
        raise InputError(f"{directory}/model.json is of another kind or version than this revision reads ({FORMAT_VERSION}).")
    wrong = [name for name, kind in CONTENT.items() if not isinstance(content.get(name), kind) or isinstance(content[name], bool)]
    wrong += [n for n in ("genes", "spots", "cells") if n not in wrong and not all(isinstance(v, str) for v in content[n])]
    if wrong:
        raise InputError(f"{directory}/model.json: missing or of another type: {', '.join(wrong)}.", "Copy or train the model again.")
    if sha256(weights) != content["weights_sha256"]:
        raise InputError(f"{directory}/weights.safetensors does not match its checksum in model.json.", "Copy or train the model again.")
    try:
        return content, load_file(weights)
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{directory}/weights.safetensors can't be read: {error}.", "Copy or train the model again.") from error


def read_start(directory: str | Path, shape) -> dict[str, torch.Tensor]:
    """The token network's weights of a saved model, to start another training from.

    Raises
    ------
    InputError
        When the model has none, or its network is of another shape.
    """
    content, tensors = read_model(directory)
    first = {key[len("token.0.") :]: part for key, part in tensors.items() if key.startswith("token.0.")}
    settings = Settings(**content["settings"])
    own = (settings.token_width, settings.token_depth, settings.n_heads, settings.backbone)
    if not first or own != (shape.width, shape.depth, shape.n_heads, shape.backbone):
        raise InputError(
            f"The model in {directory} has no token network of this shape to start from.",
            "Give a model that was trained with the same settings.",
        )
    return first


def choose_blend(parts: dict[str, np.ndarray], y: np.ndarray, seed: int, n_folds: int = 5) -> dict[str, float]:
    """The gate: which parts are summed, and with which weights.

    Every subset of the parts that holds the coarse condition is fitted by least squares (ridge 1e-3) to visible genes, each imputed as if
    hidden, and scored by cross-validation over genes. The best one is taken when it gains more over the coarse condition alone than the
    standard error (over genes) of that gain; otherwise the coarse condition it is. Only weights above 0 are accepted: a network that is
    worth something adds.

    Parameters
    ----------
    parts
        Name -> (spots, genes); 'coarse' among them. 'token' is what is added to it.
    y
        Measured, z-scored, (spots, genes).

    Returns
    -------
    dict
        Name -> weight, of the parts that are used.
    """
    names = list(parts)
    n_spots, n_genes = y.shape
    gram = np.array([[(parts[a] * parts[b]).sum(0, dtype=np.float64) for b in names] for a in names]).transpose(2, 0, 1) / n_spots
    cross = np.array([(parts[a] * y).sum(0, dtype=np.float64) for a in names]).T / n_spots
    fold = np.empty(n_genes, dtype=int)
    fold[np.random.default_rng(seed).permutation(n_genes)] = np.arange(n_genes) % min(n_folds, n_genes)

    def weights(genes: np.ndarray, use: list[int]) -> np.ndarray:
        left = gram[genes].mean(0)[np.ix_(use, use)]
        return np.linalg.solve(left + 1e-3 * max(np.trace(left) / len(use), 1e-9) * np.eye(len(use)), cross[genes].mean(0)[use])

    def losses(use: list[int]) -> np.ndarray:
        result = np.empty(n_genes)
        for k in range(fold.max() + 1):
            own = fold == k
            w = weights(~own if not own.all() else own, use)
            result[own] = np.einsum("i,gij,j->g", w, gram[own][:, use][:, :, use], w) - 2 * cross[own][:, use] @ w
        return result

    others = [i for i, name in enumerate(names) if name != "coarse"]
    first = names.index("coarse")
    alone, everything = losses([first]), np.arange(n_genes)
    best, chosen = 0.0, [first]
    for size in range(1, len(others) + 1):
        for more in itertools.combinations(others, size):
            if weights(everything, [first, *more]).min() <= 0:  # 0: it says nothing, e.g. of too few genes to train in folds
                continue
            gain = alone - losses([first, *more])
            if gain.mean() > max(best, gain.std() / np.sqrt(n_genes)):
                best, chosen = gain.mean(), [first, *more]
    if chosen == [first]:
        return {"coarse": 1.0}
    return {names[i]: float(w) for i, w in zip(chosen, weights(everything, chosen), strict=True)}
