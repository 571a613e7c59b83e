"""Both reports in a real browser: no script error, nothing asked of the network, the gene table works, MultiQC is content."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import anndata
import browser as browser_tools
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from report_facts import benchmark_files, inputs, slide_facts, write_slide

from spadit.contracts import Benchmark
from spadit.plots import benchmark
from spadit.plots.slide import draw_all
from spadit.report import cohort, mqc, slide

pytestmark = pytest.mark.browser

# What the browser asks for on its own account (updates, clock, dictionaries), whatever the page
BROWSER_ITSELF = re.compile(r"^https?://[^/]*\.?(google|googleapis|gvt1|gstatic)\.com(:\d+)?/")


@pytest.fixture(scope="module")
def browser():
    return browser_tools.find()


class WellFormed(HTMLParser):
    """Complains of elements that are closed in another order than they were opened, and of attributes given twice."""

    VOID = {"meta", "link", "img", "br", "input", "hr", "wbr", "col"}

    def __init__(self):
        super().__init__()
        self.open, self.problems = [], []

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        if len(names) != len(set(names)):
            self.problems.append(f"line {self.getpos()[0]}: <{tag}> has an attribute twice")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass  # as in SVG

    def handle_endtag(self, tag):
        if not self.open or self.open[-1] != tag:
            self.problems.append(f"line {self.getpos()[0]}: </{tag}> closes {self.open[-1:]}")
        else:
            self.open.pop()


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


def test_slide_page(made, browser, tmp_path):
    dom, log, asked = look(browser, made / "weak.report.html", tmp_path)
    assert asked == []
    assert console(log) == []
    assert "Not predictable" in dom
    assert '<h2 id="benchmark">' in dom and dom.count("data:image/") > 14
    assert '<div id="tools">' in dom  # the script ran: the search box is shown


HOSTILE = [
    "Gfap",
    "<script>document.body.dataset.evil = 1</script>",
    '"><img src=x onerror=alert(1)>',
    "=1+1",
    "β-actin/‘x’ %41",
    "a&amp;b",
]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The page of a slide whose sample, genes, spots and groups are named to do harm."""
    folder = tmp_path_factory.mktemp("hostile")
    sample = "</script><script>document.body.dataset.evil = 2</script>"
    paths = write_slide(folder, "safe", genes=HOSTILE + [f"Gene{k}" for k in range(8)], n_spots=120)
    facts = slide_facts(paths, sample, folder / "plots")
    names = ["=cmd|x"] + [f'<b>{i}</b>,"' for i in range(1, 120)]
    facts.imputed.obs_names = facts.slide.obs_names = names
    facts.slide.obs["<i>region</i>"] = np.where(np.arange(120) % 2, "<script>alert(1)</script>", "b")
    path = folder / "hostile.html"
    slide.write(facts, path)
    return path


def test_explorer_as_a_reader_uses_it(hostile, tmp_path):
    """Search, arrow keys, hover, zoom, sort, filter, download: with names that would run if they could."""
    with browser_tools.Page(tmp_path) as page:
        page.open(hostile.as_uri())
        shown = "document.getElementById('explorer').dataset.gene"
        page.wait(f"{shown} !== undefined", 30)
        # search: suggestions, the first is taken with Enter
        page.click("#search")
        page.type("gene5")
        page.wait("document.querySelectorAll('#suggestions [role=option]').length === 1")
        page.key("Enter")
        page.wait(f"{shown} === 'Gene5'")
        assert page.js("location.hash") == "#gene=Gene5"
        assert page.js("document.querySelector('#suggestions').hidden")
        assert page.js("document.querySelector('#genes tr[aria-current]').cells[0].textContent") == "Gene5"
        # arrow keys go through the table's order, there and back
        page.key("ArrowRight")
        page.wait(f"{shown} !== 'Gene5'")
        page.key("ArrowLeft")
        page.wait(f"{shown} === 'Gene5'")
        # the maps are drawn, not blank, and the third shows the measured values
        painted = "(k) => { const c = document.querySelectorAll('#gene-maps canvas:not(.over)')[k];"
        painted += "return new Set(new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size }"
        assert all(page.js(f"({painted})({k})") > 50 for k in range(3))
        # hover: the nearest spot is named, and marked on all maps
        x, y = page.centre("#gene-maps figure:nth-child(2) .over")
        page.move(x, y)
        page.wait("/^(=cmd|<b>)/.test(document.getElementById('gene-place').textContent)")
        assert all(page.js(f"({painted.replace(':not(.over)', '.over')})({k})") > 3 for k in range(3))
        page.click("#nearer")
        page.wait(
            "document.querySelector('#gene-maps .over').__zoom.k > 1 && document.querySelectorAll('#gene-maps .over')[2].__zoom.k > 1"
        )
        # downloads
        page.click("#csv")
        table = pd.read_csv(page.download(".csv"))
        assert list(table.columns) == ["spot", "x", "y", "imputed", "lower", "upper", "measured"] and len(table) == 120
        assert table["spot"][0] == "'=cmd|x"  # no formula for a spreadsheet
        imputed = anndata.read_h5ad(hostile.parent / "safe.imputed.h5ad")[:, "Gene5"]
        assert np.abs(table["imputed"] - imputed.X.ravel()).max() < 0.01
        assert np.abs(table["measured"] - imputed.layers["observed"].ravel()).max() < 0.01
        page.click("#png")
        assert page.download(".png").read_bytes().startswith(b"\x89PNG")
        # the table: sorted by true PCC, filtered by name and class
        page.click("#genes th:nth-child(5) button")
        scores = page.js(
            "Array.from(document.querySelectorAll('#genes tbody td:nth-child(5)'), (c) => c.dataset.value).filter(Boolean).map(Number)"
        )
        assert len(scores) == 14 and scores == sorted(scores, reverse=True)
        page.js("const c = document.getElementById('of-class'); c.value = 'do not use'; c.dispatchEvent(new Event('input'))")
        left = "Array.from(document.querySelectorAll('#genes tbody tr')).filter((r) => !r.hidden)"
        assert set(page.js(f"{left}.map((r) => r.cells[3].textContent)")) == {"do not use"}
        # every hostile gene is found by its name, and does nothing
        for gene in HOSTILE:
            page.js(f"location.hash = '#gene=' + encodeURIComponent({json.dumps(gene)})")
            page.wait(f"{shown} === {json.dumps(gene)}")
            assert page.js("document.getElementById('gene-name').textContent") == gene
        assert page.js("document.body.dataset.evil") is None and page.js("document.querySelectorAll('main img[src=x]').length") == 0
        assert page.js("document.title").startswith("</script><script>")
        assert (page.errors, page.requests) == ([], [])


