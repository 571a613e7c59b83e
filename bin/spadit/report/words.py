"""What both reports say in the same words: numbers as text, the methods text and its references."""

from __future__ import annotations

import importlib.metadata
import math
import platform
from collections.abc import Iterable

from spadit.contracts import Pairing, Split, Training

REFERENCES = {
    "spadit": "Li X, Zhu F, Min W. SpaDiT: diffusion transformer for spatial gene expression prediction using scRNA-seq. "
    "arXiv:2407.13182 (2024).",
    "dit": "Peebles W, Xie S. Scalable diffusion models with transformers. Proc. ICCV (2023). arXiv:2212.09748.",
    "ddpm": "Ho J, Jain A, Abbeel P. Denoising diffusion probabilistic models. NeurIPS 33 (2020). arXiv:2006.11239.",
    "anndata": "Virshup I, et al. anndata: access and store annotated data matrices. J. Open Source Softw. 9, 4371 (2024). "
    "doi:10.21105/joss.04371.",
    "scanpy": "Wolf FA, Angerer P, Theis FJ. SCANPY: large-scale single-cell gene expression data analysis. Genome Biol. 19, 15 (2018). "
    "doi:10.1186/s13059-017-1382-0.",
    "pytorch": "Paszke A, et al. PyTorch: an imperative style, high-performance deep learning library. NeurIPS 32 (2019). "
    "arXiv:1912.01703.",
    "nextflow": "Di Tommaso P, et al. Nextflow enables reproducible computational workflows. Nat. Biotechnol. 35, 316-319 (2017). "
    "doi:10.1038/nbt.3820.",
    "multiqc": "Ewels P, et al. MultiQC: summarize analysis results for multiple tools and samples in a single report. Bioinformatics 32, "
    "3047-3048 (2016). doi:10.1093/bioinformatics/btw354.",
}
"""Key -> reference as printed. The methods text names the key in square brackets."""


def number(value: float | None, digits: int = 2) -> str:
    """0.314 -> '0.31', -0.1 -> '−0.10' (a real minus sign), nothing or NaN -> 'n/a'."""
    if value is None or not math.isfinite(value):
        return "n/a"
    text = f"{value:.{digits}f}"
    return ("0" + text[2:] if not float(text) and text.startswith("-") else text).replace("-", "−")


def count(value: float | None) -> str:
    """12345 -> '12,345'; whole numbers without decimals."""
    if value is None or not math.isfinite(value):
        return "n/a"
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 100 else f"{value:,.1f}"


def percent(value: float | None, digits: int = 0) -> str:
    """0.883 -> '88 %'."""
    return "n/a" if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f} %"


def plural(n: int, word: str) -> str:
    """1 gene, 2 genes."""
    return f"{count(n)} {word}{'' if n == 1 else 's'}"


def duration(seconds: float | None) -> str:
    """75 -> '1 min 15 s'."""
    if seconds is None or not math.isfinite(seconds):
        return "n/a"
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def library_versions(names: Iterable[str] = ("spadit", "numpy", "scipy", "anndata", "scanpy", "torch", "matplotlib")) -> dict[str, str]:
    """Versions of Python and of those of the named packages that are installed."""
    from spadit import __version__

    versions = {"SpaDiT-flow": __version__, "Python": platform.python_version()}
    for name in names:
        if name == "spadit":
            continue
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def method_description(name: str) -> str:
    """What a method of ``metrics.csv`` does, in a few words; '' for SpaDiT itself and for methods that are not the project's."""
    from spadit.methods import METHODS

    return METHODS[name].description if name in METHODS else ""


def split_sentence(split: Split) -> str:
    """How the shared genes were divided."""
    n = len(split.train) + len(split.validation) + len(split.test)
    return (
        f"The {plural(n, 'shared gene')} were divided at random (seed {split.seed}) into {count(len(split.train))} training, "
        f"{count(len(split.validation))} validation and {count(len(split.test))} test genes."
    )


def methods_paragraphs(
    version: str, trainings: list[Training], splits: list[Split], pairings: list[Pairing], cohort: bool = False
) -> list[str]:
    """The methods text of a paper, from what really ran. Plain text; ``[key]`` refers to :data:`REFERENCES`."""
    presets = sorted({t.preset for t in trainings})
    devices = sorted({t.device for t in trainings})
    seeds = sorted({s.seed for s in splits})
    folds = sorted({len(s.folds) for s in splits})
    matched = sorted({p.matched_by for p in pairings})
    listed = " and ".join
    text = [
        f"Spatial gene expression was imputed with SpaDiT-flow {version}, an implementation of SpaDiT [spadit], a diffusion model "
        "[ddpm] whose "
        "denoising network is a transformer [dit], conditioned on a single-cell RNA reference. Data were handled with anndata "
        "[anndata] and "
        "scanpy [scanpy]; networks were trained with PyTorch [pytorch]."
    ]
    if pairings:
        text.append(
            f"Genes of slide and reference were matched by {listed(matched)}. Values were normalised to the median library size, "
            "computed from the "
            "visible genes only, and log-transformed (log1p)."
        )
    if splits:
        one = (
            split_sentence(splits[0])
            if not cohort and len(splits) == 1
            else "The genes shared by slide and reference were divided at random into training, validation and test genes."
        )
        text.append(
            f"{one} Test genes were hidden from every fit used for scoring; the other shared genes were cross-fitted in "
            f"{listed(map(str, folds))} folds, "
            "so that every measured gene was imputed once by a fit that never saw its spatial values, not even in the library size."
        )
        if any(s.unmeasured for s in splits):
            text.append("Genes that the slide did not measure were imputed by a separate fit on all shared genes.")
    if trainings:
        weights = sorted({t.n_weights for t in trainings})
        range_ = count(weights[0]) if len(weights) == 1 else f"{count(weights[0])} to {count(weights[-1])}"
        text.append(
            f"Preset {listed(presets)}, {range_} weights, trained on {listed(devices)}; random seed "
            f"{listed(map(str, seeds)) or 'not recorded'}."
        )
    text.append(
        "Each hidden gene was scored over spots by Pearson correlation (PCC), Spearman correlation, structural similarity (SSIM), "
        "RMSE of z-scores "
        "and Jensen-Shannon divergence, beside simple floor methods given the same visible genes, controls made of one number per "
        "spot, and a "
        "ceiling that sees the truth and is never ranked. Intervals of medians are 95 % bootstrap intervals over genes."
    )
    if cohort:
        text.append("The workflow ran in Nextflow [nextflow]; this report was made with MultiQC [multiqc].")
    else:
        text.append("The workflow ran in Nextflow [nextflow].")
    return text


def cite(paragraphs: list[str]) -> tuple[list[str], list[str]]:
    """Replace ``[key]`` by running numbers; returns the paragraphs and the references in that order."""
    order: list[str] = []
    for paragraph in paragraphs:
        for key in REFERENCES:
            if f"[{key}]" in paragraph and key not in order:
                order.append(key)
    order.sort(key=lambda key: " ".join(paragraphs).index(f"[{key}]"))
    for k, key in enumerate(order, 1):
        paragraphs = [p.replace(f"[{key}]", f"[{k}]") for p in paragraphs]
    return paragraphs, [REFERENCES[key] for key in order]
