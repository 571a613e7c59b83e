"""The slide's page and the cohort's sections: what they say, that they escape what they are given, that they load nothing."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil

import pytest
from report_facts import BLENDS, RULE, benchmark_files, inputs, slide_facts, training, write_slide

from spadit.contracts import Benchmark, Failure, Training
from spadit.plots import benchmark
from spadit.plots.slide import draw_all
from spadit.report import cohort, slide, words

EVIL = "<script>alert(1)</script>"


def page(tmp_path, sample="cortex", **options) -> str:
    paths = write_slide(tmp_path / "in", sample, **options)
    facts = slide_facts(paths, sample, tmp_path / "plots")
    draw_all(sample, facts.imputed, slide_facts_slide(paths), facts.metrics, facts.evaluation.top_genes, facts.plots)
    return slide.render(facts)


def slide_facts_slide(paths):
    import anndata

    return anndata.read_h5ad(paths["slide"])


def plain(text: str) -> str:
    """What a reader sees."""
    text = re.sub(r"(?s)<(script|style)\b.*?</\1>", " ", text)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", text)))


# --- the slide's page


def test_page_says_what_was_done_and_what_came_out(tmp_path):
    text = plain(page(tmp_path))
    for expected in (
        "SpaDiT imputed 5 genes that this slide did not measure, at each of its 80 spots",
        "each of 12 measured genes was hidden and imputed",
        "Passed: use genes by their reliability class",
        RULE,
        "divided at random (seed 7)",
        "oracle_ridge (ceiling)",
        "library_size (control)",
        "fewer than 1 counts",
        "SpaDiT is better",
        "corr_weighted : average of the visible genes, weighted by",
        "max_steps",
        "3 fits in 3 min 3 s, 12,345 weights in the networks of a fit",
        "Work on all fits together: simple maps 18 s, token 1 min 0 s, whole-slide 1 min 44 s, reliability 2 s",
        "arXiv:2407.13182",
        "ab" * 32,
    ):
        assert expected in text, expected


def test_page_is_self_contained_and_small_enough_to_mail(tmp_path):
    content = page(tmp_path)
    assert len(content) < 5_000_000
    assert content.count('src="data:image/') >= 8
    outside = re.findall(r'(?:src|href|action|srcset)\s*=\s*"(?!data:|#)[^"]*"|url\((?!["\']?data:)[^)]*\)|@import', content)
    assert outside == []
    assert "default-src 'none'" in content


def test_not_predictable_is_said_first_and_unmistakably(tmp_path):
    content = page(tmp_path, verdict="not predictable")
    text = plain(content[content.index("<main>") :])
    assert text.index("Not predictable: do not use the imputed genes of this slide") < 120
    assert "What this means." in text and "What may help." in text
    assert "should not be used" in text and "below 0.10" in text
    assert "verdict pass" not in content
    assert "not predictable" in re.search(r"<title>(.*?)</title>", content).group(1)


def test_warnings_turn_pass_into_warn_and_are_shown(tmp_path):
    text = plain(page(tmp_path, warnings=["only 3 counts per spot"]))
    assert "Use with care" in text and "Passed:" not in text and "only 3 counts per spot" in text


@pytest.mark.parametrize(("verdict", "expected"), [("pass", "warn"), ("warn", "warn"), ("not predictable", "not predictable")])
def test_warnings_are_among_the_reasons_whatever_the_verdict(tmp_path, verdict, expected):
    evaluation = slide_facts(write_slide(tmp_path), "s1", tmp_path).evaluation
    evaluation.verdict, evaluation.reasons = verdict, ["why"]
    assert slide.status(evaluation, ["logarithms"]) == (expected, ["why", "logarithms"])


def test_everything_is_escaped(tmp_path):
    content = page(tmp_path, sample="s<b>1", genes=[EVIL, *[f"G{k}" for k in range(11)]], warnings=[EVIL])
    assert EVIL not in content
    assert html.escape(EVIL) in content
    assert "s<b>1" not in content and "s&lt;b&gt;1" in content
    assert len(re.findall("<script>", content)) == 3 and content.count("<script") == 5  # our own, and the explorer's two data


def test_only_our_script_may_run(tmp_path):
    import base64
    import hashlib

    content = page(tmp_path)
    scripts = re.findall(r"(?s)<script>(.*?)</script>", content)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    assert len(scripts) == 3 and f'script-src {allowed}"' in content


def test_slide_without_new_genes_says_so(tmp_path):
    text = plain(page(tmp_path, n_unmeasured=0))
    assert "there was no new gene to impute" in text


def test_table_says_why_and_is_linked_with_the_explorer(tmp_path):
    paths = write_slide(tmp_path)
    facts = slide_facts(paths, "cortex", tmp_path / "nothing")
    facts.imputed.var["reliability_why"] = [f"fact {k}" for k in range(facts.imputed.n_vars)]
    content = slide.render(facts)
    drawn = json.loads(re.search(r'(?s)id="explorer-facts">(.*?)</script>', content).group(1))
    assert {g["name"]: g["why"] for g in drawn["genes"]} == facts.imputed.var["reliability_why"].to_dict()
    assert [g["class"] for g in drawn["genes"]][-1] == "do not use"  # what is left out first comes last
    for k, gene in enumerate(drawn["genes"]):
        row = re.search(rf'(?s)<tr data-k="{k}">.*?</tr>', content).group(0)
        assert f'<a href="#gene={gene["name"]}">' in row and gene["why"] in row
    values = re.search(r'(?s)id="explorer-values">(.*?)</script>', content).group(1)
    assert len(values.split("\n")) == len(drawn["genes"]) == 17


def test_genes_not_to_be_used_are_left_out_of_what_genes_say_together(tmp_path):
    paths = write_slide(tmp_path)
    facts = slide_facts(paths, "cortex", tmp_path / "nothing")
    found = slide.together(facts)
    usable = set(facts.imputed.var_names[facts.imputed.var["reliability_class"] != "do not use"])
    assert {row["gene"] for row in found["variable"]} == usable and found["n_usable"] == found["n_map"] == len(usable)
    assert found["map"].startswith("data:image/svg") and found["distances"].startswith("data:image/png") and found["markers"] is None
    facts.imputed.var["reliability_class"] = "do not use"
    assert "What the imputed genes say together" not in slide.render(facts)


def test_gene_table_is_cut_at_its_limit_with_measured_genes_kept(tmp_path):
    paths = write_slide(tmp_path, n_unmeasured=5)
    facts = slide_facts(paths, "cortex", tmp_path)
    rows, left_out = slide.gene_rows(facts, limit=14)
    assert len(rows) == 14 and left_out == 3
    assert sum(r["hidden"] != "not measured" for r in rows) == 12
    assert [r["reliability"] for r in rows] == sorted((r["reliability"] for r in rows), reverse=True)


def test_page_without_plots_still_comes_out(tmp_path):
    paths = write_slide(tmp_path)
    assert "Measured and imputed maps" in slide.render(slide_facts(paths, "cortex", tmp_path / "nothing"))


def benchmarked(tmp_path, sample="cortex", **options) -> str:
    """The page of a slide that has a benchmark, with the figures that don't need a UMAP."""
    folder, _ = benchmark_files(tmp_path, sample)
    ranking, table = benchmark.find_table(folder, "ranking.csv"), benchmark.find_table(folder, "metrics.csv")
    figures = {"ranking": benchmark.ranking(ranking), "pcc": benchmark.method_boxes(table)}
    for name, figure in figures.items():
        benchmark.save(figure, tmp_path / "benchmark_plots" / f"benchmark_{name}")
    facts = slide_facts(write_slide(tmp_path / "in", sample, **options), sample, tmp_path / "plots")
    facts.benchmark = slide.BenchmarkFacts(Benchmark.from_json(folder / "benchmark.json"), ranking, tmp_path / "benchmark_plots")
    return slide.render(facts)


