#!/usr/bin/env python3
"""Impute the genes of one slide with its trained models."""

import sys

from spadit.cli import parser, run


def work(args):
    import torch

    from spadit import io
    from spadit.contracts import Split, Training
    from spadit.files import finished
    from spadit.imputation import impute

    torch.set_num_threads(args.threads)
    result = impute(io.load(args.slide, "slide"), io.load(args.reference, "reference"), Split.from_json(args.split), args.model,
                    Training.from_json(args.training), args.device)
    with finished(args.output) as path:
        result.write_h5ad(path, compression="gzip")


def main() -> int:
    p = parser(__doc__, "impute")
    p.add_argument("--slide", required=True, help="paired slide (h5ad)")
    p.add_argument("--reference", required=True, help="paired reference (h5ad)")
    p.add_argument("--split", required=True, help="gene split (JSON)")
    p.add_argument("--model", required=True, help="directory of the trained models")
    p.add_argument("--training", required=True, help="training facts (JSON)")
    p.add_argument("--device", default="auto", help="auto, cpu or cuda")
    p.add_argument("--output", required=True, help="imputed slide (h5ad)")
    return run("impute", p.parse_args(), work)


if __name__ == "__main__":
    sys.exit(main())
