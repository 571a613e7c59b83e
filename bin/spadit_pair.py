#!/usr/bin/env python3
"""Find the genes that a slide shares with its reference."""

import logging
import sys

from spadit.cli import parser, run

STEP = "pair"


def work(args):
    from spadit import io
    from spadit.pairing import pair

    slide, reference = io.load(args.slide, "slide"), io.load(args.reference, "reference")
    slide, reference, facts = pair(slide, reference, args.id, args.reference_id, args.species, args.min_shared_genes, args.n_top_genes)
    io.write_h5ad(slide, args.output_slide)
    io.write_h5ad(reference, args.output_reference)
    facts.to_json(args.facts)
    logging.info("%s: %d genes shared by %s, %d unmeasured", args.id, facts.n_shared, facts.matched_by, facts.n_unmeasured)


def main():
    p = parser(__doc__, STEP)
    p.add_argument("--slide", required=True, help="the slide after quality control")
    p.add_argument("--reference", required=True, help="the reference after quality control")
    p.add_argument("--reference-id", default="reference", help="name of the reference, used in messages")
    p.add_argument("--species", default="", help="species as the samplesheet gives it, used to explain a mismatch")
    p.add_argument("--min-shared-genes", type=int, default=10, help="fewer shared genes are an error (default: 10)")
    p.add_argument("--n-top-genes", type=int, default=2000, help="highly variable reference genes to mark (default: 2000)")
    p.add_argument("--output-slide", required=True, help="h5ad file to write")
    p.add_argument("--output-reference", required=True, help="h5ad file to write")
    p.add_argument("--facts", required=True, help="JSON file to write")
    return run(STEP, p.parse_args(), work)


if __name__ == "__main__":
    sys.exit(main())
