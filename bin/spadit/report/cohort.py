"""All slides of a run on one page: the sections of the MultiQC report, slides.json / slides.csv, and citations.bib.

Facts come from one flat folder and are told apart by their ``kind`` and id, tables and thumbnails by their file names
(``<sample>.metrics.csv``, ``<sample>.curves.csv``, ``<sample>.ranking.csv``, ``<sample>.robustness.csv``,
``<sample>.ablation.csv``, ``<sample>.thumbnail.png``, ``<sample>.benchmark.png``). What is missing says how far a slide came.
MultiQC prints what it is given as HTML, so every text from data goes through :func:`spadit.report.mqc.text`.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
import itertools
import json
import logging
from collections import Counter
from pathlib import Path

import pandas as pd

from spadit.contracts import (
    Benchmark,
    Device,
    Evaluation,
    Failure,
    Inputs,
    Pairing,
    QualityControl,
    Split,
    Training,
    Usage,
    _plain,
    write_text,
)
from spadit.errors import InputError
from spadit.plots import benchmark, style, training
from spadit.report import references, usage, variants, words
from spadit.report.mqc import (
    FEW,
    SCALES,
    badge,
    html_table,
    pcc_header,
    percent_header,
    section,
    status_header,
    text,
    whole_header,
    without_empty,
)
from spadit.report.slide import best_of, status, summary_row

log = logging.getLogger(__name__)

MANY = 24
"""More slides than this: those that pass are folded away in the table of slides, and maps are stored smaller."""
THUMBNAIL_WIDTH = 480

BINS = 10
GENES_PER_BIN = 8
"""Calibration is shown in at most so many bins of at least so many genes."""

LINES = {"pass": "#0072B2", "warn": "#E69F00", "not predictable": "#D55E00", "failed": "#D55E00"}
"""Status of a slide -> colour of its line where there are many."""

STEPS = ("READ", "QC", "PAIR", "SPLIT", "TRAIN", "IMPUTE", "EVALUATE")

COLUMNS = (
    "sample", "status", "reason", "remedy", "step", "reference", "n_spots", "n_genes", "n_shared", "n_unmeasured", "n_scored",
    "median_pcc", "low", "high", "best_floor", "best_floor_pcc", "control_pcc", "ceiling_pcc", "coverage", "reliability_spearman",
    "blend",
)  # fmt: skip
"""Columns of slides.csv and fields of slides.json."""


@dataclasses.dataclass
class Facts:
    """Everything the steps left, by slide or reference id."""

    inputs: Inputs
    qc: dict[str, QualityControl] = dataclasses.field(default_factory=dict)
    pairing: dict[str, Pairing] = dataclasses.field(default_factory=dict)
    split: dict[str, Split] = dataclasses.field(default_factory=dict)
    training: dict[str, Training] = dataclasses.field(default_factory=dict)
    evaluation: dict[str, Evaluation] = dataclasses.field(default_factory=dict)
    benchmark: dict[str, Benchmark] = dataclasses.field(default_factory=dict)
    ranking: dict[str, pd.DataFrame] = dataclasses.field(default_factory=dict)
    robustness: dict[str, pd.DataFrame] = dataclasses.field(default_factory=dict)
    ablation: dict[str, pd.DataFrame] = dataclasses.field(default_factory=dict)
    usage: list[Usage] = dataclasses.field(default_factory=list)
    rankings: dict[str, bytes] = dataclasses.field(default_factory=dict)
    """Small pictures of the benchmark's ranking."""
    failures: dict[str, list[Failure]] = dataclasses.field(default_factory=dict)
    metrics: dict[str, pd.DataFrame] = dataclasses.field(default_factory=dict)
    curves: dict[str, pd.DataFrame] = dataclasses.field(default_factory=dict)
    thumbnails: dict[str, bytes] = dataclasses.field(default_factory=dict)
    device: Device | None = None
    """What the networks ran on."""

    @property
    def samples(self) -> list[str]:
        """Slides in the sheet's order."""
        return [row["sample"] for row in self.inputs.slides]


def _table(path: Path) -> pd.DataFrame:
    return pd.read_csv(
        path,
        dtype={"gene": str, "method": str, "split": str, "fit": str, "status": str, "variant": str},
        keep_default_na=False,
        na_values=[""],
    )


def collect(inputs: Inputs, folder: str | Path) -> Facts:
    """Read all facts of a folder. A file that can't be read is named in the log and left out: the report must come out."""
    facts = Facts(inputs)
    kinds = {"pairing": Pairing, "split": Split, "training": Training, "evaluation": Evaluation, "benchmark": Benchmark}
    for path in sorted(Path(folder).rglob("*")):
        if path.suffix not in (".json", ".csv", ".png"):
            continue
        try:
            if path.suffix == ".json":
                kind = json.loads(path.read_text(encoding="utf-8")).get("kind")
                if kind == "quality_control":
                    qc = QualityControl.from_json(path)
                    facts.qc[qc.id] = qc
                elif kind == "device":
                    facts.device = Device.from_json(path)
                elif kind == "failure":
                    failure = Failure.from_json(path)
                    facts.failures.setdefault(failure.id, []).append(failure)
                elif kind == "usage":
                    facts.usage.append(Usage.from_json(path))
                elif kind in kinds:
                    fact = kinds[kind].from_json(path)
                    getattr(facts, kind)[fact.sample] = fact
            elif path.suffix == ".csv":
                sample, _, what = path.name.removesuffix(".csv").rpartition(".")
                if what in ("metrics", "curves", "ranking", "robustness", "ablation"):
                    getattr(facts, what)[sample] = _table(path)
            elif path.name.endswith(".benchmark.png"):
                facts.rankings[path.name.removesuffix(".benchmark.png")] = path.read_bytes()
            elif path.name.endswith(".thumbnail.png"):
                facts.thumbnails[path.name.removesuffix(".thumbnail.png")] = path.read_bytes()
        except (
            InputError,
            json.JSONDecodeError,
            AttributeError,
            UnicodeDecodeError,
            pd.errors.ParserError,
            pd.errors.EmptyDataError,
        ) as error:
            log.warning("%s is left out of the report: %s", path.name, error)
    return facts


