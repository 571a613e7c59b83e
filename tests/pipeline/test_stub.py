"""The wiring: the whole graph with stubs, resumed, with both syntax parsers, and what stops it before any work starts."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest
from nf import ROOT, nextflow, tasks

SLIDES = ["one", "three", "two"]
REFERENCES = ["data_mouse", "data_mouse_2"]
N_MANY = int(os.environ.get("SPADIT_STUBS", "100"))
"""Slides of the large graph. 1,000 take about three quarters of an hour on 2 cores."""


def sheet(folder, rows):
    """A samplesheet and the (empty) files that it names."""
    data = folder / "my data"
    data.mkdir(parents=True, exist_ok=True)
    for name in ("one.h5ad", "two.h5ad", "mouse.h5ad"):
        (data / name).touch()
    (data / "visium outs" / "spatial").mkdir(parents=True, exist_ok=True)
    (data / "visium outs" / "spatial" / "tissue_positions.csv").touch()
    path = folder / "sheet of slides.csv"
    path.write_text("sample,st,sc,species,batch,platform,bin_size\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


GOOD = [
    "one,my data/one.h5ad,data/mouse.h5ad,Mus musculus,",
    "two,my data/two.h5ad,data/../data/mouse.h5ad,,donor (x)",  # the same reference, written otherwise
    "three,my data/visium outs/,other/data/mouse.h5ad,,,visium_hd,16",  # a folder; another reference of the same name
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stub")
    path = sheet(folder, GOOD)
    for name in ("data", "other/data"):
        (folder / name).mkdir(parents=True)
        (folder / name / "mouse.h5ad").touch()

    def start(*arguments, **extra):
        given = ("-stub-run", "--spatialdata", "--input", path, "--outdir", folder / "out")
        return nextflow("run", ROOT, *given, *arguments, cwd=folder, **extra)

    return folder, start


def test_stub_run_then_resume(run):
    folder, start = run
    began = time.monotonic()
    first = start()
    seconds = time.monotonic() - began
    assert first.returncode == 0, first.stdout
    print(f"stub run: {seconds:.0f} s")
    cohort = {"CHECK_INPUTS": [""], "CHECK_DEVICE": [""], "SUMMARIZE": ["cohort"], "MULTIQC": [""]}
    per_slide = ["READ_SLIDE", "QC_SLIDE", "PAIR", "SPLIT", "TRAIN", "IMPUTE", "EVALUATE", "PLOT", "REPORT", "SPATIALDATA"]
    expected = {
        **cohort,
        **{process: SLIDES for process in per_slide},
        "READ_REFERENCE": REFERENCES,
        "QC_REFERENCE": REFERENCES,
    }
    assert {k: ["" if tag == "1" else tag for tag in v] for k, v in tasks(folder / "out", "COMPLETED").items()} == expected
    assert seconds < 120  # 60 s on a machine of its own

    found = {str(path.relative_to(folder / "out")) for path in (folder / "out").rglob("*") if path.is_file()}
    for sample in SLIDES:
        for name in (
            f"{sample}.imputed.h5ad",
            f"{sample}.metrics.csv",
            f"{sample}.report.html",
            f"{sample}.spatialdata.zarr/.zgroup",
            "model/model.json",
            f"plots/thumbnails/{sample}.thumbnail.png",
            *(
                f"facts/{sample}.{fact}"
                for fact in ("qc.json", "pairing.json", "split.json", "training.json", "curves.csv", "evaluation.json")
            ),
        ):
            assert f"slides/{sample}/{name}" in found
    for reference in REFERENCES:
        assert f"references/{reference}/{reference}.qc.json" in found
    assert {
        "multiqc/multiqc_report.html",
        "multiqc/slides.json",
        "multiqc/citations.bib",
        "pipeline_info/params.json",
        "pipeline_info/software_versions.yml",
    } <= found
    versions = (folder / "out/pipeline_info/software_versions.yml").read_text(encoding="utf-8")
    assert "Workflow:\n  nextflow: '2" in versions and "MULTIQC:\n" in versions and "SUMMARIZE:\n" in versions
    for start_of_name in ("execution_trace", "execution_timeline", "execution_report", "pipeline_dag"):
        assert any(name.startswith(f"pipeline_info/{start_of_name}_") for name in found)

    again = start("-resume")
    assert again.returncode == 0, again.stdout
    assert list(tasks(folder / "out", "COMPLETED")) == ["CHECK_INPUTS"]

    # a file deep in a folder was replaced: Nextflow itself looks at the folder only
    (folder / "my data/visium outs/spatial/tissue_positions.csv").write_text("changed")
    once_more = start("-resume")
    assert once_more.returncode == 0, once_more.stdout
    assert tasks(folder / "out", "COMPLETED")["READ_SLIDE"] == ["three"] and "READ_REFERENCE" not in tasks(folder / "out", "COMPLETED")


def test_a_reference_cache_that_has_grown_redoes_nothing(run, tmp_path):
    """Nor do the parameters of what is imputed and written stop a run."""
    folder, _ = run
    settings = ["--reference_cache", tmp_path / "my cache", "--genes", "Gad1,HLA-A", "--layers", "sd", "--output_dtype", "float16"]

    def start(*more):
        given = ["--input", folder / "sheet of slides.csv", "--outdir", tmp_path / "out", *settings, *more]
        return nextflow("run", ROOT, "-stub-run", *given, cwd=tmp_path, timeout=280)

    first = start()
    assert first.returncode == 0, first.stdout
    done = tasks(tmp_path / "out", "COMPLETED")
    assert done["PREPARE_REFERENCE"] == REFERENCES and not {"READ_REFERENCE", "QC_REFERENCE"} & set(done) and done["REPORT"] == SLIDES
    assert (tmp_path / "out/references/data_mouse/data_mouse.qc.json").exists()
    (tmp_path / "my cache/an entry").mkdir()
    again = start("-resume")
    assert again.returncode == 0, again.stdout
    assert list(tasks(tmp_path / "out", "COMPLETED")) == ["CHECK_INPUTS"]


def test_meta_reaches_each_task(run):
    """Names with blanks and brackets are quoted, and each slide is paired with its own reference."""
    folder, _ = run
    scripts = [path.read_text(encoding="utf-8") for path in folder.glob("work/*/*/.command.run")]
    staged = {s: [t for t in scripts if f"NEXTFLOW TASK: SPADIT:PAIR ({s})" in t or f"PAIR ({s})" in t][0] for s in SLIDES}
    assert "data_mouse.qc.h5ad" in staged["one"] and "data_mouse.qc.h5ad" in staged["two"]
    assert "data_mouse_2.qc.h5ad" in staged["three"]
    assert any("READ_SLIDE (three)" in t and "visium\\ outs" in t for t in scripts)  # the folder is staged as a whole


def test_strict_parser_and_a_crashed_slide(run, tmp_path):
    """With the strict parser one slide's training is killed, again and again: it is given up, the others are finished."""
    folder, _ = run
    config = tmp_path / "crash.config"
    config.write_text(
        "workflow.failOnIgnore = true\nprocess { withName: TRAIN { beforeScript = { task.tag == 'two' ? 'exit 137' : 'true' } } }\n",
        encoding="utf-8",
    )
    # settings in a file and the default outdir: with the strict parser of Nextflow 25.04.0 a configuration doesn't see the command line
    result = nextflow(
        "run", ROOT, "-stub-run", "--input", folder / "sheet of slides.csv", "-c", config, cwd=tmp_path, timeout=400, NXF_SYNTAX_PARSER="v2"
    )
    assert result.returncode != 0, result.stdout  # what --strict sets
    assert tasks(tmp_path / "results", "FAILED") == {"TRAIN": ["two", "two", "two"]}  # tried three times
    assert tasks(tmp_path / "results")["REPORT"] == ["one", "three"]
    assert (tmp_path / "results/multiqc/multiqc_report.html").exists()


