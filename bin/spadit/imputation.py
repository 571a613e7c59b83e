"""From a slide, a reference and a gene split to imputed genes: which model is fitted on what, and what each one imputes.

Every measured gene is imputed by a model that never saw it, so that all columns of the result are the same kind of number:

- ``evaluation``: fitted on the train and validation genes, imputes the test genes;
- ``fold_k``: fitted on the train and validation genes outside fold k, imputes fold k;
- ``delivery``: fitted on all shared genes, imputes the genes that the slide did not measure.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import torch
from anndata.io import write_elem

from spadit import __version__
from spadit.api import FILES, SpaDiT, choose_device, read_model
from spadit.contracts import Split, Training
from spadit.errors import InputError, TrainingError
from spadit.preprocess import log_normalise
from spadit.reference import Reference

PROGRESS_EVERY = 20.0
"""Seconds between two lines of progress of a fit."""
ROWS_PER_CHUNK = 4096
GZIP_LEVEL = 2
LAYERS = ("sd", "lower", "upper", "counts")
"""What can be written beside the imputed values and the measured ones."""
DEFAULT_LAYERS = ("sd", "lower", "upper")
DTYPES = ("float32", "float16")
"""float16 holds 11 binary digits: a value is off by at most 0.05 % of itself. Counts can exceed what it holds; they stay float32."""


@dataclasses.dataclass(frozen=True)
class FitPlan:
    """One model: the genes it may see and those it imputes."""

    name: str
    visible: list[str]
    imputes: list[str]


def plan_fits(split: Split) -> list[FitPlan]:
    """The models a slide needs, in the order they are trained. Those with nothing to impute are left out."""
    known = split.train + split.validation
    plans = [FitPlan("evaluation", known, split.test)]
    for k, fold in enumerate(split.folds):
        hidden = set(fold)
        plans.append(FitPlan(f"fold_{k}", [gene for gene in known if gene not in hidden], fold))
    plans.append(FitPlan("delivery", known + split.test, split.unmeasured))
    return [plan for plan in plans if plan.imputes]


def train(
    slide: anndata.AnnData,
    reference: anndata.AnnData,
    split: Split,
    directory: str | Path,
    preset: str = "default",
    seed: int = 0,
    device: str = "auto",
    workers: int = 1,
    report: Callable[[dict, int, int], None] | None = None,
    start: str | Path | None = None,
    checkpoint: str | Path | None = None,
    gpus: int = 1,
    **settings,
) -> tuple[Training, pd.DataFrame]:
    """Fit all models of a slide and save each to ``directory/<name>``.

    Parameters
    ----------
    workers
        Processes that fit models side by side, as many as there is memory for: on a CPU one thread each, on GPUs one GPU each. Networks
        this small gain nothing from more.
    report
        Called with (facts of a finished fit, number of finished fits, number of fits), for progress.
    start
        Folder of a saved model whose token network the trainings start from.
    checkpoint
        Folder that outlives the task: a training that was killed goes on from there. The caller removes it once the models are safe.
    gpus
        On 'cuda': GPUs to use, of those that are there.

    Returns
    -------
    Training
        The facts.
    DataFrame
        The training curves: fit, mode, stage, network, step, train_loss, validation_pcc.
    """
    begun = time.perf_counter()
    plans = plan_fits(split)
    device = choose_device(device)
    model = SpaDiT(preset, seed, device, **settings)
    prepared = Reference(reference, model.settings.max_cells, seed)
    common = (prepared, str(directory), preset, seed, device, settings, start, str(checkpoint) if checkpoint else None, split.sample)
    results: dict[str, tuple[dict, pd.DataFrame]] = {}

    def keep(plan: FitPlan, result: tuple[dict, pd.DataFrame]) -> None:
        results[plan.name] = result
        if report:
            report(result[0], len(results), len(plans))

    devices = gpu_names(gpus) if device == "cuda" else [None] * workers
    devices = devices[: max(1, min(workers, len(plans)))]
    if len(devices) > 1:
        with pool_of(devices) as pool:
            running = {pool.submit(fit_plan, plan, slide[:, plan.visible].copy(), *common): plan for plan in plans}
            try:
                for future in as_completed(running):
                    keep(running[future], future.result())
            except BrokenProcessPool as error:
                raise MemoryError("A training process was killed, most likely for memory.") from error
    else:
        for plan in plans:
            keep(plan, fit_plan(plan, slide[:, plan.visible], *common))
    facts = [results[plan.name][0] for plan in plans]
    training = Training(
        sample=split.sample,
        preset=preset,
        device=device,
        parameters=dataclasses.asdict(model.settings) | {"seed": seed},
        fits=facts,
        seconds=time.perf_counter() - begun,
        n_weights=facts[-1]["n_weights"],
    )
    return training, pd.concat([results[plan.name][1] for plan in plans], ignore_index=True)


def gpu_names(most: int) -> list[str]:
    """Up to so many GPUs of those that this process may use, each as ``CUDA_VISIBLE_DEVICES`` names it."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = [name.strip() for name in allowed if name.strip()] or list(map(str, range(torch.cuda.device_count())))
    return names[: max(1, min(most, torch.cuda.device_count()))]


