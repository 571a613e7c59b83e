"""Time and memory of all steps, as the tasks measured them, as sections of the MultiQC report."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from spadit.contracts import Usage
from spadit.report import words
from spadit.report.mqc import html_table, section, text

STEPS = (
    "read", "qc", "pair", "split", "train", "impute", "evaluate", "plot", "report", "spatialdata", "folds", "rank", "benchmark_plot",
)  # fmt: skip
"""Steps in the order in which they run."""
COLORS = (
    "#56B4E9", "#009E73", "#8a949d", "#4d4d4d", "#0072B2", "#E69F00", "#CC79A7", "#D55E00", "#b8a900", "#7a5195", "#a05d2c", "#2f4b7c",
    "#bcbcbc",
)  # fmt: skip


def _ordered(used: Sequence[Usage]) -> list[str]:
    found = {r.step for r in used}
    return [s for s in STEPS if s in found] + sorted(found - set(STEPS))


def totals(used: Sequence[Usage]) -> dict[str, float]:
    """Minutes and largest GiB of one slide's steps; empty without any."""
    return {"minutes": sum(r.seconds for r in used) / 60, "peak_gib": max(r.peak_gib for r in used)} if used else {}


def usage_sections(used: Sequence[Usage], samples: Sequence[str]) -> list[dict]:
    """A table with a row per step, for whoever sets limits, and bars with time and memory per slide.

    Parameters
    ----------
    used
        Of all steps of all slides and references. Runs of a benchmark's methods are not among them: their time is in ranking.csv.
    samples
        Slides in the sheet's order; references come after them.
    """
    if not used:
        return []
    rows = []
    for step in _ordered(used):
        some = [r for r in used if r.step == step]
        slowest, largest = max(some, key=lambda r: r.seconds), max(some, key=lambda r: r.peak_gib)
        many = len(some) > 1
        rows.append(
            [
                f"<strong>{text(step.replace('_', ' '))}</strong>",
                words.count(len(some)),
                words.duration(statistics.median(r.seconds for r in some)),
                words.duration(slowest.seconds) + (f" ({text(slowest.id)})" if many else ""),
                f"{words.number(statistics.median(r.peak_gib for r in some))} GiB",
                f"{words.number(largest.peak_gib)} GiB" + (f" ({text(largest.id)})" if many else ""),
                text(" or ".join(words.count(n) for n in sorted({r.threads for r in some}))),
            ]
        )
    gpu = max(r.gpu_peak_gib for r in used)
    said = f" GPU memory: at most {words.number(gpu)} GiB." if gpu else ""
    total = sum(r.seconds for r in used)
    widths = ["15%", "9%", "15%", "21%", "12%", "19%", "9%"]
    sections = [
        section(
            "spadit_usage",
            "spadit_usage_chapter",
            "By step",
            f"What tasks themselves measured: wall time and the largest resident memory of each with its child processes (what they "
            f"share counts for each). Together: {words.duration(total)}.{said} Attempts that were killed are not in it; they are "
            "in <code>pipeline_info/execution_trace</code>. Nor are the methods of a benchmark; their times are in its ranking.",
            "html",
            html_table(["Step", "Tasks", "Time, median", "Time, longest", "Memory, median", "Memory, largest", "CPUs"], rows, widths),
        )
    ]
    by_id: dict[str, list[Usage]] = {}
    for r in used:
        by_id.setdefault(r.id, []).append(r)
    ids = [i for i in dict.fromkeys([*samples, *sorted(by_id)]) if i in by_id]
    steps = _ordered(used)
    minutes = {text(i): {s: round(v / 60, 4) for s in steps if (v := sum(r.seconds for r in by_id[i] if r.step == s))} for i in ids}
    memory = {text(i): {s: round(max(v), 3) for s in steps if (v := [r.peak_gib for r in by_id[i] if r.step == s])} for i in ids}
    largest = {i: {"peak": max(by.values())} for i, by in memory.items()}
    categories = {s: {"name": s.replace("_", " "), "color": COLORS[k % len(COLORS)]} for k, s in enumerate(steps)}
    sections.append(
        section(
            "spadit_usage_slides",
            "spadit_usage_chapter",
            "By slide",
            "Time of each slide's steps, one on top of the other (independent steps ran side by side), and the largest memory of any of "
            "them. References have bars of their own.",
            "bargraph",
            [minutes, largest],
            categories=[categories, {"peak": {"name": "largest memory", "color": "#0072B2"}}],
            pconfig={
                "id": "spadit_usage_plot",
                "title": "SpaDiT: time and memory",
                "ylab": "Minutes",
                "cpswitch": False,
                "use_legend": True,
                "tt_decimals": 2,
                "data_labels": [{"name": "Time", "ylab": "Minutes"}, {"name": "Memory", "ylab": "GiB"}],
            },
        )
    )
    return sections
