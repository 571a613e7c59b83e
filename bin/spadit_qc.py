#!/usr/bin/env python3
"""Measure the quality of a slide or a reference and remove what falls below the thresholds."""

import logging
import sys

from spadit.cli import parser, run

STEP = "qc"


def work(args):
    from spadit import io
    from spadit.qc import quality_control

    adata = io.load(args.input, args.role)
    adata, facts = quality_control(adata, args.role, args.id, args.min_counts, args.min_genes, args.min_observations, args.max_mito)
    io.write_h5ad(adata, args.output)
    facts.to_json(args.facts)
    for f in facts.filters:
        logging.info("%s: %s: %d %s removed (%s)", args.id, f["name"], f["removed"], f["axis"], f["reason"])


def main():
    p = parser(__doc__, STEP)
    p.add_argument("--input", required=True, help="h5ad file of spadit_read.py")
    p.add_argument("--min-counts", type=float, default=1, help="least counts of a spot or cell (default: 1)")
    p.add_argument("--min-genes", type=int, default=1, help="least detected genes of a spot or cell (default: 1)")
    p.add_argument("--min-observations", type=int, default=1, help="least spots or cells that a gene is detected in (default: 1)")
    p.add_argument("--max-mito", type=float, default=100, help="largest mitochondrial share of a spot or cell, in percent (default: 100)")
    p.add_argument("--output", required=True, help="h5ad file to write")
    p.add_argument("--facts", required=True, help="JSON file to write")
    return run(STEP, p.parse_args(), work)


if __name__ == "__main__":
    sys.exit(main())