LOOKS = {"laptop": {}, "dark": {"dark": True}, "a4": {"width": 794, "media": "print"}}
PICTURES = Path(__file__).parent / "pictures"


def small_picture(page, folder: Path, **look) -> Image.Image:
    """The page in grey, an eighth as wide and high: layout and pictures, but no letters, which depend on the machine's fonts."""
    page.picture(folder / "page.png", **look)
    with Image.open(folder / "page.png") as picture:
        return picture.convert("L").reduce(8)


def unlike(a: Image.Image, b: Image.Image) -> float:
    """Share of the picture that differs by more than a sixth of black to white, once both are as high as the first."""
    difference = np.abs(np.asarray(a, float) - np.asarray(b.resize(a.size), float))
    return float((difference > 256 / 6).mean())


@pytest.mark.slow
@pytest.mark.parametrize("name", LOOKS)
def test_the_page_looks_as_it_did(made, tmp_path, name):
    """Compared with the stored picture; SPADIT_NEW_PICTURES=1 stores new ones, to be looked at before they are committed."""
    if not shutil.which("fc-match") or b"DejaVu Sans" not in subprocess.check_output(["fc-match", "sans-serif"]):
        pytest.skip("the stored pictures were made where sans-serif is DejaVu Sans: other fonts move everything")
    with browser_tools.Page(tmp_path) as page:
        page.open((made / "good.report.html").as_uri())
        page.wait("document.getElementById('explorer').dataset.gene !== undefined", 30)
        now = small_picture(page, tmp_path, **LOOKS[name])
        page.js("document.getElementById('gene-maps').style.visibility = 'hidden'")
        without_maps = small_picture(page, tmp_path, **LOOKS[name])
    if os.environ.get("SPADIT_NEW_PICTURES"):
        PICTURES.mkdir(exist_ok=True)
        now.save(PICTURES / f"{name}.png", optimize=True)
    with Image.open(PICTURES / f"{name}.png") as stored:
        assert abs(stored.height / now.height - 1) < 0.05
        difference = unlike(stored, now)
        assert difference < 0.02, f"{difference:.1%} of the page looks different"
        assert unlike(now, without_maps) > 2 * difference  # maps that were not drawn would have been seen


def test_page_is_well_formed_and_can_be_used_without_a_mouse(hostile):
    """Every element is closed where it should be; ids are unique; pictures, canvases and fields have names."""
    text = hostile.read_text(encoding="utf-8")
    parser = WellFormed()
    parser.feed(text)
    parser.close()
    assert parser.problems == [] and parser.open == []
    ids = re.findall(r'\sid="([^"]+)"', re.sub(r"(?s)<script.*?</script>", "", text))
    assert len(ids) == len(set(ids))
    for reference in re.findall(r'(?:aria-controls|aria-labelledby|for)="([^"]+)"', text):
        assert reference in ids
    assert all(re.search(r'\salt="[^"]+"', image) for image in re.findall(r"<img [^>]+>", text))


def test_injected_script_does_not_run(made, browser, tmp_path):
    content = (made / "good.report.html").read_text(encoding="utf-8")
    evil = tmp_path / "evil.html"
    evil.write_text(content.replace("</main>", '<script>document.body.dataset.evil = "yes"</script></main>'), encoding="utf-8")
    dom, log, _ = look(browser, evil, tmp_path)
    assert 'data-evil="yes"' not in dom
    assert console(log)  # and the browser says so


