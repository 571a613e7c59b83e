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
    "conformal": "Lei J, et al. Distribution-free predictive inference for regression. J. Am. Stat. Assoc. 113, 1094-1111 (2018). "
    "doi:10.1080/01621459.2017.1307116.",
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


PARTS = {"coarse": "coarse", "token": "token", "whole_slide": "whole-slide"}
"""Part of a model -> its name in texts."""
MODES = ("token", "whole_slide")
FIT_ROLES = {
    "delivery": "the fit for genes that the slide did not measure",
    "evaluation": "the fit for the test genes",
}


def part(name: str) -> str:
    """'whole_slide' -> 'whole-slide'."""
    return PARTS.get(name, name.replace("_", "-"))


def blend(weights: dict[str, float]) -> str:
    """{'coarse': 0.76, 'whole_slide': 0.24} -> '0.76 coarse + 0.24 whole-slide'; {'coarse': 1.0} -> 'coarse alone'."""
    if len(weights) == 1:
        return f"{part(next(iter(weights)))} alone"
    order = sorted(weights, key=lambda name: list(PARTS).index(name) if name in PARTS else len(PARTS))
    return " + ".join(f"{number(weights[n]) if weights[n] >= 0.005 else '<0.01'} {part(n)}" for n in order)


def steps(fit: dict) -> str:
    """How long a fit's networks were trained: 'token 40, whole-slide 60'; 'none' where it has none."""
    return ", ".join(f"{part(mode)} {count(n)}" for mode, n in sorted(fit.get("best_step", {}).items())) or "none"


def chosen_fit(names: Iterable[str]) -> str | None:
    """The fit that a report speaks of where it can speak of one only: delivery, else evaluation, else the last."""
    names = list(names)
    return next((name for name in ("delivery", "evaluation") if name in names), names[-1] if names else None)


def spoken_of(training: Training) -> dict | None:
    """The facts of :func:`chosen_fit`."""
    name = chosen_fit(fit["name"] for fit in training.fits)
    return next((fit for fit in training.fits if fit["name"] == name), None)


def uses_networks(fit: dict) -> bool:
    """Is anything but the coarse condition in what a fit imputes?"""
    return set(fit["blend"]) != {"coarse"}


def blend_sentence(training: Training) -> str:
    """What the imputed values of a slide are made of, so that nobody credits the networks with what the coarse condition does."""
    fit = spoken_of(training)
    if fit is None:
        return ""
    n, used = len(training.fits), sum(map(uses_networks, training.fits))
    if not used:
        if not any(f["best_step"] for f in training.fits):
            return "No network was trained: the coarse condition alone is used."
        return "The networks added nothing on this slide: the coarse condition alone is used."
    if "coarse" not in fit["blend"]:
        return f"No coarse condition was made: what is imputed comes from the {part(next(iter(fit['blend'])))} networks alone."
    role = FIT_ROLES.get(fit["name"], f"the fit {fit['name'].replace('_', ' ')}")
    if not uses_networks(fit):
        return (
            f"The networks added nothing in {role}: the coarse condition alone is used there. "
            f"They are used in {count(used)} of the {plural(n, 'fit')}, for other genes."
        )
    return f"In {role}, imputed patterns are {blend(fit['blend'])}; networks are used in {count(used)} of {plural(n, 'fit')}."


def left_out_sentence(training: Training) -> str:
    """Which modes were asked for and not trained; '' when none."""
    trained = {mode for fit in training.fits for mode in fit["best_step"]}
    absent = [part(m) for m in training.parameters.get("modes", ()) if m not in trained] if training.fits else []
    if not absent:
        return ""
    limit = training.parameters.get("max_whole_spots")
    too_many = absent == ["whole-slide"] and limit
    why = f": the slide has more than {count(limit)} spots, and such a network grows with them" if too_many else ""
    return f"The {' and '.join(absent)} {'mode was' if len(absent) == 1 else 'modes were'} left out{why}."


