"""The page of one slide: a single HTML file that needs no network, made to be mailed to the lab."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
from pathlib import Path

import pandas as pd
from anndata import AnnData

from spadit.contracts import Benchmark, Evaluation, Pairing, QualityControl, Split, Training, write_text
from spadit.io import TECHNOLOGIES
from spadit.plots import qc as qc_plots
from spadit.plots import style
from spadit.plots import training as training_plots
from spadit.plots.slide import own_rows
from spadit.report import explorer, genes, words

GENE_LIMIT = 3000
"""Rows of the gene table: measured genes first come in, then the unmeasured ones of highest reliability."""

WEAK_RELIABILITY = 0.3
"""Below this rank correlation of expected and true PCC the page says that the classes tell little."""

CLASSES = ("reliable", "use with care", "do not use")


@dataclasses.dataclass
class BenchmarkFacts:
    """What the page shows of a slide's benchmark."""

    benchmark: Benchmark
    ranking: pd.DataFrame
    """``ranking.csv``."""
    plots: Path
    """Folder with the figures ``benchmark_*``."""


@dataclasses.dataclass
class SlideFacts:
    """Everything the page is made from."""

    sample: str
    imputed: AnnData
    metrics: pd.DataFrame
    qc_slide: QualityControl
    qc_reference: QualityControl
    pairing: Pairing
    split: Split
    training: Training
    evaluation: Evaluation
    curves: pd.DataFrame
    plots: Path
    benchmark: BenchmarkFacts | None = None
    """None where none was made: the page then doesn't speak of it."""
    slide: AnnData | None = None
    """Raw counts of the same spots, for maps of counts and clusters; None leaves them out."""
    reference: AnnData | None = None
    """The paired reference, for marker genes; None leaves them out."""
    read: explorer.Read | None = None
    """Reads values that are not in ``imputed``; None when they are."""


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _small(png: bytes) -> bytes:
    """A PNG with a palette of 256 colours: a third of the size, no visible difference in maps of one colour scale."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _figure(plots: Path, name: str, vector: bool = False) -> str | None:
    """A figure of the plots folder as a data URI, or None when it was not drawn."""
    path = plots / f"{name}.{'svg' if vector else 'png'}"
    if not path.is_file():
        return None
    return _data_uri(path.read_bytes(), "image/svg+xml") if vector else _data_uri(_small(path.read_bytes()), "image/png")


def summary_row(evaluation: Evaluation, method: str | None = None, split: str = "all") -> dict | None:
    """A method's row of the evaluation's summary; without a name SpaDiT's."""
    for row in evaluation.summary:
        if row["split"] == split and (row["method"] == method if method else style.role(row["method"]) == "model"):
            return row
    return None


def best_of(evaluation: Evaluation, role: str) -> dict | None:
    """The method of a role ('floor', 'control', 'ceiling') with the highest median PCC over all scored genes."""
    rows = [r for r in evaluation.summary if r["split"] == "all" and style.role(r["method"]) == role and r["median_pcc"] is not None]
    return max(rows, key=lambda r: r["median_pcc"]) if rows else None


def status(evaluation: Evaluation, warnings: list[str]) -> tuple[str, list[str]]:
    """Status of a slide and the reasons with all warnings: the evaluation's verdict, but 'warn' for a slide that passes with warnings."""
    reasons = [*evaluation.reasons, *warnings]
    return ("warn" if evaluation.verdict == "pass" and warnings else evaluation.verdict), reasons


def compared(difference: dict) -> str:
    """A row of the evaluation's comparison in words: better or worse only when interval and corrected p agree."""
    low, high, p = difference["low"], difference["high"], difference["p"]
    if low is None or high is None:
        return "n/a"
    if p is None or p >= 0.05 or low <= 0 <= high:
        return "no clear difference"
    return "SpaDiT is better" if low > 0 else "SpaDiT is worse"


