#!/usr/bin/env python3
"""Say on what the networks will run, and whether the GPU that was asked for is there."""

import logging
import sys

from spadit.cli import parser, run

STEP = "check_device"


def work(args):
    from spadit.device import check_device

    found = check_device(args.device)
    logging.info(found.sentence())
    found.to_json(args.output)


def main() -> int:
    p = parser(__doc__, STEP)
    p.add_argument("--device", default="auto", help="auto, cpu or cuda")
    p.add_argument("--output", required=True, help="JSON file to write; a GPU that isn't there is its 'problem'")
    return run(STEP, p.parse_args(), work)


if __name__ == "__main__":
    sys.exit(main())