def lowered_sentence(training: Training) -> str:
    """Whether a training had to be slowed down; '' when none had."""
    n = sum(fit.get("n_lowered") or 0 for fit in training.fits)
    if not n:
        return ""
    return (
        f"Training was unstable: {plural(n, 'time')} a loss ran away, and training went on from its last good state with a lower learning "
        "rate. Look at the training curves before you use these values."
    )


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
    from spadit.evaluation import MODEL
    from spadit.methods import METHODS

    return METHODS[name].description if name in METHODS and name != MODEL else ""


def split_sentence(split: Split) -> str:
    """How the shared genes were divided."""
    n = len(split.train) + len(split.validation) + len(split.test)
    return (
        f"The {plural(n, 'shared gene')} were divided at random (seed {split.seed}) into {count(len(split.train))} training, "
        f"{count(len(split.validation))} validation and {count(len(split.test))} test genes."
    )


def _range(values: Iterable[float]) -> str:
    """'20', or '20 to 60'."""
    values = sorted(set(values))
    return count(values[0]) if len(values) == 1 else f"{count(values[0])} to {count(values[-1])}"


def _modes(trainings: list[Training]) -> list[str]:
    """The kinds of network that were trained anywhere."""
    return [mode for mode in MODES if any(mode in fit["best_step"] for t in trainings for fit in t.fits)]


def _first_paragraph(version: str, trainings: list[Training]) -> str:
    """What imputed, in one sentence, and the libraries."""
    p = trainings[0].parameters if trainings else {}  # one run, one preset
    networks = not trainings or bool(_modes(trainings))
    backbone = {"unet": "a U-Net", "mamba": "a selective state-space model"}.get(p.get("backbone", "dit"), "a transformer [dit]")
    diffusion = f"conditional diffusion networks [ddpm] after SpaDiT [spadit], whose denoiser is {backbone}"
    if not p.get("coarse", True):
        how = f", {diffusion}"
    elif networks:
        how = f": a coarse condition made of simple maps, and {diffusion}, where they improve on it"
    else:
        how = ": the coarse condition, made of simple maps, without the diffusion networks of SpaDiT [spadit]"
    text = f"Spatial gene expression was imputed from a single-cell RNA reference with SpaDiT-flow {version}{how}."
    text += " Data were handled with anndata [anndata] and scanpy [scanpy]"
    return text + ("; networks were trained with PyTorch [pytorch]." if networks else ".")


