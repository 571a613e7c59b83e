"""Which genes a slide and a reference share: by symbol or Ensembl id, and what to say when too few do."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from spadit.contracts import Pairing
from spadit.errors import PairingError
from spadit.preprocess import highly_variable

if TYPE_CHECKING:
    from anndata import AnnData

ENSEMBL = re.compile(r"^(ENS[A-Z]{0,6}G)\d{6,}(\.\d+)?$", re.IGNORECASE)
ENSEMBL_COLUMNS = ("gene_ids", "gene_id", "ensembl", "ensembl_id", "ensembl_ids", "feature_id", "ENSEMBL")
SYMBOL_COLUMNS = ("gene_symbols", "gene_symbol", "symbol", "gene_name", "gene_names", "feature_name", "SYMBOL")
ENSEMBL_SPECIES = {"ENSG": "human", "ENSMUSG": "mouse", "ENSRNOG": "rat", "ENSDARG": "zebrafish"}
GENOME = re.compile(r"^(GRCh3[78]|hg19|hg38|GRCm3[89]|mm9|mm10|mm39|GRCz1[01]|mRatBN7\.2|rn[67])[_-]+")
SPECIES_STYLE = {"human": "UPPER CASE", "homo sapiens": "UPPER CASE", "mouse": "Capitalised", "mus musculus": "Capitalised"}
SPECIES_STYLE.update({"rat": "Capitalised", "rattus norvegicus": "Capitalised"})


def pair(
    slide: AnnData,
    reference: AnnData,
    sample: str = "slide",
    reference_id: str = "reference",
    species: str = "",
    min_shared_genes: int = 10,
    n_top_genes: int = 2000,
) -> tuple[AnnData, AnnData, Pairing]:
    """Find the genes that a slide and a reference share and give both the same names for them.

    Genes are matched by symbol; by symbol with upper and lower case ignored; and by Ensembl id without version suffix,
    where both have them (as names or in a column of var). The matching that shares most is taken, the first of these when
    two are equal. All-zero genes don't take part.

    Parameters
    ----------
    slide, reference
        spots (cells) × genes with ``layers['counts']``, after quality control. Not changed.
    sample, reference_id
        Names used in messages and facts.
    species
        The species that the samplesheet gives, if any: only used to explain a failure and to warn.
    min_shared_genes
        Fewer shared genes are an error.
    n_top_genes
        Highly variable reference genes to mark for the condition.

    Returns
    -------
    slide
        spots × measured genes; ``var['shared']``.
    reference
        cells × genes, shared genes under the slide's names; ``var['shared']``, ``var['highly_variable']``,
        ``var['reference_name']``. Genes that the slide did measure but that quality control removed are left out.
    facts
        How many of what.

    Raises
    ------
    PairingError
        When one of them mixes species or too few genes are shared.
    """
    slide, reference = slide.copy(), reference.copy()
    dropped: dict[str, int] = {}
    slide, n_zero = _without_zero_genes(slide)
    dropped["all zero in the slide"] = n_zero
    reference, n_zero = _without_zero_genes(reference)
    dropped["all zero in the reference"] = n_zero
    for adata, name in ((slide, f"slide {sample}"), (reference, f"reference {reference_id}")):
        _refuse_mixed_species(adata, name)

    match = _best_match(slide, reference)
    if match is None or len(match.slide) < min_shared_genes:
        raise _too_few(slide, reference, match, sample, reference_id, species, min_shared_genes)

    shared_slide = np.zeros(slide.n_vars, dtype=bool)
    shared_slide[match.slide] = True
    shared_reference = np.zeros(reference.n_vars, dtype=bool)
    shared_reference[match.reference] = True
    reference_names = reference.var_names.to_numpy(dtype=object)
    names = reference_names.copy()
    names[match.reference] = slide.var_names.to_numpy(dtype=object)[match.slide]

    # Genes of the reference that can't be imputed as "unmeasured", although they are not shared.
    folded = pd.Series([str(n).casefold() for n in reference_names])
    removed = {str(n).casefold() for n in slide.uns.get("spadit", {}).get("removed_genes", [])}
    removed |= {_without_version(n) for n in removed}
    ids = pd.Series(_ensembl(reference) or [""] * reference.n_vars)
    symbols = pd.Series([s.casefold() for s in (_symbols(reference) or [""] * reference.n_vars)])
    measured = (folded.isin(removed) | (ids.isin(removed) & (ids != "")) | (symbols.isin(removed) & (symbols != ""))).to_numpy()
    taken = pd.Series(names).isin(set(slide.var_names)).to_numpy()
    out = np.zeros(reference.n_vars, dtype=bool)
    for reason, bad in (
        (f"reference gene with the same {match.key} as another one", match.ambiguous_reference),
        ("measured by the slide, but removed in quality control", measured),
        ("reference gene whose name is that of another gene of the slide", taken),
    ):
        bad = bad & ~shared_reference & ~out
        dropped[reason] = int(bad.sum())
        out |= bad
    dropped[f"slide gene with the same {match.key} as another one"] = int((match.ambiguous_slide & ~shared_slide).sum())

    slide.var["shared"] = shared_slide
    reference.var["shared"] = shared_reference
    reference.var["reference_name"] = reference_names.astype(str)
    reference.var_names = pd.Index(names, dtype=object)
    reference = reference[:, ~out].copy()
    batch = reference.obs["batch"].to_numpy() if "batch" in reference.obs else None
    chosen = highly_variable(reference.layers["counts"], n_top_genes, batch)
    reference.var["highly_variable"] = chosen
    for adata in (slide, reference):
        adata.layers["counts"] = sp.csr_matrix(adata.layers["counts"])
    n_shared = int(shared_slide.sum())
    return (
        slide,
        reference,
        Pairing(
            sample=sample,
            reference=reference_id,
            n_spots=slide.n_obs,
            n_cells=reference.n_obs,
            n_slide_genes=slide.n_vars,
            n_reference_genes=reference.n_vars,
            n_shared=n_shared,
            n_unmeasured=int((~reference.var["shared"]).sum()),
            n_top_genes=int(chosen.sum()),
            matched_by=match.matched_by,
            dropped={reason: n for reason, n in dropped.items() if n},
            slide_only=[str(n) for n in slide.var_names[~shared_slide]],
            warnings=_warnings(slide, reference_names, match, species, sample, reference_id),
        ),
    )


def _without_zero_genes(adata: AnnData) -> tuple[AnnData, int]:
    counts = sp.csr_matrix(adata.layers["counts"])
    counts.eliminate_zeros()
    seen = np.bincount(counts.indices, minlength=adata.n_vars) > 0
    return (adata if seen.all() else adata[:, seen].copy()), int((~seen).sum())


# ---- names --------------------------------------------------------------------------------------------------------


def _without_version(name: str) -> str:
    """'ENSG00000141510.18' -> 'ensg00000141510'; anything that is no Ensembl id as it is, in lower case."""
    found = ENSEMBL.match(name)
    return (name[: found.start(2)] if found and found.group(2) else name).casefold()


def _mostly_ensembl(names) -> bool:
    names = [str(n) for n in names]
    return bool(names) and sum(bool(ENSEMBL.match(n)) for n in names) >= 0.5 * len(names)


def _ensembl(adata: AnnData) -> list[str] | None:
    """Ensembl ids without version, '' where a gene has none; None when the object has no ids."""
    for values in (adata.var_names, *(adata.var[c] for c in ENSEMBL_COLUMNS if c in adata.var)):
        if _mostly_ensembl(values):
            return [_without_version(str(v)) if ENSEMBL.match(str(v)) else "" for v in values]
    return None


def _symbols(adata: AnnData) -> list[str] | None:
    """Gene symbols, '' where a gene has none; None when there are Ensembl ids only."""
    if not _mostly_ensembl(adata.var_names):
        return [str(n) for n in adata.var_names]
    for column in SYMBOL_COLUMNS:
        if column in adata.var and not _mostly_ensembl(adata.var[column]):
            return ["" if str(v) in ("nan", "None") else str(v) for v in adata.var[column]]
    return None


# ---- matching -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class _Match:
    matched_by: str
    key: str
    slide: np.ndarray
    """Positions of the shared genes in the slide, ascending."""
    reference: np.ndarray
    """Position in the reference of each of them."""
    ambiguous_slide: np.ndarray
    """genes, bool: has the key of a shared gene, but another gene came first."""
    ambiguous_reference: np.ndarray


def _match(slide_keys: list[str], reference_keys: list[str], matched_by: str, key: str) -> _Match:
    """Match equal keys; of several genes with one key the first is kept. '' matches nothing."""
    first_slide: dict[str, int] = {}
    for i, k in enumerate(slide_keys):
        first_slide.setdefault(k, i)
    first_reference: dict[str, int] = {}
    for j, k in enumerate(reference_keys):
        first_reference.setdefault(k, j)
    pairs = [(i, first_reference[k]) for k, i in first_slide.items() if k and k in first_reference]
    pairs.sort()
    chosen = np.array(pairs, dtype=int).reshape(-1, 2)
    keys = {slide_keys[i] for i in chosen[:, 0]}
    return _Match(
        matched_by,
        key,
        chosen[:, 0],
        chosen[:, 1],
        np.array([k in keys and first_slide[k] != i for i, k in enumerate(slide_keys)], dtype=bool),
        np.array([k in keys and first_reference[k] != j for j, k in enumerate(reference_keys)], dtype=bool),
    )


def _best_match(slide: AnnData, reference: AnnData) -> _Match | None:
    """The matching that shares most genes; None when slide and reference have no kind of name in common."""
    matches = []
    symbols = _symbols(slide), _symbols(reference)
    if symbols[0] is not None and symbols[1] is not None:
        matches.append(_match(*symbols, "symbol", "symbol"))
        # A gene whose exact name is on both sides keeps that partner: case is ignored for the others only.
        both = set(symbols[0]) & set(symbols[1])
        taken = {n.casefold() for n in both}
        folded = [[n if n in both else "" if n.casefold() in taken else f"\0{n.casefold()}" if n else "" for n in s] for s in symbols]
        match = _match(*folded, "symbol, case folded", "symbol (case ignored)")
        for side, names in (("ambiguous_slide", symbols[0]), ("ambiguous_reference", symbols[1])):
            hidden = np.array([n not in both and n.casefold() in taken for n in names], dtype=bool)
            setattr(match, side, getattr(match, side) | hidden)
        matches.append(match)
    ids = _ensembl(slide), _ensembl(reference)
    if ids[0] is not None and ids[1] is not None:
        matches.append(_match(*ids, "Ensembl id", "Ensembl id"))
    return max(matches, key=lambda m: len(m.slide), default=None)


# ---- what to say --------------------------------------------------------------------------------------------------


def _share(names, test) -> float:
    names = [str(n) for n in names if re.search("[A-Za-z]{2}", str(n))]
    return sum(map(test, names)) / len(names) if len(names) >= 5 else 0.0


def _style(names) -> str:
    """'UPPER CASE' (as human symbols), 'Capitalised' (as mouse and rat symbols) or '' when neither prevails."""
    if _share(names, lambda n: n[:3].isupper() or n == n.upper()) > 0.7:
        return "UPPER CASE"
    if _share(names, lambda n: n[0].isupper() and n[1:] == n[1:].lower()) > 0.7:
        return "Capitalised"
    return ""


def _ensembl_species(names) -> dict[str, int]:
    """Species by Ensembl prefix -> number of genes."""
    found: dict[str, int] = {}
    for n in names:
        hit = ENSEMBL.match(str(n))
        if hit:
            prefix = hit.group(1).upper()
            species = ENSEMBL_SPECIES.get(prefix, prefix)
            found[species] = found.get(species, 0) + 1
    return found


def _refuse_mixed_species(adata: AnnData, what: str) -> None:
    least = max(2, 0.01 * adata.n_vars)
    genomes: dict[str, int] = {}
    for n in adata.var_names:
        hit = GENOME.match(str(n))
        if hit:
            genomes[hit.group(1)] = genomes.get(hit.group(1), 0) + 1
    species = _ensembl_species(_ensembl(adata) or [])
    for found in (genomes, species):
        found = {k: n for k, n in found.items() if n >= least}
        if len(found) > 1:
            listed = ", ".join(f"{k}: {n:,} genes" for k, n in sorted(found.items()))
            raise PairingError(
                f"The {what} mixes species ({listed}).",
                "Keep the genes and the spots or cells of one species, and take any genome prefix off the gene names.",
            )


def _too_few(
    slide: AnnData, reference: AnnData, match: _Match | None, sample: str, reference_id: str, species: str, minimum: int
) -> PairingError:
    n = 0 if match is None else len(match.slide)
    examples = [", ".join(map(str, a.var_names[:4])) for a in (slide, reference)]
    message = (
        f"Slide {sample} ({slide.n_vars:,} genes: {examples[0]} …) and reference {reference_id} "
        f"({reference.n_vars:,} genes: {examples[1]} …) "
        f"share {n:,} genes, but at least {minimum:,} are needed."
    )
    kinds = ["Ensembl ids" if _mostly_ensembl(a.var_names) else "symbols" for a in (slide, reference)]
    styles = [_style(_symbols(a) or []) for a in (slide, reference)]
    by_id = [_ensembl_species(_ensembl(a) or []) for a in (slide, reference)]
    by_id = [max(s, key=s.get) if s else "" for s in by_id]
    prefixed = [bool(GENOME.match(str(a.var_names[0]))) for a in (slide, reference)]
    if by_id[0] and by_id[1] and by_id[0] != by_id[1]:
        remedy = f"The slide's Ensembl ids are {by_id[0]}, the reference's {by_id[1]}: use a reference of the same species."
    elif prefixed[0] != prefixed[1]:
        side = "slide" if prefixed[0] else "reference"
        remedy = f"The {side}'s gene names begin with a genome prefix such as 'GRCh38_': take it off."
    elif kinds[0] != kinds[1]:
        remedy = (
            f"The slide names its genes by {kinds[0]}, the reference by {kinds[1]}: put the other kind into a column of var, "
            "'gene_ids' for Ensembl ids or 'gene_symbols' for symbols."
        )
    elif styles[0] and styles[1] and styles[0] != styles[1]:
        like = {"UPPER CASE": "UPPER CASE as human genes", "Capitalised": "Capitalised as mouse genes"}
        remedy = f"The slide's symbols are {like[styles[0]]}, the reference's {like[styles[1]]}: use a reference of the same species."
    elif n:
        remedy = "Use a reference that holds the slide's genes, or lower --min_shared_genes."
    else:
        remedy = "Check that both name their genes in the same way and are of the same species and tissue."
    if species:
        remedy += f" The samplesheet says: {species}."
    return PairingError(message, remedy)


def _warnings(slide: AnnData, reference_names: np.ndarray, match: _Match, species: str, sample: str, reference_id: str) -> list[str]:
    warnings = []
    styles = [_style(slide.var_names), _style(reference_names)]
    if match.matched_by == "symbol, case folded" and all(styles) and styles[0] != styles[1]:
        warnings.append(
            f"Gene symbols of slide {sample} are {styles[0]}, those of reference {reference_id} {styles[1]}: they match only when case is "
            "ignored. Human symbols are UPPER CASE, mouse symbols Capitalised: check that both are of one species."
        )
    expected = SPECIES_STYLE.get(species.strip().lower())
    by_id = _ensembl_species(_ensembl(slide) or [])
    found = max(by_id, key=by_id.get) if by_id else ""
    if species and found in ("human", "mouse", "rat") and SPECIES_STYLE[found] != (expected or SPECIES_STYLE[found]):
        warnings.append(f"The samplesheet says {species}, but the Ensembl ids of slide {sample} are {found}.")
    elif expected and styles[0] and styles[0] != expected:
        warnings.append(f"The samplesheet says {species}, whose symbols are {expected}, but those of slide {sample} are {styles[0]}.")
    share = len(match.slide) / max(1, slide.n_vars)
    if share < 0.2:
        warnings.append(f"Only {len(match.slide):,} of the slide's {slide.n_vars:,} genes are in the reference.")
    return warnings
