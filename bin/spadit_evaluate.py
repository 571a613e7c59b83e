#!/usr/bin/env python3
"""EVALUATE: score the hidden genes of one slide, with floors, controls and the ceiling beside SpaDiT."""

import logging
import sys

from spadit.cli import parser, run

STEP = "evaluate"


def work(args):
    from spadit import io
    from spadit.contracts import Split, write_text
    from spadit.evaluation import evaluate, read_imputed

    slide, reference = io.load(args.slide, "slide"), io.load(args.reference, "reference")
    table, facts = evaluate(read_imputed(args.imputed), slide, reference, Split.from_json(args.split), args.seed)
    write_text(args.metrics, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    facts.to_json(args.facts)
    logging.info("%s: %s. %s", args.id, facts.verdict, " ".join(facts.reasons))


def main():
    p = parser(__doc__, STEP)
    p.add_argument("--imputed", required=True, help="the slide's imputed.h5ad")
    p.add_argument("--slide", required=True, help="the slide of spadit_pair.py")
    p.add_argument("--reference", required=True, help="the reference of spadit_pair.py")
    p.add_argument("--split", required=True, help="the JSON file of spadit_split.py")
    p.add_argument("--seed", type=int, default=0, help="seed of subsample, ceiling and bootstrap (default: 0)")
    p.add_argument("--metrics", required=True, help="CSV file to write: one row per gene and method")
    p.add_argument("--facts", required=True, help="JSON file to write: summary, comparison, verdict")
    return run(STEP, p.parse_args(), work)


if __name__ == "__main__":
    sys.exit(main())