def test_benchmark_says_who_wins_and_what_did_not_run(tmp_path):
    content = benchmarked(tmp_path)
    text = plain(content[content.index('<h2 id="benchmark">') : content.index('<h2 id="maps">')])
    for expected in (
        "SpaDiT is best: no other method reaches its PCC.",
        "the same 8 genes at the same 60 spots, each gene hidden once in 2 turns (seed 3)",
        "SpaDiT 0.46 0.40 to 0.55 1.00",
        "ridge 0.36 0.30 to 0.45 0.50 −0.100 −0.150 to −0.050 < 0.001 1 min 15 s",
        " 0.20 to 0.35 – ",
        "oracle_ridge (ceiling)",
        "stDiff failed: ran out of <b>memory</b>",
        "Tangram not run: tangram-sc is not installed",
    ):
        assert expected in text, expected
    assert content.count("Median PCC of each method with its interval") == 1 and "UMAP" not in text  # it was not drawn
    assert "&lt;b&gt;memory" in content and "&lt;i&gt;60&lt;/i&gt;" in content
    assert '<a href="#benchmark">' in content and '<tr class="model">' in content


def test_page_without_a_benchmark_does_not_speak_of_it(tmp_path):
    content = slide.render(slide_facts(write_slide(tmp_path), "cortex", tmp_path))
    assert "enchmark" not in re.sub(r"(?s)<style>.*?</style>", "", content)


