"""The cohort's page: calibration, robustness, ablation, resources, citations; and the page that MultiQC makes of it all."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_facts import inputs, write_cohort, write_slide, write_usage, write_variants

from spadit.contracts import Usage
from spadit.report import cohort, references, words
from spadit.usage import Meter

EVIL = "<script>alert('spadit')</script>"


def sections(folder: Path, outdir: Path, sheet, params=None, versions=None) -> dict:
    cohort.summarize(sheet, folder, params or {"seed": 0}, versions or {"TRAIN": {"torch": "2.9"}}, outdir)
    return {p.name.removesuffix("_mqc.json"): json.loads(p.read_text(encoding="utf-8")) for p in outdir.glob("*_mqc.json")}


@pytest.fixture(scope="module")
def facts(tmp_path_factory) -> Path:
    """One slide with everything: resources, robustness, ablation, a ranking."""
    folder = tmp_path_factory.mktemp("facts")
    for name in ("imputed", "slide"):
        write_slide(folder, "cortex", genes=[f"G{k}" for k in range(40)])[name].unlink()
    write_usage(folder, "cortex")
    write_variants(folder, "cortex")
    pd.DataFrame({"method": ["SpaDiT", "Tangram", "stDiff"], "status": ["ok", "ok", "failed: x"], "median_pcc": [0.4, 0.3, None]}).to_csv(
        folder / "cortex.ranking.csv", index=False
    )
    return folder


# --- calibration


def test_calibration_bins_hold_means_of_equally_many_genes():
    table = pd.DataFrame({"reliability": np.arange(40) / 100, "pcc": np.arange(40) / 50})
    bins = cohort.calibration_bins(table.sample(frac=1, random_state=0))
    assert [n for *_, n in bins] == [8] * 5
    assert bins[0][:2] == pytest.approx((np.arange(8).mean() / 100, np.arange(8).mean() / 50))
    assert cohort.calibration_bins(table.head(3)) == [pytest.approx((0.01, 0.02, 3))]
    table.loc[5, "pcc"] = np.nan
    assert sum(n for *_, n in cohort.calibration_bins(table)) == 39


def test_calibration_says_how_far_off_promises_are(tmp_path):
    for name, shift in (("a", 0.0), ("b", 0.2)):
        paths = write_slide(tmp_path / "in", name, genes=[f"G{k}" for k in range(40)])
        table = pd.read_csv(paths["metrics"])
        table["pcc"] = table["reliability"] - shift
        table.to_csv(paths["metrics"], index=False)
    made = sections(tmp_path / "in", tmp_path / "a", inputs("a"))["spadit_calibration"]
    assert "<strong>0.00</strong>" in made["description"] and all(e == t for e, t in made["data"]["a"])
    made = sections(tmp_path / "in", tmp_path / "b", inputs("b"))["spadit_calibration"]
    assert "<strong>0.20</strong>" in made["description"]
    made = sections(tmp_path / "in", tmp_path / "ab", inputs("a", "b"))["spadit_calibration"]
    assert set(made["data"]) == {"a", "b", "all slides", "as promised (expected = true)"}


# --- robustness and ablation


def test_robustness_is_a_line_per_method_with_its_gaps_named(facts, tmp_path):
    made = sections(facts, tmp_path, inputs("cortex"))["spadit_robustness"]
    pcc, score = made["data"]
    assert pcc["SpaDiT"][0] == [0.0, 0.4] and pcc["SpaDiT"][-1] == [70.0, pytest.approx(0.232)]
    assert [x for x, _ in pcc["ridge"]] == [0, 10, 30, 50] and set(score) == set(pcc)
    assert "up to 70 %" in made["description"] and "ridge (failed: &lt;b&gt;no memory&lt;/b&gt;)" in made["description"]


def test_ablation_is_a_row_per_variant(facts, tmp_path):
    made = sections(facts, tmp_path, inputs("cortex"))["spadit_ablation"]
    assert list(made["data"]) == ["backbone: SpaDiT", "backbone: U-Net", "part left out: SpaDiT", "part left out: no condition"]
    assert made["data"]["backbone: U-Net"]["score"] == 0.4 and "score" not in made["data"]["part left out: no condition"]
    assert "no condition on cortex: failed: odd" in made["description"]


# --- resources


def test_meter_sees_memory_of_child_processes():
    meter = Meter(0.05)
    child = "import time; x = b'1' * 300_000_000; time.sleep(1)"
    subprocess.run([sys.executable, "-c", child], check=True, timeout=60)
    used = meter.stop()
    own = Meter(0.05).stop()["peak_gib"]
    assert used["seconds"] >= 1 and used["gpu_peak_gib"] == 0
    if Path("/proc/self/stat").exists():
        assert used["peak_gib"] > max(0.27, own / 2)


def test_executable_notes_what_it_needed(tmp_path, root, make_slide, save):
    data, note = save(make_slide(), "st.h5ad"), tmp_path / "s.read.usage.json"
    command = [sys.executable, root / "bin/spadit_read.py", "--id", "s", "--input", data, "--output", tmp_path / "o.h5ad"]
    subprocess.run([*command, "--usage", note, "--threads", "2"], check=True, timeout=120)
    used = Usage.from_json(note)
    assert (used.id, used.role, used.step, used.threads) == ("s", "slide", "read", 2)
    assert 0 < used.seconds < 120 and 0.02 < used.peak_gib < 8


def test_resources_by_step_and_by_slide(facts, tmp_path):
    made = sections(facts, tmp_path, inputs("cortex"))
    table = re.sub(r"<[^>]+>", " ", made["spadit_usage"]["data"])
    assert re.search(r"read +2 +10 s +12 s \(cortex_reference\) +0\.95 GiB +1\.50 GiB \(cortex_reference\) +1 or 2", table)
    time_bars, memory = made["spadit_usage_slides"]["data"]
    assert time_bars["cortex"]["train"] == 15 and memory["cortex"]["peak"] == pytest.approx(2.8)
    assert list(time_bars) == ["cortex", "cortex_reference"]
    assert made["spadit_summary"]["data"]["cortex"]["minutes"] == pytest.approx(1104 / 60)
    assert made["spadit_summary"]["headers"]["minutes"]["hidden"] is True


# --- citations


def bib_entries(text: str) -> dict[str, dict[str, str]]:
    """Key -> fields, read strictly: an entry per '@', a field per line."""
    found = {}
    for kind, key, body in re.findall(r"@(\w+)\{([\w-]+),\n(.*?)\n\}\n", text, re.S):
        fields = dict(re.fullmatch(r"  (\w+) *= \{(.*)\},?", line).groups() for line in body.splitlines())
        assert all(value.count("{") == value.count("}") for value in fields.values())
        found[key] = fields | {"kind": kind}
    assert len(found) == text.count("@")
    return found


def test_every_work_has_a_whole_bibtex_entry():
    found = bib_entries(references.bibtex(references.WORKS))
    assert list(found) == list(references.WORKS)
    for key, fields in found.items():
        assert {"author", "title", "year"} <= set(fields), key
        assert {"article": "journal", "inproceedings": "booktitle", "misc": "howpublished"}[fields["kind"]] in fields
    assert found["spadit"]["doi"] == "10.1093/bib/bbae571" and found["multiqc"]["author"].endswith('K{\\"a}ller, M.')
    assert words.REFERENCES["scanpy"].startswith("Wolf FA, Angerer P, Theis FJ. SCANPY")


def test_works_and_citations_md_agree(root):
    listed = (root / "CITATIONS.md").read_text(encoding="utf-8")
    for key, work in references.WORKS.items():
        assert work.title.lower() in listed.lower(), key
        assert not work.doi or work.doi in listed, key


def test_bib_holds_what_really_ran(facts, tmp_path):
    versions = {"TRAIN": {"torch": "2.9", "unheard-of": "1"}, "EVALUATE": {"scipy": "1.15"}, "MULTIQC": {"multiqc": "1.35"}}
    made = sections(facts, tmp_path / "mqc", inputs("cortex"), {"spatialdata": True}, versions)
    found = bib_entries((tmp_path / "mqc/citations.bib").read_text(encoding="utf-8"))
    assert next(iter(found)) == "spadit"
    assert {"spadit", "tangram", "pytorch", "scipy", "multiqc", "nextflow", "spatialdata"} <= set(found)
    assert not {"stdiff", "gimvi", "matplotlib", "pot"} & set(found)  # failed, wasn't run, wasn't reported
    cite = html.unescape(made["spadit_cite"]["data"])
    assert "@article{tangram," in cite and "Tangram. Nat. Methods 18" in cite
    text = made["spadit_methods_text"]["data"]
    assert re.search(r"SpaDiT and Tangram \[\d+\] imputed the same hidden genes", text)
    assert "10 %, 30 %, 50 % and 70 % of the slide&#x27;s counts were removed" in text and "3 seeds each" in text
    assert not re.search(r"\[[a-z]+\]", text)


def test_plain_run_cites_no_method(tmp_path):
    paths = write_slide(tmp_path / "in", "cortex")
    made = sections(tmp_path / "in", tmp_path / "mqc", inputs("cortex"))
    assert paths["metrics"].exists() and "imputed the same hidden genes" not in made["spadit_methods_text"]["data"]
    found = bib_entries((tmp_path / "mqc/citations.bib").read_text(encoding="utf-8"))
    assert "spadit" in found and "tangram" not in found and "spatialdata" not in found


# --- the page itself


def multiqc(root: Path, folder: Path) -> tuple[str, float]:
    """Run MultiQC as the pipeline does, on the sections in ``folder/mqc``; returns the page and the seconds."""
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "multiqc", "--force", "--no-version-check", "--config", root / "assets/multiqc_config.yml"]
        + ["--filename", "multiqc_report.html", "mqc"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return (folder / "multiqc_report.html").read_text(encoding="utf-8"), time.monotonic() - begun


NAMES = ["slide 1", "Größe μ 切片", f"a {EVIL}", "b & \"c\" 'd'"]


def test_page_shows_odd_names_as_text(root, tmp_path):
    """Names that the samplesheet would refuse, too: the page must not rely on it."""
    (tmp_path / "facts").mkdir()
    sheet = inputs(*NAMES)
    for k, name in enumerate(NAMES):
        for path in write_slide(tmp_path / "made", f"s{k}").values():
            if path.suffix == ".json":
                content = path.read_text(encoding="utf-8").replace(f'"s{k}', json.dumps(name)[:-1])
                (tmp_path / "facts" / path.name).write_text(content, encoding="utf-8")
    made = sections(tmp_path / "facts", tmp_path / "mqc", sheet, {"multiqc_title": EVIL}, {EVIL: {EVIL: EVIL}})
    assert len(made["spadit_medians"]["data"]) == 4
    page, _ = multiqc(root, tmp_path)
    assert EVIL not in page and "<script>alert" not in page
    assert html.escape(EVIL) in page and "Größe μ 切片" in page and "slide 1" in page
    assert "&amp;lt;script" not in page  # escaped once, or a reader would see it


def test_many_slides_fold_away_those_that_passed(tmp_path):
    names = [f"s{k:02d}" for k in range(26)]
    (tmp_path / "facts").mkdir()
    sheet = write_cohort(tmp_path / "facts", names, n_genes=10)
    made = sections(tmp_path / "facts", tmp_path / "mqc", sheet)
    table, _, folded = made["spadit_slides_table"]["data"].partition("<details>")
    assert "22 slides that passed" in folded and folded.count("<tr>") == 23
    assert [n for n in names if f">{n}<" in table] == ["s03", "s05", "s07", "s17"]  # warning, failed, not predictable
    assert "data:image/webp" in made["spadit_maps"]["data"] and len(made["spadit_maps"]["data"]) < 25 * 25_000
    colours = made["spadit_curves"]["pconfig"]["colors"]
    assert colours["s00"] != colours["s07"] and "blue: passed" in made["spadit_curves"]["description"]
    assert cohort.small(b"not a picture") == ("png", b"not a picture")


@pytest.mark.slow
def test_page_of_96_slides_is_small_and_quick(root, tmp_path):
    (tmp_path / "facts").mkdir()
    names = [f"lab{k // 24}_slide_{k:02d}" for k in range(96)]
    sheet = write_cohort(tmp_path / "facts", names)
    begun = time.monotonic()
    made = sections(tmp_path / "facts", tmp_path / "mqc", sheet)
    summarized = time.monotonic() - begun
    page, seconds = multiqc(root, tmp_path)
    size = (tmp_path / "multiqc_report.html").stat().st_size / 1e6
    print(f"96 slides: {size:.1f} MB, sections {summarized:.0f} s, MultiQC {seconds:.0f} s")
    assert size < 15 and summarized + seconds < 60
    assert made["spadit_maps"]["data"].count('<img src="data:image/webp') == 95 and all(name in page for name in names)


# --- benchmarks/cohort.py


@pytest.fixture(scope="module")
def bench(root):
    import importlib.util

    spec = importlib.util.spec_from_file_location("benchmark_cohort", root / "benchmarks/cohort.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def trace_file(path: Path, rows: list[tuple]) -> Path:
    """name, submitted, started, ended (s), CPUs, %cpu"""
    head = "name\tstatus\tsubmit\tstart\tcomplete\trealtime\tcpus\t%cpu\tpeak_rss"
    lines = [
        f"{name}\tCOMPLETED\t{submit * 1000}\t{start * 1000}\t{end * 1000}\t{(end - start) * 1000}\t{cpus}\t{cpu}\t{2**30}"
        for name, submit, start, end, cpus, cpu in rows
    ]
    path.write_text("\n".join([head, *lines, "X\tCACHED\t0\t0\t0\t0\t9\t-\t-"]) + "\n", encoding="utf-8")
    return path


def test_throughput_and_gaps_of_a_trace(bench, tmp_path):
    # two cores: 0-10 one idle, 10-20 both busy, 20-24 none, 24-30 both busy
    rows = [("A (x)", 100, 100, 120, 1, 100.0), ("W:B (x)", 105, 110, 120, 1, 50.0), ("C", 120, 124, 130, 2, 200.0)]
    tasks = bench.read_trace(trace_file(tmp_path / "t.txt", rows))
    assert len(tasks) == 3
    found = bench.throughput(tasks, 2)
    assert found == pytest.approx({"wall": 30, "work": 20 + 10 + 12, "used": 20 + 5 + 12, "throughput": 42 / 60, "busy_share": 37 / 60})
    first, second = bench.gaps(tasks, 2)
    assert first == {"after": 0, "seconds": 10, "idle": 1, "lost": 10, "running": ["A (x)"]}
    assert second == {"after": 20, "seconds": 4, "idle": 2, "lost": 8, "running": []}
    said = bench.describe(tasks, 2)
    assert "throughput 70.0% of the ideal" in said and "2.0 cores idle (8 core-seconds) beside no task" in said


def test_the_benchmarks_cohort_is_what_it_says(bench, tmp_path):
    import anndata as ad

    sheet = bench.make_cohort(tmp_path / "data", 6, 50, 20)
    rows = [line.split(",") for line in sheet.read_text(encoding="utf-8").splitlines()[1:]]
    assert [r[0] for r in rows] == [f"slide_{i:02d}" for i in range(6)] and len({r[2] for r in rows}) == 3
    slides = [ad.read_h5ad(tmp_path / "data" / r[1], backed="r") for r in rows]
    assert all(s.n_obs == 50 and s.n_vars <= 33 for s in slides)
    assert slides[0].obs_names.tolist() != slides[3].obs_names.tolist()
    sizes = {r[2]: ad.read_h5ad(tmp_path / "data" / r[2], backed="r").n_obs for r in rows}
    assert sizes["atlas_2/sc.h5ad"] < sizes["atlas_0/sc.h5ad"]