BENCHMARK_FIGURES = {"ranking": True, "pcc": True, "umap": False, "distances": False, "maps": False, "robustness": True,
                     "robustness_genes": False, "ablation": True}  # fmt: skip
"""Figures of a benchmark -> shown as a vector? Those of many points or cells are pictures: smaller, and the page has to be mailed."""


def benchmark_rows(ranking: pd.DataFrame) -> list[dict]:
    """Rows of the benchmark's table, in its order: method, label, role, status ('' where all is well) and numbers or None."""
    columns = ("median_pcc", "low", "high", "accuracy_score", "difference", "difference_low", "difference_high", "p", "seconds")
    rows = []
    for row in ranking.to_dict("records"):
        numbers = {c: float(row[c]) if pd.notna(row.get(c)) else None for c in columns}
        status = row["status"] if isinstance(row.get("status"), str) else ""
        if numbers["median_pcc"] is None:
            status = status if status not in ("", "ok") else "no result"
        method = row["method"]
        rows.append(
            {
                "method": method,
                "label": style.label(method),
                "role": style.role(method),
                "status": "" if status == "ok" else status,
                **numbers,
            }
        )
    return rows


def _benchmark(facts: SlideFacts) -> dict | None:
    """What the template shows of the benchmark."""
    if facts.benchmark is None:
        return None
    b = facts.benchmark
    return {
        "facts": b.benchmark,
        "rows": benchmark_rows(b.ranking),
        "figures": {name: _figure(Path(b.plots), f"benchmark_{name}", vector) for name, vector in BENCHMARK_FIGURES.items()},
    }