def reference_of(facts: Facts, sample: str) -> str:
    """Id of a slide's reference, as far as it is known."""
    row = next((r for r in facts.inputs.slides if r["sample"] == sample), {})
    if row.get("reference"):
        return row["reference"]
    return facts.pairing[sample].reference if sample in facts.pairing else ""


def _warnings(facts: Facts, sample: str) -> list[str]:
    """Warnings that count for a slide: of its own QC, of its reference's, of the pairing."""
    sources = (facts.qc.get(sample), facts.qc.get(reference_of(facts, sample)), facts.pairing.get(sample))
    return [warning for source in sources if source for warning in source.warnings]


def _inferred(facts: Facts, sample: str) -> tuple[str, str]:
    """The step at which a slide ended without a word, and the reason in words."""
    reference = reference_of(facts, sample)
    if sample not in facts.qc:
        return "QC", "Ended in READ or QC: no output"
    if sample not in facts.pairing:
        if reference and reference not in facts.qc:
            return "QC", f"Its reference {reference} ended in READ or QC: no output"
        return "PAIR", "Ended in PAIR: no output"
    if sample not in facts.split:
        return "SPLIT", "Ended in SPLIT: no output"
    if sample not in facts.training:
        return "TRAIN", "Ended in TRAIN: no output"
    return ("EVALUATE", "Ended in IMPUTE or EVALUATE: no output")


def slide_rows(facts: Facts) -> list[dict]:
    """One row per slide of the sheet, with :data:`COLUMNS`; status 'pass', 'warn', 'not predictable' or 'failed'."""
    rows = []
    for sample in facts.samples:
        row: dict = dict.fromkeys(COLUMNS)
        reference = reference_of(facts, sample)
        row |= {"sample": sample, "reference": reference, "reason": "", "remedy": "", "step": ""}
        if sample in facts.qc:
            row |= {"n_spots": facts.qc[sample].after.get("n_obs"), "n_genes": facts.qc[sample].after.get("n_genes")}
        if sample in facts.pairing:
            row |= {"n_shared": facts.pairing[sample].n_shared}
        if sample in facts.training and (fit := words.spoken_of(facts.training[sample])):
            row["blend"] = words.blend(fit["blend"])
        evaluation = facts.evaluation.get(sample)
        if evaluation:
            own = summary_row(evaluation) or {}
            floor, control, ceiling = (best_of(evaluation, role) or {} for role in ("floor", "control", "ceiling"))
            verdict, reasons = status(evaluation, _warnings(facts, sample))
            row |= {
                "status": verdict,
                "reason": " ".join(reasons),
                "n_unmeasured": len(facts.split[sample].unmeasured) if sample in facts.split else None,
                "n_scored": evaluation.n_scored,
                "median_pcc": own.get("median_pcc"),
                "low": own.get("low"),
                "high": own.get("high"),
                "best_floor": floor.get("method"),
                "best_floor_pcc": floor.get("median_pcc"),
                "control_pcc": control.get("median_pcc"),
                "ceiling_pcc": ceiling.get("median_pcc"),
                "coverage": evaluation.coverage,
                "reliability_spearman": evaluation.reliability_spearman,
            }
        own_failures = [f for f in facts.failures.get(sample, []) if f.role == "slide"]
        reference_failures = [f for f in facts.failures.get(reference, []) if f.role == "reference"] if reference else []
        if own_failures:
            failure = own_failures[0]
            row |= {"status": "failed", "reason": failure.reason, "remedy": failure.remedy, "step": failure.step.upper()}
        elif reference_failures:
            failure = reference_failures[0]
            row |= {
                "status": "failed",
                "reason": f"Its reference {reference} failed: {failure.reason}",
                "remedy": failure.remedy,
                "step": failure.step.upper(),
            }
        elif not evaluation:
            step, reason = _inferred(facts, sample)
            row |= {
                "status": "failed",
                "step": step,
                "reason": f"{reason}; see pipeline_info/execution_trace.",
                "remedy": "The task's exit status there tells why: 137 is out of memory, 140 out of time.",
            }
        rows.append(row)
    return rows


def counts_sentence(rows: list[dict]) -> str:
    """'24 slides: 20 pass, 1 warn, 2 not predictable, 1 failed.'"""
    n = Counter(row["status"] for row in rows)
    parts = [f"{n[s]} {s}" for s in ("pass", "warn", "not predictable", "failed") if n[s]]
    return f"{words.plural(len(rows), 'slide')}: {', '.join(parts)}."


def general_stats(facts: Facts, rows: list[dict]) -> dict:
    """Run summary: one line per slide at the top of the report."""
    keys = ("status", "median_pcc", "best_floor_pcc", "ceiling_pcc", "coverage", "n_scored", "n_unmeasured", "n_spots", "n_shared")
    needed = {s: usage.totals([r for r in facts.usage if r.id == s and r.role == "slide"]) for s in facts.samples}
    return {
        "id": "spadit_summary",
        "plot_type": "generalstats",
        "namespace": "SpaDiT",
        "headers": {
            "status": status_header(),
            "median_pcc": pcc_header("Median PCC", "Median Pearson correlation of imputed and measured values over hidden genes"),
            "best_floor_pcc": pcc_header(
                "Best simple method", "Median PCC of the best floor method on the same hidden genes", scale="Oranges"
            ),
            "ceiling_pcc": pcc_header("Ceiling", "Median PCC of a method that sees the truth; not a competitor", scale="Greys"),
            "coverage": percent_header("In 90 % interval", "Share of hidden values inside their 90 % interval") | {"hidden": True},
            "n_scored": whole_header("Genes scored", "Measured genes, each scored as imputed while hidden"),
            "n_unmeasured": whole_header("New genes", "Genes the slide did not measure, imputed from the reference"),
            "n_spots": whole_header("Spots", "Spots or cells of the slide after QC"),
            "n_shared": whole_header("Shared genes", "Genes that slide and reference share"),
            "minutes": whole_header("Time", "Time of all steps of the slide together", suffix=" min", format="{:,.1f}", hidden=True),
            "peak_gib": whole_header("Memory", "Largest memory of any step", suffix=" GiB", format="{:,.1f}", hidden=True),
        },
        "data": {
            text(r["sample"]): without_empty(
                {k: r[k] for k in keys} | {"coverage": None if r["coverage"] is None else 100 * r["coverage"]} | needed[r["sample"]]
            )
            for r in rows
        },
    }


