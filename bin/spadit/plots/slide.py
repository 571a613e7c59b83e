"""All figures of one slide, written to a folder."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from anndata import AnnData

from spadit.plots import maps, metrics, qc, style


def chosen_genes(table: pd.DataFrame, top: list[str], n: int = 6) -> dict[str, list[str]]:
    """Which measured genes the maps show: the best-imputed ones, and typical ones so that nobody takes the best for the rule.

    Parameters
    ----------
    table
        SpaDiT's rows of ``metrics.csv``.
    top
        The evaluation's choice of top genes; without it those of highest PCC.

    Returns
    -------
    'top': n genes; 'typical': the genes at the upper quartile, the median and the lower quartile of PCC that are not among the top.
    """
    ranked = table.dropna(subset=["pcc"]).sort_values("pcc", ascending=False, kind="stable")["gene"].tolist()
    best = [g for g in top if g in set(ranked)][:n] or ranked[:n]
    typical = dict.fromkeys(ranked[int(round(q * (len(ranked) - 1)))] for q in (0.25, 0.5, 0.75)) if ranked else {}
    return {"top": best, "typical": [g for g in typical if g not in best]}


def own_rows(table: pd.DataFrame) -> pd.DataFrame:
    """SpaDiT's rows of ``metrics.csv``."""
    return table[table["method"].map(style.role) == "model"]


def draw_all(sample: str, imputed: AnnData, slide: AnnData, table: pd.DataFrame, top: list[str], outdir: str | Path) -> list[Path]:
    """Draw every figure of a slide; returns the files written.

    ``outdir/<name>.svg|png`` and ``outdir/thumbnails/<sample>.thumbnail.png`` (at most 50 KB).
    """
    outdir = Path(outdir)
    own = own_rows(table)
    pcc = own.set_index("gene")["pcc"]
    genes = chosen_genes(own, top)
    figures = {"total_counts": maps.total_counts_map(slide), "qc_histograms": qc.histograms(slide)}
    if genes["top"]:
        figures["top_genes"] = maps.gene_maps(imputed, genes["top"], pcc)
    if genes["typical"]:
        figures["typical_genes"] = maps.gene_maps(imputed, genes["typical"], pcc, per_row=3)
    new = imputed.var[~imputed.var["measured"].astype(bool)]
    if len(new):
        best_new = new.sort_values("reliability", ascending=False, kind="stable").index[:4].tolist()
        figures["unmeasured_genes"] = maps.gene_maps(imputed, best_new)
    if len(table):
        figures["methods_pcc"] = metrics.method_boxes(table)
        figures["methods_all_measures"] = metrics.all_measures(table)
        figures["reliability"] = metrics.reliability_scatter(imputed.var, pcc)
    written = [path for name, figure in figures.items() for path in style.save(figure, outdir / name)]
    if genes["top"]:
        folder = outdir / "thumbnails"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{sample}.thumbnail.png"
        path.write_bytes(style.small_png(maps.thumbnail(imputed, genes["top"][0])))
        written.append(path)
    return written