def test_benchmark_rows_of_a_table_with_the_least_columns():
    import pandas as pd

    rows = slide.benchmark_rows(pd.DataFrame({"method": ["ridge", "odd"], "status": ["ok", float("nan")], "median_pcc": [0.3, None]}))
    assert rows[0]["status"] == "" and rows[0]["median_pcc"] == 0.3 and rows[0]["p"] is None
    assert rows[1]["status"] == "no result" and rows[1]["median_pcc"] is None and rows[1]["role"] == "method"


def test_summary_admits_when_a_simple_method_does_better(tmp_path):
    paths = write_slide(tmp_path)
    facts = slide_facts(paths, "cortex", tmp_path)
    for row in facts.evaluation.summary:
        if row["method"] == "ridge":
            row["median_pcc"] = 0.9
    assert "0.90 for the best simple method, ridge, which did better here" in slide.summary_sentences(facts)[1]


@pytest.mark.parametrize(
    ("low", "high", "p", "said"),
    [
        (0.01, 0.09, 0.001, "SpaDiT is better"),
        (-0.09, -0.01, 0.001, "SpaDiT is worse"),
        (-0.06, -0.01, 0.1, "no clear difference"),  # the p beside it would contradict
        (-0.01, 0.06, 0.001, "no clear difference"),
        (None, None, None, "n/a"),
    ],
)
def test_better_or_worse_only_when_interval_and_p_agree(low, high, p, said):
    assert slide.compared({"low": low, "high": high, "p": p}) == said


def test_page_says_when_classes_tell_little(tmp_path):
    facts = slide_facts(write_slide(tmp_path), "s1", tmp_path)
    facts.evaluation.reliability_spearman = 0.17
    assert "Here it says little" in plain(slide.render(facts))
    facts.evaluation.reliability_spearman = 0.6
    assert "Here it says little" not in plain(slide.render(facts))


COARSE_ONLY = {fit: {"coarse": 1.0} for fit in BLENDS}
ADDED_NOTHING = "The networks added nothing on this slide: the coarse condition alone is used."


def training_rows(content: str) -> dict[str, list[str]]:
    """The page's training table: fit -> cells."""
    table = re.search(r"(?s)<caption>What each fit is made of</caption>(.*?)</table>", content).group(1)
    rows = [[plain(cell).strip() for cell in re.findall(r"(?s)<t[hd].*?</t[hd]>", row)] for row in re.findall(r"(?s)<tr>.*?</tr>", table)]
    return {row[0]: row[1:] for row in rows}


