#!/usr/bin/env python3
"""RANK: put the folds of all methods together, score them, and rank them (or tell how they stand thinning, or what each part is worth)."""

import logging
import sys

from spadit.cli import parser, run

STEP = "rank"


def work(args):
    from pathlib import Path

    from spadit import benchmark, io
    from spadit.contracts import BenchmarkPlan
    from spadit.files import finished

    slide = io.load(args.slide, "slide")
    slide, _ = benchmark.cut(slide, slide[:0], args.max_spots, seed=args.seed)
    folds = benchmark.Folds.from_json(args.folds, benchmark.shared_genes(slide))
    plan, parts = BenchmarkPlan.from_json(args.plan), benchmark.read_parts(args.parts)
    outside = dict(zip(args.outside_names, args.outside, strict=True))
    with finished(args.output) as folder:
        folder.mkdir()
        said = benchmark.write_tables(args.what, folder, plan, parts, slide, folds, {name: Path(path) for name, path in outside.items()})
    logging.info("%s: %s", args.id, said)


def main():
    p = parser(__doc__, STEP)
    p.add_argument("--slide", required=True, help="the slide of spadit_pair.py")
    p.add_argument("--folds", required=True, help="the folds of spadit_folds.py")
    p.add_argument("--plan", required=True, help="the plan of spadit_folds.py")
    p.add_argument("--parts", required=True, help="folder with what spadit_method.py wrote")
    p.add_argument("--what", default="benchmark", choices=["benchmark", "robustness", "ablation"], help="which tables to make")
    p.add_argument("--outside", nargs="*", default=[], help="files with predictions that were made elsewhere")
    p.add_argument("--outside-names", nargs="*", default=[], help="names of their methods, in the same order")
    p.add_argument("--max-spots", type=int, default=0, help="as for spadit_method.py")
    p.add_argument("--seed", type=int, default=0, help="seed of the bootstrap and of the choice of spots (default: 0)")
    p.add_argument("--output", required=True, help="folder to write")
    return run(STEP, p.parse_args(), work)


if __name__ == "__main__":
    sys.exit(main())
