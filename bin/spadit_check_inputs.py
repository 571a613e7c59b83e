#!/usr/bin/env python3
"""Check the samplesheet and the parameters; write the slides and all that is wrong. The user's mistakes end with exit code 0, too."""

import logging
import sys

from spadit.cli import parser, run

STEP = "check_inputs"


def work(args):
    from spadit.inputs import check_inputs

    inputs = check_inputs(args.input, args.params, args.schema_input, args.schema_params, args.predictions)
    inputs.to_json(args.output)
    logging.info("%d slides, %d errors, %d warnings", len(inputs.slides), len(inputs.errors), len(inputs.warnings))


def main():
    p = parser(__doc__, STEP)
    p.add_argument("--input", required=True, help="the samplesheet (CSV, TSV, YAML or JSON)")
    p.add_argument("--params", default="", help="JSON file with all parameters; not checked when absent")
    p.add_argument("--schema-input", required=True, help="assets/schema_input.json")
    p.add_argument("--schema-params", default="", help="nextflow_schema.json")
    p.add_argument("--predictions", default="", help="sheet of predictions that were made elsewhere")
    p.add_argument("--output", required=True, help="JSON file to write")
    return run(STEP, p.parse_args(), work)


if __name__ == "__main__":
    sys.exit(main())
