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
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
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
    **settings,
) -> tuple[Training, pd.DataFrame]:
    """Fit all models of a slide and save each to ``directory/<name>``.

    Parameters
    ----------
    workers
        Processes that fit models side by side on a CPU, one thread each: networks this small gain nothing from more threads.
    report
        Called with (facts of a finished fit, number of finished fits, number of fits), for progress.
    start
        Folder of a saved model whose token network the trainings start from.
    checkpoint
        Folder that outlives the task: a training that was killed goes on from there. The caller removes it once the models are safe.

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

    if device == "cpu" and workers > 1 and len(plans) > 1:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["spadit.api"])
        with ProcessPoolExecutor(min(workers, len(plans)), context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
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
    """
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
    var["reliability"], var["reliability_class"], var["reliability_why"] = 0.0, "", ""
    names = ["sd", "lower", "upper", *(f"draw_{i + 1}" for i in range(draws)), *(["counts"] if counts else [])]
    observed = log_normalise(slide[:, genes[:n_measured]].layers["counts"])[0].tocsc()

    skeleton = anndata.AnnData(obs=slide.obs.copy(), var=var[[]], obsm={"spatial": np.asarray(slide.obsm["spatial"])})
    skeleton.uns["spadit"] = {
        "version": __version__,
        "parameters": json.dumps(training.parameters if training else {}, sort_keys=True),
        "seed": split.seed,
        "inputs": json.dumps({"slide": source(slide), "reference": source(reference)}, sort_keys=True),
    }
    skeleton.write_h5ad(output)
    done = 0
    with h5py.File(output, "r+") as file:
        shape = (slide.n_obs, len(genes))
        if "X" in file:
            del file["X"]
        sets = {"X": _dataset(file, "X", shape)} | {name: _dataset(file, f"layers/{name}", shape) for name in ("observed", *names)}
        for start in range(0, n_measured, 256):
            stop = min(start + 256, n_measured)
            _write(sets["observed"], np.arange(start, stop), observed[:, start:stop].toarray())
        for plan in plans:
            model = SpaDiT.load(Path(directory) / plan.name, slide[:, plan.visible], reference, device)
            for table, arrays in model.impute_blocks(plan.imputes, draws, counts):
                columns = np.array([position[gene] for gene in table.index])
                for name, values in arrays.items():
                    check_numbers(values, table.index, plan.name)
                    _write(sets[name], columns, values)
                for name in table:
                    var.loc[table.index, name] = table[name]
                done += len(table)
                if report:
                    report(done, len(genes))
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


def _dataset(file: h5py.File, name: str, shape: tuple[int, int]) -> h5py.Dataset:
    """A compressed array as anndata reads it, with a gene's spots side by side; what isn't written is NaN."""
    chunks = (max(1, min(shape[0], ROWS_PER_CHUNK)), 1) if shape[1] else None
    made = file.create_dataset(
        name, shape, np.float32, chunks=chunks, compression="gzip", compression_opts=2, shuffle=True, fillvalue=np.nan
    )
    made.attrs["encoding-type"], made.attrs["encoding-version"] = "array", "0.2.0"
    return made


def _write(dataset: h5py.Dataset, columns: np.ndarray, values: np.ndarray) -> None:
    """Write columns, neighbouring ones at once."""
    for run in _runs(columns):
        dataset[:, columns[run[0]] : columns[run[0]] + len(run)] = values[:, run]


def _runs(columns: np.ndarray) -> Iterator[np.ndarray]:
    """Positions in ``columns``, in runs whose columns follow one another."""
    order = np.argsort(columns, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(columns[order]) != 1) + 1) if len(order) else []


def source(data: anndata.AnnData) -> dict:
    """File name and checksum of the input that the data were read from."""
    facts = data.uns.get("spadit", {})
    return {name: str(facts[name]) for name in ("source", "sha256") if name in facts}