def test_all_problems_at_once_before_any_work(tmp_path):
    path = sheet(
        tmp_path,
        [
            "one,my data/one.h5ad,my data/mouse.h5ad,,donor",
            "one,my data/two.h5ad,my data/mouse.h5ad,,",
            "two,my data/absent.h5ad,my data/mouse.h5ad,,sample",
            "../x,my data/gone.h5ad,,,",
        ],
    )
    result = nextflow("run", ROOT, "--input", path, "--outdir", "out", "--fold", 3, "--max_mito_percent", 120, cwd=tmp_path)
    assert result.returncode != 0
    for text in ("'one'", "absent.h5ad", "../x", "fold", "folds", "max_mito_percent", "'donor'", "gone.h5ad", "nothing was run"):
        assert text in result.stdout, f"{text} is missing in:\n{result.stdout}"
    assert "\tat " not in result.stdout and "Invalid method" not in result.stdout and "Unexpected error" not in result.stdout
    assert list(tasks(tmp_path / "out")) == ["CHECK_INPUTS"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["pipeline_info"]


def test_benchmark_robustness_and_ablation(run):
    """Each method and fold is a task of its own, in the image it needs; a killed one is tried once more, then left out."""
    folder, _ = run
    (folder / "predictions.csv").write_text("sample,method,path\ntwo,mine,my data/one.h5ad\n")
    config = folder / "killed.config"
    config.write_text(
        "process { withName: RUN_PEER { beforeScript = { task.tag == 'two Tangram fold 1' ? 'exit 137' : 'true' } } }\n", encoding="utf-8"
    )

    def start(*arguments):
        compared = ("--benchmark", "--robustness", "--ablation", "--predictions", "predictions.csv")
        given = ("-stub-run", "--input", folder / "sheet of slides.csv", "--outdir", folder / "compared", "-w", folder / "work2")
        return nextflow("run", ROOT, *given, *compared, "-c", config, *arguments, cwd=folder)

    result = start()
    assert result.returncode == 0, result.stdout
    done, failed = tasks(folder / "compared", "COMPLETED"), tasks(folder / "compared", "FAILED")
    assert done["FOLDS"] == SLIDES and failed == {"RUN_PEER": ["two Tangram fold 1"] * 2}
    assert done["RUN_PEER"] == [f"{s} Tangram fold {k}" for s in SLIDES for k in (0, 1) if (s, k) != ("two", 1)]
    assert done["RUN_FLOOR"] == sorted(f"{s} ridge fold {k}{rate}" for s in SLIDES for k in (0, 1) for rate in ("", " rate 0.5"))
    assert done["RUN_METHOD"] == sorted(f"{s} SpaDiT fold {k}{seed}" for s in SLIDES for k in (0, 1) for seed in ("", " seed 0"))
    assert done["RANK"] == [f"{s} {what}" for s in SLIDES for what in ("ablation", "benchmark", "robustness")]
    for sample in SLIDES:
        found = {path.name for path in (folder / "compared/benchmark" / sample).iterdir()}
        tables = {f"{what}{part}.csv" for what in ("ablation", "robustness") for part in ("", "_metrics")}
        assert found == {"folds.json", "metrics.csv", "ranking.csv", "benchmark.json", "ridge.h5ad", "plots", *tables}
    scripts = [path.read_text(encoding="utf-8") for path in folder.glob("work2/*/*/.command.run")]
    (ranked,) = [text for text in scripts if "BENCHMARK:RANK (two benchmark)" in text]
    assert "two.benchmark.Tangram.fold0.h5ad" in ranked and "two.benchmark.Tangram.fold1" not in ranked
    assert "one.benchmark.ridge" not in ranked and "outside/1/one.h5ad" in ranked

    again = start("-resume")
    assert again.returncode == 0, again.stdout
    assert list(tasks(folder / "compared", "COMPLETED")) == ["CHECK_INPUTS"]


def test_a_benchmark_is_checked_before_any_work(tmp_path):
    path = sheet(tmp_path, ["one,my data/one.h5ad,my data/mouse.h5ad,,"])
    (tmp_path / "mine.csv").write_text("sample,method,path\noen,a b,x.h5ad\none,ridge,gone.csv\n")
    given = ["--benchmark", "--methods", "rigde,knn50", "--folds", "gone.json", "--predictions", "mine.csv"]
    result = nextflow("run", ROOT, "--input", path, "--outdir", "out", *given, cwd=tmp_path)
    assert result.returncode != 0
    for text in (
        "The method 'rigde' is unknown. Did you mean 'ridge'?", "'gone.json'", "Did you mean 'one'?", "'a b' is not allowed",
        "'ridge' is a method of this pipeline", "'gone.csv'", "nothing was run",
    ):  # fmt: skip
        assert text in result.stdout, f"{text} is missing in:\n{result.stdout}"
    assert list(tasks(tmp_path / "out")) == ["CHECK_INPUTS"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((), "No samplesheet: name one with --input"), (("--input", "nowhere.csv"), "The samplesheet 'nowhere.csv' is not there")],
)
def test_no_samplesheet(tmp_path, arguments, said):
    result = nextflow("run", ROOT, *arguments, cwd=tmp_path)
    assert result.returncode != 0
    assert said in result.stdout and "\tat " not in result.stdout


