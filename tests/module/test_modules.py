"""Each process alone: its stub, and what it really does to a cut-down slide of the demo data."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from bundles import counts, visium_hd
from nf import ROOT, nextflow, trace

from spadit.contracts import Benchmark, Device, Evaluation, Failure, Inputs, Pairing, QualityControl, Resources, Split, Training, Usage

HERE = Path(__file__).resolve().parent


def start(workflow: str, folder: Path, *arguments, **extra):
    """Run one of the workflows here with the pipeline's own configuration; inputs are in ``folder/data``, results in ``folder/out``."""
    given = ["-c", ROOT / "nextflow.config", "--inputs", folder / "data", "--outdir", folder / "out", *arguments]
    return nextflow("run", HERE / workflow, *given, cwd=folder, **extra)


def task_folder(folder: Path, process: str, tag: str = "") -> Path:
    """Work directory of a process's task."""
    (row,) = [r for r in trace(folder / "out") if r["process"] == process and r["tag"] in (tag, tag or "1")]
    return next((folder / "work").glob(row["hash"] + "*"))


def test_stubs(tmp_path):
    """Each stub gives every output that is not optional, under the name the next process and docs/output.md expect."""
    data = tmp_path / "data"
    (data / "own").mkdir(parents=True)
    for name in re.findall(r"any_file\('([^']+)'\)", (HERE / "stub.nf").read_text(encoding="utf-8")):
        (data / name).touch()
    (data / "samplesheet.csv").write_text("sample,st,sc\ns.1,st.h5ad,sc.h5ad\n")
    result = start("stub.nf", tmp_path, "-stub-run")
    assert result.returncode == 0, result.stdout
    outputs = dict(re.findall(r"^OUT (\S+) (.*)$", result.stdout, re.M))
    assert outputs == {
        "CHECK_INPUTS.inputs": "inputs.json",
        "CHECK_INPUTS.params": "params.json",
        "CHECK_DEVICE.facts": "device.json",
        "READ.h5ad": "s.1.h5ad",
        "QC.h5ad": "s.1.qc.h5ad",
        "QC.facts": "s.1.qc.json",
        "PREPARE_REFERENCE.h5ad": "r.qc.h5ad",
        "PREPARE_REFERENCE.facts": "r.qc.json",
        "PAIR.pair": "s.1.slide.h5ad,s.1.reference.h5ad",
        "PAIR.facts": "s.1.pairing.json",
        "SPLIT.split": "s.1.split.json",
        "SPLIT.resources": "s.1.resources.json",
        "TRAIN.model": "s.1.model",
        "TRAIN.curves": "s.1.curves.csv",
        "TRAIN.training": "s.1.training.json",
        "IMPUTE.imputed": "s.1.imputed.h5ad",
        "EVALUATE.metrics": "s.1.metrics.csv",
        "EVALUATE.evaluation": "s.1.evaluation.json",
        "FOLDS.folds": "folds.json",
        "FOLDS.plan": "plan.json",
        "RUN_METHOD.part": "s.1.ridge.fold0.h5ad,s.1.ridge.fold0.run.json",
        "RANK.tables": "metrics.csv,ranking.csv",
        "RANK.imputed": "ridge.h5ad",
        "RANK.benchmark": "benchmark.json",
        "PLOT.plots": "plots",
        "PLOT.thumbnails": "s.1.thumbnail.png",
        "REPORT.html": "s.1.report.html",
        "SPATIALDATA.store": "s.1.spatialdata.zarr",
        "BENCHMARK_PLOT.plots": "plots",
        "BENCHMARK_PLOT.thumbnails": "s.1.benchmark.png",
        "BENCHMARK_PLOT.ranking": "s.1.ranking.csv",
        "BENCHMARK_PLOT.benchmark": "s.1.benchmark.json",
        "BENCHMARK_COHORT.plots": "plots",
        "SUMMARIZE.multiqc": "slides_mqc.json",
        "SUMMARIZE.slides": "slides.json",
        "SUMMARIZE.table": "slides.csv",
        "SUMMARIZE.citations": "citations.bib",
        "MULTIQC.report": "multiqc_report.html",
        "MULTIQC.data": "multiqc_report_data",
    }
    facts = set(re.findall(r"^TOPIC facts (.*)$", result.stdout, re.M))
    kinds = {"qc.json", "pairing.json", "split.json", "training.json", "curves.csv", "metrics.csv", "evaluation.json", "thumbnail.png"}
    kinds |= {"benchmark.png", "ranking.csv", "benchmark.json", "resources.json"}
    assert facts == {f"s.1.{kind}" for kind in kinds} | {"device.json", "r.qc.json"}
    versions = re.findall(r"^TOPIC versions (\S+) (\S+) (\S+)$", result.stdout, re.M)
    # SUMMARIZE and MULTIQC read the topic, so they can't be part of it
    assert {process for process, _, _ in versions} == {o.split(".")[0] for o in outputs} - {"SUMMARIZE", "MULTIQC"}
    assert ("TRAIN", "torch") in {(process, tool) for process, tool, _ in versions}


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """The steps on 250 spots, 300 cells and 33 genes, 8 of which the slide is made to lack."""
    folder = tmp_path_factory.mktemp("steps")
    data = folder / "data"
    data.mkdir()
    demo = ROOT / "assets/demo/osmfish_cortex"
    rng = np.random.default_rng(0)
    slide, reference = ad.read_h5ad(demo / "st.h5ad"), ad.read_h5ad(demo / "sc.h5ad")
    slide = slide[np.sort(rng.choice(slide.n_obs, 250, replace=False))].copy()
    reference = reference[np.sort(rng.choice(reference.n_obs, 300, replace=False))].copy()
    reference.obs["donor's $(name)"] = np.where(np.arange(300) % 2, "a", "b")
    lacking = slide.var_names[-8:].tolist()
    slide = slide[:, :-8].copy()
    slide.write_h5ad(data / "a slide.h5ad")
    reference.write_h5ad(data / "reference.h5ad")
    (data / "cut short.h5ad").write_bytes((data / "a slide.h5ad").read_bytes()[:5000])
    visium_hd(data / "a folder")
    (data / "wanted genes.txt").write_text("\n".join(lacking[:3]) + "\n")
    rows = [
        {"sample": s, "st": "st", "sc": "sc", "platform": "auto", "bin_size": "", "genes": "", "species": "", "batch": "", "reference": "r"}
        for s in ("s.1", "broken")
    ]
    (data / "mine.csv").write_text("spot,Other\n" + "".join(f"{spot},1\n" for spot in slide.obs_names))
    (folder / "kill.config").write_text(
        "process { withName: RUN_FLOOR { beforeScript = { task.tag == 's.1 corr_weighted fold 0' ? 'exit 137' : 'true' } } }\n"
        "trace.fields = 'task_id,hash,name,status,exit,memory,time'\n"
    )
    many = {name: 1e6 for name in ("fit_gib", "train_gib", "impute_gib", "disk_gib", "gpu_gib", "fast_gib")}
    minutes = {name: 1.0 for name in ("fit_minutes", "train_minutes", "impute_minutes")}
    Resources("huge", 10**9, 10**6, 25, 3, 4, **many, **minutes).to_json(data / "huge.resources.json")
    Inputs(slides=rows).to_json(data / "inputs.json")
    (data / "params.json").write_text('{"seed": 0}')
    (data / "versions.yml").write_text("READ_SLIDE:\n  anndata: '0.11'\n")
    given = ["--max_steps", 2, "--n_models", 1, "--folds", 2, "--multiqc_title", "It's $HOME <b>", "--min_spot_counts", 5]
    compared = ["--benchmark", "--methods", "ridge,corr_weighted", "-c", folder / "kill.config"]
    result = start("steps.nf", folder, *given, *compared)
    assert result.returncode == 0, result.stdout
    return folder, slide, reference, lacking


