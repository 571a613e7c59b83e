"""The JSON files that pass between steps: one validated dataclass each.

A file carries the name of its kind and its version; a file of another kind or of an unknown version is
refused with a sentence that says so. Fields are plain numbers, strings, lists and dicts, so the files can be
read by anything.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, ClassVar, get_type_hints

from spadit.errors import InputError
from spadit.files import read_json, write_text


def _plain(value: Any) -> Any:
    """NumPy scalars and arrays, paths and tuples as JSON has them; NaN and infinities become null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@dataclasses.dataclass
class Contract:
    """Base of all JSON files: ``to_json`` and ``from_json`` with the kind and the version checked."""

    kind: ClassVar[str] = ""
    version: ClassVar[int] = 1

    def to_json(self, path: str | Path) -> None:
        """Write the file; it carries ``kind`` and ``version`` beside the fields."""
        content = {"kind": self.kind, "version": self.version, **_plain(self)}
        write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    @classmethod
    def from_json(cls, path: str | Path):
        """Read the file back.

        Raises
        ------
        InputError
            When it isn't JSON, is of another kind or version, or lacks a field.
        """
        content = read_json(path, f"a '{cls.kind}' file")
        if not isinstance(content, dict) or content.get("kind") != cls.kind:
            found = content.get("kind") if isinstance(content, dict) else type(content).__name__
            raise InputError(f"{path} should be a '{cls.kind}' file but is '{found}'.")
        if content.get("version") != cls.version:
            raise InputError(
                f"{path} is a '{cls.kind}' file of version {content.get('version')}; this revision reads version {cls.version}.",
                "Run the steps that made it again with this revision.",
            )
        fields = {f.name: f for f in dataclasses.fields(cls)}
        unknown = sorted(set(content) - set(fields) - {"kind", "version"})
        missing = sorted(
            name
            for name, f in fields.items()
            if name not in content and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        )
        if unknown or missing:
            raise InputError(f"{path}: fields missing: {missing or 'none'}, unknown: {unknown or 'none'}.")
        hints = get_type_hints(cls)
        for name in fields:
            if name in content and not _fits(content[name], hints[name]):
                raise InputError(f"{path}: field '{name}' should be {hints[name]} but is {content[name]!r}."[:400])
        return cls(**{name: content[name] for name in fields if name in content})


def _fits(value: Any, hint: Any) -> bool:
    """Is a JSON value of the annotated type, with all its members?"""
    origin = getattr(hint, "__origin__", None)
    if origin is list:
        return isinstance(value, list) and all(_fits(v, hint.__args__[0]) for v in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(v, hint.__args__[1]) for v in value.values())
    if hint is float:
        return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (str, bool, dict, list):
        return isinstance(value, hint)
    return True


@dataclasses.dataclass
class Inputs(Contract):
    """What CHECK_INPUTS found: the slides of the sheet, and everything that is wrong with sheet and parameters."""

    kind: ClassVar[str] = "inputs"

    slides: list[dict] = dataclasses.field(default_factory=list)
    """One per row: where ('Row 2') and the columns of the sheet. Empty strings are absent values, or not allowed ones
    (then in errors)."""
    errors: list[str] = dataclasses.field(default_factory=list)
    """Whole sentences, each with row, column, value and what is expected."""
    warnings: list[str] = dataclasses.field(default_factory=list)
    predictions: list[dict] = dataclasses.field(default_factory=list)
    """Rows of the --predictions sheet: where, sample, method, path."""


@dataclasses.dataclass
class QualityControl(Contract):
    """What QC measured and removed, of one slide or one reference."""

    kind: ClassVar[str] = "quality_control"

    id: str
    role: str
    """'slide' or 'reference'."""
    platform: str
    before: dict
    """n_obs, n_genes, median_counts, median_genes, zero_share (0-1), mito_share (median, 0-1; null without mitochondrial genes)."""
    after: dict
    filters: list[dict]
    """In the order applied: name, axis ('spots', 'cells' or 'genes'), threshold, removed, reason."""
    warnings: list[str] = dataclasses.field(default_factory=list)
    quantiles: dict = dataclasses.field(default_factory=dict)
    """'counts' and 'genes' per spot or cell before the filters: 21 values at 0, 5, ..., 100 %."""


