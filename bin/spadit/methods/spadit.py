"""The project's own method, in its default preset."""

from __future__ import annotations

import numpy as np

from spadit.methods.base import Method

PRESET = "default"


def to_target(values: np.ndarray, sd: np.ndarray, own: float, target: float | None) -> tuple[np.ndarray, np.ndarray]:
    """From log-normalised values at one total to those at another, and their spread to first order.

    Parameters
    ----------
    values, sd
        log(1 + x) at the total ``own``, and its standard deviation.
    target
        The total wanted; None: it stays.
    """
    if target is None or target == own:
        return values, sd
    ratio = target / own
    linear = np.expm1(values)
    return np.log1p(ratio * linear), sd * ratio * (1 + linear) / (1 + ratio * linear)


def impute(slide, reference, genes, *, seed=0, device="cpu", target=None) -> tuple[np.ndarray, np.ndarray]:
    """spots × genes, log-normalised scale, and the error that is expected of them.

    A model scales spots to the median total over the visible genes; what it imputes is brought to ``target``.
    """
    from spadit.api import SpaDiT  # not above: networks are slow to import, and the registry is read by every step

    model = SpaDiT(PRESET, seed=seed, device=device).fit(slide, reference)
    imputed = model.impute(list(genes))
    return to_target(np.asarray(imputed.X), imputed.layers["sd"], model.target_sum, target)


METHOD = Method(
    "SpaDiT",
    "method",
    "this project's model: maps of a gene made from the visible genes and the reference, and diffusion transformers on what these miss",
    "Li X, Zhu F, Min W. SpaDiT: diffusion transformer for spatial gene expression prediction using scRNA-seq. "
    "Brief. Bioinform. 25, bbae571 (2024). doi:10.1093/bib/bbae571.",
    impute,
    defaults={"preset": PRESET},
    differs="This project's model, which starts from the published one: docs/methods.md, 'The model'.",
    scale="log",
    minutes=5,
)