def test_read(steps):
    folder, slide, reference, _ = steps
    read = ad.read_h5ad(task_folder(folder, "READ_SLIDE", "s.1") / "s.1.h5ad")
    assert read.X is None and read.obs_names.tolist() == slide.obs_names.tolist()
    assert (read.layers["counts"].toarray() == slide.X.toarray()).all()
    assert np.allclose(read.obsm["spatial"], slide.obsm["spatial"])
    cells = ad.read_h5ad(task_folder(folder, "READ_REFERENCE", "r") / "r.h5ad")
    assert cells.obs["batch"].astype(str).tolist() == reference.obs["donor's $(name)"].tolist()  # quoted for the shell
    squares = ad.read_h5ad(task_folder(folder, "READ_FOLDER", "folder") / "folder.h5ad")  # of a folder, those of the size asked for
    assert squares.uns["spadit"]["platform"] == "visium_hd" and squares.uns["spadit"]["source"] == "a folder"
    assert (squares.layers["counts"].toarray() == counts() * 16).all()


def test_a_broken_slide_leaves_its_reason_and_nothing_else(steps):
    folder = steps[0]
    task = task_folder(folder, "READ_SLIDE", "broken")
    failure = Failure.from_json(task / "broken.read.failure.json")
    assert (failure.id, failure.role, failure.step) == ("broken", "slide", "read") and "cut short.h5ad" in failure.reason and failure.remedy
    assert not list(task.glob("*.h5ad"))
    assert (folder / "out/slides/broken/facts/broken.read.failure.json").exists()
    assert {row["tag"] for row in trace(folder / "out") if row["process"] == "QC_SLIDE"} == {"s.1"}


