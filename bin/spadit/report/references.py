"""What to cite: each work once, as a line of text and as a BibTeX entry, and which of them a run really used."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping


@dataclasses.dataclass(frozen=True)
class Reference:
    """One work. ``authors`` are 'Family, I.' as BibTeX has them; 'others' ends a list that is cut."""

    authors: tuple[str, ...]
    title: str
    venue: str
    year: int
    volume: str = ""
    pages: str = ""
    doi: str = ""
    arxiv: str = ""
    kind: str = "article"
    """BibTeX's type: article, inproceedings or misc."""

    @property
    def text(self) -> str:
        """As a line: 'Li X, Zhu F. Title. Journal 25, 7 (2024). doi:…, arXiv:….'"""
        names = [name.replace(",", "").replace(".", "").strip("{}") for name in self.authors if name != "others"]
        names = [re.sub(r"(?<=\b[A-Z]) (?=[A-Z]\b)", "", name) for name in names]
        who = ", ".join(names[:3]) + (", et al" if len(names) > 3 or "others" in self.authors else "")
        where = " ".join(filter(None, (self.venue, ", ".join(filter(None, (self.volume, self.pages))))))
        links = ", ".join(filter(None, (self.doi and f"doi:{self.doi}", self.arxiv and f"arXiv:{self.arxiv}")))
        return f"{who}. {self.title}. {where} ({self.year})." + (f" {links}." if links else "")

    def bibtex(self, key: str) -> str:
        """As a BibTeX entry of this key."""
        container = {"article": "journal", "inproceedings": "booktitle"}.get(self.kind, "howpublished")
        fields = {
            "author": " and ".join(self.authors),
            "title": "{" + _latex(self.title) + "}",  # braces keep the capitals
            container: _latex(self.venue),
            "year": str(self.year),
            "volume": self.volume,
            "pages": self.pages.replace("-", "--"),
            "doi": self.doi,
            "eprint": self.arxiv,
            "archiveprefix": "arXiv" if self.arxiv else "",
        }
        lines = [f"  {name:<13} = {{{_latex(value) if name == 'author' else value}}}" for name, value in fields.items() if value]
        return f"@{self.kind}{{{key},\n" + ",\n".join(lines) + "\n}\n"


def _latex(text: str) -> str:
    """A text as LaTeX prints it."""
    for plain, escaped in (("&", r"\&"), ("ä", r"{\"a}"), ("%", r"\%"), ("_", r"\_")):
        text = text.replace(plain, escaped)
    return text