def test_training_table_says_what_each_fit_imputes_with(tmp_path):
    content = page(tmp_path)
    assert training_rows(content) == {
        "fit": ["visible genes", "what it imputes with", "PCC as if hidden", "token steps", "whole-slide steps", "time"],
        "evaluation": ["10", "0.76 coarse + 0.24 whole-slide", "0.30", "40", "50", "1 min 1 s"],
        "fold 0": ["10", "coarse alone", "0.30", "40", "50", "1 min 1 s"],
        "delivery": ["10", "0.97 coarse + 0.40 token + 0.11 whole-slide", "0.30", "40", "50", "1 min 1 s"],
    }
    said = "In the fit for genes that the slide did not measure, imputed patterns are 0.97 coarse + 0.40 token + 0.11 whole-slide"
    text = plain(content)
    assert text.count(said + "; networks are used in 2 of 3 fits.") == 2  # under 'Training' and in the methods text
    assert "What SpaDiT is here: " + said[0].lower() + said[1:] in text
    assert ADDED_NOTHING not in text


def test_page_says_plainly_when_the_networks_added_nothing(tmp_path):
    content = page(tmp_path, blends=COARSE_ONLY)
    text = plain(content)
    assert f"<strong>{ADDED_NOTHING}</strong>" in content
    assert "What SpaDiT is here: the networks added nothing on this slide" in text
    assert [row[1] for row in training_rows(content).values()] == ["what it imputes with", *["coarse alone"] * 3]


def test_mode_that_was_left_out_is_named_and_has_no_column(tmp_path):
    content = page(tmp_path, modes=("token",), blends={"delivery": {"coarse": 0.9, "token": 0.5}})
    assert "The whole-slide mode was left out: the slide has more than 6,000 spots" in plain(content)
    assert training_rows(content)["fit"][3:] == ["token steps", "time"]


def test_paper_preset_has_no_coarse_condition(tmp_path):
    text = plain(page(tmp_path, preset="paper", modes=("whole_slide",), blends={fit: {"whole_slide": 1.0} for fit in BLENDS}))
    assert "No coarse condition was made: what is imputed comes from the whole-slide networks alone." in text
    assert "with the published hyperparameters. Nothing of a hidden gene's values was given to them." in text
    assert "They predict the noise over 1,000 diffusion steps" in text and "step by step (DDPM)" in text
    assert "with SpaDiT-flow 0.1.0, conditional diffusion networks" in text
    for absent in ("made of simple maps", "a weighted sum of simple maps", "A gate", "token", ADDED_NOTHING, "was left out"):
        assert absent not in text, absent


def test_page_without_any_network(tmp_path):
    text = plain(page(tmp_path, modes=(), blends=COARSE_ONLY))
    assert "No network was trained: the coarse condition alone is used." in text
    assert "without the diffusion networks of SpaDiT" in text
    for absent in ("weights in the networks", "Training curves", "PyTorch", ADDED_NOTHING):
        assert absent not in text, absent


@pytest.mark.parametrize(
    ("blends", "said"),
    [
        (COARSE_ONLY, ADDED_NOTHING),
        (
            {"evaluation": BLENDS["evaluation"]},
            "In the fit for the test genes, imputed patterns are 0.76 coarse + 0.24 whole-slide",
        ),
        (
            BLENDS | {"delivery": {"coarse": 1.0}},
            "The networks added nothing in the fit for genes that the slide did not measure: the coarse condition alone is used "
            "there. They are used in 1 of the 3 fits, for other genes.",
        ),
        ({}, ""),
    ],
)
def test_blend_sentence_speaks_of_the_delivery_or_the_evaluation_fit(blends, said):
    sentence = words.blend_sentence(training("s", blends, ("token", "whole_slide"), "default"))
    assert sentence.startswith(said) and bool(sentence) == bool(said)


def test_a_training_that_was_slowed_down_is_told():
    told = training("s", {"delivery": {"coarse": 1.0}}, ("token",), "default")
    assert words.lowered_sentence(told) == ""
    told.fits[0]["n_lowered"] = 2
    assert words.lowered_sentence(told).startswith("Training was unstable: 2 times a loss ran away")


