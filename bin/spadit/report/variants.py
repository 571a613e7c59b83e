"""Robustness and ablation of all slides, as sections of the MultiQC report."""

from __future__ import annotations

import pandas as pd

from spadit.plots import benchmark, style
from spadit.report import words
from spadit.report.mqc import FEW, pcc_header, section, text, whole_header, without_empty

MEASURES = {"median_pcc": "Median PCC", "robustness_score": "Robustness score"}
"""Columns of robustness.csv that are drawn, and their names."""


def _name(method: str) -> str:
    """A method with its role where it doesn't compete; not as in boxes, whose labels MultiQC colours by their words."""
    role = style.role(method)
    return f"{method}, {role}" if role in ("control", "ceiling") else method


def robustness_sections(tables: dict[str, pd.DataFrame]) -> list[dict]:
    """How each method stands the loss of counts: mean over slides against the share that was removed.

    Parameters
    ----------
    tables
        Slide -> its ``robustness.csv``: method, rate, status, median_pcc, robustness_score ...
    """
    tables = {s: t for s, t in tables.items() if {"method", "rate", *MEASURES} <= set(t.columns) and t["median_pcc"].notna().any()}
    if not tables:
        return []
    found = pd.concat(tables.values(), ignore_index=True)
    methods = benchmark.order(found, "median_pcc")
    names = {m: text(_name(m)) for m in methods}
    data, labels = [], []
    for column, name in MEASURES.items():
        means = found.groupby(["method", "rate"])[column].mean().dropna()
        lines = {
            names[m]: [[round(100 * rate, 6), round(float(v), 4)] for rate, v in means[m].items()]
            for m in methods
            if m in means.index.get_level_values("method")
        }
        if lines:
            data.append(lines)
            labels.append({"name": name, "ylab": name, "xlab": "Counts removed (%)"})
    most = found["rate"].max()
    gaps = sorted({f"{r['method']} ({r['status']})" for r in found.to_dict("records") if pd.isna(r["median_pcc"])})
    return [
        section(
            "spadit_robustness",
            "spadit_accuracy",
            "Robustness",
            f"Accuracy as up to {100 * most:.0f} % of the slide's counts are taken away at random; always scored on the slide as it was "
            f"measured. Mean over {words.plural(len(tables), 'slide')}. The robustness score is the share of genes with a PCC above 0.5."
            + (f" Without numbers: {text('; '.join(gaps))}." if gaps else ""),
            "linegraph",
            data if len(data) > 1 else data[0],
            pconfig={
                "id": "spadit_robustness_plot",
                "title": "SpaDiT: robustness",
                "xlab": "Counts removed (%)",
                "ylab": labels[0]["ylab"],
                "showlegend": True,
                "style": "lines+markers",
                "colors": {names[m]: style.SERIES[k % len(style.SERIES)] for k, m in enumerate(methods)},
                "dash_styles": {names[m]: "dot" for m in methods if style.role(m) in ("control", "ceiling")},
            }
            | ({"data_labels": labels} if len(data) > 1 else {}),
        )
    ]


GROUPS = {"backbone": "backbone", "parts": "part left out"}


def ablation_sections(tables: dict[str, pd.DataFrame]) -> list[dict]:
    """What each part of the network is worth: accuracy scores of its variants, mean over slides.

    Parameters
    ----------
    tables
        Slide -> its ``ablation.csv``: group, variant, description, status, accuracy_score_mean, accuracy_score_sd, median_pcc_mean ...
    """
    tables = {s: t for s, t in tables.items() if {"group", "variant", "accuracy_score_mean", "median_pcc_mean"} <= set(t.columns)}
    if not tables:
        return []
    found = pd.concat(tables.values(), ignore_index=True)
    rows = {}
    for (group, variant), some in found.groupby(["group", "variant"], sort=False):
        rows[f"{text(GROUPS.get(group, group))}: {text(variant)}"] = without_empty(
            {
                "score": some["accuracy_score_mean"].mean(),
                "score_sd": some["accuracy_score_sd"].mean(),
                "pcc": some["median_pcc_mean"].mean(),
                "pcc_sd": some["median_pcc_sd"].mean(),
                "slides": int(some["median_pcc_mean"].notna().sum()),
                "about": text(some["description"].iloc[0]) if pd.notna(some["description"].iloc[0]) else None,
            }
        )
    failed = [
        f"{text(r['variant'])} on {text(s)}: {text(r['status'])}"
        for s, table in tables.items()
        for r in table.to_dict("records")
        if pd.isna(r["median_pcc_mean"])
    ]
    more = f" and {len(failed) - FEW} more" if len(failed) > FEW else ""
    gaps = f"<br>Without numbers: {'; '.join(failed[:FEW])}{more}." if failed else ""
    return [
        section(
            "spadit_ablation",
            "spadit_accuracy",
            "Ablation",
            "What each part of SpaDiT's whole-slide network is worth, without the coarse condition: the network as it is, with other "
            "backbones, and with a part left out. The accuracy score ranks the variants of a group; SD is over seeds. "
            f"Mean over {words.plural(len(tables), 'slide')}.{gaps}",
            "table",
            rows,
            headers={
                "score": pcc_header("Accuracy score", "Mean rank in five measures among the group's variants; 1 is best", scale="Greens"),
                "score_sd": {"title": "± SD", "description": "SD of the accuracy score over seeds", "format": "{:,.3f}", "scale": False},
                "pcc": pcc_header("Median PCC", "Median PCC over hidden genes, mean over seeds"),
                "pcc_sd": {"title": "± SD", "description": "SD of the median PCC over seeds", "format": "{:,.3f}", "scale": False},
                "slides": whole_header("Slides", "Slides on which the variant has numbers"),
                "about": {"title": "What it is", "description": "What the variant changes", "scale": False},
            },
            pconfig={"id": "spadit_ablation_table", "title": "Ablation", "col1_header": "Variant", "no_violin": True, "sort_rows": False},
        )
    ]
