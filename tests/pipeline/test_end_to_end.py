"""The real pipeline on real data, cut down: slides that lack some genes, one that can't be used, and noise that must be called so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from nf import ROOT, nextflow, tasks

from spadit.contracts import Evaluation, Split
from spadit.metrics import pcc

HIDDEN_FROM_SLIDE = ["Gad2", "Plp1", "Serpinf1"]
QUICK = ("--max_steps", 60, "--n_models", 1, "--folds", 2)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Four slides, one reference file: two parts of the osmFISH slide without three of its genes; the same counts, each gene shuffled over
    the spots (nothing to predict); and one without coordinates."""
    folder = tmp_path_factory.mktemp("end to end")
    whole = ad.read_h5ad(ROOT / "assets/demo/osmfish_cortex/st.h5ad")
    rng = np.random.default_rng(0)
    spots = rng.permutation(whole.n_obs)
    kept = [gene for gene in whole.var_names if gene not in HIDDEN_FROM_SLIDE]
    assert len(kept) == whole.n_vars - len(HIDDEN_FROM_SLIDE)
    slides = {name: whole[np.sort(part), kept].copy() for name, part in (("left", spots[:900]), ("right", spots[900:1500]))}
    slides["noise"] = slides["right"].copy()
    slides["noise"].X = np.column_stack([rng.permutation(column) for column in slides["right"].X.toarray().T])
    slides["lost"] = slides["left"].copy()
    del slides["lost"].obsm["spatial"]
    reference = ad.read_h5ad(ROOT / "assets/demo/osmfish_cortex/sc.h5ad")
    reference[rng.choice(reference.n_obs, 1500, replace=False)].copy().write_h5ad(folder / "sc.h5ad")
    for name, slide in slides.items():
        slide.write_h5ad(folder / f"{name}.h5ad")
    rows = [f"{name},{name}.h5ad,sc.h5ad" for name in slides]
    (folder / "sheet.csv").write_text("sample,st,sc\n" + "\n".join(rows) + "\n", encoding="utf-8")

    def start(*arguments, **extra):
        return nextflow("run", ROOT, "--input", "sheet.csv", "--outdir", "out", *QUICK, *arguments, cwd=folder, **extra)

    result = start()
    return folder / "out", result, start, slides, whole


def table_of_slides(out: Path) -> dict[str, dict]:
    return {row["sample"]: row for row in json.loads((out / "multiqc/slides.json").read_text(encoding="utf-8"))}


def test_three_slides_are_done_and_the_fourth_is_named_with_its_reason(run):
    out, result, *_ = run
    assert result.returncode == 0, result.stdout
    slides = table_of_slides(out)
    assert slides["lost"]["status"] == "failed" and "coordinates" in slides["lost"]["reason"]
    assert slides["noise"]["status"] == "not predictable"
    assert {slides[name]["status"] for name in ("left", "right")} <= {"pass", "warn"}
    assert "3 of 4 slides done." in result.stdout and re.search(r"failed\s+lost\s+.*coordinates", result.stdout)
    report = (out / "multiqc/multiqc_report.html").read_text(encoding="utf-8")
    assert "coordinates" in report and "not predictable" in report
    assert not (out / "slides/lost/lost.imputed.h5ad").exists()
    done = tasks(out)
    assert len(done["READ_REFERENCE"]) == len(done["QC_REFERENCE"]) == 1 and len(done["READ_SLIDE"]) == 4 and len(done["TRAIN"]) == 3