@dataclasses.dataclass
class Pairing(Contract):
    """Which genes a slide shares with its reference, and how they were matched."""

    kind: ClassVar[str] = "pairing"

    sample: str
    reference: str
    n_spots: int
    n_cells: int
    n_slide_genes: int
    n_reference_genes: int
    n_shared: int
    n_unmeasured: int
    n_top_genes: int
    """Highly variable reference genes kept for the condition."""
    matched_by: str
    """'symbol', 'symbol, case folded', 'Ensembl id' ..."""
    dropped: dict = dataclasses.field(default_factory=dict)
    """Reason -> number of genes."""
    slide_only: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Split(Contract):
    """Which genes are hidden when. Every shared gene is in exactly one of train, validation and test."""

    kind: ClassVar[str] = "split"

    sample: str
    seed: int
    train: list[str]
    validation: list[str]
    test: list[str]
    """Hidden from everything but the delivery fit."""
    unmeasured: list[str]
    """Genes of the reference that the slide did not measure and that are to be imputed."""
    folds: list[list[str]]
    """A partition of train + validation for cross-fitting: fold k's genes are hidden from fit k, which sees the other folds only."""


@dataclasses.dataclass
class Resources(Contract):
    """What training and imputing a slide is expected to need (:mod:`spadit.resources`), known from its sizes before the work starts."""

    kind: ClassVar[str] = "resources"

    sample: str
    n_spots: int
    n_cells: int
    n_shared: int
    n_unmeasured: int
    n_fits: int
    """Models that are trained."""
    fit_gib: float
    """Memory of one fit that is expected."""
    fit_minutes: float
    """Its processor time."""
    fast_gib: float
    """Memory of one fit with --preset fast."""
    train_gib: float
    train_minutes: float
    """Memory and time to ask for to train all models, six side by side."""
    impute_gib: float
    impute_minutes: float
    """To ask for."""
    disk_gib: float
    """Of the imputed slide."""
    gpu_gib: float
    """Memory on a GPU."""


@dataclasses.dataclass
class Device(Contract):
    """What the tasks that can use a GPU find where they run."""

    kind: ClassVar[str] = "device"

    asked: str
    """'auto', 'cpu' or 'cuda'."""
    device: str
    """What is used: 'cpu' or 'cuda'; empty when there is a problem."""
    name: str
    """Of the GPU or of the processor."""
    n_devices: int
    memory_gib: float
    """Of one GPU, or of the machine."""
    driver: str
    """Version of the GPU's driver; empty on a CPU, or where it can't be read."""
    torch: str
    cuda: str
    """CUDA version that PyTorch was built for; empty when for none."""
    precision: str
    """Of training: 'bf16', 'fp16' or '32'."""
    attention: list[str]
    """Attention backends that can be used; 'flash-attn' is the package of that name."""
    flash: bool
    """Is attention computed by a flash kernel: the package's, or PyTorch's own on a GPU?"""
    problem: str = ""
    """Why the run can't go on."""
    remedy: str = ""

    def sentence(self) -> str:
        """For a terminal, a log or a report: one line."""
        if self.problem:
            return f"{self.problem} {self.remedy}".strip()
        if self.device == "cpu":
            return f"Networks run on the CPU: {self.name}, {self.memory_gib:g} GiB of memory."
        several = f"{self.n_devices} × " if self.n_devices > 1 else ""
        flash = (
            "the package flash-attn" if "flash-attn" in self.attention else "PyTorch's flash kernel" if self.flash else "no flash kernel"
        )
        return (
            f"Networks run on the GPU: {several}{self.name}, {self.memory_gib:g} GiB, driver {self.driver or 'unknown'}, CUDA {self.cuda}, "
            f"precision {self.precision}, attention by {flash}."
        )


