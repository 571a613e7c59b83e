#!/usr/bin/env python3
"""Read a slide or a reference of any supported platform into the pipeline's own h5ad form."""

import logging
import sys

from spadit.cli import guarded, parser, run

STEP = "read"


def work(args):
    from spadit import io

    adata = io.read(args.input, args.role, args.platform, args.batch, args.bin_size)
    adata.uns["spadit"]["id"] = args.id
    io.write_h5ad(adata, args.output)
    logging.info("%s: %d x %d, counts from %s", args.id, adata.n_obs, adata.n_vars, adata.uns["spadit"]["counts_from"])


def main():
    p = parser(__doc__, STEP)
    p.add_argument("--input", required=True, help="the file or folder to read")
    p.add_argument("--platform", default="auto", help="what wrote the file (default: auto, told from its content)")
    p.add_argument("--bin-size", default="", help="side of the squares of Visium HD (micrometres) or Stereo-seq (positions of the chip)")
    p.add_argument("--batch", default="", help="obs column that names the batches of a reference")
    p.add_argument("--output", required=True, help="h5ad file to write")
    return run(STEP, p.parse_args(), work)


if __name__ == "__main__":
    sys.exit(guarded(STEP, main))
