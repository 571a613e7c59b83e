"""Quality control: what a slide or a reference holds, what is removed and why. Nothing is dropped silently."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from spadit.contracts import QualityControl
from spadit.errors import InputError
from spadit.io import warnings_of

if TYPE_CHECKING:
    from anndata import AnnData

MIN_OBSERVATIONS = 10
"""Spots or cells that must be left: with fewer, no correlation over spots means anything."""
MIN_GENES = 2
"""Genes that must be left: a model learns one gene from others."""


def mitochondrial(names) -> np.ndarray:
    """genes, bool: symbols that begin with 'MT-' (human), 'mt-' (mouse) or 'Mt-' (rat). Ensembl ids are not looked up."""
    return np.array([str(n).upper().startswith("MT-") for n in names], dtype=bool)


def quality_control(
    adata: AnnData,
    role: str,
    id: str = "",
    min_counts: float = 1,
    min_genes: int = 1,
    min_observations: int = 1,
    max_mito: float = 100.0,
) -> tuple[AnnData, QualityControl]:
    """Measure a slide or a reference, then remove empty and poor spots (or cells) and undetected genes.

    In this order: spots without any count; with fewer than ``min_counts`` counts; with fewer than ``min_genes`` genes;
    with more than ``max_mito`` % mitochondrial counts; then genes detected in fewer than ``min_observations`` of the spots
    left; then spots that have become empty thereby.

    Parameters
    ----------
    adata
        spots (or cells) × genes with ``layers['counts']``, as :func:`spadit.io.read` gives it. Not changed.
    role
        'slide' or 'reference'.
    id
        Name used in messages and facts.
    min_counts, min_genes, min_observations, max_mito
        Thresholds: counts per spot, genes per spot, spots per gene, percent of counts.

    Returns
    -------
    adata
        A copy without what was removed. A slide's ``uns['spadit']['removed_genes']`` names its removed genes: they were
        measured, so they are not to be imputed as if they had not been.
    facts
        The numbers before and after, and every filter with what it removed.

    Raises
    ------
    InputError
        When fewer than :data:`MIN_OBSERVATIONS` spots or :data:`MIN_GENES` genes are left.
    """
    id = id or str(adata.uns.get("spadit", {}).get("id", role))
    unit = "spots" if role == "slide" else "cells"
    counts = sp.csr_matrix(adata.layers["counts"])
    mito = mitochondrial(adata.var_names)
    before, per_obs = _measure(counts, mito)
    warnings = warnings_of(adata)
    filters: list[dict] = []
    keep = np.ones(counts.shape[0], dtype=bool)

    def remove(name: str, threshold, bad: np.ndarray, reason: str) -> None:
        nonlocal keep
        gone = keep & bad
        keep = keep & ~bad
        filters.append({"name": name, "axis": unit, "threshold": threshold, "removed": int(gone.sum()), "reason": reason})

    remove("empty", 0, per_obs["counts"] <= 0, "no counts at all")
    remove("min_counts", min_counts, per_obs["counts"] < min_counts, f"fewer than {_plural(min_counts, 'count')}")
    remove("min_genes", min_genes, per_obs["genes"] < min_genes, f"fewer than {_plural(min_genes, 'gene')} detected")
    remove("max_mito", max_mito, per_obs["mito"] * 100 > max_mito, f"more than {max_mito:g} % mitochondrial counts")
    if max_mito < 100 and not mito.any():
        warnings.append(f"The limit of {max_mito:g} % mitochondrial counts had no effect: no gene name begins with 'MT-'.")

    detected = np.bincount(counts[keep].indices, minlength=counts.shape[1])
    genes = detected >= min_observations
    filters.append(
        {
            "name": "min_observations",
            "axis": "genes",
            "threshold": min_observations,
            "removed": int((~genes).sum()),
            "reason": f"detected in fewer than {_plural(min_observations, unit[:-1])}",
        }
    )
    left = np.asarray(counts[:, genes].sum(axis=1)).ravel()
    remove("empty_after_genes", 0, left <= 0, "no counts in the genes kept")

    removed = "; ".join(f"{f['removed']:,} {f['axis']} with {f['reason']}" for f in filters if f["removed"])
    removed = removed.replace("genes with detected", "genes detected") or "nothing was removed"
    n_obs, n_genes = counts.shape
    strict = max(min_counts, min_genes, min_observations) > 1 or max_mito < 100
    for kept, least, all_, what in ((keep, MIN_OBSERVATIONS, n_obs, unit), (genes, MIN_GENES, n_genes, "genes")):
        if all_ < least:
            raise InputError(f"{id} has {_plural(all_, what[:-1])} only, but at least {least} are needed.", "Check the file.")
        if kept.sum() < least:
            raise InputError(
                f"{id}: {int(kept.sum()):,} of {all_:,} {what} are left after quality control, but at least {least} are needed "
                f"(removed: {removed}).",
                "Loosen the thresholds of quality control." if strict else "Check the file.",
            )
    if keep.sum() < 0.5 * n_obs:
        warnings.append(f"Quality control removed {n_obs - int(keep.sum()):,} of {n_obs:,} {unit} ({removed}).")

    result = adata[keep, genes].copy()
    result.layers["counts"] = sp.csr_matrix(result.layers["counts"])
    facts = dict(result.uns.get("spadit", {}))
    facts["warnings"] = warnings
    if role == "slide":
        facts["removed_genes"] = [str(n) for n in adata.var_names[~genes]]
    result.uns["spadit"] = facts
    after, _ = _measure(result.layers["counts"], mito[genes])
    steps = np.linspace(0, 1, 21)
    return result, QualityControl(
        id=id,
        role=role,
        platform=str(facts.get("platform", "")),
        before=before,
        after=after,
        filters=filters,
        warnings=warnings,
        quantiles={name: np.quantile(per_obs[name], steps).tolist() for name in ("counts", "genes")},
    )


def _plural(n: float, word: str) -> str:
    return f"{n:g} {word}{'' if n == 1 else 's'}"


def _measure(counts: sp.csr_matrix, mito: np.ndarray) -> tuple[dict, dict[str, np.ndarray]]:
    """The facts of a matrix, and counts, genes and mitochondrial share (0-1) per spot or cell."""
    totals = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    genes = np.diff(counts.indptr)
    mito_counts = np.asarray(counts[:, mito].sum(axis=1), dtype=np.float64).ravel()
    share = np.divide(mito_counts, totals, out=np.zeros_like(totals), where=totals > 0)
    n_obs, n_genes = counts.shape
    facts = {
        "n_obs": n_obs,
        "n_genes": n_genes,
        "median_counts": float(np.median(totals)) if n_obs else 0.0,
        "median_genes": float(np.median(genes)) if n_obs else 0.0,
        "zero_share": 1.0 - counts.nnz / max(1, n_obs * n_genes),
        "mito_share": float(np.median(share)) if n_obs and mito.any() else None,
    }
    return facts, {"counts": totals, "genes": genes, "mito": share}
