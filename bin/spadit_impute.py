#!/usr/bin/env python3
"""Impute the genes of one slide with its trained models."""

import contextlib
import shutil
import sys
import time
from pathlib import Path

from spadit.cli import parser, run


def work(args):
    import torch

    from spadit import io
    from spadit.contracts import Split, Training
    from spadit.files import finished
    from spadit.imputation import impute

    torch.set_num_threads(args.threads)
    start = shown = time.monotonic()

    def report(done, total):
        nonlocal shown
        if time.monotonic() - shown > 20 or done == total:
            shown = time.monotonic()
            left = (shown - start) / done * (total - done)
            print(f"{args.id}: {done:,} of {total:,} genes imputed; about {left:.0f} s left", file=sys.stderr, flush=True)

    training = Training.from_json(args.training)
    with finished(args.output) as path:
        impute(
            io.load(args.slide, "slide"),
            io.load(args.reference, "reference"),
            Split.from_json(args.split),
            args.model,
            path,
            training,
            args.device,
            args.draws,
            args.counts,
            report,
            args.layers,
            args.dtype,
        )
    if args.checkpoint and training.checkpoint:  # the models are safe now: they were handed on, and imputed with
        shutil.rmtree(Path(args.checkpoint) / training.checkpoint, ignore_errors=True)
        with contextlib.suppress(OSError):
            Path(args.checkpoint).rmdir()  # unless another run's training of this slide is in it


def main() -> int:
    p = parser(__doc__, "impute")
    p.add_argument("--slide", required=True, help="paired slide (h5ad)")
    p.add_argument("--reference", required=True, help="paired reference (h5ad)")
    p.add_argument("--split", required=True, help="gene split (JSON)")
    p.add_argument("--model", required=True, help="directory of the trained models")
    p.add_argument("--training", required=True, help="training facts (JSON)")
    p.add_argument("--checkpoint", help="folder of the training's checkpoints: they are removed when all is imputed")
    p.add_argument("--device", default="auto", help="auto, cpu or cuda")
    p.add_argument("--draws", type=int, default=0, help="samples of the diffusion to keep beside the imputed values")
    p.add_argument("--counts", action="store_true", help="add expected counts")
    p.add_argument(
        "--layers", help="layers to write, with commas between them: sd, lower, upper, counts; or none (default: sd,lower,upper)"
    )
    p.add_argument("--dtype", default="float32", help="float32 or float16, of the values written (default: float32)")
    p.add_argument("--output", required=True, help="imputed slide (h5ad)")
    return run("impute", p.parse_args(), work)


if __name__ == "__main__":
    sys.exit(main())