def test_blend_in_words():
    assert words.blend({"whole_slide": 0.24, "coarse": 0.76}) == "0.76 coarse + 0.24 whole-slide"
    assert words.blend({"coarse": 1.0}) == "coarse alone"
    assert words.blend({"coarse": 1.02, "token": 0.001}) == "1.02 coarse + <0.01 token"
    assert words.steps({"best_step": {"whole_slide": 60, "token": 1000}}) == "token 1,000, whole-slide 60" and words.steps({}) == "none"


def test_methods_text_of_several_slides_counts_where_networks_are_used():
    both = ("token", "whole_slide")
    trainings = [
        training("a", BLENDS, both, "default"),
        training("b", COARSE_ONLY, both, "default"),
        training("c", COARSE_ONLY, both, "default"),
    ]
    trainings[1].fits[0]["best_step"]["token"] = 10
    text = " ".join(words.methods_paragraphs("1.0", trainings, [], [], cohort=True))
    assert "It used token networks on 1 and whole-slide networks on 1 of 3 slides, and the coarse condition alone on 2." in text
    assert "token: 10 to 40 steps; whole-slide: 50 steps" in text
    assert "Two kinds of diffusion network were trained" in text and "2 networks of a kind are averaged" in text
    assert "in 6 inner folds over genes" in text and "split-conformal [conformal]" in text and "learned on other slides" in text


def test_numbers_in_words():
    assert words.number(-0.104) == "−0.10" and words.number(-0.001) == "0.00" and words.number(float("nan")) == "n/a"
    assert words.count(12345) == "12,345" and words.count(None) == "n/a" and words.plural(1, "gene") == "1 gene"
    assert words.duration(3725) == "1 h 2 min" and words.percent(0.883) == "88 %"


def test_methods_text_cites_in_order_of_appearance():
    paragraphs, references = words.cite(words.methods_paragraphs("1.0", [], [], []))
    joined = " ".join(paragraphs)
    numbers = [int(n) for n in re.findall(r"\[(\d+)\]", joined)]
    assert numbers == list(range(1, len(references) + 1))
    assert not re.search(r"\[[a-z]+\]", joined)


def test_report_executable(tmp_path, root):
    import subprocess
    import sys

    paths = write_slide(tmp_path / "in")
    names = ("imputed", "slide", "metrics", "qc_slide", "qc_reference", "pairing", "split", "training", "evaluation", "curves")
    options = [f"--{name.replace('_', '-')}={paths[name]}" for name in names]
    output = tmp_path / "cortex.report.html"
    command = [sys.executable, root / "bin" / "spadit_report.py", "--id", "cortex", *options, "--plots", tmp_path, "--output", output]
    subprocess.run(command, check=True)
    assert "<title>cortex: pass" in output.read_text(encoding="utf-8")
    assert subprocess.run([*command, "--benchmark", "b.json"], capture_output=True).returncode == 2  # and what of the other two?
    folder, _ = benchmark_files(tmp_path)
    files = {"benchmark": folder / "benchmark.json", "ranking": folder / "ranking.csv", "benchmark-plots": tmp_path / "none"}
    subprocess.run([*command, *[f"--{name}={path}" for name, path in files.items()]], check=True)
    assert "SpaDiT is best" in output.read_text(encoding="utf-8")


# --- the cohort


@pytest.fixture
def folder(tmp_path):
    """Facts of two slides: one passes, one is not predictable."""
    facts = tmp_path / "facts"
    for sample, verdict in (("good", "pass"), ("weak", "not predictable")):
        paths = write_slide(facts, sample, verdict)
        paths["imputed"].unlink()
        paths["slide"].unlink()
        (facts / f"{sample}.thumbnail.png").write_bytes(b"\x89PNG not really")
    return facts


def run(tmp_path, folder, sheet, params=None, versions=None):
    rows = cohort.summarize(sheet, folder, params or {"seed": 0}, versions or {"TRAIN": {"torch": "2.9"}}, tmp_path / "mqc")
    sections = {p.name.removesuffix("_mqc.json"): json.loads(p.read_text(encoding="utf-8")) for p in (tmp_path / "mqc").glob("*_mqc.json")}
    return {r["sample"]: r for r in rows}, sections


