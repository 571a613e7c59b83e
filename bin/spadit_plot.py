#!/usr/bin/env python3
"""PLOT: the figures of one slide."""

import sys

from spadit.cli import parser, run


def work(args) -> None:
    import anndata
    import pandas as pd

    from spadit.contracts import Evaluation
    from spadit.plots.slide import draw_all

    imputed = anndata.read_h5ad(args.imputed)
    slide = anndata.read_h5ad(args.slide)
    table = pd.read_csv(args.metrics, dtype={"gene": str, "method": str, "split": str}, keep_default_na=False, na_values=[""])
    evaluation = Evaluation.from_json(args.evaluation)
    draw_all(args.id, imputed, slide, table, evaluation.top_genes, args.outdir)


def main() -> int:
    p = parser(__doc__, "plot")
    p.add_argument("--imputed", required=True, help="the slide's imputed.h5ad")
    p.add_argument("--slide", required=True, help="the slide's raw counts (slide.h5ad)")
    p.add_argument("--metrics", required=True, help="metrics.csv: one row per gene and method")
    p.add_argument("--evaluation", required=True, help="evaluation.json")
    p.add_argument("--outdir", default="plots", help="folder for the figures (default: plots)")
    return run("plot", p.parse_args(), work)


if __name__ == "__main__":
    sys.exit(main())
