#!/usr/bin/env python3
"""BENCHMARK_PLOT: the figures of one slide's benchmark."""

import sys

from spadit.cli import parser, run


def work(args) -> None:
    import anndata

    from spadit.plots.benchmark import draw_slide

    draw_slide(args.id, args.benchmark, anndata.read_h5ad(args.slide), args.outdir)


def main() -> int:
    p = parser(__doc__, "benchmark_plot")
    p.add_argument("--benchmark", required=True, help="folder with ranking.csv, metrics.csv and each method's imputed values (*.h5ad)")
    p.add_argument("--slide", required=True, help="the slide's raw counts (slide.h5ad)")
    p.add_argument("--outdir", default="plots", help="folder for the figures (default: plots)")
    return run("benchmark_plot", p.parse_args(), work)


if __name__ == "__main__":
    sys.exit(main())
