"""The protocol that every imputation method follows, and the inputs they share.

A method is a function ``impute(slide, reference, genes, *, seed, device, target)``:

- ``slide``: AnnData of the visible genes only, raw counts in ``layers['counts']``, ``obsm['spatial']``. Hidden genes are not
  in it, so that no method can look at them by mistake.
- ``reference``: AnnData, raw counts in ``layers['counts']``, with the visible genes and the genes to impute (and more).
- ``genes``: the genes to impute; none of them is in ``slide``.
- returns spots × genes float32 on the **z-scale**: 0 is the gene's mean, 1 its standard deviation in the reference.
  :func:`to_log_scale` brings it to the log-normalised scale.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import anndata as ad
import numpy as np

from spadit.preprocess import log_normalise, zscore

KINDS = ("floor", "control", "ceiling", "method")


@dataclasses.dataclass(frozen=True)
class Method:
    """A method with what a table must say of it."""

    name: str
    kind: str
    """'floor' (simple and legitimate), 'control' (can't know the gene), 'ceiling' (sees the truth) or 'method'."""
    description: str
    citation: str
    function: Callable[..., np.ndarray]

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind '{self.kind}' of method '{self.name}'")

    @property
    def ranked(self) -> bool:
        """Whether it competes. Controls and ceilings don't."""
        return self.kind in ("floor", "method")

    def impute(
        self,
        slide: ad.AnnData,
        reference: ad.AnnData,
        genes: Sequence[str],
        *,
        seed: int = 0,
        device: str = "cpu",
        target: float | None = None,
        truth: np.ndarray | None = None,
    ) -> np.ndarray:
        """Impute hidden genes.

        Parameters
        ----------
        slide, reference, genes
            As the module's text says.
        seed
            Of everything random.
        device
            'cpu' or 'cuda'; floors use the CPU.
        target
            Total that spots and cells are scaled to before the logarithm; None: the median (:func:`spadit.preprocess.log_normalise`).
        truth
            spots × genes: the hidden genes' measured values. Passed on to a ceiling and to nothing else.

        Returns
        -------
        numpy.ndarray
            spots × genes, float32, z-scale.

        Raises
        ------
        ValueError
            When a gene to impute is visible, or the method returns another shape or values that are not finite.
        """
        genes = list(genes)
        leaked = slide.var_names.intersection(genes)
        if len(leaked):
            raise ValueError(f"genes to impute are visible: {', '.join(leaked[:5])}")
        extra = {"truth": truth} if self.kind == "ceiling" else {}
        result = np.asarray(self.function(slide, reference, genes, seed=seed, device=device, target=target, **extra), dtype=np.float32)
        if result.shape != (slide.n_obs, len(genes)) or not np.isfinite(result).all():
            raise ValueError(f"method '{self.name}' returned {result.shape} or values that are not finite")
        return result


def visible_part(data: ad.AnnData, genes: Sequence[str]) -> ad.AnnData:
    """A copy with these genes only: counts and coordinates, and nothing else that could tell of other genes."""
    part = ad.AnnData(
        obs=data.obs[[]],
        var=data.var.loc[list(genes), []],
        layers={"counts": data.layers["counts"][:, data.var_names.get_indexer(genes)].copy()},
    )
    if "spatial" in data.obsm:
        part.obsm["spatial"] = np.array(data.obsm["spatial"])
    return part


def slide_z(slide: ad.AnnData, target: float | None = None) -> np.ndarray:
    """Visible genes of a slide, log-normalised over themselves and z-scored: spots × genes, float32."""
    return zscore(log_normalise(slide.layers["counts"], target=target)[0])


def reference_z(
    slide: ad.AnnData, reference: ad.AnnData, genes: Sequence[str], target: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The reference in the slide's visible genes and in the genes to impute, z-scored: cells × genes each, float32.

    The library size comes from the visible genes, as on the slide: the two are then on the same footing.
    """
    visible = list(slide.var_names)
    n = len(visible)
    z = zscore(_reference_values(visible, reference, genes, target))
    return z[:, :n], z[:, n:]


def to_log_scale(z: np.ndarray, slide: ad.AnnData, reference: ad.AnnData, genes: Sequence[str], target: float | None = None) -> np.ndarray:
    """From the z-scale to the log-normalised scale: mean and standard deviation of the gene in the reference.

    They are all that is known of a hidden gene's scale. A gene that the reference never detects gets mean 0 and SD 1.
    """
    visible = list(slide.var_names)
    values = _reference_values(visible, reference, genes, target)[:, len(visible) :].toarray().astype(np.float64)
    sd = values.std(axis=0)
    return (z * np.where(sd > 0, sd, 1.0) + values.mean(axis=0)).astype(np.float32)


def _reference_values(visible: list[str], reference: ad.AnnData, genes: Sequence[str], target: float | None):
    columns = reference.var_names.get_indexer(visible + list(genes))
    if (columns < 0).any():
        raise ValueError("the reference lacks visible genes or genes to impute")
    mask = np.arange(len(columns)) < len(visible)
    return log_normalise(reference.layers["counts"][:, columns], mask, target)[0]
