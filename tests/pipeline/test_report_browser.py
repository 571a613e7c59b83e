"""Both reports in a real browser: no script error, nothing asked of the network, the gene table works, MultiQC is content."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import anndata
import pytest
from report_facts import benchmark_files, inputs, slide_facts, write_slide

from spadit.contracts import Benchmark
from spadit.plots import benchmark
from spadit.plots.slide import draw_all
from spadit.report import cohort, slide

pytestmark = pytest.mark.browser

# What the browser asks for on its own account (updates, clock, dictionaries), whatever the page
BROWSER_ITSELF = re.compile(r"^https?://[^/]*\.?(google|googleapis|gvt1|gstatic)\.com(:\d+)?/")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def browser():
    found = next((b for b in map(shutil.which, BROWSERS) if b), None)
    if not found:
        pytest.skip("needs Chromium")
    return found


def look(browser: str, page: Path, tmp_path: Path) -> tuple[str, str, list[str]]:
    """The page after its scripts ran, what the browser logged, and the addresses it asked for."""
    netlog = tmp_path / "net.json"
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr",
        "--v=0",
    ]
    command += [
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--disable-component-update",
        "--disable-background-networking",
        "--no-first-run",
        f"--log-net-log={netlog}",
    ]
    done = subprocess.run(
        [*command, "--virtual-time-budget=10000", "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=180, check=True
    )
    asked = re.findall(r'"url":"(https?://[^"]+)"', netlog.read_text(encoding="utf-8", errors="replace"))
    return done.stdout, done.stderr, [url for url in asked if not BROWSER_ITSELF.match(url)]


def console(log: str) -> list[str]:
    return [line for line in log.splitlines() if "CONSOLE" in line and re.search(r"error|refused|uncaught|violat", line, re.IGNORECASE)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two slides with plots and pages."""
    folder = tmp_path_factory.mktemp("reports")
    for sample, verdict in (("good", "pass"), ("weak", "not predictable")):
        paths = write_slide(folder / "facts", sample, verdict)
        facts = slide_facts(paths, sample, folder / f"plots_{sample}")
        draw_all(sample, facts.imputed, anndata.read_h5ad(paths["slide"]), facts.metrics, facts.evaluation.top_genes, facts.plots)
        shutil.copy(facts.plots / "thumbnails" / f"{sample}.thumbnail.png", folder / "facts")
        tables, spots = benchmark_files(folder / sample, sample)
        benchmark.draw_slide(sample, tables, spots, facts.plots)
        for name in ("ranking.csv", "benchmark.json"):
            shutil.copy(tables / name, folder / "facts" / f"{sample}.{name}")
        shutil.copy(facts.plots / "thumbnails" / f"{sample}.benchmark.png", folder / "facts")
        ranking = benchmark.find_table(tables, "ranking.csv")
        facts.benchmark = slide.BenchmarkFacts(Benchmark.from_json(tables / "benchmark.json"), ranking, facts.plots)
        slide.write(facts, folder / f"{sample}.report.html")
    return folder


# The page's own script is the only one its security policy allows, so the test adds its clicks to that script, and its hash.
CLICKS = """
addEventListener("load", () => {
  const table = document.getElementById("genes");
  table.querySelectorAll("th button")[4].click();
  document.body.dataset.first = table.tBodies[0].rows[0].cells[0].textContent;
  const filter = document.getElementById("filter");
  filter.value = "new1";
  filter.dispatchEvent(new Event("input"));
  document.body.dataset.left = Array.from(table.tBodies[0].rows).filter((r) => !r.hidden).length;
});
"""


def test_slide_page(made, browser, tmp_path):
    dom, log, asked = look(browser, made / "weak.report.html", tmp_path)
    assert asked == []
    assert console(log) == []
    assert "Not predictable" in dom
    assert '<h2 id="benchmark">' in dom and dom.count("data:image/") > 14
    assert '<div id="tools">' in dom  # the script ran: the search box is shown


def test_gene_table_sorts_and_filters(made, browser, tmp_path):
    content = (made / "good.report.html").read_text(encoding="utf-8")
    content = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", content).replace(
        "</body>", f"<script>{CLICKS}</script></body>"
    )
    clicked = tmp_path / "clicked.html"
    clicked.write_text(content, encoding="utf-8")
    dom, log, _ = look(browser, clicked, tmp_path)
    assert console(log) == []
    assert re.search(r'data-first="Gene(2|8)"', dom)  # 0.4 + 0.1 sin(k) is highest at k = 8, second at 2
    assert 'data-left="1"' in dom


def test_injected_script_does_not_run(made, browser, tmp_path):
    content = (made / "good.report.html").read_text(encoding="utf-8")
    evil = tmp_path / "evil.html"
    evil.write_text(content.replace("</main>", '<script>document.body.dataset.evil = "yes"</script></main>'), encoding="utf-8")
    dom, log, _ = look(browser, evil, tmp_path)
    assert 'data-evil="yes"' not in dom
    assert console(log)  # and the browser says so


def test_multiqc_report(made, browser, tmp_path, root):
    multiqc = shutil.which("multiqc") or shutil.which("multiqc", path=str(Path(sys.executable).parent))
    if not multiqc:
        pytest.skip("needs multiqc")
    sections = tmp_path / "mqc"
    cohort.summarize(inputs("good", "weak", "lost"), made / "facts", {"seed": 0}, {"TRAIN": {"torch": "2.9"}}, sections)
    for name in ("spadit_logo.png", "spadit_logo_dark.png"):
        shutil.copy(root / "assets" / "logo" / name, sections)
    shutil.copy(root / "assets" / "multiqc_config.yml", sections)
    done = subprocess.run(
        [multiqc, "--strict", "--no-version-check", "--config", "multiqc_config.yml", "--filename", "multiqc_report.html", "."],
        cwd=sections, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = sections / "multiqc_report.html"
    assert report.stat().st_size < 6_000_000
    dom, log, asked = look(browser, report, tmp_path)
    assert asked == []
    assert console(log) == []
    assert str(tmp_path) not in dom.replace(report.as_uri(), "")
    for section in cohort.PARENTS:
        assert f'id="{section}"' in dom or f'id="mqc-module-section-{section}"' in dom, section
    sections = ("spadit_slides_table", "spadit_failed", "spadit_medians", "spadit_pcc", "spadit_maps", "spadit_benchmark")
    order = [dom.index(f'id="{i}"') for i in sections]
    assert order == sorted(order)
    assert dom.count("data:image/png;base64") >= 4