def test_qc(steps):
    folder, slide, *_ = steps
    facts = QualityControl.from_json(task_folder(folder, "QC_SLIDE", "s.1") / "s.1.qc.json")
    kept = ad.read_h5ad(task_folder(folder, "QC_SLIDE", "s.1") / "s.1.qc.h5ad")
    assert kept.n_obs == int((np.asarray(slide.X.sum(axis=1)).ravel() >= 5).sum()) == facts.after["n_obs"]  # --min_spot_counts
    assert facts.before["n_obs"] == 250 and facts.role == "slide"
    facts = QualityControl.from_json(task_folder(folder, "QC_REFERENCE", "r") / "r.qc.json")
    assert facts.role == "reference"
    prepared = task_folder(folder, "PREPARE_REFERENCE", "kept")  # the same in one step, and kept for later runs
    assert QualityControl.from_json(prepared / "kept.qc.json") == dataclasses.replace(facts, id="kept")
    (entry,) = (folder / "data/reference cache").iterdir()
    assert (entry / "reference.h5ad").read_bytes() == (prepared / "kept.qc.h5ad").read_bytes()


def test_pair_and_split(steps):
    folder, *_, lacking = steps
    pairing = Pairing.from_json(task_folder(folder, "PAIR", "s.1") / "s.1.pairing.json")
    assert (pairing.n_shared, pairing.n_unmeasured, pairing.reference) == (25, 8, "r")
    split = Split.from_json(task_folder(folder, "SPLIT", "s.1") / "s.1.split.json")
    assert len(split.train) + len(split.validation) + len(split.test) == 25 and len(split.folds) == 2
    assert sorted(split.unmeasured) == sorted(lacking[:3])  # the genes file


def test_what_a_slide_needs_is_known_before_it_is_trained(steps):
    """One that needs far more than there is isn't begun; the other goes on. What tasks ask for follows the slide."""
    folder = steps[0]
    expected = Resources.from_json(folder / "out/slides/s.1/facts/s.1.resources.json")
    assert (expected.n_shared, expected.n_unmeasured, expected.n_fits, expected.n_cells) == (25, 3, 4, 300)
    assert 0.2 < expected.fit_gib < 3 and expected.disk_gib > 0
    failure = Failure.from_json(folder / "out/slides/huge/facts/huge.train.failure.json")
    assert "is expected to need 1,000,000.0 GiB of memory" in failure.reason and "a machine with more memory" in failure.remedy
    assert not list(task_folder(folder, "TRAIN", "huge").glob("*.model"))
    asked = {row["tag"]: row["time"] for row in trace(folder / "out") if row["process"] == "TRAIN"}
    assert asked == {"s.1": "8h", "huge": "16h 40m"}


def test_the_device_is_known_before_training(steps):
    found = Device.from_json(steps[0] / "out/pipeline_info/device.json")
    assert found.asked == "auto" and found.device in ("cpu", "cuda") and not found.problem and found.memory_gib > 0


