#!/usr/bin/env python3
"""SUMMARIZE: the facts of all slides as sections of the MultiQC report, and slides.json / slides.csv."""

import sys

from spadit.cli import parser, run


def work(args) -> None:
    import json
    from pathlib import Path

    from spadit.contracts import Inputs
    from spadit.errors import InputError
    from spadit.report import cohort

    try:
        params = json.loads(Path(args.params).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{args.params} can't be read as JSON: {error}.") from error
    rows = cohort.summarize(Inputs.from_json(args.inputs), args.facts, params, cohort.read_versions(args.versions), args.outdir)
    print(cohort.counts_sentence(rows), file=sys.stderr)


def main() -> int:
    p = parser(__doc__, "summarize")
    p.add_argument("--inputs", required=True, help="inputs.json: the slides of the sheet")
    p.add_argument("--facts", required=True, help="folder with all facts (*.json), tables (*.csv) and thumbnails (*.png)")
    p.add_argument("--params", required=True, help="parameters of the run (JSON)")
    p.add_argument("--versions", required=True, help="software versions by process (YAML)")
    p.add_argument("--outdir", default="mqc", help="folder for the sections (default: mqc)")
    return run("summarize", p.parse_args(), work)


if __name__ == "__main__":
    sys.exit(main())
