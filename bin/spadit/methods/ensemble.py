"""Best for this slide: the method that imputes some of the visible genes best, hidden for that purpose, imputes the hidden ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from spadit.methods.base import Method, visible_part
from spadit.metrics import pcc
from spadit.preprocess import log_normalise

log = logging.getLogger(__name__)

CANDIDATES = ("corr_weighted", "ridge", "knn50", "SpaGE", "SpaDiT")
"""Tried in this order; the first of equals is taken, and the first of all where the genes are too few to choose by."""
SHARE = 0.2
"""Of the visible genes: hidden to choose by."""
MIN_GENES = 10
"""With fewer visible genes nothing is chosen."""


def divide(genes: Sequence[str], seed: int) -> tuple[list[str], list[str]]:
    """Visible genes into those that candidates see and those that they are chosen by, whatever order they come in."""
    order = sorted(genes)
    chosen = {order[i] for i in np.random.default_rng(seed).permutation(len(order))[: max(1, round(SHARE * len(order)))]}
    return [g for g in genes if g not in chosen], [g for g in genes if g in chosen]


def choose(
    slide, reference, *, seed: int = 0, device: str = "cpu", target: float | None = None, candidates: Sequence[str] = CANDIDATES
) -> tuple[str, dict[str, float]]:
    """The best candidate on a part of the visible genes, with every candidate's median PCC there.

    Candidates whose package isn't installed are left out; so is one that fails, with a warning.

    Parameters
    ----------
    slide
        The visible genes only. A hidden gene plays no part since it isn't there.
    candidates
        Names of methods.

    Raises
    ------
    ValueError
        When no candidate is left.
    """
    from spadit.methods import METHODS  # not above: this module is read to make it

    usable = [name for name in candidates if not METHODS[name].missing()]
    if not usable:
        raise ValueError("no candidate of the ensemble is installed")
    if slide.n_vars < MIN_GENES or len(usable) == 1:
        return usable[0], {}
    seen, asked = divide(list(slide.var_names), seed)
    truth = log_normalise(slide.layers["counts"], target=target)[0][:, slide.var_names.get_indexer(asked)].toarray()
    part, scores = visible_part(slide, seen), {}
    for name in usable:
        try:
            values, _ = METHODS[name].impute_log(part, reference, asked, seed=seed, device=device, target=target)
        except Exception as error:  # whatever a method raises: the others go on
            log.warning("The ensemble goes on without %s: %s", name, error)
            continue
        scores[name] = float(np.median(pcc(truth, values)))
    if not scores:
        raise ValueError("every candidate of the ensemble failed")
    return max(scores, key=scores.get), scores


def impute(slide, reference, genes, *, seed=0, device="cpu", target=None, candidates=CANDIDATES):
    """spots × genes, log-normalised scale, with the spread of the chosen method if it has one."""
    from spadit.methods import METHODS

    name, scores = choose(slide, reference, seed=seed, device=device, target=target, candidates=candidates)
    log.info("best for this slide: %s (%s)", name, ", ".join(f"{n} {s:.3f}" for n, s in scores.items()))
    values, sd = METHODS[name].impute_log(slide, reference, genes, seed=seed, device=device, target=target)
    return values if sd is None else (values, sd)


METHOD = Method(
    "ensemble",
    "method",
    f"best for this slide: of {', '.join(CANDIDATES[:-1])} and {CANDIDATES[-1]} the one that imputes a fifth of the visible genes best",
    "This project.",
    impute,
    defaults={"candidates": CANDIDATES, "share of visible genes to choose by": SHARE},
    differs="Chosen anew for every fit, by the median PCC over visible genes that are hidden for it; hidden genes play no part.",
    scale="log",
    minutes=10,
)