def test_train_impute_and_evaluate(steps):
    folder = steps[0]
    training = Training.from_json(task_folder(folder, "TRAIN", "s.1") / "s.1.training.json")
    assert {fit["name"] for fit in training.fits} == {"evaluation", "fold_0", "fold_1", "delivery"}
    imputed = ad.read_h5ad(task_folder(folder, "IMPUTE", "s.1") / "s.1.imputed.h5ad")
    assert imputed.n_vars == 28 and np.isfinite(imputed.X).all() and imputed.X.std() > 0
    assert imputed.var["measured"].sum() == 25
    evaluation = Evaluation.from_json(task_folder(folder, "EVALUATE", "s.1") / "s.1.evaluation.json")
    assert evaluation.n_scored == 25 and evaluation.verdict in ("pass", "warn", "not predictable")


def test_benchmark(steps):
    """Folds, two methods (one of which nobody knows how to run) and predictions from elsewhere, ranked."""
    folder = steps[0]
    folds = json.loads((folder / "out/benchmark/s.1/folds.json").read_text(encoding="utf-8"))
    assert set(folds) == {"seed", "folds"} and len(folds["folds"]) == 2 and len(sum(folds["folds"], [])) == 25
    ranking = pd.read_csv(folder / "out/benchmark/s.1/ranking.csv", index_col="method")
    assert ranking.loc["ridge", "status"] == "ok" and ranking.loc["ridge", "n_genes"] == 25
    assert ranking.loc["corr_weighted", "status"].startswith("failed: fold 1 of 2 came to no result")  # its task was killed
    assert ranking.loc["mine", "kind"] == "outside" and "25 of 25 genes are missing" in ranking.loc["mine", "status"]
    found = {path.name for path in (folder / "out/benchmark/s.1").iterdir()}
    assert found == {"folds.json", "metrics.csv", "ranking.csv", "benchmark.json", "ridge.h5ad", "plots"}
    facts = Benchmark.from_json(folder / "out/benchmark/s.1/benchmark.json")
    assert facts.best == ["ridge"] and set(facts.failed) == {"corr_weighted", "mine"}
    killed = [row for row in trace(folder / "out") if row["process"] == "RUN_FLOOR" and row["exit"] == "137"]
    assert len(killed) == 2 and {row["tag"] for row in killed} == {"s.1 corr_weighted fold 0"}  # tried once more


def test_every_step_tells_what_it_needed(steps):
    folder = steps[0]
    facts = folder / "out/slides/s.1/facts"
    found = {path.name.split(".")[2]: Usage.from_json(path) for path in facts.glob("*.usage.json")}
    assert {"read", "qc", "pair", "split", "train", "impute", "evaluate", "plot", "report", "spatialdata"} <= set(found)
    assert all(used.seconds > 0 and used.peak_gib > 0.02 for used in found.values())
    assert (folder / "out/references/r/r.read.usage.json").exists()
    report = (folder / "out/multiqc/multiqc_report.html").read_text(encoding="utf-8")
    assert "Time, longest" in report and "Calibration of the reliability" in report
    assert "@article{spadit," in (folder / "out/multiqc/citations.bib").read_text(encoding="utf-8")


def test_spatialdata(steps):
    store = steps[0] / "out/slides/s.1/s.1.spatialdata.zarr"
    shape = json.loads((store / "tables/imputed/X/.zarray").read_text())["shape"]
    imputed = ad.read_h5ad(steps[0] / "out/slides/s.1/s.1.imputed.h5ad")
    assert tuple(shape) == imputed.shape and (store / "shapes/spots/shapes.parquet").stat().st_size > 1000


def test_plots_and_reports(steps):
    folder = steps[0]
    thumbnails = list(task_folder(folder, "PLOT", "s.1").glob("plots/thumbnails/*.png"))
    assert [t.name for t in thumbnails] == ["s.1.thumbnail.png"] and thumbnails[0].stat().st_size <= 50_000
    page = (folder / "out/slides/s.1/s.1.report.html").read_text(encoding="utf-8")
    assert "s.1" in page and 'src="http' not in page and '<h2 id="benchmark"' in page
    states = {row["sample"]: row for row in json.loads((folder / "out/multiqc/slides.json").read_text(encoding="utf-8"))}
    assert states["broken"]["status"] == "failed" and "cut short.h5ad" in states["broken"]["reason"]
    assert states["s.1"]["status"] in ("pass", "warn", "not predictable")
    report = (folder / "out/multiqc/multiqc_report.html").read_text(encoding="utf-8")
    assert "<title>It's $HOME &lt;b&gt;" in report.replace("&#39;", "'")  # the title, quoted for the shell and for HTML
