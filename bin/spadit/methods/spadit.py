"""SpaDiT itself under the protocol of all methods, and the variants of it that the paper's Tables 3 and 4 compare."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from spadit.methods.base import Method


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


def impute(
    slide, reference, genes, *, seed=0, device="cpu", target=None, preset="default", common_genes=False, **settings
) -> tuple[np.ndarray, np.ndarray]:
    """spots × genes, log-normalised scale, and the expected error of each gene at every spot. A model scales spots to the median total over
    the visible genes; what it imputes is brought to ``target``.

    Parameters
    ----------
    preset, settings
        As of :class:`spadit.api.SpaDiT`.
    common_genes
        Make the condition ψ from the genes that the slide shows instead of the reference's highly variable ones (Table 4, "w/ Common
        Gene in ψ").
    """
    from spadit.api import SpaDiT  # torch is not needed to know of the method

    if common_genes:
        reference = reference.copy()
        reference.var["highly_variable"] = reference.var_names.isin(slide.var_names)
    model = SpaDiT(preset, seed, device, **settings).fit(slide, reference)
    imputed = model.impute(list(genes))
    return to_target(np.asarray(imputed.X), imputed.layers["sd"], model.target_sum, target)


METHOD = Method(
    "SpaDiT",
    "method",
    "this project's model: maps of a gene made from the visible genes and the reference, and diffusion transformers on what these miss",
    "Li X, Zhu F, Min W. SpaDiT: diffusion transformer for spatial gene expression prediction using scRNA-seq. "
    "Brief. Bioinform. 25, bbae571 (2024). doi:10.1093/bib/bbae571.",
    impute,
    defaults={"preset": "default"},
    differs="The model of this project: see docs/methods.md, 'What differs from the paper, and why'.",
    scale="log",
    minutes=10,
)


@dataclasses.dataclass(frozen=True)
class Variant:
    """A change to the network, for an ablation."""

    group: str
    """'backbone' (Table 3), 'parts' (Table 4), or '' for the network as it is, which belongs to both."""
    description: str
    settings: dict


VARIANTS: dict[str, Variant] = {
    "SpaDiT": Variant("", "the network as it is: DiT backbone, attention in ψ, concatenation in φ", {}),
    "backbone_unet": Variant("backbone", "U-Net as the backbone", {"backbone": "unet"}),
    "backbone_mamba": Variant("backbone", "Mamba (selective state space) as the backbone", {"backbone": "mamba"}),
    "backbone_transformer": Variant("backbone", "a plain transformer, its condition added to the tokens", {"backbone": "transformer"}),
    "condition_mlp": Variant("parts", "ψ without attention: an MLP", {"condition": "mlp"}),
    "condition_none": Variant("parts", "without ψ: zeros", {"condition": "none"}),
    "condition_common_genes": Variant("parts", "common (visible) genes only in ψ", {"common_genes": True}),
    "without_concatenation": Variant("parts", "without concatenation in φ", {"concatenate": False}),
}
"""Name -> variant. All of them are the whole-slide network alone: with the coarse condition beside it, the gate would hide what a network
is worth."""


def model_method(variant: str | None = None, **settings) -> Method:
    """SpaDiT with settings (``preset``, ``max_steps``, ``n_models``; None: left alone), or a variant of its network."""
    settings = {name: value for name, value in settings.items() if value is not None}
    if variant is None:
        name, description = METHOD.name, METHOD.description
    else:
        name, description = variant, VARIANTS[variant].description
        settings |= {"coarse": False, "modes": ("whole_slide",), **VARIANTS[variant].settings}
    return dataclasses.replace(
        METHOD, name=name, description=description, function=functools.partial(impute, **settings), defaults=METHOD.defaults | settings
    )