WORKS: dict[str, Reference] = {
    "spadit": Reference(
        ("Li, X.", "Zhu, F.", "Min, W."),
        "SpaDiT: diffusion transformer for spatial gene expression prediction using scRNA-seq",
        "Brief. Bioinform.", 2024, "25", "bbae571", "10.1093/bib/bbae571", "2407.13182",
    ),
    "dit": Reference(
        ("Peebles, W.", "Xie, S."), "Scalable diffusion models with transformers", "Proc. ICCV", 2023, arxiv="2212.09748",
        kind="inproceedings",
    ),
    "ddpm": Reference(
        ("Ho, J.", "Jain, A.", "Abbeel, P."), "Denoising diffusion probabilistic models", "NeurIPS", 2020, "33", arxiv="2006.11239",
        kind="inproceedings",
    ),
    "conformal": Reference(
        ("Lei, J.", "G'Sell, M.", "Rinaldo, A.", "Tibshirani, R. J.", "Wasserman, L."),
        "Distribution-free predictive inference for regression", "J. Am. Stat. Assoc.", 2018, "113", "1094-1111",
        "10.1080/01621459.2017.1307116",
    ),
    "anndata": Reference(
        ("Virshup, I.", "others"), "anndata: access and store annotated data matrices", "J. Open Source Softw.", 2024, "9", "4371",
        "10.21105/joss.04371",
    ),
    "scanpy": Reference(
        ("Wolf, F. A.", "Angerer, P.", "Theis, F. J."), "SCANPY: large-scale single-cell gene expression data analysis", "Genome Biol.",
        2018, "19", "15", "10.1186/s13059-017-1382-0",
    ),
    "pytorch": Reference(
        ("Paszke, A.", "others"), "PyTorch: an imperative style, high-performance deep learning library", "NeurIPS", 2019, "32",
        arxiv="1912.01703", kind="inproceedings",
    ),
    "nextflow": Reference(
        ("Di Tommaso, P.", "others"), "Nextflow enables reproducible computational workflows", "Nat. Biotechnol.", 2017, "35", "316-319",
        "10.1038/nbt.3820",
    ),
    "multiqc": Reference(
        ("Ewels, P.", "Magnusson, M.", "Lundin, S.", "Käller, M."),
        "MultiQC: summarize analysis results for multiple tools and samples in a single report", "Bioinformatics", 2016, "32",
        "3047-3048", "10.1093/bioinformatics/btw354",
    ),
    "numpy": Reference(
        ("Harris, C. R.", "others"), "Array programming with NumPy", "Nature", 2020, "585", "357-362", "10.1038/s41586-020-2649-2",
    ),
    "scipy": Reference(
        ("Virtanen, P.", "others"), "SciPy 1.0: fundamental algorithms for scientific computing in Python", "Nat. Methods", 2020, "17",
        "261-272", "10.1038/s41592-019-0686-2",
    ),
    "scikit-learn": Reference(
        ("Pedregosa, F.", "others"), "Scikit-learn: machine learning in Python", "J. Mach. Learn. Res.", 2011, "12", "2825-2830",
    ),
    "pandas": Reference(
        ("McKinney, W.",), "Data structures for statistical computing in Python", "Proc. 9th Python in Science Conf.", 2010,
        pages="56-61", doi="10.25080/Majora-92bf1922-00a", kind="inproceedings",
    ),
    "matplotlib": Reference(
        ("Hunter, J. D.",), "Matplotlib: a 2D graphics environment", "Comput. Sci. Eng.", 2007, "9", "90-95", "10.1109/MCSE.2007.55",
    ),
    "lightning": Reference(
        ("Falcon, W.", "{The PyTorch Lightning team}"), "PyTorch Lightning", "Zenodo", 2019, doi="10.5281/zenodo.3828935", kind="misc",
    ),
    "gimvi": Reference(
        ("Lopez, R.", "others"),
        "A joint model of unpaired data from scRNA-seq and spatial transcriptomics for imputing missing gene expression measurements",
        "Preprint", 2019, arxiv="1905.02269", kind="misc",
    ),
    "novosparc": Reference(
        ("Nitzan, M.", "Karaiskos, N.", "Friedman, N.", "Rajewsky, N."), "Gene expression cartography", "Nature", 2019, "576", "132-137",
        "10.1038/s41586-019-1773-3",
    ),
    "spage": Reference(
        ("Abdelaal, T.", "Mourragui, S.", "Mahfouz, A.", "Reinders, M. J. T."),
        "SpaGE: Spatial Gene Enhancement using scRNA-seq", "Nucleic Acids Res.", 2020, "48", "e107", "10.1093/nar/gkaa740",
    ),
    "spaotsc": Reference(
        ("Cang, Z.", "Nie, Q."),
        "Inferring spatial and signaling relationships between cells from single cell transcriptomic data", "Nat. Commun.", 2020, "11",
        "2084", "10.1038/s41467-020-15968-5",
    ),
    "spatialscope": Reference(
        ("Wan, X.", "others"),
        "Integrating spatial and single-cell transcriptomics data using deep generative models with SpatialScope", "Nat. Commun.", 2023,
        "14", "7848", "10.1038/s41467-023-43629-w",
    ),
    "stdiff": Reference(
        ("Li, K.", "Li, J.", "Tao, Y.", "Wang, F."),
        "stDiff: a diffusion model for imputing spatial transcriptomics through single-cell transcriptomics", "Brief. Bioinform.", 2024,
        "25", "bbae171", "10.1093/bib/bbae171",
    ),
    "stplus": Reference(
        ("Chen, S.", "Zhang, B.", "Chen, X.", "Zhang, X.", "Jiang, R."),
        "stPlus: a reference-based method for the accurate enhancement of spatial transcriptomics", "Bioinformatics", 2021, "37",
        "i299-i307", "10.1093/bioinformatics/btab298",
    ),
    "tangram": Reference(
        ("Biancalani, T.", "Scalia, G.", "Buffoni, L.", "others"),
        "Deep learning and alignment of spatially resolved single-cell transcriptomes with Tangram", "Nat. Methods", 2021, "18",
        "1352-1362", "10.1038/s41592-021-01264-7",
    ),
    "pot": Reference(
        ("Flamary, R.", "others"), "POT: Python optimal transport", "J. Mach. Learn. Res.", 2021, "22", "1-8",
    ),
    "spatialdata": Reference(
        ("Marconato, L.", "others"), "SpatialData: an open and universal data framework for spatial omics", "Nat. Methods", 2025, "22",
        "58-62", "10.1038/s41592-024-02212-x",
    ),
}  # fmt: skip
"""Key -> work. Texts name a key in square brackets; CITATIONS.md lists the same works."""

TOOLS = {"torch": "pytorch"} | {
    name: name
    for name in ("anndata", "scanpy", "nextflow", "multiqc", "numpy", "scipy", "scikit-learn", "pandas", "matplotlib", "lightning")
}
"""Name in the software versions -> key."""
METHODS = {
    "gimVI": ("gimvi",), "novoSpaRc": ("novosparc", "pot"), "SpaGE": ("spage",), "SpaOTsc": ("spaotsc", "pot"),
    "SpatialScope": ("spatialscope",), "stDiff": ("stdiff",), "stPlus": ("stplus",), "Tangram": ("tangram",),
}  # fmt: skip
"""Method of a benchmark -> keys."""


def method_keys(names: Iterable[str]) -> list[str]:
    """Keys of the works behind these methods, each once; methods that are the project's own have none."""
    return list(dict.fromkeys(key for name in names for key in METHODS.get(name, ())))


def used(
    paragraphs: Iterable[str], versions: Mapping[str, Mapping[str, str]], methods: Iterable[str], more: Iterable[str] = ()
) -> list[str]:
    """Keys of all that a run used, each once: SpaDiT, the works its methods text names, in that order, methods that were run, tools.

    Parameters
    ----------
    paragraphs
        The methods text, with ``[key]`` where it cites.
    versions
        Process -> tool -> version, as the steps reported them.
    methods
        Methods of the benchmark that have numbers.
    more
        Further keys.
    """
    text = " ".join(paragraphs)
    named = sorted((key for key in WORKS if f"[{key}]" in text), key=lambda key: text.index(f"[{key}]"))
    tools = [TOOLS[tool] for tool in sorted({tool for found in versions.values() for tool in found}) if tool in TOOLS]
    return list(dict.fromkeys(["spadit", *named, *method_keys(methods), *tools, *more]))


def bibtex(keys: Iterable[str]) -> str:
    """A .bib file of these works."""
    return "\n".join(WORKS[key].bibtex(key) for key in keys)