def pool_of(devices: Sequence[str | None]) -> ProcessPoolExecutor:
    """As many processes as devices, with one thread each. One that is given a GPU's name sees no other; None is the CPU."""
    context = multiprocessing.get_context("forkserver")  # CUDA can't be used in a fork of a process that has used it
    context.set_forkserver_preload(["spadit.api"])
    queue = context.SimpleQueue()
    for device in devices:
        queue.put(device)
    return ProcessPoolExecutor(len(devices), context, initializer=_take_device, initargs=(queue,))


def _take_device(queue: SimpleQueue) -> None:
    torch.set_num_threads(1)
    gpu = queue.get()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # before this process's first call of CUDA


def fit_plan(
    plan: FitPlan,
    visible: anndata.AnnData,
    reference: Reference,
    directory: str,
    preset: str,
    seed: int,
    device: str,
    settings: dict,
    start: str | None,
    checkpoint: str | None,
    sample: str,
) -> tuple[dict, pd.DataFrame]:
    """Fit and save one model. It is handed its visible genes only: what it doesn't have it can't leak."""
    shown = time.monotonic()

    def progress(entry: dict) -> None:
        nonlocal shown
        if time.monotonic() - shown > PROGRESS_EVERY:
            shown = time.monotonic()
            print(
                f"{sample}: {plan.name}, {entry['mode']} network {entry['stage']} {entry['network']}: step {entry['step']} of at most "
                f"{entry['n_steps']}, about {entry['seconds_left']:.0f} s",
                file=sys.stderr,
                flush=True,
            )

    folder = Path(checkpoint) / plan.name if checkpoint else None
    model = SpaDiT(preset, seed, device, **settings).fit(visible, reference, start=start, checkpoint=folder, report=progress)
    model.save(Path(directory) / plan.name)
    curve = model.curve.rename(columns={"validation_score": "validation_pcc"})
    curve.insert(0, "fit", plan.name)
    return {"name": plan.name, **model.facts}, curve


def training_key(files: Sequence[str | Path], parameters: dict) -> str:
    """Names the checkpoints of one training: a checksum of its input files (of folders, all files in them) and parameters.

    Another input, parameter or revision has another name, so no checkpoint is ever taken up that isn't this training's.
    """
    key = hashlib.sha256(json.dumps([__version__, parameters], sort_keys=True).encode())
    for path in map(Path, files):
        for part in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else (path,):
            with open(part, "rb") as stream:
                for block in iter(lambda: stream.read(1 << 20), b""):  # noqa: B023 - read at once
                    key.update(block)
            key.update(b"\0")
    return key.hexdigest()[:16]


def reuse(folder: str | Path, split: Split, directory: str | Path) -> None:
    """Take models that were trained before, on this split, instead of training.

    Raises
    ------
    InputError
        When a model of the split is missing in ``folder`` or saw other genes.
    """
    for plan in plan_fits(split):
        source = Path(folder) / plan.name
        remedy = "Give the folder 'model' of a slide of an earlier run."
        if not (source / "model.json").is_file():
            raise InputError(f"There is no model '{plan.name}' in {folder}.", remedy)
        try:
            genes = read_model(source)[0]["genes"]
        except InputError as error:
            raise InputError(f"There is no model '{plan.name}' in {folder} that can be used: {error.message}", remedy) from error
        if sorted(genes) != sorted(plan.visible):
            raise InputError(
                f"The model '{plan.name}' in {folder} saw other genes than this run's split lets it see.",
                "Use the same slide, --seed, --split_ratio and --folds as in the run that trained it, or train again.",
            )
        target = Path(directory) / plan.name
        target.mkdir(parents=True)
        for name in FILES:  # these alone: a folder that somebody gives may hold links to anything
            shutil.copyfile(source / name, target / name)


