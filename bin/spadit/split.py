"""Which genes are hidden when. Decided from gene names and a seed alone: expression values are never looked at."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from spadit.contracts import Split
from spadit.errors import InputError
from spadit.files import read_whole

LARGEST_LIST = 10_000_000
"""Bytes of a list of genes."""
MIN_TRAIN = 2
"""Training genes that the smallest fit must still have."""


def drawn_order(names: Iterable[str], seed: int) -> list[str]:
    """Names in the order of SHA-256(seed, name): any other tool can repeat it, and a gene's place doesn't depend on the others."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}\t{name}".encode()).digest())


def split_genes(
    shared: Iterable[str],
    unmeasured: Sequence[str] = (),
    sample: str = "slide",
    ratio: str = "7:2:1",
    folds: int = 5,
    seed: int = 0,
) -> Split:
    """Split the shared genes into train, validation and test, and train + validation into folds.

    Genes are put in the order of SHA-256(seed, name), so the split depends neither on the order of the genes in the file
    nor on the version of any library, and can be repeated by any other tool.

    Parameters
    ----------
    shared
        Genes measured by the slide and held by the reference.
    unmeasured
        Genes to impute that the slide did not measure; passed on in their order.
    sample
        Name used in messages and facts.
    ratio
        train:validation:test, three positive numbers.
    folds
        Number of folds of train + validation, at least 2.
    seed
        Any whole number.

    Returns
    -------
    Split
        With at least one validation and one test gene. Gene lists are sorted by name.

    Raises
    ------
    InputError
        When there are too few genes for that, or ratio or folds are no such numbers.
    """
    names = sorted(set(shared))
    parts = parse_ratio(ratio)
    if folds < 2:
        raise InputError(f"{sample}: {folds} folds are too few.", "Use at least 2 folds.")
    n = len(names)
    n_test = max(1, _round(n * parts[2] / sum(parts)))
    n_validation = max(1, _round(n * parts[1] / sum(parts)))
    n_train = n - n_test - n_validation
    n_visible = n - n_test
    smallest = n_visible - -(-n_visible // folds)  # what a fold's fit sees: train + validation less the largest fold
    if n_train < MIN_TRAIN or n_visible < folds or smallest < MIN_TRAIN + 1:
        raise InputError(
            f"{sample}: {n} shared genes are too few for a split of {ratio} with {folds} folds.",
            "Use a reference that shares more genes, fewer folds, or another ratio.",
        )
    order = drawn_order(names, seed)
    test, validation, train = order[:n_test], order[n_test : n_test + n_validation], order[n_test + n_validation :]
    visible = order[n_test:]
    return Split(
        sample=sample,
        seed=int(seed),
        train=sorted(train),
        validation=sorted(validation),
        test=sorted(test),
        unmeasured=list(unmeasured),
        folds=[sorted(visible[k::folds]) for k in range(folds)],
    )


def _round(x: float) -> int:
    """Halves up, so that 0.5 doesn't depend on whether the whole part is even."""
    return int(x + 0.5)


def parse_ratio(ratio: str) -> tuple[float, float, float]:
    """'7:2:1' -> (7.0, 2.0, 1.0)."""
    fields = str(ratio).split(":")
    if len(fields) != 3 or not all(re.fullmatch(r"\s*\d{1,9}(\.\d{1,9})?\s*", f, re.ASCII) and float(f) > 0 for f in fields):
        raise InputError(f"The split ratio '{ratio}' is not three positive numbers.", "Give train:validation:test, for example 7:2:1.")
    return tuple(float(f) for f in fields)


def read_genes(path: str | Path) -> list[str]:
    """The genes of a list: the first column of a text file, one gene a line; blank lines and lines after '#' don't count.

    Raises
    ------
    InputError
        When the file isn't there, isn't UTF-8 text or names no gene.
    """
    path = Path(path)
    raw = read_whole(path, "the gene list", LARGEST_LIST, "Check the column 'genes' of the samplesheet.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"The gene list {path.name} is not a UTF-8 text file.", "Give a text file with one gene a line.") from error
    genes = [re.split(r"[\t,;]", line.split("#", 1)[0])[0].strip().strip("\"'") for line in text.splitlines()]
    genes = list(dict.fromkeys(g for g in genes if g))
    if not genes:
        raise InputError(f"The gene list {path.name} names no gene.", "Give a text file with one gene a line.")
    return genes


def named_genes(names: str) -> list[str]:
    """The genes of 'Gad1,Sst'; blanks around names and empty ones don't count.

    Raises
    ------
    InputError
        When it names no gene.
    """
    genes = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    if not genes:
        raise InputError(f"'{names}' names no gene.", "Give --genes names with commas between them, or a text file (.txt, .csv or .tsv).")
    return genes


def restrict(
    unmeasured: Sequence[str],
    wanted: Iterable[str],
    measured: Iterable[str] = (),
    aliases: dict[str, str] | None = None,
    source: str = "genes",
) -> list[str]:
    """The unmeasured genes that a gene list asks for, in the reference's order.

    Parameters
    ----------
    unmeasured
        Genes that could be imputed.
    wanted
        Genes that the list names. Measured ones are imputed in any case, so they may be in it.
    measured
        Shared genes.
    aliases
        Other names of genes (the reference's own) -> the name used here.
    source
        The list's name, for messages.

    Raises
    ------
    InputError
        When the list names genes that neither slide nor reference holds: at most ten are named, with the closest match.
    """
    aliases = aliases or {}
    known = set(unmeasured) | set(measured)
    chosen = {w if w in known else aliases.get(w, w) for w in wanted}
    unknown = sorted(chosen - known)
    if unknown:
        folded = {k.casefold(): k for k in sorted(known | set(aliases))}
        shown = []
        for name in unknown[:10]:
            near = [folded[name.casefold()]] if name.casefold() in folded else []
            near = near or [folded[f] for f in difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)]
            shown.append(f"'{name}'" + (f" (did you mean '{near[0]}'?)" if near else ""))
        more = f" and {len(unknown) - 10:,} more" if len(unknown) > 10 else ""
        raise InputError(
            f"{source}: {len(unknown):,} {'gene is' if len(unknown) == 1 else 'genes are'} not in the reference: {', '.join(shown)}{more}.",
            "Take them off the list or write them as the reference does.",
        )
    return [g for g in unmeasured if g in chosen]
