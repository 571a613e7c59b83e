"""From a slide, a reference and a gene split to imputed genes: which model is fitted on what, and what each one imputes.

Every measured gene is imputed by a model that never saw it, so that all columns of the result are the same kind of number:

- ``evaluation``: fitted on the train and validation genes, imputes the test genes;
- ``fold_k``: fitted on the train and validation genes outside fold k, imputes fold k;
- ``delivery``: fitted on all shared genes, imputes the genes that the slide did not measure.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import torch

from spadit import __version__
from spadit.api import SpaDiT, choose_device, to_expression
from spadit.contracts import Split, Training
from spadit.preprocess import log_normalise
from spadit.uncertainty import gene_features, intervals, reliability


@dataclasses.dataclass(frozen=True)
class FitPlan:
    """One model: the genes it may see, those of them that choose its number of steps (None: it draws its own), and those it imputes."""

    name: str
    visible: list[str]
    validation: list[str] | None
    imputes: list[str]


def plan_fits(split: Split) -> list[FitPlan]:
    """The models a slide needs, in the order they are trained. Those with nothing to impute are left out, the last one excepted."""
    known = split.train + split.validation
    plans = [FitPlan("evaluation", known, split.validation, split.test)]
    for k, fold in enumerate(split.folds):
        hidden = set(fold)
        plans.append(FitPlan(f"fold_{k}", [gene for gene in known if gene not in hidden], None, fold))
    plans.append(FitPlan("delivery", known + split.test, None, split.unmeasured))
    return [plan for plan in plans if plan.imputes]


def train(slide: anndata.AnnData, reference: anndata.AnnData, split: Split, directory: str | Path, preset: str = "default",
          seed: int = 0, device: str = "auto", workers: int = 1, report: Callable[[dict, int, int], None] | None = None,
          **settings) -> tuple[Training, pd.DataFrame]:
    """Fit all models of a slide and save each to ``directory/<name>``.

    The delivery model can't choose its number of steps on genes it must also learn from: it takes the median of the others'.

    Parameters
    ----------
    workers
        Processes that fit models side by side on a CPU, one thread each: networks this small gain nothing from more threads.
    report
        Called with (facts of a finished fit, number of finished fits, number of fits), for progress.

    Returns
    -------
    Training
        The facts.
    DataFrame
        The training curves: fit, stage, model, step, train_loss, validation_loss, validation_pcc.
    """
    start = time.perf_counter()
    plans = plan_fits(split)
    device = choose_device(device)
    common = (reference, str(directory), preset, seed, device, settings)
    results: dict[str, tuple[dict, pd.DataFrame]] = {}

    def keep(plan: FitPlan, result: tuple[dict, pd.DataFrame]) -> None:
        results[plan.name] = result
        if report:
            report(result[0], len(results), len(plans))

    chosen = [plan for plan in plans if plan.name != "delivery"]
    if device == "cpu" and workers > 1 and len(chosen) > 1:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["spadit.api"])
        with ProcessPoolExecutor(min(workers, len(chosen)), context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            running = {pool.submit(fit_plan, plan, slide[:, plan.visible].copy(), *common): plan for plan in chosen}
            try:
                for future in as_completed(running):
                    keep(running[future], future.result())
            except BrokenProcessPool as error:
                raise MemoryError("A training process was killed, most likely for memory.") from error
    else:
        for plan in chosen:
            keep(plan, fit_plan(plan, slide[:, plan.visible], *common))
    for plan in plans[len(chosen):]:
        steps = [facts["best_step"] for facts, _ in results.values()]
        n_steps = int(np.median(steps)) if steps else None
        keep(plan, fit_plan(plan, slide[:, plan.visible], *common, n_steps))

    facts = [results[plan.name][0] for plan in plans]
    training = Training(
        sample=split.sample, preset=preset, device=device,
        parameters=dataclasses.asdict(SpaDiT(preset, seed, device, **settings).settings) | {"seed": seed},
        fits=facts, seconds=time.perf_counter() - start, n_weights=facts[-1]["n_weights"],
    )
    return training, pd.concat([results[plan.name][1] for plan in plans], ignore_index=True)


def fit_plan(plan: FitPlan, visible: anndata.AnnData, reference: anndata.AnnData, directory: str, preset: str, seed: int, device: str,
             settings: dict, n_steps: int | None = None) -> tuple[dict, pd.DataFrame]:
    """Fit and save one model. It is handed its visible genes only: what it doesn't have it can't leak."""
    model = SpaDiT(preset, seed, device, **settings).fit(visible, reference, plan.validation, n_steps)
    model.save(Path(directory) / plan.name)
    curve = model.curve
    curve.insert(0, "fit", plan.name)
    return {"name": plan.name, **model.facts}, curve


def impute(slide: anndata.AnnData, reference: anndata.AnnData, split: Split, directory: str | Path, training: Training | None = None,
           device: str = "auto") -> anndata.AnnData:
    """Impute every gene with the model that may: see the module's text.

    Returns
    -------
    AnnData
        spots × (shared genes in the slide's order, then unmeasured genes in the reference's order): the contract of docs/output.md.
    """
    measured = [gene for gene in slide.var_names if slide.var["shared"][gene]]
    imputed_by = {gene: plan.name for plan in plan_fits(split) for gene in plan.imputes}
    wanted = set(split.unmeasured)
    genes = [gene for gene in measured if gene in imputed_by] + [gene for gene in reference.var_names if gene in wanted]
    position = {gene: i for i, gene in enumerate(genes)}
    n_spots = slide.n_obs
    values = np.zeros((n_spots, len(genes)), dtype=np.float32)
    sd = np.ones(len(genes))
    features = []
    for plan in plan_fits(split):
        model = SpaDiT.load(Path(directory) / plan.name, reference, device)
        z, mean, spread = model.impute_standardised(plan.imputes)
        order = pd.Index(model.spots).get_indexer(slide.obs_names)
        columns = [position[gene] for gene in plan.imputes]
        values[:, columns] = to_expression(z, mean, spread)[order]
        sd[columns] = spread
        features.append(gene_features(z[order], plan.imputes, slide[:, plan.visible], reference))
    features = pd.concat(features).loc[genes]

    fold_of = {gene: k for k, fold in enumerate(split.folds) for gene in fold}
    part_of = {gene: name for name in ("train", "validation", "test", "unmeasured") for gene in getattr(split, name)}
    var = pd.DataFrame(index=pd.Index(genes, name=None))
    var["measured"] = [part_of[gene] != "unmeasured" for gene in genes]
    var["split"] = [part_of[gene] for gene in genes]
    var["fold"] = [fold_of.get(gene, -1) for gene in genes]

    # What is known of the errors comes from cross-fitted genes. Test genes stay hidden here, too.
    calibration = [gene for gene in genes if gene in fold_of]
    truth = log_normalise(slide[:, calibration].layers["counts"])[0].toarray()
    lower, upper, residual_sd = intervals(values, sd, truth, [position[gene] for gene in calibration], var["fold"].to_numpy())
    var["reliability"], var["reliability_class"] = reliability(features, truth, values, [position[gene] for gene in calibration],
                                                               var["fold"].to_numpy())

    observed = np.full((n_spots, len(genes)), np.nan, dtype=np.float32)
    n_measured = int(var["measured"].sum())
    observed[:, :n_measured] = log_normalise(slide[:, genes[:n_measured]].layers["counts"])[0].toarray()
    result = anndata.AnnData(
        X=values, obs=slide.obs.copy(), var=var, obsm={"spatial": np.asarray(slide.obsm["spatial"])},
        layers={"observed": observed, "sd": residual_sd, "lower": lower, "upper": upper},
    )
    result.uns["spadit"] = {
        "version": __version__,
        "parameters": json.dumps(training.parameters if training else {}, sort_keys=True),
        "seed": split.seed,
        "inputs": json.dumps({"slide": source(slide), "reference": source(reference)}, sort_keys=True),
    }
    return result


def source(data: anndata.AnnData) -> dict:
    """File name and checksum of the input that the data were read from."""
    facts = data.uns.get("spadit", {})
    return {name: str(facts[name]) for name in ("source", "sha256") if name in facts}