def test_all_sections_are_there(tmp_path, folder):
    rows, sections = run(tmp_path, folder, inputs("good", "weak"))
    assert rows["good"]["status"] == "pass" and rows["weak"]["status"] == "not predictable"
    assert set(sections) == {
        "spadit_summary", "spadit_slides_table", "spadit_medians", "spadit_pcc", "spadit_maps", "spadit_reliability", "spadit_qc_slides",
        "spadit_qc_references", "spadit_overlap", "spadit_curves", "spadit_training_facts", "spadit_methods_text", "spadit_parameters",
        "spadit_software",
    }  # fmt: skip
    assert sections["spadit_summary"]["data"]["good"]["median_pcc"] == pytest.approx(rows["good"]["median_pcc"])
    assert all("parent_id" in s for name, s in sections.items() if name != "spadit_summary")
    assert sections["spadit_maps"]["data"].count("<img") == 2
    curves = sections["spadit_curves"]
    assert [label["name"] for label in curves["pconfig"]["data_labels"]] == [
        "Token: validation PCC", "Token: training loss", "Whole-slide: validation PCC", "Whole-slide: training loss",
    ]  # fmt: skip
    # in numeric order; the network that stopped at 90 counts with its last value at 100
    assert curves["data"][0]["good"] == [[10, 0.315], [90, 0.435], [100, 0.44]]
    trained = sections["spadit_training_facts"]
    assert trained["data"]["good"]["blend"] == "0.97 coarse + 0.40 token + 0.11 whole-slide" == rows["good"]["blend"]
    assert (
        trained["data"]["good"] | {"used": 2, "fits": 3, "steps": "token 40, whole-slide 50", "weights": 12345} == trained["data"]["good"]
    )
    assert "On 0 of 2 slides the networks added nothing" in trained["description"]
    assert "2 slides: 1 pass, 1 not predictable." in sections["spadit_slides_table"]["description"]
    assert sections["spadit_curves"]["pconfig"]["showlegend"] is True  # which line is which slide
    assert "weighted by" in sections["spadit_medians"]["headers"]["corr_weighted"]["description"]
    assert sections["spadit_overlap"]["data"]["good"] == {"shared": 12, "reference_only": 5, "slide_only": 0, "dropped": 0}


def test_cohort_says_where_the_networks_added_nothing(tmp_path, folder):
    training("weak", COARSE_ONLY, ("token", "whole_slide"), "default").to_json(folder / "weak.training.json")
    _, sections = run(tmp_path, folder, inputs("good", "weak"))
    trained = sections["spadit_training_facts"]
    assert trained["data"]["weak"]["blend"] == "coarse alone" and trained["data"]["weak"]["used"] == 0
    assert "<strong>On 1 of 2 slides the networks added nothing: the coarse condition alone is used.</strong>" in trained["description"]


def test_benchmark_of_all_slides_is_a_table_with_what_is_missing(tmp_path, folder):
    for sample in ("good", "weak"):
        made, _ = benchmark_files(tmp_path / sample, sample)
        shutil.copy(made / "benchmark.json", folder / f"{sample}.benchmark.json")
        shutil.copy(made / "ranking.csv", folder / f"{sample}.ranking.csv")
        (folder / f"{sample}.benchmark.png").write_bytes(b"\x89PNG not really")
    rows, sections = run(tmp_path, folder, inputs("good", "weak"))
    assert {r["status"] for r in rows.values()} == {"pass", "not predictable"}  # a benchmark changes no verdict
    table = sections["spadit_benchmark"]
    titles = {key: header["title"] for key, header in table["headers"].items()}
    assert list(titles.values()) == [
        "SpaDiT", "ridge", "library_size (control)", "oracle_ridge (ceiling)", "AS SpaDiT", "AS ridge",
    ]  # fmt: skip
    named = {titles[key]: value for key, value in table["data"]["good"].items()}
    assert named == pytest.approx(
        {"SpaDiT": 0.465, "ridge": 0.365, "library_size (control)": 0.265, "oracle_ridge (ceiling)": 0.165, "AS SpaDiT": 1, "AS ridge": 0.5}
    )
    said = table["description"]
    assert "<strong>good</strong>: SpaDiT is best" in said
    assert "<strong>stDiff</strong> has no numbers on 2 slides (good, weak): failed: ran out of &lt;b&gt;memory" in said
    pictures = re.findall(r"base64,([^\"]+)", sections["spadit_benchmark_ranking"]["data"])
    assert len(pictures) == 3 and all(len(p) * 3 / 4 <= 50_003 for p in pictures)  # over all slides, then each


