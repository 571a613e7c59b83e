#!/usr/bin/env python3
"""FOLDS: decide which genes of a slide the benchmark hides together, and list all its runs."""

import logging
import sys

from spadit.cli import parser, run

STEP = "folds"


def work(args):
    from spadit import io
    from spadit.benchmark import RATES, Folds, choose_methods, make_folds, make_plan

    slide, reference = io.load_shape(args.slide), io.load_shape(args.reference)
    var = io.load_var(args.slide)
    shared = var.index[var["shared"].astype(bool)].tolist()
    if args.folds_file:
        folds = Folds.from_json(args.folds_file, shared)
    else:
        folds = make_folds(shared, args.folds, args.seed, args.id)
    methods = choose_methods(args.methods) if args.benchmark or args.robustness else []
    n_spots, n_cells = min(args.max_spots or slide[0], slide[0]), min(args.max_cells, reference[0])
    rates = RATES if args.robustness else ()
    plan = make_plan(args.id, folds, methods, n_spots, n_cells, args.seed, rates, args.ablation)
    folds.to_json(args.output)
    plan.to_json(args.plan)
    logging.info("%s: %d genes in %d folds, %d methods, %d runs", args.id, len(folds.genes), len(folds.folds), len(methods), len(plan.jobs))


def main():
    p = parser(__doc__, STEP)
    p.add_argument("--slide", required=True, help="the slide of spadit_pair.py; its counts are not read")
    p.add_argument("--reference", required=True, help="the reference of spadit_pair.py; its counts are not read")
    p.add_argument("--folds", type=int, default=5, help="number of folds (default: 5)")
    p.add_argument("--folds-file", default="", help="JSON file with folds to take instead")
    p.add_argument("--methods", default="", help="names of methods with commas between them (default: all)")
    p.add_argument("--seed", type=int, default=0, help="seed of folds, methods and thinning (default: 0)")
    p.add_argument("--max-spots", type=int, default=0, help="take at most so many spots (default: all)")
    p.add_argument("--max-cells", type=int, default=5000, help="take at most so many cells (default: 5000)")
    p.add_argument("--benchmark", action="store_true", help="run the chosen methods")
    p.add_argument("--robustness", action="store_true", help="run them with counts removed, too")
    p.add_argument("--ablation", type=int, default=0, help="seeds of the ablation (default: 0, none)")
    p.add_argument("--output", required=True, help="JSON file of the folds to write")
    p.add_argument("--plan", required=True, help="JSON file of the runs to write")
    return run(STEP, p.parse_args(), work)


if __name__ == "__main__":
    sys.exit(main())
