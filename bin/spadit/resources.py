"""What a slide needs, from its sizes alone: memory, disk and time of training and imputing, and whether that is there.

Each estimate is a sum of terms: an amount (spots × shared genes, say) times a constant. Which terms there are follows from the code; the
constants were set by hand to what ``benchmarks/preflight.py`` and ``benchmarks/scale.py`` measured (the former's own fit to its small sizes
says too little of large ones). They are meant to be right within a factor of two, so :data:`MARGIN` is asked for on top.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import shutil
from pathlib import Path

from spadit.contracts import Resources, Split
from spadit.errors import SpaditError
from spadit.settings import PRESETS, Settings

log = logging.getLogger(__name__)

GIB = 2**30
MARGIN = 1.5
"""Memory and time are asked for with this factor."""
TOO_MUCH = 1.5
SLOWER = 3.0
"""Time is asked for as if processors were this many times slower, since those of a cluster may be, or be shared."""
SIDE_BY_SIDE = 6
"""Models that are trained at once where memory is asked for: the CPUs of the label process_networks. Fewer are, where less is there."""
N_MAPS = 26
"""Of the coarse condition (a test holds it equal to coarse.MAPS, which brings scipy and scikit-learn)."""
BLOCK = 1 << 26
"""Spots × genes × maps that are imputed at once: as :data:`spadit.api.BLOCK`."""
GENES_AT_ONCE = 256
N_LAYERS = 5
"""X, observed, sd, lower, upper."""

CONSTANTS: dict[str, dict[str, float]] = {
    "fit_gib": {"base": 1.2, "counts": 4.0, "dense": 6.0, "learned": 3.5, "reference": 6.0, "whole": 100.0},
    "impute_gib": {"base": 0.95, "counts": 4.0, "dense": 6.0, "reference": 6.0, "maps": 2.0, "block": 2.4},
    "coarse_s": {"base": 0.7, "dense": 100, "learned": 160, "reference": 20},
    "token_s": {"base": 0.5, "steps": 87, "learned": 530},
    "whole_s": {"base": 1.0, "steps": 10, "spots": 800},
    "impute_s": {"base": 2.0, "dense": 20, "values": 1_000, "networks": 3_000},
    "disk_gib": {"base": 0.0001, "values": 0.5},
}
"""Estimate -> term -> constant. What each term counts is said in :func:`terms`."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of a paired slide and reference."""

    n_spots: int
    n_cells: int
    """Of the whole reference."""
    n_shared: int
    n_unmeasured: int
    """Genes to impute that the slide did not measure."""
    n_counts: int
    """Non-zero counts that are held, of slide and reference."""
    n_fits: int = 7
    n_layers: int = N_LAYERS
    """Of the imputed slide, with draws and counts."""