@dataclasses.dataclass
class Training(Contract):
    """Facts of a training: what was fitted, for how long, with which outcome."""

    kind: ClassVar[str] = "training"
    version: ClassVar[int] = 2

    sample: str
    preset: str
    device: str
    parameters: dict
    """The settings of the model (:class:`spadit.settings.Settings`) and 'seed'."""
    fits: list[dict]
    """One per fit (evaluation, fold_0 ..., delivery): name; n_visible (genes); best_step (mode, 'token' or 'whole_slide' -> steps its final
    networks were trained for; a mode that was left out is absent); validation_pcc (median PCC of the visible genes, each imputed as if
    hidden); blend (part, 'coarse' or a mode -> weight; {'coarse': 1.0} when the networks added nothing); seconds; seconds_per_part
    ('coarse', each mode, 'trust', 'total'); n_lowered (times a learning rate was lowered because a loss
    had diverged); n_weights (of all its final networks)."""
    seconds: float
    """From the first fit's start to the last one's end; less than the fits' sum where they ran side by side."""
    n_weights: int
    """Of all final networks of the last fit."""
    checkpoint: str = ""
    """Name of the folder of its checkpoints, a checksum of its inputs and parameters."""


@dataclasses.dataclass
class Evaluation(Contract):
    """The honest numbers of one slide: hidden genes only."""

    kind: ClassVar[str] = "evaluation"

    sample: str
    n_test: int
    n_scored: int
    """Measured genes, each scored as predicted while hidden."""
    summary: list[dict]
    """One per method and split ('test', 'all'): method, split, n_genes, median_pcc, mean_pcc, low, high (bootstrap 95 % interval of the
    median), median_spearman, median_ssim, median_rmse, median_js, accuracy_score (null for controls and ceiling)."""
    comparison: list[dict]
    """SpaDiT against each ranked method, paired per gene: method, mean_difference, low, high, p (Wilcoxon)."""
    coverage: float
    """Share of (gene, spot) pairs of hidden genes within the 90 % interval."""
    reliability_spearman: float
    """Rank correlation of predicted reliability and true PCC over the scored genes."""
    verdict: str
    """'pass', 'warn' or 'not predictable'."""
    rule: str
    """The rule that gave the verdict, in words, with its thresholds."""
    reasons: list[str] = dataclasses.field(default_factory=list)
    top_genes: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class BenchmarkPlan(Contract):
    """Every run that a slide's benchmark consists of."""

    kind: ClassVar[str] = "benchmark_plan"

    sample: str
    seed: int
    n_spots: int
    n_cells: int
    methods: list[str]
    """The chosen methods, in the order they were asked for."""
    jobs: list[dict]
    """One per run: name (of its files), what ('benchmark', 'robustness' or 'ablation'), method (of an ablation: the variant), kind,
    fold, rate (share of the counts that is removed), seed, image ('core' or 'peers'), minutes and memory_gib (to ask for at first)."""


@dataclasses.dataclass
class MethodRun(Contract):
    """What became of one method in one fold."""

    kind: ClassVar[str] = "method_run"

    sample: str
    what: str
    method: str
    fold: int
    rate: float
    seed: int
    status: str
    """'ok', 'failed' or 'not run' (its package isn't there)."""
    reason: str = ""
    seconds: float = 0.0
    """Of the method alone, without reading and writing."""
    peak_gib: float = 0.0
    """Largest memory of the process, with the slide and the reference in it."""
    device: str = "cpu"
    package_version: str = ""
    """Of the package that did the work."""


@dataclasses.dataclass
class Benchmark(Contract):
    """What a slide's benchmark comes to."""

    kind: ClassVar[str] = "benchmark"

    sample: str
    seed: int
    n_spots: int
    n_genes: int
    n_folds: int
    winner: str
    """A sentence: who is best, or that there is no clear winner."""
    best: list[str]
    """The best method, then those that are not significantly worse."""
    failed: dict
    """Method -> status, of those without numbers."""
    notes: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Usage(Contract):
    """What a step needed, as the task itself measured it."""

    kind: ClassVar[str] = "usage"

    id: str
    role: str
    """'slide' or 'reference'."""
    step: str
    seconds: float
    """Wall time of the executable, without the start of the container."""
    peak_gib: float
    """Largest resident memory of the executable and its child processes together; memory that they share counts for each of them."""
    threads: int
    gpu_peak_gib: float = 0.0
    """Largest memory that PyTorch held on the GPU; 0 without one."""


@dataclasses.dataclass
class Failure(Contract):
    """Why a slide or a reference could not be processed. It stands in the report in the slide's place."""

    kind: ClassVar[str] = "failure"

    id: str
    role: str
    """'slide' or 'reference': a failed reference fails every slide that uses it."""
    step: str
    reason: str
    remedy: str = ""
