#!/usr/bin/env python3
"""Train the SpaDiT models of one slide."""

import sys
import time

from spadit.cli import parser, run


def work(args):
    import pandas as pd
    import torch

    from spadit import io
    from spadit.contracts import Split, Training
    from spadit.files import finished
    from spadit.imputation import reuse, train, training_key

    torch.set_num_threads(1)  # --threads many models are trained side by side instead, or --gpus
    split = Split.from_json(args.split)
    start = time.monotonic()

    def report(fit, done, total):
        left = (time.monotonic() - start) / done * (total - done)
        blend = " + ".join(f"{weight:.2f} {name.replace('_', '-')}" for name, weight in fit["blend"].items())
        print(
            f"{args.id}: {done} of {total} models trained; {fit['name']}: {fit['n_visible']} genes, median PCC {fit['validation_pcc']:.3f} "
            f"({blend}); about {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )

    workers = max(args.threads, args.gpus)
    if args.resources and not args.trained:
        from spadit.resources import room_for_training

        workers = room_for_training(args.resources, workers)
    settings = {name: getattr(args, name) for name in ("max_steps", "n_models") if getattr(args, name) is not None}
    with finished(args.output) as directory, finished(args.curves) as curves, finished(args.facts) as facts:
        if args.trained:
            reuse(f"{args.trained}/model", split, directory)
            training = Training.from_json(f"{args.trained}/{args.id}.training.json")
            table = pd.read_csv(f"{args.trained}/{args.id}.curves.csv")
        else:
            given = {"preset": args.preset, "seed": args.seed, "device": args.device, **settings}
            key = training_key([args.slide, args.reference, args.split, *([args.start] if args.start else [])], given)
            checkpoint = writable(args.checkpoint and f"{args.checkpoint}/{key}")
            training, table = train(
                io.load(args.slide, "slide"),
                io.load(args.reference, "reference"),
                split,
                directory,
                args.preset,
                args.seed,
                args.device,
                workers,
                report,
                args.start,
                checkpoint,
                args.gpus,
                **settings,
            )
            training.checkpoint = key
        table.to_csv(curves, index=False)
        training.to_json(facts)


def writable(folder):
    """The folder for checkpoints, made; None with a word on it where it can't be, as in a container that doesn't see it."""
    import logging
    from pathlib import Path

    if not folder:
        return None
    try:
        path = Path(folder).resolve()
        path.mkdir(parents=True, exist_ok=True)
        return path
    except OSError as error:
        logging.getLogger(__name__).warning("No checkpoints are written: %s.", error)
        return None


def main() -> int:
    p = parser(__doc__, "train")
    p.add_argument("--slide", required=True, help="paired slide (h5ad)")
    p.add_argument("--reference", required=True, help="paired reference (h5ad)")
    p.add_argument("--split", required=True, help="gene split (JSON)")
    p.add_argument("--resources", help="what the slide is expected to need (JSON): refused where it is far more than is there")
    p.add_argument("--preset", default="default", help="default, fast, accurate or paper")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", default="auto", help="auto, cpu or cuda")
    p.add_argument("--gpus", type=int, default=1, help="with cuda: train models side by side on so many GPUs")
    p.add_argument("--max-steps", type=int, help="train each network for at most this many steps")
    p.add_argument("--n-models", type=int, help="networks of each mode to average")
    p.add_argument(
        "--trained", help="folder with model, <id>.training.json and <id>.curves.csv of an earlier run, taken instead of training"
    )
    p.add_argument("--start", help="folder of a saved model whose token network training starts from")
    p.add_argument("--checkpoint", help="folder that outlives the task: a training that was killed goes on from there")
    p.add_argument("--output", required=True, help="directory for the models")
    p.add_argument("--curves", required=True, help="CSV of training curves")
    p.add_argument("--facts", required=True, help="JSON of training facts")
    return run("train", p.parse_args(), work)


if __name__ == "__main__":
    sys.exit(main())
