"""All facts of a made-up slide, in the form the steps leave them: for the tests of plots and reports."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from spadit.contracts import Benchmark, Evaluation, Inputs, Pairing, QualityControl, Split, Training

METHODS = {"SpaDiT": 0.4, "corr_weighted": 0.35, "ridge": 0.3, "library_size": 0.1, "oracle_ridge": 0.6}
"""Method -> typical PCC."""
BLENDS = {
    "evaluation": {"coarse": 0.76, "whole_slide": 0.24},
    "fold_0": {"coarse": 1.0},
    "delivery": {"coarse": 0.97, "token": 0.4, "whole_slide": 0.11},
}
"""Fit -> blend."""
RULE = "'not predictable' when the median PCC is below 0.10; else 'pass'."


def write_slide(
    folder: Path,
    sample: str = "cortex",
    verdict: str = "pass",
    genes: list[str] | None = None,
    n_spots: int = 80,
    n_unmeasured: int = 5,
    warnings: list[str] | None = None,
    blends: dict[str, dict[str, float]] = BLENDS,
    modes: tuple[str, ...] = ("token", "whole_slide"),
    preset: str = "default",
) -> dict[str, Path]:
    """Write every file of one slide into ``folder``; returns option name -> path."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    genes = list(genes or [f"Gene{k}" for k in range(12)])
    new = [f"New{k}" for k in range(n_unmeasured)]
    n, g = n_spots, len(genes)
    spatial = np.stack(np.meshgrid(np.arange(10), np.arange(-(-n // 10))), -1).reshape(-1, 2)[:n].astype(float)
    names = [f"spot{i}" for i in range(n)]
    counts = rng.poisson(3, (n, g)).astype(np.float32)
    slide = ad.AnnData(obs=pd.DataFrame(index=names), var=pd.DataFrame({"shared": True}, index=genes))
    slide.layers["counts"], slide.obsm["spatial"] = sp.csr_matrix(counts), spatial
    split = ["test" if k % 6 == 0 else "validation" if k % 3 == 0 else "train" for k in range(g)]
    fold = [-1 if s == "test" else k % 2 for k, s in enumerate(split)]
    observed = np.full((n, g + len(new)), np.nan, dtype=np.float32)
    observed[:, :g] = np.log1p(counts)
    X = np.abs(rng.normal(1, 0.3, observed.shape)).astype(np.float32)
    reliability = np.linspace(0.6, -0.1, g + len(new))
    classes = np.select([reliability > 0.4, reliability > 0.2], ["reliable", "use with care"], "do not use")
    imputed = ad.AnnData(
        X=X,
        obs=pd.DataFrame(index=names),
        var=pd.DataFrame(
            {
                "measured": [True] * g + [False] * len(new),
                "split": split + ["unmeasured"] * len(new),
                "fold": fold + [-1] * len(new),
                "reliability": reliability,
                "reliability_class": classes,
            },
            index=genes + new,
        ),
    )
    imputed.layers.update({"observed": observed, "sd": X * 0.1, "lower": X - 0.5, "upper": X + 0.5})
    imputed.obsm["spatial"] = spatial
    imputed.uns["spadit"] = {
        "version": "0.1.0",
        "seed": 0,
        "parameters": json.dumps({"preset": "default", "width": 96}),
        "inputs": json.dumps(
            {"slide": {"source": "st.h5ad", "sha256": "ab" * 32}, "reference": {"source": "sc.h5ad", "sha256": "cd" * 32}}
        ),
    }
    factor = 0.05 if verdict == "not predictable" else 1.0
    rows = []
    for method, typical in METHODS.items():
        for k, gene in enumerate(genes):
            pcc = factor * (typical + 0.1 * np.sin(k))
            row = {
                "gene": gene,
                "method": method,
                "split": split[k],
                "fold": fold[k],
                "pcc": pcc,
                "spearman": pcc,
                "ssim": pcc,
                "rmse": 1.2,
            }
            rows.append(
                row | {"js": 0.2, "moran_truth": 0.3, "moran_imputed": 0.4, "coverage": 0.9, "width": 1.0, "reliability": reliability[k]}
            )
    metrics = pd.DataFrame(rows)

    def summary(method: str, part: str) -> dict:
        table = metrics[(metrics["method"] == method) & ((metrics["split"] == "test") | (part == "all"))]
        medians = {f"median_{m}": float(table[m].median()) for m in ("pcc", "spearman", "ssim", "rmse", "js")}
        median = medians["median_pcc"]
        bounds = {"mean_pcc": median, "low": median - 0.01, "high": median + 0.01}
        score = None if method in ("library_size", "oracle_ridge") else 0.5
        return {"method": method, "split": part, "n_genes": len(table), **medians, **bounds, "accuracy_score": score}

    quantiles = {"counts": list(np.linspace(1, 500, 21)), "genes": list(np.linspace(1, 12, 21))}

    def qc(id: str, role: str, unit: str) -> QualityControl:
        before = {"n_obs": n + 2, "n_genes": g, "median_counts": 36.5, "median_genes": 11, "zero_share": 0.05, "mito_share": None}
        removed = {"name": "min_counts", "axis": unit, "threshold": 1, "removed": 2, "reason": "fewer than 1 counts"}
        return QualityControl(id, role, "Visium", before, before | {"n_obs": n}, [removed], list(warnings or []), quantiles)

    paths = {
        name: folder / f"{sample}.{ending}"
        for name, ending in {
            "imputed": "imputed.h5ad",
            "slide": "slide.h5ad",
            "metrics": "metrics.csv",
            "curves": "curves.csv",
            "qc_slide": "qc.json",
            "qc_reference": "reference.qc.json",
            "pairing": "pairing.json",
            "split": "split.json",
            "training": "training.json",
            "evaluation": "evaluation.json",
        }.items()
    }
    imputed.write_h5ad(paths["imputed"])
    slide.write_h5ad(paths["slide"])
    metrics.to_csv(paths["metrics"], index=False)
    curve_table(tuple(blends), modes).to_csv(paths["curves"], index=False)
    reference = f"{sample}_reference"
    qc(sample, "slide", "spots").to_json(paths["qc_slide"])
    qc(reference, "reference", "cells").to_json(paths["qc_reference"])
    Pairing(sample, reference, n, 90, g, g + len(new), g, len(new), g, "symbol").to_json(paths["pairing"])
    parts = {s: [gene for gene, part in zip(genes, split, strict=True) if part == s] for s in ("train", "validation", "test")}
    seen = parts["train"] + parts["validation"]
    Split(sample, 7, **parts, unmeasured=new, folds=[seen[::2], seen[1::2]]).to_json(paths["split"])
    training(sample, blends, modes, preset).to_json(paths["training"])
    Evaluation(
        sample=sample,
        n_test=len(parts["test"]),
        n_scored=g,
        summary=[summary(m, part) for m in METHODS for part in ("test", "all")],
        comparison=[{"method": "corr_weighted", "mean_difference": 0.05, "low": 0.01, "high": 0.09, "p": 0.0004}],
        coverage=0.9,
        reliability_spearman=0.5,
        verdict=verdict,
        rule=RULE,
        reasons=["The median PCC is 0.02, below 0.10."] if verdict == "not predictable" else [],
        top_genes=genes[:6],
    ).to_json(paths["evaluation"])
    return paths


def curve_table(fits: tuple[str, ...], modes: tuple[str, ...]) -> pd.DataFrame:
    """Curves as TRAIN leaves them. Of two networks that choose how long to train the second stops at step 90, at twice the first's PCC."""
    rows = [("choose", 0, s, 1 / s, 0.2 + s / 1000) for s in (10, 90, 100)]
    rows += [("choose", 1, s, 2 / s, 0.4 + s / 500) for s in (10, 90)] + [("final", 0, s, 1 / s, None) for s in (10, 50)]
    columns = ["fit", "mode", "stage", "network", "step", "train_loss", "validation_pcc"]
    return pd.DataFrame([(fit, mode, *row) for fit in fits for mode in modes for row in rows], columns=columns)


def training(sample: str, blends: dict[str, dict[str, float]], modes: tuple[str, ...], preset: str) -> Training:
    """Facts of a training in which these modes were trained in every fit."""
    parameters = {
        "modes": ["whole_slide"] if preset == "paper" else ["token", "whole_slide"], "coarse": preset != "paper", "inner_folds": 6,
        "network_folds": 3, "n_models": 2, "max_whole_spots": 6000, "backbone": "dit", "n_diffusion_steps": 1000, "max_steps": 300,
        "target": "epsilon" if preset == "paper" else "x0", "sampler": "ddpm" if preset == "paper" else "one_step", "seed": 7,
    }  # fmt: skip
    steps = {"token": 40, "whole_slide": 50}
    seconds = {"coarse": 6.0, "token": 20.0, "whole_slide": 34.5, "trust": 0.5}
    fits = [
        {
            "name": name, "n_visible": 10, "best_step": {mode: steps[mode] for mode in modes}, "validation_pcc": 0.3, "blend": blend,
            "seconds": 61.0, "seconds_per_part": {p: s for p, s in seconds.items() if p in ("coarse", "trust", *modes)} | {"total": 61.0},
            "n_weights": 12345,
        }
        for name, blend in blends.items()
    ]  # fmt: skip
    return Training(sample, preset, "cpu", parameters, fits, 183.0, 12345)


def inputs(*samples: str, references: dict[str, str] | None = None) -> Inputs:
    """What CHECK_INPUTS would have found for these slides."""
    rows = []
    for s in samples:
        row = {"sample": s, "st": f"{s}/st.h5ad", "sc": f"{s}/sc.h5ad", "platform": "", "genes": "", "species": "", "batch": ""}
        rows.append(row | {"reference": (references or {}).get(s, f"{s}_reference")})
    return Inputs(rows)


def slide_facts(paths: dict[str, Path], sample: str, plots: Path):
    """The files of :func:`write_slide` read back for the slide's page."""
    from spadit.report.slide import SlideFacts

    return SlideFacts(
        sample=sample,
        imputed=ad.read_h5ad(paths["imputed"]),
        metrics=pd.read_csv(paths["metrics"]),
        qc_slide=QualityControl.from_json(paths["qc_slide"]),
        qc_reference=QualityControl.from_json(paths["qc_reference"]),
        pairing=Pairing.from_json(paths["pairing"]),
        split=Split.from_json(paths["split"]),
        training=Training.from_json(paths["training"]),
        evaluation=Evaluation.from_json(paths["evaluation"]),
        curves=pd.read_csv(paths["curves"]),
        plots=plots,
        slide=ad.read_h5ad(paths["slide"]),
    )


def benchmark_files(folder: Path, sample: str = "cortex", spots: slice = slice(None)) -> tuple[Path, ad.AnnData]:
    """The files of a benchmark in which one method failed and one was not run, and the slide; ``spots`` were imputed."""
    folder = folder / "benchmark"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    genes, n = [f"Gene{k}" for k in range(8)], 60
    counts = rng.poisson(3, (n, len(genes))).astype(np.float32)
    slide = ad.AnnData(obs=pd.DataFrame(index=[f"spot{i}" for i in range(n)]), var=pd.DataFrame(index=genes))
    slide.layers["counts"] = sp.csr_matrix(counts)
    slide.obsm["spatial"] = np.stack(np.meshgrid(np.arange(10), np.arange(6)), -1).reshape(-1, 2).astype(float)
    rows, ranking = [], []
    for k, method in enumerate(("SpaDiT", "ridge", "library_size", "oracle_ridge")):
        pcc = 0.5 - 0.1 * k - 0.01 * np.arange(len(genes))
        rows += [{"gene": g, "method": method, "fold": i % 2, "pcc": p, "ssim": p} for i, (g, p) in enumerate(zip(genes, pcc, strict=True))]
        numbers = {"median_pcc": np.median(pcc), "low": 0.4 - 0.1 * k, "high": 0.55 - 0.1 * k, "difference": -0.1 * k, "seconds": 75.0 * k}
        numbers |= {"accuracy_score": 1.0 - 0.5 * k if k < 2 else None, "p": 0.0002 if k == 1 else None}
        ranking.append({"method": method, "kind": "method", "status": "ok", **numbers, "difference_low": -0.15, "difference_high": -0.05})
        values = np.log1p(counts) + k * rng.normal(size=counts.shape)
        imputed = ad.AnnData(values.astype(np.float32), obs=slide.obs, var=pd.DataFrame({"fold": 0}, index=genes))[spots]
        imputed.write_h5ad(folder / f"{method}.h5ad")
    failed = {"stDiff": "failed: ran out of <b>memory</b>", "Tangram": "not run: tangram-sc is not installed"}
    ranking += [{"method": method, "status": status} for method, status in failed.items()]
    pd.DataFrame(rows).to_csv(folder / "metrics.csv", index=False)
    pd.DataFrame(ranking).to_csv(folder / "ranking.csv", index=False)
    winner = "SpaDiT is best: no other method reaches its PCC."
    Benchmark(sample, 3, n, len(genes), 2, winner, ["SpaDiT"], failed, ["All <i>60</i> spots were used."]).to_json(
        folder / "benchmark.json"
    )
    return folder, slide
