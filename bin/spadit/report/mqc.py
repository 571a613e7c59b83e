"""The parts of a MultiQC page that all sections are made of: texts made safe, headers of columns, plain tables, labels.

MultiQC prints what it is given as HTML, so every text from data goes through :func:`text`.
"""

from __future__ import annotations

import html

FEW = 8
"""Up to this many slides one plot shows slide and method side by side; more get one tab per method."""

PARENTS = {
    "spadit_slides": ("Slides", "Which slides are fine, which are not, and why."),
    "spadit_accuracy": ("Accuracy", "How well genes were imputed that each slide measured but that were hidden from the model."),
    "spadit_quality": ("Data", "What went in: counts, genes, filters, and the genes that slide and reference share."),
    "spadit_training": ("Training", "What imputed values are made of, and how the networks learned."),
    "spadit_usage_chapter": ("Resources used", "Time and memory that the steps needed."),
    "spadit_methods": ("Methods", "What was done, with which settings and software."),
}
"""Chapters of the report: id -> (name, description). Their order, and that of sections, is in assets/multiqc_config.yml."""

SCALES = {"model": "Blues", "floor": "Oranges", "method": "Purples", "control": "RdPu", "ceiling": "Greys"}
"""Role of a method -> colours of its column."""

STATUS_RULES = {
    "pass": [{"s_eq": "pass"}],
    "warn": [{"s_eq": "warn"}],
    "fail": [{"s_eq": "failed"}, {"s_eq": "not predictable"}],
}


def text(value: object) -> str:
    """A text from data, made safe for HTML."""
    return html.escape(str(value), quote=True)


def section(id: str, parent: str, name: str, description: str, plot_type: str, data, **more) -> dict:
    parent_name, parent_description = PARENTS[parent]
    return {
        "id": id,
        "parent_id": parent,
        "parent_name": parent_name,
        "parent_description": parent_description,
        "section_name": name,
        "description": description,
        "plot_type": plot_type,
        **more,
        "data": data,
    }


def status_header(description: str = "Verdict of the slide") -> dict:
    return {"title": "Status", "description": description, "scale": False, "cond_formatting_rules": STATUS_RULES}


def pcc_header(title: str, description: str, **more) -> dict:
    return {"title": title, "description": description, "format": "{:,.2f}", "min": 0, "max": 1, "scale": "Blues", **more}


def whole_header(title: str, description: str, **more) -> dict:
    return {"title": title, "description": description, "format": "{:,.0f}", "scale": False, **more}


def percent_header(title: str, description: str) -> dict:
    return {"title": title, "description": description, "suffix": " %", "format": "{:,.0f}", "min": 0, "max": 100, "scale": "Oranges"}


def without_empty(row: dict) -> dict:
    return {key: value for key, value in row.items() if value is not None and value == value}


def html_table(head: list[str], body: list[list[str]], widths: list[str] | None = None) -> str:
    """A plain table of texts that may be long, which MultiQC's own tables don't wrap. Cells must be escaped already."""
    columns = "".join(f'<col style="width:{w}">' for w in widths or [])
    rows = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in body)
    return (
        '<div class="table-responsive spadit-scroll"><table class="table table-sm" style="overflow-wrap:anywhere;min-width:34rem">'
        f"<colgroup>{columns}</colgroup><thead><tr>{''.join(f'<th>{h}</th>' for h in head)}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


_BADGES = {"pass": "#00694f", "warn": "#7a4900", "not predictable": "#a3180f", "failed": "#a3180f"}
_MARKS = {"pass": "✓", "warn": "!", "not predictable": "✕", "failed": "✕"}


def badge(name: str) -> str:
    """A status as a coloured label that also says it in words."""
    shape = "display:inline-block;color:#fff;border-radius:1rem;padding:.05rem .6rem;font-size:.85em;white-space:nowrap"
    return f'<span style="{shape};background:{_BADGES[name]}">{_MARKS[name]} {text(name)}</span>'
