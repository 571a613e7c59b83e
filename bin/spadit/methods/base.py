"""The protocol that every imputation method follows, and the inputs they share.

A method is a function ``impute(slide, reference, genes, *, seed, device, target)``:

- ``slide``: AnnData of the visible genes only, raw counts in ``layers['counts']``, ``obsm['spatial']``. Hidden genes are not
  in it, so that no method can look at them by mistake.
- ``reference``: AnnData, raw counts in ``layers['counts']``, with the visible genes and the genes to impute (and more).
- ``genes``: the genes to impute; none of them is in ``slide``.
- returns spots × genes float32, or a pair of it and its standard deviation where the method has one. On the **z-scale** 0 is the gene's
  mean, 1 its standard deviation in the reference (floors; :func:`to_log_scale` brings it to the log-normalised scale); a method that
  makes log-normalised values says ``scale="log"``. Measures of accuracy don't depend on a gene's factor, SSIM and JS do on its offset.

A method whose package isn't part of the pipeline's core names it in ``requires`` and imports it inside its function: the registry can be
read without it.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence

import anndata as ad
import numpy as np

from spadit.errors import MethodError
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
    licence: str = "MIT"
    """Of the package that does the work, else of this project."""
    requires: tuple[str, ...] = ()
    """Distributions beyond the pipeline's core, e.g. ('tangram-sc',). They are in the image and the extra 'peers'."""
    defaults: Mapping[str, object] = dataclasses.field(default_factory=dict)
    """The settings that it runs with, for the documents: what the original has, where it isn't said otherwise."""
    differs: str = ""
    """How this implementation differs from the published one, in a sentence or two; '' where it is the authors' package as it is."""
    scale: str = "z"
    """Of what the function returns: 'z' or 'log'."""
    minutes: float = 10
    """About how long one fit may take on 2 CPU cores at 1,500 spots × 2,000 cells; the pipeline asks for several times that."""

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind '{self.kind}' of method '{self.name}'")
        if self.scale not in ("z", "log"):
            raise ValueError(f"unknown scale '{self.scale}' of method '{self.name}'")

    @property
    def ranked(self) -> bool:
        """Whether it competes. Controls and ceilings don't."""
        return self.kind in ("floor", "method")

    @property
    def version(self) -> str:
        """Version of the package that does the work, else of this project; '' when the package isn't installed."""
        from spadit import __version__

        return installed_version(self.requires[0]) if self.requires else __version__

    def missing(self) -> list[str]:
        """What it requires and isn't installed."""
        return [name for name in self.requires if not installed_version(name)]

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
        """Impute hidden genes: spots × genes, float32, on the method's own ``scale``. Raises as :meth:`run`."""
        return self.run(slide, reference, genes, seed=seed, device=device, target=target, truth=truth)[0]

    def run(
        self,
        slide: ad.AnnData,
        reference: ad.AnnData,
        genes: Sequence[str],
        *,
        seed: int = 0,
        device: str = "cpu",
        target: float | None = None,
        truth: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Impute hidden genes, with their spread.

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
        values, sd
            spots × genes each, float32, on the method's own ``scale``; sd is None where the method has none.

        Raises
        ------
        ValueError
            When a gene to impute is visible.
        MethodError
            When a package that the method needs isn't installed, or it returns another shape or values that are not finite.
        """
        genes = list(genes)
        leaked = slide.var_names.intersection(genes)
        if len(leaked):
            raise ValueError(f"genes to impute are visible: {', '.join(leaked[:5])}")
        if self.missing():
            raise MethodError(
                f"The method '{self.name}' needs {' and '.join(self.missing())}, which isn't installed.",
                "Install the extra 'peers' (pip install 'spadit[peers]'), or run with containers: the image spadit/peers holds it.",
            )
        extra = {"truth": truth} if self.kind == "ceiling" else {}
        result = self.function(slide, reference, genes, seed=seed, device=device, target=target, **extra)
        values, sd = result if isinstance(result, tuple) else (result, None)
        return self._checked(values, "values", slide.n_obs, genes), None if sd is None else self._checked(sd, "spread", slide.n_obs, genes)

    def _checked(self, values: np.ndarray, what: str, n_spots: int, genes: list[str]) -> np.ndarray:
        values = np.asarray(values, dtype=np.float32)
        if values.shape != (n_spots, len(genes)):
            raise MethodError(f"The method '{self.name}' returned {what} of shape {values.shape} instead of {(n_spots, len(genes))}.")
        bad = ~np.isfinite(values).all(axis=0)
        if bad.any():
            gene = genes[int(np.flatnonzero(bad)[0])]
            raise MethodError(
                f"The method '{self.name}' returned missing or infinite {what} for {int(bad.sum())} genes, the first is '{gene}'."
            )
        return values

    def impute_log(self, slide: ad.AnnData, reference: ad.AnnData, genes: Sequence[str], **options) -> tuple[np.ndarray, np.ndarray | None]:
        """As :meth:`run`, on the log-normalised scale, whatever the method's own scale is."""
        values, sd = self.run(slide, reference, genes, **options)
        if self.scale == "log":
            return values, sd
        target = options.get("target")
        if sd is not None:  # a spread has no offset
            zero = to_log_scale(np.zeros_like(sd), slide, reference, genes, target)
            sd = to_log_scale(sd, slide, reference, genes, target) - zero
        return to_log_scale(values, slide, reference, genes, target), sd


def installed_version(distribution: str) -> str:
    """Of a distribution; '' when it isn't installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


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
    z = zscore(reference_values(visible, reference, genes, target))
    return z[:, :n], z[:, n:]


def reference_log(
    slide: ad.AnnData, reference: ad.AnnData, genes: Sequence[str], target: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`reference_z`, log-normalised only: cells × genes each, dense float32. For methods that average cells' values."""
    visible = list(slide.var_names)
    values = reference_values(visible, reference, genes, target).toarray()
    return values[:, : len(visible)], values[:, len(visible) :]


def to_log_scale(z: np.ndarray, slide: ad.AnnData, reference: ad.AnnData, genes: Sequence[str], target: float | None = None) -> np.ndarray:
    """From the z-scale to the log-normalised scale: mean and standard deviation of the gene in the reference.

    They are all that is known of a hidden gene's scale. A gene that the reference never detects gets mean 0 and SD 1.
    """
    visible = list(slide.var_names)
    values = reference_values(visible, reference, genes, target)[:, len(visible) :].toarray().astype(np.float64)
    sd = values.std(axis=0)
    return (z * np.where(sd > 0, sd, 1.0) + values.mean(axis=0)).astype(np.float32)


def reference_values(visible: list[str], reference: ad.AnnData, genes: Sequence[str], target: float | None):
    """The reference's visible genes, then ``genes``, log-normalised over the visible ones: cells × genes, CSR. Raises ValueError when one
    of them isn't in the reference."""
    columns = reference.var_names.get_indexer(visible + list(genes))
    if (columns < 0).any():
        raise ValueError("the reference lacks visible genes or genes to impute")
    mask = np.arange(len(columns)) < len(visible)
    return log_normalise(reference.layers["counts"][:, columns], mask, target)[0]