def slides_sections(facts: Facts, rows: list[dict]) -> list[dict]:
    """The table of slides; failed slides with reason and remedy; warnings."""
    good = {
        "pass": "Use genes by their reliability class.",
        "warn": "Use with care.",
        "not predictable": "Hidden genes could not be recovered: do not use the imputed genes of this slide.",
    }
    head, widths = ["Slide", "Status", "Why", "Reference"], ["20%", "1%", "auto", "18%"]
    body, passed = [], []
    worst_first = ("failed", "not predictable", "warn", "pass")
    for r in sorted(rows, key=lambda r: worst_first.index(r["status"])):
        said = "<br>".join(text(part) for part in (good.get(r["status"]), r["reason"]) if part)
        listed = passed if r["status"] == "pass" and len(rows) > MANY else body
        listed.append([f"<strong>{text(r['sample'])}</strong>", badge(r["status"]), said, text(r["reference"])])
    sections = [
        section(
            "spadit_slides_table",
            "spadit_slides",
            "All slides",
            counts_sentence(rows) + (f" Rule: {text(_rule(facts))}" if _rule(facts) else ""),
            "html",
            (html_table(head, body, widths) if body else "")
            + (
                f"<details><summary>{words.plural(len(passed), 'slide')} that passed</summary>{html_table(head, passed, widths)}</details>"
                if passed
                else ""
            ),
        )
    ]
    failed = [r for r in rows if r["status"] == "failed"]
    if failed:
        body = [[f"<strong>{text(r['sample'])}</strong>", text(r["step"]), text(r["reason"]), text(r["remedy"] or "–")] for r in failed]
        sections.append(
            section(
                "spadit_failed",
                "spadit_slides",
                "Failed slides",
                f"{words.plural(len(failed), 'slide')} without a result. The other slides are not affected; after a repair run again with "
                "<code>-resume</code>, which costs only these.",
                "html",
                html_table(["Slide", "Step", "What is wrong", "What to do"], body, ["20%", "6rem", "auto", "32%"]),
            )
        )
    warnings = [("samplesheet", w) for w in facts.inputs.warnings]
    warnings += [(qc.id, w) for qc in facts.qc.values() for w in qc.warnings]
    warnings += [(p.sample, w) for p in facts.pairing.values() for w in p.warnings]
    if warnings:
        body = [[f"<strong>{text(who)}</strong>", text(what)] for who, what in warnings]
        sections.append(
            section(
                "spadit_warnings",
                "spadit_slides",
                "Warnings",
                "What the steps found odd without stopping for it.",
                "html",
                html_table(["Where", "What"], body, ["24%", "auto"]),
            )
        )
    return sections


def _rule(facts: Facts) -> str:
    return next((e.rule for e in facts.evaluation.values() if e.rule), "")


def accuracy_sections(facts: Facts, rows: list[dict]) -> list[dict]:
    """Medians per method, boxes over genes, maps, reliability."""
    evaluations = {s: facts.evaluation[s] for s in facts.samples if s in facts.evaluation}
    if not evaluations:
        return []
    status_of = {r["sample"]: r["status"] for r in rows}
    methods = list(dict.fromkeys(r["method"] for e in evaluations.values() for r in e.summary))
    methods.sort(key=lambda m: (list(style.ROLES).index(style.role(m)), m))
    medians = section(
        "spadit_medians",
        "spadit_accuracy",
        "Median PCC by method",
        "Pearson correlation of imputed and measured values over spots, median over hidden genes. All methods saw the same genes, "
        "except the ceiling: a map fitted on the truth, which is not a competitor. It tells about how much a linear map of the visible "
        "genes can say; where it is no higher than the others, the visible genes hold little of the hidden ones. Whether SpaDiT's values "
        "come from its networks or from the coarse condition alone is told under 'What was trained'.",
        "table",
        {
            text(s): without_empty({"status": status_of[s]} | {m: (summary_row(e, m) or {}).get("median_pcc") for m in methods})
            for s, e in evaluations.items()
        },
        headers={"status": status_header()}
        | {m: pcc_header(text(style.label(m)), _about(m), scale=SCALES[style.role(m)]) for m in methods},
        pconfig={"id": "spadit_medians_table", "title": "Median PCC by method", "col1_header": "Slide", "no_violin": True},
    )
    sections = [medians, *_boxes(facts, methods), *_maps(facts, status_of)]
    reliability = {}
    for s, e in evaluations.items():
        own = facts.metrics[s][facts.metrics[s]["method"].map(style.role) == "model"] if s in facts.metrics else pd.DataFrame()
        reliability[text(s)] = without_empty(
            {
                "status": status_of[s],
                "reliability_spearman": e.reliability_spearman,
                "expected": float(own["reliability"].median()) if "reliability" in own and len(own) else None,
                "true": float(own["pcc"].median()) if len(own) else None,
                "coverage": None if e.coverage is None else 100 * e.coverage,
            }
        )
    sections.append(
        section(
            "spadit_reliability",
            "spadit_accuracy",
            "Reliability and intervals",
            "Is the expected PCC that every imputed gene carries worth anything? Compared with the true PCC of hidden genes.",
            "table",
            reliability,
            headers={
                "status": status_header(),
                "reliability_spearman": pcc_header(
                    "Rank correlation", "Spearman correlation of expected and true PCC over hidden genes; 1: the order is right"
                ),
                "expected": pcc_header("Expected PCC", "Median expected PCC of hidden genes", scale="Purples"),
                "true": pcc_header("True PCC", "Median true PCC of hidden genes"),
                "coverage": {
                    "title": "In 90 % interval",
                    "description": "Share of hidden values inside their 90 % interval",
                    "suffix": " %",
                    "format": "{:,.0f}",
                    "min": 0,
                    "max": 100,
                    "scale": "Greens",
                },
            },
            pconfig={"id": "spadit_reliability_table", "title": "Reliability", "col1_header": "Slide", "no_violin": True},
        )
    )
    return [*sections, *_calibration(facts)]


