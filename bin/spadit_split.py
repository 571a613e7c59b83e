#!/usr/bin/env python3
"""Decide which genes are hidden when: train, validation, test and folds, from gene names and a seed."""

import logging
import sys

from spadit.cli import parser, run

STEP = "split"


def work(args):
    from spadit import io
    from spadit.resources import N_LAYERS, needs, sizes_of
    from spadit.split import named_genes, read_genes, restrict, split_genes

    slide, reference = io.load_var(args.slide), io.load_var(args.reference)
    shared = slide.index[slide["shared"].astype(bool)].tolist()
    unmeasured = reference.index[~reference["shared"].astype(bool)].tolist()
    if args.genes or args.wanted:
        aliases = dict(zip(reference["reference_name"].astype(str), reference.index.astype(str), strict=True))
        wanted = read_genes(args.genes) if args.genes else named_genes(args.wanted)
        unmeasured = restrict(unmeasured, wanted, shared, aliases, args.genes.rsplit("/", 1)[-1] or "--genes")
    split = split_genes(shared, unmeasured, args.id, args.ratio, args.folds, args.seed)
    split.to_json(args.output)
    if args.resources:
        changed = {name: getattr(args, name) for name in ("max_steps", "n_models") if getattr(args, name) is not None}
        needs(sizes_of(args.slide, args.reference, split, N_LAYERS + args.draws), args.id, args.preset, **changed).to_json(args.resources)
    sizes = map(len, (split.train, split.validation, split.test, unmeasured))
    logging.info("%s: train %d, validation %d, test %d, unmeasured %d", args.id, *sizes)


def main():
    p = parser(__doc__, STEP)
    p.add_argument("--slide", required=True, help="the slide of spadit_pair.py; only its gene table is read")
    p.add_argument("--reference", required=True, help="the reference of spadit_pair.py; only its gene table is read")
    p.add_argument("--ratio", default="7:2:1", help="train:validation:test (default: 7:2:1)")
    p.add_argument("--folds", type=int, default=5, help="folds for cross-fitting (default: 5)")
    p.add_argument("--seed", type=int, default=0, help="seed of the split (default: 0)")
    p.add_argument("--genes", default="", help="text file with the unmeasured genes to impute, one a line (default: all)")
    p.add_argument("--wanted", default="", help="names of these genes with commas between them; --genes goes before")
    p.add_argument("--output", required=True, help="JSON file to write")
    p.add_argument("--resources", help="JSON file to write: what training and imputing are expected to need, with the options that follow")
    p.add_argument("--preset", default="default", help="of the training")
    p.add_argument("--max-steps", type=int, help="of the training")
    p.add_argument("--n-models", type=int, help="of the training")
    p.add_argument("--draws", type=int, default=0, help="of the imputation")
    return run(STEP, p.parse_args(), work)


if __name__ == "__main__":
    sys.exit(main())