def test_one_benchmark_alone_and_none(tmp_path, folder):
    assert not any("benchmark" in name for name in run(tmp_path, folder, inputs("good", "weak"))[1])
    made, _ = benchmark_files(tmp_path)
    shutil.copy(made / "ranking.csv", folder / "good.ranking.csv")
    _, sections = run(tmp_path, folder, inputs("good", "weak"))
    assert set(sections["spadit_benchmark"]["data"]) == {"good"} and "spadit_benchmark_ranking" not in sections


def test_a_single_slide_shows_all_its_fits(tmp_path, folder):
    training("weak", COARSE_ONLY, ("token", "whole_slide"), "default").to_json(folder / "weak.training.json")
    _, sections = run(tmp_path, folder, inputs("weak"))
    assert set(sections["spadit_curves"]["data"][0]) == {"evaluation", "fold 0", "delivery"}
    assert f"<strong>{ADDED_NOTHING}</strong>" in sections["spadit_training_facts"]["description"]


def test_training_without_curves_is_still_described(tmp_path, folder):
    for path in folder.glob("*.curves.csv"):
        path.write_text(path.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    _, sections = run(tmp_path, folder, inputs("good", "weak"))
    assert "spadit_training_facts" in sections and "spadit_curves" not in sections


def test_slides_files_have_a_row_per_slide_of_the_sheet(tmp_path, folder):
    run(tmp_path, folder, inputs("weak", "lost", "good"))
    with open(tmp_path / "mqc" / "slides.csv", encoding="utf-8", newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [r["sample"] for r in table] == ["weak", "lost", "good"]
    assert tuple(table[0]) == cohort.COLUMNS
    listed = json.loads((tmp_path / "mqc" / "slides.json").read_text(encoding="utf-8"))
    assert [r["status"] for r in listed] == ["not predictable", "failed", "pass"]


def test_failed_slide_keeps_reason_and_remedy_and_leaves_the_others(tmp_path, folder):
    Failure("broken", "slide", "read", f"broken/st.h5ad has no coordinates {EVIL}.", "Add obsm['spatial'].").to_json(folder / "broken.json")
    rows, sections = run(tmp_path, folder, inputs("good", "broken"))
    assert rows["broken"]["status"] == "failed" and rows["broken"]["step"] == "READ" and "no coordinates" in rows["broken"]["reason"]
    assert rows["good"]["status"] == "pass"
    assert rows["good"]["n_unmeasured"] == 5 and rows["broken"]["n_unmeasured"] is None
    shown = sections["spadit_failed"]["data"]
    assert EVIL not in shown and html.escape(EVIL) in shown and "Add obsm" in shown


def test_failed_reference_fails_its_slides_only(tmp_path, folder):
    Failure("atlas", "reference", "qc", "atlas.h5ad has no counts.", "Give raw counts.").to_json(folder / "atlas.json")
    rows, _ = run(tmp_path, folder, inputs("good", "a", "b", references={"a": "atlas", "b": "atlas"}))
    assert [rows[s]["status"] for s in ("good", "a", "b")] == ["pass", "failed", "failed"]
    assert rows["a"]["reason"] == "Its reference atlas failed: atlas.h5ad has no counts."


@pytest.mark.parametrize(
    ("gone", "step"),
    [
        ((), "EVALUATE"),
        (("training",), "TRAIN"),
        (("training", "split"), "SPLIT"),
        (("training", "split", "pairing"), "PAIR"),
        (("training", "split", "pairing", "qc"), "QC"),
    ],
)
def test_slide_that_ended_without_a_word_names_its_last_step(tmp_path, folder, gone, step):
    for kind in ("evaluation", *gone):
        (folder / f"good.{kind}.json").unlink()
    rows, _ = run(tmp_path, folder, inputs("good", "weak"))
    assert rows["good"]["status"] == "failed" and rows["good"]["step"] == step
    assert step in rows["good"]["reason"] and "pipeline_info/execution_trace" in rows["good"]["reason"]
    assert rows["weak"]["status"] == "not predictable"


def test_lost_reference_is_named(tmp_path, folder):
    for name in ("good.evaluation", "good.training", "good.split", "good.pairing", "good.reference.qc"):
        (folder / f"{name}.json").unlink()
    rows, _ = run(tmp_path, folder, inputs("good"))
    assert "Its reference good_reference ended in READ or QC" in rows["good"]["reason"]


def test_nothing_but_failures_still_gives_a_report(tmp_path):
    empty = tmp_path / "facts"
    empty.mkdir()
    rows, sections = run(tmp_path, empty, inputs("a", "b"))
    assert {r["status"] for r in rows.values()} == {"failed"}
    assert {"spadit_summary", "spadit_slides_table", "spadit_failed"} <= set(sections)


def test_unreadable_fact_is_left_out(tmp_path, folder, caplog):
    (folder / "odd.json").write_text("{", encoding="utf-8")
    (folder / "list.json").write_text("[]", encoding="utf-8")
    rows, _ = run(tmp_path, folder, inputs("good"))
    assert rows["good"]["status"] == "pass"
    assert "odd.json is left out" in caplog.text


def test_no_text_from_data_reaches_the_report_unescaped(tmp_path, folder):
    paths = write_slide(tmp_path / "evil", "x<i>", warnings=[EVIL])
    for path in paths.values():
        if path.suffix != ".h5ad":
            shutil.copy(path, folder)
    fit = {
        "name": EVIL,
        "n_visible": 1,
        "best_step": {EVIL: 1},
        "validation_pcc": None,
        "blend": {EVIL: 0.5, "coarse": 0.5},
        "seconds": 1.0,
    }
    Training("x<i>", EVIL, EVIL, {"modes": [EVIL]}, [fit], 1.0, 1).to_json(folder / "x<i>.training.json")
    sheet = inputs("good", "x<i>")
    sheet.warnings = [EVIL]
    _, sections = run(
        tmp_path, folder, sheet, {"a": EVIL, "input": "/home/somebody/sheet.csv", "outdir": "/home/somebody"}, {"P": {EVIL: "1"}}
    )
    everything = json.dumps(sections)
    assert EVIL not in everything and "<i>" not in everything
    assert "/home/somebody" not in everything and "sheet.csv" in everything


def test_many_slides_get_tabs_per_method(tmp_path, folder):
    names = [f"s{k:02d}" for k in range(20)]
    for name in names:
        for path in folder.glob("good.*"):
            target = folder / path.name.replace("good", name, 1)
            if path.suffix == ".json":
                target.write_text(path.read_text(encoding="utf-8").replace('"good"', f'"{name}"'), encoding="utf-8")
            else:
                shutil.copy(path, target)
    rows, sections = run(tmp_path, folder, inputs(*names))
    assert len(rows) == 20
    boxes = sections["spadit_pcc"]
    assert len(boxes["data"]) == 5 and set(boxes["data"][0]) == set(names)
    assert boxes["pconfig"]["data_labels"][0]["name"] == "SpaDiT"
    assert "orange" not in boxes["description"]  # the colours of side by side


def test_the_report_config_knows_every_section(root):
    import yaml

    config = yaml.safe_load((root / "assets" / "multiqc_config.yml").read_text(encoding="utf-8"))
    source = (root / "bin" / "spadit" / "report" / "cohort.py").read_text(encoding="utf-8")
    made = set(re.findall(r'"(spadit_[a-z_]+)",\n\s+"spadit_', source)) | {"spadit_qc_slides", "spadit_qc_references"}
    assert set(config["report_section_order"]) == made
    assert config["custom_content"]["order"] == list(cohort.PARENTS)
    assert config["show_analysis_paths"] is False and config["export_plots"] is False
