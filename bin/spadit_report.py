#!/usr/bin/env python3
"""REPORT: the self-contained page of one slide."""

import sys

from spadit.cli import parser, run


def work(args) -> None:
    from pathlib import Path

    import anndata
    import pandas as pd

    from spadit.contracts import Benchmark, Evaluation, Pairing, QualityControl, Split, Training
    from spadit.report import explorer, slide

    benchmark = None
    if args.benchmark:
        from spadit.plots.benchmark import find_table

        ranking = find_table(Path(args.ranking).parent, Path(args.ranking).name)
        if ranking is not None:
            benchmark = slide.BenchmarkFacts(Benchmark.from_json(args.benchmark), ranking, Path(args.benchmark_plots))
    with explorer.opened(args.imputed) as (tables, read):
        facts = slide.SlideFacts(
            sample=args.id,
            imputed=tables,
            metrics=pd.read_csv(args.metrics, dtype={"gene": str, "method": str, "split": str}, keep_default_na=False, na_values=[""]),
            qc_slide=QualityControl.from_json(args.qc_slide),
            qc_reference=QualityControl.from_json(args.qc_reference),
            pairing=Pairing.from_json(args.pairing),
            split=Split.from_json(args.split),
            training=Training.from_json(args.training),
            evaluation=Evaluation.from_json(args.evaluation),
            curves=pd.read_csv(args.curves, dtype={"fit": str}),
            plots=Path(args.plots),
            benchmark=benchmark,
            slide=anndata.read_h5ad(args.slide) if args.slide else None,
            reference=anndata.read_h5ad(args.reference) if args.reference else None,
            read=read,
        )
        slide.write(facts, args.output)


def main() -> int:
    p = parser(__doc__, "report")
    p.add_argument("--imputed", required=True, help="the slide's imputed.h5ad")
    p.add_argument("--slide", help="the paired slide (h5ad), for maps of its counts and clusters")
    p.add_argument("--reference", help="the paired reference (h5ad), for marker genes of its cell types")
    p.add_argument("--metrics", required=True, help="metrics.csv")
    p.add_argument("--qc-slide", required=True, help="QC facts of the slide (JSON)")
    p.add_argument("--qc-reference", required=True, help="QC facts of its reference (JSON)")
    p.add_argument("--pairing", required=True, help="pairing.json")
    p.add_argument("--split", required=True, help="split.json")
    p.add_argument("--training", required=True, help="training.json")
    p.add_argument("--evaluation", required=True, help="evaluation.json")
    p.add_argument("--curves", required=True, help="curves.csv")
    p.add_argument("--plots", default="plots", help="folder made by PLOT (default: plots)")
    p.add_argument("--benchmark", help="benchmark.json; asks for the next two as well")
    p.add_argument("--ranking", help="ranking.csv of the benchmark")
    p.add_argument("--benchmark-plots", help="folder made by BENCHMARK_PLOT")
    p.add_argument("--output", required=True, help="the page to write (HTML)")
    arguments = p.parse_args()
    if arguments.benchmark and not (arguments.ranking and arguments.benchmark_plots):
        p.error("--benchmark needs --ranking and --benchmark-plots")
    return run("report", arguments, work)


if __name__ == "__main__":
    sys.exit(main())