def _model_paragraphs(trainings: list[Training], cohort: bool) -> list[str]:
    """How genes were imputed, in the order it is done: coarse condition, networks, gate, what an imputed value is worth."""
    p = trainings[0].parameters  # one run, one preset
    fits = [fit for t in trainings for fit in t.fits]
    coarse = p.get("coarse", True)
    modes = _modes(trainings)
    text = []
    if coarse:
        text.append(
            "A first map of each hidden gene, the coarse condition, was made from the visible genes and the reference: a weighted sum of "
            "simple maps (kernel ridge regressions on gene correlations in the reference, correlation-weighted means of visible genes, "
            "principal components of the slide, means over the most similar cells, the mean visible gene and the spot's total). Its "
            "weights were learned from visible genes, each mapped as if hidden"
            + (f" in {count(p['inner_folds'])} inner folds over genes" if "inner_folds" in p else "")
            + " (one by one where there are up to 40), with a correction by facts of the gene where cross-validation gained from it."
        )
    else:
        text.append(
            "No coarse condition was made: values come from the whole-slide networks alone"
            + (", with the published hyperparameters" if trainings[0].preset == "paper" else "")
            + ". Nothing of a hidden gene's values was given to them."
        )
    if modes:
        kinds = {
            "token": "token networks see windows of 32 neighbouring spots of a gene together with its simple maps and learn what the "
            "coarse condition misses",
            "whole_slide": "whole-slide networks, as published, see a gene's values over all spots at once together with its values in the "
            "reference",
        }
        many = "Two kinds of diffusion network were trained" if len(modes) > 1 else "One kind of diffusion network was trained"
        target = {"x0": "the clean values", "epsilon": "the noise"}.get(p.get("target", "x0"), "a mixture of noise and clean values")
        line = f"{many}: {'; '.join(kinds[mode] for mode in modes)}. They predict {target}"
        line += f" over {count(p['n_diffusion_steps'])} diffusion steps" if "n_diffusion_steps" in p else ""
        line += f"; {plural(p['n_models'], 'network')} of a kind are averaged" if p.get("n_models", 1) > 1 else ""
        sampled = p.get("sampler", "one_step")
        if modes == ["token"] or sampled == "one_step":
            line += ". An imputed value is their estimate of the clean value where nothing but noise is left, not a random draw."
        else:
            line += f". Values of the whole-slide networks are drawn from noise step by step ({sampled.upper()})."
        learned = "; ".join(f"{part(m)}: {_range(f['best_step'][m] for f in fits if m in f['best_step'])} steps" for m in modes)
        folds = f" in {count(p['network_folds'])} folds" if "network_folds" in p else ""
        text.append(f"{line} How long to train was chosen on visible genes that were kept from the network{folds} ({learned}).")
    if coarse and modes:
        gate = (
            "A gate sums coarse condition and networks with weights fitted to visible genes imputed as if hidden, and leaves out what "
            "gains nothing in cross-validation over genes. "
        )
        spoken = [fit for t in trainings if (fit := spoken_of(t))]
        if len(trainings) == 1:
            gate += " ".join(filter(None, (blend_sentence(trainings[0]), left_out_sentence(trainings[0]), lowered_sentence(trainings[0]))))
        else:
            use = [f"{part(m)} networks on {count(sum(m in fit['blend'] for fit in spoken))}" for m in modes]
            alone = sum(not uses_networks(fit) for fit in spoken)
            gate += f"It used {' and '.join(use)} of {plural(len(spoken), 'slide')}, and the coarse condition alone on {count(alone)}."
        text.append(gate)
    text.append(
        "A gene's mean and SD on the slide were guessed from its statistics in the reference by a regression over the visible genes. "
        "Intervals of 90 % are split-conformal [conformal]: visible genes imputed as if hidden tell how wide they must be for 90 % of all "
        "values, over genes and spots together, to lie within. The expected PCC of a gene (its reliability) comes from a ridge regression "
        "on facts that need no measurement of it (its statistics in the reference, how well simple maps of it agree, spread and Moran's I "
        "of the imputed map), with coefficients learned on other slides as the start and corrected on the visible genes of this one where "
        "there are at least 20."
    )
    return text


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
    text = [_first_paragraph(version, trainings)]
    if pairings:
        text.append(
            f"Genes of slide and reference were matched by {listed(matched)}. Values were normalised to the median library size, computed "
            "from the visible genes only, and log-transformed (log1p)."
        )
    if splits:
        one = (
            split_sentence(splits[0])
            if not cohort and len(splits) == 1
            else "The genes shared by slide and reference were divided at random into training, validation and test genes."
        )
        text.append(
            f"{one} Test genes were hidden from every fit used for scoring; the other shared genes were cross-fitted in "
            f"{listed(map(str, folds))} folds, so that every measured gene was imputed once by a fit that never saw its spatial values, "
            "not even in the library size."
        )
        if any(s.unmeasured for s in splits):
            text.append("Genes that the slide did not measure were imputed by a separate fit on all shared genes.")
    if trainings:
        text += _model_paragraphs(trainings, cohort)
        size = f"; {_range(t.n_weights for t in trainings)} weights in the networks of a fit" if _modes(trainings) else ""
        text.append(
            f"Preset {listed(presets)}{size}; computed on {listed(devices)}; random seed {listed(map(str, seeds)) or 'not recorded'}."
        )
    text.append(
        "Each hidden gene was scored over spots by Pearson correlation (PCC), Spearman correlation, structural similarity (SSIM), RMSE of "
        "z-scores and Jensen-Shannon divergence, beside simple floor methods given the same visible genes, controls made of one number per "
        "spot, and a ceiling that sees the truth and is never ranked. Intervals of medians are 95 % bootstrap intervals over genes."
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
