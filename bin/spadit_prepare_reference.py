#!/usr/bin/env python3
"""Read a reference and keep what passes quality control, or take it from the cache of an earlier run."""

import logging
import sys

from spadit.cli import guarded, parser, run

STEP = "prepare_reference"


def work(args):
    from spadit.reference_cache import prepare_reference

    thresholds = {name: getattr(args, name) for name in ("min_counts", "min_genes", "min_observations", "max_mito")}
    cached = prepare_reference(args.input, args.output, args.facts, args.id, args.cache, args.platform, args.batch, **thresholds)
    logging.info("%s: %s", args.id, "from the cache" if cached else "read and checked")


def main():
    p = parser(__doc__, STEP)
    p.add_argument("--input", required=True, help="the file to read")
    p.add_argument("--cache", help="folder that keeps references for later runs")
    p.add_argument("--platform", default="auto", help="what wrote the file (default: auto, told from its content)")
    p.add_argument("--batch", default="", help="obs column that names the batches of a reference")
    p.add_argument("--min-counts", type=float, default=1, help="least counts of a cell (default: 1)")
    p.add_argument("--min-genes", type=int, default=1, help="least detected genes of a cell (default: 1)")
    p.add_argument("--min-observations", type=int, default=1, help="least cells that a gene is detected in (default: 1)")
    p.add_argument("--max-mito", type=float, default=100, help="largest mitochondrial share of a cell, in percent (default: 100)")
    p.add_argument("--output", required=True, help="h5ad file to write")
    p.add_argument("--facts", required=True, help="JSON file to write")
    return run(STEP, p.parse_args(), work)


if __name__ == "__main__":
    sys.exit(guarded(STEP, main))
