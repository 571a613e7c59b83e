#!/usr/bin/env python3
"""RUN_METHOD: impute the genes of one fold with one method. A method that fails leaves its reason and exit code 0."""

import logging
import sys

from spadit.cli import parser, run

STEP = "method"


def work(args):
    from spadit import io
    from spadit.benchmark import Folds, cut, shared_genes, try_method
    from spadit.contracts import MethodRun
    from spadit.methods import METHODS
    from spadit.methods.spadit import model_method

    slide, reference = io.load(args.slide, "slide"), io.load(args.reference, "reference")
    slide, reference = cut(slide, reference, args.max_spots, args.max_cells, args.cut_seed)
    folds = Folds.from_json(args.folds, shared_genes(slide))
    settings = {"preset": args.preset, "max_steps": args.max_steps, "n_models": args.n_models}
    if args.what == "ablation":
        method = model_method(args.method, **settings)
    else:
        method = model_method(**settings) if args.method == "SpaDiT" else METHODS[args.method]
    device = args.device
    if device == "auto":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    outcome = MethodRun(args.id, args.what, args.method, args.fold, args.rate, args.seed, "", device=device)
    made = try_method(outcome, method, slide, reference, folds, args.fold, seed=args.seed, device=device, rate=args.rate)
    if made is not None:
        io.write_h5ad(made, args.output)
    outcome.to_json(args.facts)
    logging.info("%s: %s, fold %d: %s %s", args.id, args.method, args.fold, outcome.status, outcome.reason or f"{outcome.seconds:.1f} s")


def main():
    p = parser(__doc__, STEP)
    p.add_argument("--slide", required=True, help="the slide of spadit_pair.py")
    p.add_argument("--reference", required=True, help="the reference of spadit_pair.py")
    p.add_argument("--folds", required=True, help="the JSON file of spadit_folds.py")
    p.add_argument("--method", required=True, help="name of the method, or of the variant in an ablation")
    p.add_argument("--fold", type=int, required=True, help="number of the fold that is hidden, from 0")
    p.add_argument("--what", default="benchmark", choices=["benchmark", "robustness", "ablation"], help="what it is for")
    p.add_argument("--rate", type=float, default=0.0, help="share of the counts to remove (default: 0)")
    p.add_argument("--seed", type=int, default=0, help="seed of the method and of the thinning (default: 0)")
    p.add_argument("--cut-seed", type=int, default=0, help="seed of the choice of spots and cells (default: 0)")
    p.add_argument("--max-spots", type=int, default=0, help="take at most so many spots (default: all)")
    p.add_argument("--max-cells", type=int, default=5000, help="take at most so many cells (default: 5000)")
    p.add_argument("--preset", default="default", help="of SpaDiT (default: default)")
    p.add_argument("--max-steps", type=int, help="of SpaDiT: train each network for at most this many steps")
    p.add_argument("--n-models", type=int, help="of SpaDiT: networks of each mode to average")
    p.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    p.add_argument("--output", required=True, help="h5ad file to write: spots x the fold's genes")
    p.add_argument("--facts", required=True, help="JSON file to write: what became of it")
    return run(STEP, p.parse_args(), work)


if __name__ == "__main__":
    sys.exit(main())