def learned_spots(sizes: Sizes, s: Settings) -> int:
    """Spots that a fit learns from (:meth:`spadit.api.SpaDiT._rows`)."""
    return min(sizes.n_spots, s.max_spots, max(32, s.max_entries // max(1, sizes.n_shared * N_MAPS)))


def terms(sizes: Sizes, s: Settings) -> dict[str, dict[str, float]]:
    """What each estimate grows with: estimate -> term -> amount (memory and disk in GiB of 4-byte values, time in billions of operations).

    counts: sparse counts; dense: spots × shared genes; learned: spots that are learned from × shared genes × maps; reference: its cells ×
    shared genes, and correlations between genes; whole: weights of the whole-slide network; maps, block: what is imputed at once;
    steps: training steps × genes a step; values: all values of the imputed slide; networks: the same, times the passes through networks
    that it may take (where networks have no weight none is taken: the time of imputing is an upper bound).
    """
    v, rows, cells = sizes.n_shared, learned_spots(sizes, s), min(sizes.n_cells, s.max_cells)
    values = sizes.n_spots * (v + sizes.n_unmeasured)
    networks = s.network_folds + s.n_models
    whole = "whole_slide" in s.modes and (sizes.n_spots <= s.max_whole_spots or not s.coarse)
    at_once = min(GENES_AT_ONCE, v + sizes.n_unmeasured)
    size = lambda n: 4 * n / GIB  # noqa: E731
    dense, learned = sizes.n_spots * v, rows * v * (N_MAPS + 1)
    reference = cells * v + 2 * v * v
    return {
        "fit_gib": {
            "base": 1, "counts": 2 * size(sizes.n_counts), "dense": size(dense), "learned": size(learned), "reference": size(reference),
            "whole": size(sizes.n_spots * s.width) if whole else 0,
        },
        "impute_gib": {
            "base": 1, "counts": 2 * size(sizes.n_counts), "dense": size(dense), "reference": size(reference),
            "maps": size(min(BLOCK, sizes.n_spots * N_MAPS * (v + sizes.n_unmeasured))), "block": size(sizes.n_spots * at_once),
        },
        "coarse_s": {
            "base": 1, "dense": s.inner_folds * dense / 1e9, "learned": learned / 1e9, "reference": s.inner_folds * v * reference / 1e12,
        },
        "token_s": {
            "base": 1, "steps": networks * s.max_steps * s.token_batch_size * s.token_depth * s.token_width**2 / 1e9,
            "learned": learned / 1e9,
        } if "token" in s.modes else {},
        "whole_s": {
            "base": 1, "steps": networks * s.max_steps * s.batch_size * s.depth * s.width**2 / 1e9,
            "spots": networks * s.max_steps * s.batch_size * sizes.n_spots * s.width / 1e12,
        } if whole else {},
        "impute_s": {
            "base": sizes.n_fits, "dense": sizes.n_fits * dense / 1e9, "values": values / 1e9,
            "networks": values * networks_imputing(s, whole) / 1e9,
        },
        "disk_gib": {"base": 1, "values": size(values * sizes.n_layers)},
    }  # fmt: skip


def networks_imputing(s: Settings, whole: bool) -> float:
    """Passes through networks per imputed value; the whole-slide network takes each noise vector apart, all steps of a DDPM."""
    steps = s.n_diffusion_steps if s.sampler == "ddpm" else 1
    return s.n_models * (2 * ("token" in s.modes) + whole * s.n_noise * steps)


def estimate(name: str, found: dict[str, dict[str, float]]) -> float:
    """An estimate of :data:`CONSTANTS` from :func:`terms`."""
    return sum(CONSTANTS[name][term] * amount for term, amount in found[name].items())


def gpu_gib(sizes: Sizes, s: Settings) -> float:
    """Memory on a GPU, in GiB: its context, a block of 65,536 tokens on their way through the token network, and for the whole-slide
    network its weights with what training adds, and 256 genes over all spots. From the shapes alone: never measured by us."""
    token = 2**16 * s.token_width * 12 * (s.token_depth + 1) * 4 / GIB if "token" in s.modes else 0
    whole = "whole_slide" in s.modes and (sizes.n_spots <= s.max_whole_spots or not s.coarse)
    slide = sizes.n_spots * (2 * s.width * 6 + 256 * 6) * 4 / GIB if whole else 0
    return 1.0 + max(token, slide)


def needs(sizes: Sizes, sample: str = "slide", preset: str = "default", **settings) -> Resources:
    """What training and imputing one slide is expected to need.

    Parameters
    ----------
    settings
        Fields of :class:`spadit.settings.Settings` that differ from the preset's.
    """
    s = dataclasses.replace(PRESETS[preset], **settings)
    found = terms(sizes, s)
    fit_gib = estimate("fit_gib", found)
    fit = sum(estimate(name, found) for name in ("coarse_s", "token_s", "whole_s"))
    return Resources(
        sample=sample,
        n_spots=sizes.n_spots,
        n_cells=sizes.n_cells,
        n_shared=sizes.n_shared,
        n_unmeasured=sizes.n_unmeasured,
        n_fits=sizes.n_fits,
        fit_gib=_up(fit_gib),
        fit_minutes=_up(fit / 60),
        train_gib=_up(MARGIN * fit_gib * (1 + min(SIDE_BY_SIDE, sizes.n_fits))),
        train_minutes=_up(MARGIN * SLOWER * fit / 60 * sizes.n_fits),
        fast_gib=_up(estimate("fit_gib", terms(sizes, PRESETS["fast"]))),
        impute_gib=_up(MARGIN * estimate("impute_gib", found)),
        impute_minutes=_up(MARGIN * SLOWER * estimate("impute_s", found) / 60),
        disk_gib=_up(estimate("disk_gib", found)),
        gpu_gib=_up(gpu_gib(sizes, s)),
    )


def _up(value: float) -> float:
    """Two digits, rounded up: small changes of a constant don't change a task, so -resume finds it again."""
    if value <= 0:
        return 0.0
    step = 10 ** (math.floor(math.log10(value)) - 1)
    return round(math.ceil(value / step - 1e-9) * step, 6)


def sizes_of(slide: str | Path, reference: str | Path, split: Split, n_layers: int = N_LAYERS) -> Sizes:
    """From the files of PAIR, without reading their counts."""
    import h5py

    shapes = []
    for path in (slide, reference):
        with h5py.File(path, "r") as file:
            counts = file["layers/counts"]
            shapes.append((len(counts["indptr"]) - 1, len(counts["data"])))
    n_shared = len(split.train) + len(split.validation) + len(split.test)
    n_fits = 1 + len(split.folds) + bool(split.unmeasured)
    return Sizes(shapes[0][0], shapes[1][0], n_shared, len(split.unmeasured), shapes[0][1] + shapes[1][1], n_fits, n_layers)


# ---- what is there ---------------------------------------------------------------------------------------------------


def memory_here() -> float:
    """GiB that a process may have here: what the machine has, or a smaller limit of the container or job (cgroup)."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(path).read_text(encoding="ascii")))
        except (OSError, ValueError):  # none there, or 'max'
            continue
    return min(limits) / GIB


def disk_here(folder: str | Path = ".") -> float:
    """GiB that are free where a task works."""
    return shutil.disk_usage(folder).free / GIB


def room_for_training(resources: str | Path, workers: int, memory: float | None = None, disk: float | None = None) -> int:
    """How many models may be trained side by side here, of a slide with these needs.

    Parameters
    ----------
    resources
        What SPLIT wrote (:class:`spadit.contracts.Resources`).
    workers
        At most.
    memory, disk
        GiB that are there; looked up when not given.

    Raises
    ------
    SpaditError
        When memory or disk space are far from enough, for training or for what comes after it.
    """
    expected = Resources.from_json(resources)
    memory = memory_here() if memory is None else memory
    workers = workers_that_fit(expected, workers, memory)
    larger = "Use a machine with more memory, or a slide with fewer spots or genes."
    check_room(f"{expected.sample}: imputing", expected.impute_gib / MARGIN, memory, "memory", larger)
    remedy = "Make room, use another work directory (-w), or impute fewer genes (a gene list in the samplesheet's column 'genes')."
    check_room(f"{expected.sample}: the imputed slide", expected.disk_gib, disk_here() if disk is None else disk, "disk space", remedy)
    return workers


def workers_that_fit(expected: Resources, workers: int, memory: float) -> int:
    """How many models may be trained side by side in this memory (GiB), at least one. Beside them, slide and reference lie once more.

    Raises
    ------
    SpaditError
        When even one is far from fitting.
    """
    fast = ", or --preset fast" if expected.fast_gib < min(memory, expected.fit_gib) else ""
    remedy = f"Use a machine with more memory{fast}, or a slide with fewer spots or genes."
    check_room(f"{expected.sample}: training", expected.fit_gib, memory, "memory", remedy)
    return max(1, min(workers, expected.n_fits, int(memory / max(expected.fit_gib, 1e-9)) - 1))


def check_room(what: str, expected: float, there: float, kind: str, remedy: str) -> None:
    """Say before the work that there won't be room for it.

    A step that is expected to need more than is there is warned of; one that is expected to need :data:`TOO_MUCH` times as much is refused,
    since estimates are no better than that.

    Parameters
    ----------
    what
        The step, with the slide's name.
    expected, there
        GiB.
    kind
        'memory' or 'disk space'.

    Raises
    ------
    SpaditError
        When it is refused.
    """
    said = f"{what} is expected to need {expected:,.1f} GiB of {kind}, and {there:,.1f} GiB are there."
    if expected > TOO_MUCH * there:
        raise SpaditError(said, remedy)
    if expected > there:
        log.warning("%s It is tried. %s", said, remedy)