def class_counts(var: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Reliability class -> number of genes, for 'unmeasured', 'measured' and 'all'."""
    measured = var["measured"].astype(bool)
    parts = {"unmeasured": var[~measured], "measured": var[measured], "all": var}
    return {
        name: {c: int((part["reliability_class"].astype(str) == c).sum()) for c in CLASSES} | {"total": len(part)}
        for name, part in parts.items()
    }


def summary_sentences(facts: SlideFacts) -> list[str]:
    """Three sentences that a person who reads nothing else should have read."""
    e, p = facts.evaluation, facts.pairing
    counts = class_counts(facts.imputed.var)
    n_new = counts["unmeasured"]["total"]
    spots, cells = words.plural(facts.imputed.n_obs, "spot"), words.plural(p.n_cells, "cell")
    if n_new:
        first = (
            f"SpaDiT imputed {words.plural(n_new, 'gene')} that this slide did not measure, at each of its {spots}, "
            f"with the reference {p.reference} ({cells})."
        )
    else:
        first = (
            f"This slide measured every gene that its reference {p.reference} ({cells}) holds, so there was no new gene to impute: "
            f"what follows is the test of how well imputation works on its {spots}."
        )
    own, floor = summary_row(e), best_of(e, "floor")
    second = "No hidden gene could be scored."
    if own:
        second = (
            f"To see how far that can be trusted, each of {words.plural(e.n_scored, 'measured gene')} was hidden and imputed: "
            f"the imputed and measured patterns agree with a median correlation of {words.number(own['median_pcc'])} "
            f"(95 % interval {words.number(own['low'])} to {words.number(own['high'])}; 1 is perfect, 0 is chance)"
        )
        if floor:
            better = floor["median_pcc"] > (own["median_pcc"] or 0)
            second += f", against {words.number(floor['median_pcc'])} for the best simple method, {floor['method']}"
            second += ", which did better here" if better else ""
        second += "."
    group, name = ("unmeasured", "imputed new genes") if n_new else ("measured", "measured genes")
    c = counts[group]
    third = (
        f"Of the {words.count(c['total'])} {name}, {words.count(c['reliable'])} {'is' if c['reliable'] == 1 else 'are'} expected "
        "to be reliable, "
        f"{words.count(c['use with care'])} {'needs' if c['use with care'] == 1 else 'need'} care and "
        f"{words.count(c['do not use'])} should not be used."
    )
    if e.verdict == "not predictable":
        third = "So the imputed genes of this slide should not be used: nothing shows that they are usefully better than chance."
    return [first, second, third]


def gene_rows(facts: SlideFacts, limit: int = GENE_LIMIT) -> tuple[list[dict], int]:
    """Rows of the gene table, most reliable first, and the number of genes left out."""
    var = facts.imputed.var.copy()
    var["pcc"] = own_rows(facts.metrics).drop_duplicates("gene").set_index("gene")["pcc"].reindex(var.index)
    var["measured"] = var["measured"].astype(bool)
    kept = var.sort_values(["measured", "reliability"], ascending=False, kind="stable").head(limit)
    kept = kept.sort_values("reliability", ascending=False, kind="stable")
    rows = [
        {
            "gene": gene,
            "hidden": "not measured" if not row["measured"] else str(row["split"]),
            "reliability": float(row["reliability"]),
            "reliability_class": str(row["reliability_class"]),
            "why": str(row.get("reliability_why", "")),
            "pcc": float(row["pcc"]),
        }
        for gene, row in kept.iterrows()
    ]
    return rows, len(var) - len(rows)


def gene_maps(facts: SlideFacts, rows: list[dict]) -> tuple[dict, list[str]]:
    """What the explorer shows (:func:`spadit.report.explorer.build`) with the table's facts of each gene; adds its place to the rows.

    Where not all genes fit, those of class 'do not use' go first, then unmeasured ones of low reliability.
    """
    order = sorted(rows, key=lambda r: (r["reliability_class"] == "do not use", r["hidden"] == "not measured", -r["reliability"]))
    read = facts.read or explorer.reader(facts.imputed)
    drawn, values = explorer.build(facts.imputed, read, [r["gene"] for r in order], facts.slide)
    finite = lambda v: round(v, 4) if v == v else None  # noqa: E731
    for k, (gene, row) in enumerate(zip(drawn["genes"], order, strict=False)):
        row["k"] = k
        gene |= {"class": row["reliability_class"], "reliability": finite(row["reliability"]), "pcc": finite(row["pcc"]), "why": row["why"]}
    return drawn, values


def together(facts: SlideFacts) -> dict:
    """What the genes say together: those that vary in space, markers of cell types, the map of genes and the heatmap of distances."""
    from spadit.plots import genes as gene_plots
    from spadit.plots.benchmark import distance_heatmaps

    tables, read = facts.imputed, facts.read or explorer.reader(facts.imputed)
    places = explorer.places_of(tables.obsm["spatial"][:, :2].astype(float), tables.obs_names, genes.MAX_GENES * 5)
    positions = genes.usable(tables.var)
    svg = lambda figure: _data_uri(style.svg(figure), "image/svg+xml")  # noqa: E731
    png = lambda figure: _data_uri(_small(style.png(figure)), "image/png")  # noqa: E731
    found = {"n_usable": len(positions), "n_places": len(places.xy), "binned": places.member is not None, "map": None, "distances": None}
    found["markers"] = genes.markers(facts.reference, tables) if facts.reference is not None else None
    found["has_reference"] = facts.reference is not None
    found["variable"] = genes.spatially_variable(tables, read, places).to_dict("records")
    shown = positions[: genes.MAX_GENES]
    found["n_map"] = len(shown)
    if len(shown) >= 8 and len(places.xy) >= 8:
        points = genes.embedding(places.average(read("X", shown)))
        found["map"] = svg(gene_plots.gene_map(points, tables.var_names[shown], tables.var["reliability_class"].iloc[shown].astype(str)))
    both = positions[tables.var["measured"].to_numpy(dtype=bool)[positions]][:150]
    found["n_distances"] = len(both)
    if len(both) >= 3 and len(places.xy) >= 8:
        names = pd.DataFrame(index=tables.var_names[both])
        truth, imputed = (AnnData(places.average(read(name, both)), var=names) for name in ("observed", "X"))
        found["distances"] = png(distance_heatmaps(truth, {style.MODEL: imputed}))
    return found


def first_gene(drawn: list[dict]) -> str:
    """The gene that the explorer opens with: the one of highest true PCC, with the truth beside it; else the most reliable."""
    scored = [gene for gene in drawn if gene["pcc"] is not None]
    best = max(scored or drawn, key=lambda gene: gene["pcc"] or gene["reliability"] or -1, default=None)
    return best["name"] if best else ""


def qc_table(qc: QualityControl) -> list[tuple[str, str, str]]:
    """Rows (what, before, after) of a QC table; what was not measured is left out."""
    unit = "spots" if qc.role == "slide" else "cells"
    names = [
        ("n_obs", unit, words.count),
        ("n_genes", "genes", words.count),
        ("median_counts", f"median counts per {unit[:-1]}", words.count),
        ("median_genes", f"median genes per {unit[:-1]}", words.count),
        ("zero_share", "share of zeros", lambda v: words.percent(v, 1)),
        ("mito_share", "median mitochondrial share", lambda v: words.percent(v, 1)),
    ]
    return [(name, show(qc.before.get(key)), show(qc.after.get(key))) for key, name, show in names if qc.before.get(key) is not None]


def part_times(training: Training) -> list[tuple[str, float]]:
    """(part of the model, seconds over all fits), in the order they are made; parts that a fit doesn't have are left out."""
    order = ("coarse", *words.MODES, "trust")
    seconds = {name: sum(fit.get("seconds_per_part", {}).get(name) or 0 for fit in training.fits) for name in order}
    names = {"coarse": "simple maps", "trust": "reliability"}  # the maps are made where no coarse condition is, too
    return [(names.get(name, words.part(name)), value) for name, value in seconds.items() if value > 0]


def _parsed(recorded) -> dict:
    """A dict that was stored as such or as a JSON text."""
    if isinstance(recorded, str):
        try:
            recorded = json.loads(recorded)
        except json.JSONDecodeError:
            return {"as recorded": recorded}
    return dict(recorded) if hasattr(recorded, "items") else {"as recorded": str(recorded)}


def parameter_rows(facts: SlideFacts) -> list[tuple[str, str]]:
    """Parameters as recorded in the imputed file, then those of the training that it does not name."""
    recorded = _parsed(facts.imputed.uns.get("spadit", {}).get("parameters", {}))
    flat: dict[str, object] = {}

    def add(prefix: str, values: dict) -> None:
        for key, value in values.items():
            if isinstance(value, dict):
                add(f"{prefix}{key}.", value)
            else:
                flat.setdefault(f"{prefix}{key}", value)

    add("", recorded)
    add("", {"preset": facts.training.preset, "device": facts.training.device, "seed": facts.split.seed, **facts.training.parameters})
    return [(key, "not set" if value is None else str(value)) for key, value in flat.items()]


def _checksums(facts: SlideFacts) -> list[tuple[str, str]]:
    recorded = _parsed(facts.imputed.uns.get("spadit", {}).get("inputs", {}))
    return [
        (f"{role}: {entry.get('source', '')}", str(entry.get("sha256", ""))) if isinstance(entry, dict) else (str(role), str(entry))
        for role, entry in recorded.items()
    ]


def _context(facts: SlideFacts) -> dict:
    """All values the template shows. Text is escaped by the template, never here."""
    e, plots = facts.evaluation, Path(facts.plots)
    version = str(facts.imputed.uns.get("spadit", {}).get("version") or words.library_versions(())["SpaDiT-flow"])
    paragraphs, references = words.cite(words.methods_paragraphs(version, [facts.training], [facts.split], [facts.pairing]))
    methods = [r["method"] for r in e.summary if r["split"] == "all"]
    order = sorted(methods, key=lambda m: (list(style.ROLES).index(style.role(m)), -(summary_row(e, m)["median_pcc"] or -9)))
    table, left_out = gene_rows(facts)
    drawn, values = gene_maps(facts, table)
    svg = lambda figure: _data_uri(style.svg(figure), "image/svg+xml")  # noqa: E731
    counts = class_counts(facts.imputed.var)
    warnings = [*facts.qc_slide.warnings, *facts.qc_reference.warnings, *facts.pairing.warnings]
    verdict, reasons = status(e, warnings)
    return {
        "w": words,
        "sample": facts.sample,
        "version": version,
        "e": e,
        "sentences": summary_sentences(facts),
        "own": summary_row(e),
        "own_test": summary_row(e, split="test"),
        "floor": best_of(e, "floor"),
        "ceiling": best_of(e, "ceiling"),
        "n_spots": facts.imputed.n_obs,
        "n_new": counts["unmeasured"]["total"],
        "classes": counts,
        "class_names": CLASSES,
        "methods": [
            {"row": summary_row(e, m), "label": style.label(m), "role": style.role(m), "description": words.method_description(m)}
            for m in order
        ],
        "compared": compared,
        "weak_reliability": e.reliability_spearman is not None and e.reliability_spearman < WEAK_RELIABILITY,
        "split": facts.split,
        "split_sentence": words.split_sentence(facts.split),
        "pairing": facts.pairing,
        "qc": [("Slide", facts.qc_slide, qc_table(facts.qc_slide)), ("Reference", facts.qc_reference, qc_table(facts.qc_reference))],
        "warnings": warnings,
        "status": verdict,
        "reasons": reasons,
        "platform": TECHNOLOGIES.get(facts.qc_slide.platform, ""),
        "training": facts.training,
        "blend_sentence": words.blend_sentence(facts.training),
        "lowered_sentence": words.lowered_sentence(facts.training),
        "left_out_sentence": words.left_out_sentence(facts.training),
        "has_coarse": any("coarse" in fit["blend"] for fit in facts.training.fits),
        "modes": [mode for mode in words.MODES if any(mode in fit["best_step"] for fit in facts.training.fits)],
        "part_times": part_times(facts.training),
        "genes": table,
        "left_out": left_out,
        "drawn": drawn,
        "drawn_json": explorer.as_json(drawn),
        "drawn_values": "\n".join(values),
        "constant_error": all(gene["half"] is not None for gene in drawn["genes"]),
        "first": first_gene(drawn["genes"]),
        "together": together(facts),
        "figures": {
            "top_genes": _figure(plots, "top_genes"),
            "typical_genes": _figure(plots, "typical_genes"),
            "unmeasured_genes": _figure(plots, "unmeasured_genes"),
            "total_counts": _figure(plots, "total_counts"),
            "methods_pcc": _figure(plots, "methods_pcc", vector=True),
            "methods_all_measures": _figure(plots, "methods_all_measures", vector=True),
            "reliability": _figure(plots, "reliability", vector=True),
            "qc_histograms": _figure(plots, "qc_histograms", vector=True),
            "quantiles": svg(qc_plots.quantiles(facts.qc_slide.quantiles, facts.qc_reference.quantiles)),
            "training": svg(training_plots.curves(facts.curves)) if len(facts.curves) else None,
        },
        "benchmark": _benchmark(facts),
        "paragraphs": paragraphs,
        "references": references,
        "parameters": parameter_rows(facts),
        "versions": words.library_versions(),
        "checksums": _checksums(facts),
    }


def render(facts: SlideFacts) -> str:
    """The page as text. Every value is HTML-escaped; the browser is told to load nothing from anywhere."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = lambda name: (here / name).read_text(encoding="utf-8")  # noqa: E731
    scripts = [text("vendor/d3.js"), text("slide.js"), text("explorer.js")]
    # only these very scripts may run, so that a value that slipped through as markup could still do nothing
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    template = environment.get_template("slide.html.j2")
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return template.render(**_context(facts), scripts=scripts, allowed=allowed, css=text("slide.css") + text("explorer.css"))


def write(facts: SlideFacts, path: str | Path) -> None:
    """Write the page whole or not at all."""
    write_text(path, render(facts))