def test_hidden_genes_are_imputed_above_chance_and_the_reported_numbers_are_the_files_numbers(run):
    out, _, _, slides, _ = run
    imputed = ad.read_h5ad(out / "slides/left/left.imputed.h5ad")
    measured = imputed.var["measured"].to_numpy()
    scores = pd.Series(pcc(imputed.layers["observed"][:, measured], imputed.X[:, measured]), index=imputed.var_names[measured])
    assert scores.median() > 0.15
    table = pd.read_csv(out / "slides/left/left.metrics.csv")
    reported = table[table["method"] == "SpaDiT"].set_index("gene")["pcc"]
    np.testing.assert_allclose(reported[scores.index], scores, atol=2e-3)
    assert set(table["method"]) >= {"SpaDiT", "corr_weighted", "ridge", "knn50", "library_size", "oracle_ridge"}
    evaluation = Evaluation.from_json(out / "slides/left/facts/left.evaluation.json")
    summary = {(row["method"], row["split"]): row for row in evaluation.summary}
    assert summary["SpaDiT", "all"]["median_pcc"] == pytest.approx(reported.median(), abs=1e-3)
    assert 0.8 < evaluation.coverage < 0.97
    noise = Evaluation.from_json(out / "slides/noise/facts/noise.evaluation.json")
    # with each gene shuffled over the spots, normalised values still fall with a spot's total: nothing beyond that may be claimed
    median = {row["method"]: row["median_pcc"] for row in noise.summary if row["split"] == "all"}
    assert noise.verdict == "not predictable" and abs(median["SpaDiT"]) < abs(median["library_size"]) + 0.02 < 0.2


def test_genes_the_slide_lacks_are_imputed(run):
    """Their truth is known here: they were taken off the slide before."""
    out, _, _, slides, whole = run
    imputed = ad.read_h5ad(out / "slides/left/left.imputed.h5ad")
    assert list(imputed.var_names[~imputed.var["measured"]]) == [g for g in imputed.var_names if g in HIDDEN_FROM_SLIDE]
    truth = whole[imputed.obs_names, HIDDEN_FROM_SLIDE].X.toarray()
    assert pcc(np.log1p(truth), np.asarray(imputed[:, HIDDEN_FROM_SLIDE].X)).max() > 0.2


def test_imputed_file_is_as_docs_output_says(run):
    out, _, _, slides, _ = run
    imputed = ad.read_h5ad(out / "slides/left/left.imputed.h5ad")
    split = Split.from_json(out / "slides/left/facts/left.split.json")
    assert list(imputed.obs_names) == list(slides["left"].obs_names)
    np.testing.assert_allclose(imputed.obsm["spatial"], slides["left"].obsm["spatial"])
    assert imputed.X.dtype == np.float32 and np.isfinite(imputed.X).all() and (imputed.X >= 0).all()
    assert set(imputed.layers) == {"observed", "sd", "lower", "upper"}
    assert (imputed.layers["lower"] <= imputed.layers["upper"]).all()
    unmeasured = ~imputed.var["measured"].to_numpy()
    assert np.isnan(imputed.layers["observed"][:, unmeasured]).all() and np.isfinite(imputed.layers["observed"][:, ~unmeasured]).all()
    for name in ("train", "validation", "test", "unmeasured"):
        assert set(imputed.var_names[imputed.var["split"] == name]) == set(getattr(split, name))
    assert (imputed.var["fold"] == -1).to_numpy().tolist() == imputed.var["split"].isin(["test", "unmeasured"]).tolist()
    assert imputed.var["reliability"].between(-1, 1).all()
    assert set(imputed.var["reliability_class"]) <= {"reliable", "use with care", "do not use"}
    assert json.loads(imputed.uns["spadit"]["inputs"])["slide"]["source"] == "left.h5ad"
    assert json.loads(imputed.uns["spadit"]["parameters"])["max_steps"] == 60


def test_resume_runs_nothing_again_and_strict_fails_the_run(run):
    out, _, start, *_ = run
    again = start("-resume", "--strict")
    assert again.returncode != 0 and "--strict was given" in again.stdout
    # the list of parameters has changed, so what prints it runs again, and nothing else
    assert set(tasks(out, "COMPLETED")) <= {"CHECK_INPUTS", "SUMMARIZE", "MULTIQC"}
    assert len(tasks(out, "CACHED")["TRAIN"]) == 3
