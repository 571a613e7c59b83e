#!/usr/bin/env python3
"""SPATIALDATA: the imputed slide as a SpatialData store."""

import sys

from spadit.cli import parser, run


def work(args) -> None:
    from spadit.files import finished
    from spadit.io.write_spatialdata import write_spatialdata

    with finished(args.output) as path:
        write_spatialdata(args.imputed, path)


def main() -> int:
    p = parser(__doc__, "spatialdata")
    p.add_argument("--imputed", required=True, help="the slide's imputed.h5ad")
    p.add_argument("--output", required=True, help="store to write (folder)")
    return run("spatialdata", p.parse_args(), work)


if __name__ == "__main__":
    sys.exit(main())