def calibration_bins(table: pd.DataFrame) -> list[tuple[float, float, int]]:
    """Expected against true PCC: (mean expected, mean true, genes) of equally many genes each, from the least expected up.

    Parameters
    ----------
    table
        reliability, pcc: a row per hidden gene. At most :data:`BINS` bins of at least :data:`GENES_PER_BIN` genes; fewer genes make one.
    """
    table = table[["reliability", "pcc"]].dropna().sort_values("reliability", kind="stable")
    n = max(1, min(BINS, len(table) // GENES_PER_BIN))
    bounds = [round(k * len(table) / n) for k in range(n + 1)]
    parts = [table.iloc[low:high] for low, high in itertools.pairwise(bounds) if high > low]
    return [(float(part["reliability"].mean()), float(part["pcc"].mean()), len(part)) for part in parts]


def _calibration(facts: Facts) -> list[dict]:
    """Expected against observed PCC by bin: a line per slide where they are few, else over all genes of all slides."""
    own = {}
    for s in facts.samples:
        table = facts.metrics.get(s)
        if table is not None and {"reliability", "pcc"} <= set(table.columns):
            table = table[table["method"].map(style.role) == "model"]
            if table[["reliability", "pcc"]].notna().all(axis=1).any():
                own[s] = table
    if not own:
        return []
    lines = {text(s): calibration_bins(table) for s, table in own.items()} if len(own) <= FEW else {}
    if len(own) > 1:
        lines["all slides"] = calibration_bins(pd.concat(own.values(), ignore_index=True))
    low = min(0.0, *(min(e, t) for bins in lines.values() for e, t, _ in bins))
    high = max(0.1, *(max(e, t) for bins in lines.values() for e, t, _ in bins))
    ideal = "as promised (expected = true)"
    off = [(abs(e - t), n) for e, t, n in lines.get("all slides") or next(iter(lines.values()))]
    error = sum(d * n for d, n in off) / sum(n for _, n in off)
    return [
        section(
            "spadit_calibration",
            "spadit_accuracy",
            "Calibration of the reliability",
            "Hidden genes in bins by the PCC that was expected of them, against the PCC they turned out to have (means of a bin; the true "
            "values took no part in the expectation). On the dashed line promises hold; below it they were too good. "
            f"Mean distance from that line, weighted by genes: <strong>{words.number(error)}</strong>.",
            "linegraph",
            {name: [[round(e, 4), round(t, 4)] for e, t, _ in bins] for name, bins in lines.items()}
            | {ideal: [[round(low, 2), round(low, 2)], [round(high, 2), round(high, 2)]]},
            pconfig={
                "id": "spadit_calibration_plot",
                "title": "SpaDiT: expected and true PCC",
                "xlab": "Expected PCC (mean of the bin)",
                "ylab": "True PCC (mean of the bin)",
                "showlegend": True,
                "style": "lines+markers",
                "colors": {ideal: "#8a949d"}
                | dict(zip(reversed(lines), itertools.cycle(style.SERIES), strict=False)),  # blue: the only slide, or all slides
                "dash_styles": {ideal: "dash"},
            },
        )
    ]


def _about(method: str) -> str:
    """Role and description of a method, for the title of its column."""
    return text(": ".join(part for part in (style.ROLES[style.role(method)][1], words.method_description(method)) if part))


def _box(values: pd.Series) -> dict | None:
    values = values.dropna()
    if values.empty:
        return None
    names = ("min", "q1", "median", "q3", "max")
    return dict(zip(names, (round(float(q), 4) for q in values.quantile([0.05, 0.25, 0.5, 0.75, 0.95])), strict=True)) | {
        "mean": round(float(values.mean()), 4)
    }


def _boxes(facts: Facts, methods: list[str]) -> list[dict]:
    samples = [s for s in facts.samples if s in facts.metrics]
    if not samples:
        return []

    def box(sample: str, method: str) -> dict | None:
        table = facts.metrics[sample]
        return _box(table.loc[table["method"] == method, "pcc"])

    if len(samples) <= FEW:
        named = {f"{text(s)} · {text(style.label(m))}": box(s, m) for s in samples for m in methods}
        data = [{name: b for name, b in named.items() if b}]
        labels = None
    else:
        data = [{text(s): b for s in samples if (b := box(s, m))} for m in methods]
        labels = [{"name": text(style.label(m)), "ylab": "PCC"} for m in methods]
        data, labels = [d for d in data if d], [label for d, label in zip(data, labels, strict=True) if d]
    return [
        section(
            "spadit_pcc",
            "spadit_accuracy",
            "PCC per gene",
            "Spread over hidden genes: box = middle half of the genes, line = median (dashed: mean), whiskers = 5 % to 95 %. "
            + (
                "One tab for each method."
                if labels
                else "Blue: SpaDiT; orange: simple methods; pink: controls, one number per spot; grey: ceiling, which sees the truth."
            ),
            "box",
            data if len(data) > 1 else data[0],
            pconfig={
                "id": "spadit_pcc_plot",
                "title": "SpaDiT: PCC per hidden gene",
                "xlab": "PCC (Pearson correlation over spots)",
                "sort_samples": False,
            }
            | ({"data_labels": labels} if labels else {}),
        )
    ]


def small(picture: bytes) -> tuple[str, bytes]:
    """A thumbnail as ('webp', a third of its bytes or fewer), or ('png', the same) where it isn't a picture that can be read.

    MultiQC keeps what it shows twice, so 96 pictures of 50 KB would make a page that no mail takes.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(picture)).convert("RGB")
        image.thumbnail((THUMBNAIL_WIDTH, THUMBNAIL_WIDTH))
        stream = io.BytesIO()
        image.save(stream, "webp", quality=70)
    except (UnidentifiedImageError, OSError, KeyError):  # KeyError: built without WebP
        return "png", picture
    return "webp", stream.getvalue()


def _maps(facts: Facts, status_of: dict[str, str]) -> list[dict]:
    """All thumbnails in one section: several images under one id would silently keep the last."""
    figures = []
    for s in facts.samples:
        if s not in facts.thumbnails:
            continue
        top = facts.evaluation[s].top_genes if s in facts.evaluation else []
        gene, pcc = (top[0] if top else ""), None
        if s in facts.metrics and gene:
            table = facts.metrics[s]
            found = table.loc[(table["gene"] == gene) & (table["method"].map(style.role) == "model"), "pcc"]
            pcc = float(found.iloc[0]) if len(found) else None
        kind, image = small(facts.thumbnails[s]) if len(facts.thumbnails) > MANY else ("png", facts.thumbnails[s])
        image = base64.b64encode(image).decode()
        line = f"{text(gene)}, PCC {words.number(pcc)}" if gene else ""
        figures.append(
            '<figure style="margin:0;width:20rem;max-width:100%;break-inside:avoid">'
            f'<img src="data:image/{kind};base64,{image}" alt="Map of {text(gene)} on {text(s)}, measured beside imputed" '
            'style="width:100%;background:#fff;border:1px solid rgba(128,128,128,.35);border-radius:.4rem;padding:.4rem">'
            '<figcaption style="font-size:.9em;overflow-wrap:anywhere;margin-top:.3rem">'
            f"<strong>{text(s)}</strong> {badge(status_of[s])}<br>{line}</figcaption></figure>"
        )
    if not figures:
        return []
    return [
        section(
            "spadit_maps",
            "spadit_accuracy",
            "Maps of the best gene",
            "The hidden gene with the highest PCC of each slide, measured beside imputed on one colour scale (yellow is high). "
            "It is the best case: typical genes are in the slide's own report.",
            "html",
            f'<div class="spadit-scroll" style="display:flex;flex-wrap:wrap;gap:1.25rem;align-items:flex-start">{"".join(figures)}</div>',
        )
    ]


def _competes(method: str) -> bool:
    return style.role(method) not in ("control", "ceiling")


def benchmark_sections(facts: Facts) -> list[dict]:
    """All methods on all slides: median PCC, accuracy score, and what has no numbers; pictures of the rankings of a few slides."""
    rankings = {s: facts.ranking[s] for s in facts.samples if s in facts.ranking and "median_pcc" in facts.ranking[s]}
    if not rankings:
        return []
    found = pd.concat(rankings.values(), ignore_index=True)
    methods = benchmark.order(found, "median_pcc")
    data, absent = {}, {}
    for s, table in rankings.items():
        row = {}
        for r in table.to_dict("records"):
            method = r["method"]
            if pd.isna(r["median_pcc"]):
                absent.setdefault(method, {}).setdefault(benchmark.absence(r), []).append(s)
                continue
            row[f"pcc_{method}"] = r["median_pcc"]
            if pd.notna(r.get("accuracy_score")):
                row[f"as_{method}"] = r["accuracy_score"]
        data[text(s)] = row
    keys = {}  # MultiQC takes a column's key for an id
    headers = {}
    for k, m in enumerate(methods):
        keys[f"pcc_{m}"], keys[f"as_{m}"] = f"pcc_{k}", f"as_{k}"
        headers[f"pcc_{k}"] = pcc_header(text(style.label(m)), f"Median PCC over hidden genes. {_about(m)}", scale=SCALES[style.role(m)])
    for k, m in enumerate(methods):
        if _competes(m):
            title = f"AS {style.label(m)}"
            about = "Accuracy score: mean rank in PCC, SSIM, RMSE and JS among the methods of the slide; 1 is best in all"
            headers[f"as_{k}"] = pcc_header(text(title), about, scale="Greens")
    winners = [
        f"<strong>{text(s)}</strong>: {text(facts.benchmark[s].winner)}" for s in rankings if s in facts.benchmark and len(rankings) <= FEW
    ]
    gaps = [
        f"<strong>{text(m)}</strong> has no numbers on {words.plural(len(where), 'slide')} ({text(', '.join(where))}): {text(why)}"
        for m, reasons in absent.items()
        for why, where in reasons.items()
    ]
    description = (
        "Every method on the same hidden genes of each slide: median PCC, then the accuracy score (AS) of those that compete. "
        "Controls know nothing of a gene, the ceiling sees the truth."
    )
    if winners:
        description += "<br>" + "<br>".join(winners)
    if gaps:
        description += "<br>" + "<br>".join(gaps)
    sections = [
        section(
            "spadit_benchmark",
            "spadit_accuracy",
            "Benchmark",
            description,
            "table",
            {s: {keys[c]: v for c, v in row.items()} for s, row in data.items()},
            headers=headers,
            pconfig={"id": "spadit_benchmark_table", "title": "Benchmark", "col1_header": "Slide", "no_violin": True},
        )
    ]
    pictures = {text(s): facts.rankings[s] for s in [s for s in rankings if s in facts.rankings][:FEW]}
    more = f" The first {FEW} of {len(rankings)} slides are shown; every slide's is in its own report." if len(rankings) > FEW else ""
    if len(rankings) > 1:
        scores = pd.concat([table.assign(sample=s) for s, table in rankings.items()], ignore_index=True)
        if "accuracy_score" in scores:
            pictures = {"Accuracy score over all slides": style.small_png(benchmark.accuracy_boxes(scores)), **pictures}
    if pictures:
        figures = "".join(
            '<figure style="margin:0;width:32rem;max-width:100%;break-inside:avoid">'
            f'<img src="data:image/png;base64,{base64.b64encode(picture).decode()}" alt="Methods compared: {title}" '
            'style="width:100%;background:#fff;border:1px solid rgba(128,128,128,.35);border-radius:.4rem;padding:.4rem">'
            f'<figcaption style="font-size:.9em;overflow-wrap:anywhere;margin-top:.3rem"><strong>{title}</strong></figcaption></figure>'
            for title, picture in pictures.items()
        )
        sections.append(
            section(
                "spadit_benchmark_ranking",
                "spadit_accuracy",
                "Benchmark: rankings",
                f"Median PCC of each method with its 95 % interval.{more}",
                "html",
                f'<div class="spadit-scroll" style="display:flex;flex-wrap:wrap;gap:1.25rem;align-items:flex-start">{figures}</div>',
            )
        )
    return sections


def quality_sections(facts: Facts) -> list[dict]:
    """QC before and after, of slides and of references; gene overlap."""
    order = [*facts.samples, *dict.fromkeys(reference_of(facts, s) for s in facts.samples)]
    ids = sorted(facts.qc, key=lambda i: (order.index(i) if i in order else len(order), i))
    sections = []
    for role, unit in (("slide", "spots"), ("reference", "cells")):
        data, headers = {}, {}
        for i in ids:
            q = facts.qc[i]
            if q.role != role:
                continue
            removed = [f"{f['removed']} {f['axis']}: {f['reason']}" for f in q.filters if f.get("removed")]
            data[text(i)] = without_empty(
                {
                    "obs_before": q.before.get("n_obs"),
                    "obs_after": q.after.get("n_obs"),
                    "genes_before": q.before.get("n_genes"),
                    "genes_after": q.after.get("n_genes"),
                    "counts": q.after.get("median_counts"),
                    "genes": q.after.get("median_genes"),
                    "zeros": None if q.after.get("zero_share") is None else 100 * q.after["zero_share"],
                    "mito": None if q.after.get("mito_share") is None else 100 * q.after["mito_share"],
                    "removed": text("; ".join(removed) or "nothing"),
                }
            )
        headers = {
            "obs_before": whole_header(f"{unit.title()} before", f"{unit.title()} in the file"),
            "obs_after": whole_header(f"{unit.title()} after", f"{unit.title()} after the filters"),
            "genes_before": whole_header("Genes before", "Genes in the file"),
            "genes_after": whole_header("Genes after", "Genes after the filters"),
            "counts": whole_header("Median counts", f"Median total counts per {unit[:-1]}, after the filters", scale="Greens"),
            "genes": whole_header("Median genes", f"Median genes detected per {unit[:-1]}, after the filters", scale="Greens"),
            "zeros": percent_header("Zeros", "Share of zero values after the filters"),
            "mito": percent_header("Mitochondrial", f"Median mitochondrial share per {unit[:-1]}"),
            "removed": {"title": "Removed", "description": "What each filter removed, and why", "scale": False},
        }  # fmt: skip
        if data:
            sections.append(
                section(
                    f"spadit_qc_{role}s",
                    "spadit_quality",
                    f"{role.title()}s before and after the filters",
                    f"{'Spots' if role == 'slide' else 'Cells'} and genes before and after QC, with what was removed and why.",
                    "table",
                    data,
                    headers=headers,
                    pconfig={"id": f"spadit_qc_{role}s_table", "title": f"QC of {role}s", "col1_header": role.title(), "no_violin": True},
                )
            )
    return [*sections, *_kept(facts), *_overlap(facts)]


def _kept(facts: Facts) -> list[dict]:
    """Spots of each slide before QC, by what became of them."""
    names = dict.fromkeys(f["name"] for s in facts.samples if s in facts.qc for f in facts.qc[s].filters if f["axis"] == "spots")
    data = {}
    for s in facts.samples:
        if s in facts.qc:
            row = {"kept": facts.qc[s].after.get("n_obs") or 0}
            for f in facts.qc[s].filters:
                if f["axis"] == "spots":
                    row[f["name"]] = row.get(f["name"], 0) + (f.get("removed") or 0)
            data[text(s)] = {text(k): v for k, v in row.items()}
    if not data:
        return []
    colors = itertools.cycle(("#D55E00", "#E69F00", "#CC79A7", "#8a949d"))
    return [
        section(
            "spadit_qc_kept",
            "spadit_quality",
            "Spots kept and removed",
            "Every spot of the file, by the filter that removed it.",
            "bargraph",
            data,
            categories={"kept": {"name": "kept", "color": "#0072B2"}}
            | {text(n): {"name": f"removed: {text(n.replace('_', ' '))}", "color": next(colors)} for n in names},
            pconfig={"id": "spadit_qc_kept_plot", "title": "SpaDiT: spots before and after QC", "ylab": "Spots", "use_legend": True},
        )
    ]


def _overlap(facts: Facts) -> list[dict]:
    """Genes that slide and reference share, and those that one of them lacks."""
    overlap = {}
    for s in facts.samples:
        if s in facts.pairing:
            p = facts.pairing[s]
            overlap[text(s)] = {
                "shared": p.n_shared,
                "reference_only": p.n_unmeasured,
                "slide_only": len(p.slide_only),
                "dropped": sum(p.dropped.values()),
            }
    if not overlap:
        return []
    return [
        section(
            "spadit_overlap",
            "spadit_quality",
            "Gene overlap",
            "Genes that slide and reference share (the model learns from them), that only the reference has (imputed: all of them, "
            "or those of the slide's list), and that only the slide has (they can't be imputed).",
            "bargraph",
            overlap,
            categories={
                "shared": {"name": "shared", "color": "#0072B2"},
                "reference_only": {"name": "only in the reference", "color": "#E69F00"},
                "slide_only": {"name": "only on the slide", "color": "#999999"},
                "dropped": {"name": "left out (ambiguous or empty)", "color": "#CC79A7"},
            },
            pconfig={
                "id": "spadit_overlap_plot",
                "title": "SpaDiT: genes of slide and reference",
                "ylab": "Genes",
                "cpswitch": True,
                "use_legend": True,
            },
        )
    ]


def training_sections(facts: Facts, rows: list[dict]) -> list[dict]:
    """What the imputed values are made of, and training curves."""
    return [*_trained(facts), *_curves(facts, {r["sample"]: r["status"] for r in rows})]


def _trained(facts: Facts) -> list[dict]:
    """The table of what was trained, with the blend of the fit that the report speaks of."""
    trained = {s: facts.training[s] for s in facts.samples if s in facts.training}
    if not trained:
        return []
    spoken = {s: words.spoken_of(t) for s, t in trained.items()}
    rows = {
        text(s): without_empty(
            {
                "blend": text(words.blend(spoken[s]["blend"])) if spoken[s] else None,
                "used": sum(map(words.uses_networks, t.fits)),
                "fits": len(t.fits),
                "steps": text(words.steps(spoken[s])) if spoken[s] else None,
                "weights": t.n_weights,
                "minutes": None if t.seconds is None else t.seconds / 60,
                "device": text(t.device),
                "preset": text(t.preset),
            }
        )
        for s, t in trained.items()
    }
    if len(trained) == 1:
        (only,) = trained.values()
        said = " ".join(filter(None, (words.blend_sentence(only), words.left_out_sentence(only), words.lowered_sentence(only))))
    else:
        fits = [fit for fit in spoken.values() if fit]
        tried = [fit for fit in fits if fit["best_step"] and "coarse" in fit["blend"]]
        alone = sum(not words.uses_networks(fit) for fit in tried)
        share = f"{words.count(alone)} of {words.plural(len(tried), 'slide')}"
        said = f"On {share} the networks added nothing: the coarse condition alone is used." if tried else ""
        unstable = [s for s, t in trained.items() if words.lowered_sentence(t)]
        if unstable:
            said += f" Training was unstable, and went on with a lower learning rate, on {', '.join(text(s) for s in unstable)}."
    explained = (
        "What imputed values are made of: the coarse condition (a weighted sum of simple maps, no network), and what diffusion networks "
        "add to it where that helps visible genes imputed as if hidden."
    )
    return [
        section(
            "spadit_training_facts",
            "spadit_training",
            "What was trained",
            f"{explained} <strong>{text(said)}</strong> Of several fits (one for the test genes, one per fold of the cross-fitting, one "
            "for delivery where there are genes to impute) the table shows that for delivery, or else that for the test genes.",
            "table",
            rows,
            headers={
                "blend": {"title": "Imputed with", "description": "Parts of the model and their weights", "scale": False},
                "used": whole_header("Fits with networks", "Fits in which the networks gained something and are used"),
                "fits": whole_header("Fits", "Number of fits"),
                "steps": {"title": "Training steps", "description": "Steps of the final networks, by kind", "scale": False},
                "weights": whole_header("Weights", "Weights of all networks of a fit"),
                "minutes": {"title": "Time", "description": "Training time", "suffix": " min", "format": "{:,.1f}", "scale": False},
                "device": {"title": "Device", "description": "What it was trained on", "scale": False},
                "preset": {"title": "Preset", "description": "Set of model settings", "scale": False},
            },
            pconfig={"id": "spadit_training_table", "title": "Training", "col1_header": "Slide", "no_violin": True},
        )
    ]


def _curves(facts: Facts, status_of: dict[str, str]) -> list[dict]:
    """Curves, a tab per kind of network and measure: all fits of a single slide, of several slides the fit that the report speaks of."""
    samples = [s for s in facts.samples if s in facts.curves and len(facts.curves[s])]
    data, labels = [], []
    for mode in words.MODES:
        for column, name in (("validation_pcc", "validation PCC"), ("train_loss", "training loss")):
            lines = {}
            for s in samples:
                table = facts.curves[s]
                if column not in table or mode not in training.modes(table):
                    continue
                fits = list(dict.fromkeys(table["fit"]))
                for fit in [words.chosen_fit(fits)] if len(samples) > 1 else fits:
                    curve = training.curve(table, fit, mode, column)
                    if len(curve):
                        # pairs, not a dict: MultiQC would sort a dict's keys as texts
                        points = [[int(k), round(float(v), 5)] for k, v in curve.items()]
                        lines[text(s) if len(samples) > 1 else text(fit.replace("_", " "))] = points
            if lines:
                data.append(lines)
                label = f"{words.part(mode)}: {name}"
                labels.append({"name": label[0].upper() + label[1:], "ylab": name[0].upper() + name[1:], "xlab": "Training step"})
    if not data:
        return []
    what = "One line per fit" if len(samples) == 1 else "One line per slide: its fit for delivery, or else for the test genes"
    many = max(map(len, data)) > FEW
    if many and len(samples) > 1:  # more colours than anybody could tell apart
        what += " (blue: passed, orange: warnings, red: not predictable or failed)"
    return [
        section(
            "spadit_curves",
            "spadit_training",
            "Training curves",
            f"{what}, mean over its networks, where one that has stopped counts with its last value. Validation PCC is that of visible "
            "genes which were kept from the network; a token network is scored together with the coarse condition that it corrects, a "
            "whole-slide network alone. It chooses when training stops; hidden genes take no part.",
            "linegraph",
            data if len(data) > 1 else data[0],
            pconfig={"id": "spadit_curves_plot", "title": "SpaDiT: training", "xlab": "Training step", "ylab": labels[0]["ylab"]}
            | ({"colors": {text(s): LINES[status_of[s]] for s in samples}} if many and len(samples) > 1 else {"showlegend": True})
            | ({"data_labels": labels} if len(data) > 1 else {}),
        )
    ]


def read_versions(path: str | Path) -> dict[str, dict[str, str]]:
    """versions.yml: process -> tool -> version."""
    import yaml

    content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    if not isinstance(content, dict):
        raise InputError(f"{path} should hold process names with tools and versions below them.")
    return {str(p).split(":")[-1]: {str(t): str(v) for t, v in tools.items()} for p, tools in content.items() if isinstance(tools, dict)}


def _in_order(facts: Facts, tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The tables of slides of the sheet, in its order."""
    return {s: tables[s] for s in facts.samples if s in tables}


def _methods_text(facts: Facts) -> list[str]:
    """The methods text of the run, with ``[key]`` where it cites."""
    from spadit import __version__

    chosen = [[table[s] for s in facts.samples if s in table] for table in (facts.training, facts.split, facts.pairing)]
    plain = words.methods_paragraphs(__version__, *chosen, cohort=True)
    compared = (_in_order(facts, tables) for tables in (facts.ranking, facts.robustness, facts.ablation))
    return [*plain[:-1], *words.benchmark_paragraphs(*compared), plain[-1]]


def citation_keys(facts: Facts, params: dict, versions: dict[str, dict[str, str]]) -> list[str]:
    """Keys of :data:`spadit.report.references.WORKS` that this run used."""
    return references.used(
        _methods_text(facts), versions, words.methods_with_numbers(facts.ranking), ["spatialdata"] if params.get("spatialdata") else []
    )


def methods_sections(facts: Facts, params: dict, versions: dict[str, dict[str, str]]) -> list[dict]:
    """Methods text with its references, parameters, software versions."""
    paragraphs, cited = words.cite(_methods_text(facts))
    body = "".join(f"<p>{text(p)}</p>" for p in paragraphs)
    body += "<p><strong>References</strong></p><ol>" + "".join(f"<li>{text(r)}</li>" for r in cited) + "</ol>"
    shown = {k: Path(str(v)).name if k == "input" and v else v for k, v in params.items() if k not in ("outdir", "help", "version")}
    rows = [[f"<code>{text(k)}</code>", "not set" if v is None else f"<code>{text(v)}</code>"] for k, v in sorted(shown.items())]
    tools: dict[str, dict[str, set[str]]] = {}
    for process, found in versions.items():
        for tool, version in found.items():
            tools.setdefault(tool, {}).setdefault(version, set()).add(process)
    software = [
        [text(tool), f"<code>{text(version)}</code>", text(", ".join(sorted(steps)))]
        for tool, by_version in sorted(tools.items(), key=lambda item: item[0].lower())
        for version, steps in sorted(by_version.items())
    ]
    sections = [
        section(
            "spadit_methods_text",
            "spadit_methods",
            "Methods text",
            "For a paper; made from what really ran. Check it before you use it.",
            "html",
            body,
        )
    ]
    keys = citation_keys(facts, params, versions)
    listed = "".join(f"<li>{text(references.WORKS[key].text)}</li>" for key in keys)
    sections.append(
        section(
            "spadit_cite",
            "spadit_methods",
            "How to cite",
            f"What this run used: {words.plural(len(keys), 'work')}, method first. The same as BibTeX is in <code>citations.bib</code> "
            "beside this report.",
            "html",
            f"<ul>{listed}</ul><details><summary>BibTeX</summary>"
            f'<pre style="white-space:pre-wrap;max-height:30rem;overflow:auto">{text(references.bibtex(keys))}</pre></details>',
        )
    )
    if rows:
        sections.append(
            section(
                "spadit_parameters",
                "spadit_methods",
                "Parameters",
                "Settings of this run.",
                "html",
                html_table(["Parameter", "Value"], rows, ["40%", "auto"]),
            )
        )
    if software:
        sections.append(
            section(
                "spadit_software",
                "spadit_methods",
                "Software versions",
                "As reported by the steps themselves." + (f" {text(facts.device.sentence())}" if facts.device else ""),
                "html",
                html_table(["Software", "Version", "Steps"], software, ["25%", "20%", "auto"]),
            )
        )
    return sections


def summarize(inputs: Inputs, folder: str | Path, params: dict, versions: dict[str, dict[str, str]], outdir: str | Path) -> list[dict]:
    """Write every section as ``<id>_mqc.json``, slides.json, slides.csv and citations.bib; returns the rows of slides.csv."""
    facts = collect(inputs, folder)
    rows = slide_rows(facts)
    sections = [
        general_stats(facts, rows),
        *slides_sections(facts, rows),
        *accuracy_sections(facts, rows),
        *benchmark_sections(facts),
        *variants.robustness_sections(_in_order(facts, facts.robustness)),
        *variants.ablation_sections(_in_order(facts, facts.ablation)),
        *quality_sections(facts),
        *training_sections(facts, rows),
        *usage.usage_sections(facts.usage, facts.samples),
        *methods_sections(facts, params, versions),
    ]
    outdir = Path(outdir)
    outdir.mkdir(parents=True, exist_ok=True)
    for made in sections:
        write_text(outdir / f"{made['id']}_mqc.json", json.dumps(_plain(made), ensure_ascii=False, allow_nan=False) + "\n")
    write_text(outdir / "slides.json", json.dumps(_plain(rows), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in _plain(rows))
    write_text(outdir / "slides.csv", table.getvalue())
    write_text(outdir / "citations.bib", references.bibtex(citation_keys(facts, params, versions)))
    return rows
