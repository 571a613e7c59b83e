#!/usr/bin/env python3
"""BENCHMARK_COHORT: the figure of all slides' benchmarks."""

import sys

from spadit.cli import parser, run


def work(args) -> None:
    from spadit.plots.benchmark import draw_cohort

    draw_cohort(args.rankings, args.outdir)


def main() -> int:
    p = parser(__doc__, "benchmark_cohort")
    p.add_argument("--rankings", required=True, help="folder with every slide's ranking (<sample>.ranking.csv)")
    p.add_argument("--outdir", default="plots", help="folder for the figure (default: plots)")
    return run("benchmark_cohort", p.parse_args(), work)


if __name__ == "__main__":
    sys.exit(main())