def test_help_and_version(tmp_path):
    schema = json.loads((ROOT / "nextflow_schema.json").read_text(encoding="utf-8"))
    shown = nextflow("run", ROOT, "--help", cwd=tmp_path)
    assert shown.returncode == 0, shown.stdout
    for group in schema["$defs"].values():
        assert group["title"] in shown.stdout
        for name in group["properties"]:
            assert f"--{name}  [" in shown.stdout
    assert "--folds  [integer|string; 2 to 50; default: 5]" in shown.stdout
    version = nextflow("run", ROOT, "--version", cwd=tmp_path)
    assert version.returncode == 0 and "spaditflow 0.1.0" in version.stdout
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
@pytest.mark.timeout(max(1200, 5 * N_MANY))
def test_many_slides_with_three_references(tmp_path):
    """The graph builds, every slide goes its whole way, and each reference is read once. Programs are stand-ins, CHECK_INPUTS aside."""
    data = tmp_path / "data"
    names = [f"slide_{i:04d}" for i in range(N_MANY)]
    for name in names:
        (data / f"{name}.h5ad").parent.mkdir(exist_ok=True)
        (data / f"{name}.h5ad").touch()
    for k in range(3):
        (data / f"atlas_{k}").mkdir()
        (data / f"atlas_{k}" / "sc.h5ad").touch()
    rows = [f"{name},data/{name}.h5ad,data/atlas_{i % 3}/sc.h5ad" for i, name in enumerate(names)]
    (tmp_path / "sheet.csv").write_text("sample,st,sc\n" + "\n".join(rows) + "\n")
    # what the steps' versions are asked of; starting Python two thousand times would take longer than all the rest
    stand_in = tmp_path / "programs" / "python3"
    stand_in.parent.mkdir()
    real = Path(sys.executable).with_name("python3")
    stand_in.write_text(f'#!/bin/bash\ncase "$*" in *check_inputs.py*--input*) exec {real} "$@" ;; esac\necho 0\n')
    stand_in.chmod(0o755)
    (tmp_path / "many.config").write_text(
        "executor { cpus = 8; memory = 64.GB; pollInterval = '200ms' }\n"
        "process { resourceLimits = [cpus: 1, memory: 1.GB] }\nreport.enabled = false\ntimeline.enabled = false\n"
    )
    path = os.pathsep.join([str(stand_in.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    given = ("-stub-run", "-c", "many.config", "--spatialdata", "--input", "sheet.csv", "--outdir", "out", "--publish_dir_mode", "symlink")
    start = time.monotonic()
    result = nextflow("run", ROOT, *given, cwd=tmp_path, timeout=max(280, 4 * N_MANY), PATH=path)
    assert result.returncode == 0, result.stdout
    done = tasks(tmp_path / "out", "COMPLETED")
    print(f"{N_MANY} slides: {sum(map(len, done.values())):,} tasks in {time.monotonic() - start:.0f} s")
    per_slide = ["READ_SLIDE", "QC_SLIDE", "PAIR", "SPLIT", "TRAIN", "IMPUTE", "EVALUATE", "PLOT", "REPORT", "SPATIALDATA"]
    assert {process: done[process] for process in per_slide} == {process: names for process in per_slide}
    assert len(done["READ_REFERENCE"]) == len(done["QC_REFERENCE"]) == 3
    assert len(done["SUMMARIZE"]) == len(done["MULTIQC"]) == 1
    assert {path.name for path in (tmp_path / "out/slides").iterdir()} == set(names)
    assert (tmp_path / "out/slides/slide_0042/slide_0042.spatialdata.zarr/.zgroup").exists()