@pytest.mark.slow
def test_large_slide_opens_and_switches_fast_enough(tmp_path):
    """5,000 spots × 2,000 genes: at most 25 MB, 3 s to open, 150 ms from gene to gene.

    Times are CPU seconds of the whole browser, which don't depend on what else the machine does; the clock's are printed.
    """
    rng = np.random.default_rng(0)
    n, g = 5000, 2000
    genes = [f"Gene{k}" for k in range(g // 2)]
    paths = write_slide(tmp_path, "large", genes=genes, n_spots=n, n_unmeasured=g - len(genes))
    facts = slide_facts(paths, "large", tmp_path / "plots")
    # maps as smooth as imputed ones are: harder to compress than zeros, easier than noise
    xy = np.stack(np.meshgrid(np.arange(50.0), np.arange(100.0)), -1).reshape(-1, 2)
    facts.imputed.obsm["spatial"] = facts.slide.obsm["spatial"] = xy
    waves = np.sin(xy / 10 @ rng.normal(size=(2, 40)) + rng.uniform(0, 6, 40)).astype(np.float32)
    x = np.abs(waves @ rng.normal(size=(40, g)).astype(np.float32)) / 4
    facts.imputed.X, facts.imputed.layers["lower"], facts.imputed.layers["upper"] = x, np.maximum(x - 0.5, 0), x + 0.5
    path = tmp_path / "large.html"
    slide.write(facts, path)
    size = path.stat().st_size
    with browser_tools.Page(tmp_path / "browser") as page:
        begun = page.cpu()
        clock = page.open(path.as_uri())
        page.wait("document.getElementById('explorer').dataset.gene", 30)
        seconds = page.cpu() - begun
        assert page.js("JSON.parse(document.getElementById('explorer-facts').textContent).genes.length") == g
        switch = """(async () => {
          const taken = [];
          for (let k = 0; k < 15; k += 1) {
            const begun = performance.now(), before = document.getElementById("explorer").dataset.gene;
            document.getElementById("next").click();
            while (document.getElementById("explorer").dataset.gene === before) await new Promise((done) => setTimeout(done, 1));
            taken.push(performance.now() - begun);
          }
          return taken.sort((a, b) => a - b)[7];
        })()"""
        begun = page.cpu()
        by_clock = page.js(switch)
        milliseconds = 1000 * (page.cpu() - begun) / 15
        assert (page.errors, page.requests) == ([], [])
    print(f"{size / 1e6:.1f} MB; opens: {seconds:.2f} s ({clock:.2f} by the clock); gene to gene: {milliseconds:.0f} ms ({by_clock:.0f})")
    assert size <= 25e6
    assert min(clock, seconds / 2) <= 3  # on two cores: several processes of the browser share the work
    assert milliseconds <= 150


@pytest.mark.slow
def test_vendored_library_is_what_its_sources_give(tmp_path, root):
    """npm fetches the locked packages and esbuild makes the very file that is in the repository."""
    npm = shutil.which("npm")
    if not npm:
        pytest.skip("needs npm")
    vendor = root / "bin" / "spadit" / "report" / "vendor"
    for name in ("package.json", "package-lock.json", "index.js"):
        shutil.copy(vendor / name, tmp_path)
    fetched = subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=tmp_path, capture_output=True, text=True, timeout=150)
    if fetched.returncode:
        pytest.skip(f"npm could not fetch the packages: {fetched.stderr[-300:]}")
    subprocess.run([npm, "run", "build"], cwd=tmp_path, capture_output=True, check=True, timeout=60)
    assert (tmp_path / "d3.js").read_bytes() == (vendor / "d3.js").read_bytes()
    licence = (vendor / "LICENSE").read_text(encoding="utf-8")
    locked = json.loads((vendor / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    bundled = {name.removeprefix("node_modules/"): p["version"] for name, p in locked.items() if name and "esbuild" not in name}
    used = re.findall(r"^==== (\S+) (\S+) ====$", licence, re.M)
    assert len(used) >= 10 and all(bundled[name] == version for name, version in used)


def test_multiqc_report(made, browser, tmp_path, root):
    multiqc = shutil.which("multiqc") or shutil.which("multiqc", path=str(Path(sys.executable).parent))
    if not multiqc:
        pytest.skip("needs multiqc")
    sections = tmp_path / "mqc"
    cohort.summarize(inputs("good", "weak", "lost"), made / "facts", {"seed": 0}, {"TRAIN": {"torch": "2.9"}}, sections)
    made_sections = sorted(sections.glob("*_mqc.json"))
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
    chapters = {json.loads(part.read_text(encoding="utf-8")).get("parent_id") for part in made_sections} - {None}
    assert len(chapters) >= 5 and chapters <= set(mqc.PARENTS)
    for section in chapters:
        assert f'id="{section}"' in dom or f'id="mqc-module-section-{section}"' in dom, section
    sections = ("spadit_slides_table", "spadit_failed", "spadit_medians", "spadit_pcc", "spadit_maps", "spadit_benchmark")
    order = [dom.index(f'id="{i}"') for i in sections]
    assert order == sorted(order)
    assert dom.count("data:image/png;base64") >= 4