def chosen_layers(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """The layers that a list names ('sd,counts'; 'none' for none), in the order of :data:`LAYERS`; the usual ones when None or empty.

    Raises
    ------
    InputError
        When one of them is no layer.
    """
    given = [name.strip() for name in (names.split(",") if isinstance(names, str) else names or [])]
    given = [name for name in given if name]
    if not given:
        return DEFAULT_LAYERS
    wrong = [name for name in given if name not in LAYERS and (name != "none" or len(given) > 1)]
    if wrong:
        raise InputError(f"'{wrong[0]}' is no layer that can be written.", f"Use some of {', '.join(LAYERS)}, or none alone.")
    return tuple(name for name in LAYERS if name in given)


def impute(
    slide: anndata.AnnData,
    reference: anndata.AnnData,
    split: Split,
    directory: str | Path,
    output: str | Path,
    training: Training | None = None,
    device: str = "auto",
    draws: int = 0,
    counts: bool = False,
    report: Callable[[int, int], None] | None = None,
    layers: str | Sequence[str] | None = None,
    dtype: str = "float32",
) -> None:
    """Impute every gene with the model that may (see the module's text), and write ``output`` (h5ad) some genes at a time.

    The file holds spots × (shared genes in the slide's order, then unmeasured genes in the reference's order): the contract of
    docs/output.md. Memory doesn't grow with the number of genes.

    Parameters
    ----------
    draws, counts
        See :meth:`spadit.api.SpaDiT.impute`.
    report
        Called with (genes done, genes in all).
    layers
        Those to write, see :func:`chosen_layers`; measured values, draws and (with ``counts``) counts are written in any case.
    dtype
        Of ``X`` and the layers, one of :data:`DTYPES`.

    Raises
    ------
    InputError
        When a layer or the dtype is unknown, or a model is missing or of another slide.
    """
    if dtype not in DTYPES:
        raise InputError(f"'{dtype}' is no type that values can be written as.", f"Use {' or '.join(DTYPES)}.")
    wanted_layers = chosen_layers(layers)
    counts = counts or "counts" in wanted_layers
    names = [name for name in wanted_layers if name != "counts"]
    names += [*(f"draw_{i + 1}" for i in range(draws)), *(["counts"] if counts else [])]

    plans = plan_fits(split)
    imputed_by = {gene for plan in plans for gene in plan.imputes}
    wanted = set(split.unmeasured)
    genes = [gene for gene in slide.var_names if gene in imputed_by and gene not in wanted]
    n_measured = len(genes)
    genes += [gene for gene in reference.var_names if gene in wanted]
    position = {gene: i for i, gene in enumerate(genes)}
    fold_of = {gene: k for k, fold in enumerate(split.folds) for gene in fold}
    part_of = {gene: name for name in ("train", "validation", "test", "unmeasured") for gene in getattr(split, name)}
    var = pd.DataFrame(index=pd.Index(genes, name=None))
    var["measured"] = [part_of[gene] != "unmeasured" for gene in genes]
    var["split"] = [part_of[gene] for gene in genes]
    var["fold"] = [fold_of.get(gene, -1) for gene in genes]
    columns_of = {"reliability": np.zeros(len(genes))}
    columns_of |= {name: np.full(len(genes), "", dtype=object) for name in ("reliability_class", "reliability_why")}
    observed = log_normalise(slide[:, genes[:n_measured]].layers["counts"])[0].tocsc()

    places = {name: np.asarray(slide.obsm[name]) for name in ("spatial", "spatial_given") if name in slide.obsm}
    skeleton = anndata.AnnData(obs=slide.obs.copy(), var=var[[]], obsm=places)
    skeleton.uns["spadit"] = {
        "version": __version__,
        "parameters": json.dumps(training.parameters if training else {}, sort_keys=True),
        "seed": split.seed,
        "inputs": json.dumps({"slide": source(slide), "reference": source(reference)}, sort_keys=True),
    }
    if any(data.uns.get("spadit", {}).get("synthetic") for data in (slide, reference)):
        skeleton.uns["spadit"]["synthetic"] = True
    skeleton.write_h5ad(output)
    done = 0
    with h5py.File(output, "r+") as file, _Writer(torch.get_num_threads()) as writer:
        shape = (slide.n_obs, len(genes))
        if "X" in file:
            del file["X"]
        sets = {"X": _dataset(file, "X", shape, dtype)}
        sets |= {name: _dataset(file, f"layers/{name}", shape, "float32" if name == "counts" else dtype) for name in ("observed", *names)}
        for start in range(0, n_measured, 256):
            stop = min(start + 256, n_measured)
            writer.write({"observed": observed[:, start:stop].toarray()}, sets, np.arange(start, stop))
        prepared = reference
        for plan in plans:
            model = SpaDiT.load(Path(directory) / plan.name, slide[:, plan.visible], prepared, device)
            prepared = model.reference  # made ready once
            for table, arrays in model.impute_blocks(plan.imputes, draws, counts):
                columns = np.array([position[gene] for gene in table.index])
                for values in arrays.values():
                    check_numbers(values, table.index, plan.name)
                writer.write(arrays, sets, columns)
                for name, values in columns_of.items():
                    values[columns] = table[name]
                done += len(table)
                if report:
                    report(done, len(genes))
        writer.flush()
        for name, values in columns_of.items():
            var[name] = values.astype(str) if values.dtype == object else values
        del file["var"]
        write_elem(file, "var", var)


def check_numbers(values: np.ndarray, genes: Sequence[str], model: str) -> None:
    """Refuse imputed values, (spots, genes), that are no numbers: nobody downstream would notice them.

    Raises
    ------
    TrainingError
        Naming the genes.
    """
    broken = [str(gene) for gene, fine in zip(genes, np.isfinite(values).all(0), strict=True) if not fine]
    if broken:
        raise TrainingError(
            f"The model '{model}' imputes values that are no numbers, for {len(broken)} genes, e.g. {', '.join(broken[:5])}.",
            "Look for extreme values of these genes in the slide and the reference, and train again.",
        )


def _dataset(file: h5py.File, name: str, shape: tuple[int, int], dtype: str = "float32") -> h5py.Dataset:
    """A compressed array as anndata reads it, with a gene's spots side by side; what isn't written is NaN."""
    chunks = (max(1, min(shape[0], ROWS_PER_CHUNK)), 1) if shape[1] else None
    made = file.create_dataset(
        name, shape, dtype, chunks=chunks, compression="gzip", compression_opts=GZIP_LEVEL, shuffle=True, fillvalue=np.nan
    )
    made.attrs["encoding-type"], made.attrs["encoding-version"] = "array", "0.2.0"
    return made


class _Writer:
    """Writes columns of :func:`_dataset`, compressed by several threads while the next ones are made: HDF5 alone compresses with one."""

    def __init__(self, threads: int):
        self.threads = max(1, threads)
        self.waiting: list[tuple[h5py.Dataset, int, Future]] = []

    def __enter__(self) -> _Writer:
        self.pool = ThreadPoolExecutor(self.threads)
        return self

    def __exit__(self, *error) -> None:
        self.pool.shutdown(cancel_futures=True)

    def write(self, arrays: dict[str, np.ndarray], sets: dict[str, h5py.Dataset], columns: np.ndarray) -> None:
        """Take (spots, columns) arrays of those names that ``sets`` has, and write what was taken before."""
        started = []
        for name, values in arrays.items():
            if name in sets and values.size:
                genes = np.ascontiguousarray(values.T, dtype=sets[name].dtype)
                n_rows = sets[name].chunks[0]
                started += [(sets[name], int(c), self.pool.submit(_chunks, gene, n_rows)) for c, gene in zip(columns, genes, strict=True)]
        self.flush()
        self.waiting = started

    def flush(self) -> None:
        """Write all that was taken."""
        for dataset, column, chunks in self.waiting:
            for i, chunk in enumerate(chunks.result()):
                dataset.id.write_direct_chunk((i * dataset.chunks[0], column), chunk)
        self.waiting = []


def _chunks(gene: np.ndarray, n_rows: int) -> list[bytes]:
    """A gene's values as HDF5's filters leave them: cut into chunks of ``n_rows`` (the last one filled up), the bytes shuffled (all first
    ones, then all second ones ...), and deflated."""
    padded = np.zeros(-(-len(gene) // n_rows) * n_rows, dtype=gene.dtype)
    padded[: len(gene)] = gene
    shuffled = padded.view(np.uint8).reshape(-1, n_rows, gene.dtype.itemsize).transpose(0, 2, 1)
    return [zlib.compress(part.tobytes(), GZIP_LEVEL) for part in shuffled]


def source(data: anndata.AnnData) -> dict:
    """File name and checksum of the input that the data were read from."""
    facts = data.uns.get("spadit", {})
    return {name: str(facts[name]) for name in ("source", "sha256") if name in facts}
