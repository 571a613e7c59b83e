"""From raw counts to the numbers that models and metrics use, without a glance at hidden genes."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp


def log_normalise(
    counts: sp.csr_matrix, genes_mask: np.ndarray | None = None, target: float | None = None
) -> tuple[sp.csr_matrix, np.ndarray, float]:
    """Log-normalise counts with a library size that comes from some of the genes only.

    The total of a spot is summed entry by entry over the genes in the mask: what the other genes hold, be it garbage,
    changes neither the total nor its rounding. So values of visible genes can't leak anything about hidden ones.

    Parameters
    ----------
    counts
        spots (or cells) × genes, not negative.
    genes_mask
        genes, bool: the genes that make up the library size, that is the visible ones. All when None.
    target
        The total to scale every spot to. The median of the positive totals when None.

    Returns
    -------
    values
        spots × genes, CSR float32: log(1 + count / total × target) of all genes passed. Spots with total 0 get zeros.
    totals
        spots, float64.
    target
        The target that was used.
    """
    counts = counts if sp.issparse(counts) and counts.format == "csr" else sp.csr_matrix(counts)
    n_obs, n_genes = counts.shape
    rows = np.repeat(np.arange(n_obs), np.diff(counts.indptr))
    if genes_mask is None:
        totals = np.bincount(rows, weights=counts.data, minlength=n_obs)
    else:
        genes_mask = np.asarray(genes_mask, dtype=bool)
        if genes_mask.shape != (n_genes,):
            raise ValueError(f"genes_mask has shape {genes_mask.shape}, but there are {n_genes} genes")
        visible = genes_mask[counts.indices]
        totals = np.bincount(rows[visible], weights=counts.data[visible], minlength=n_obs)
    positive = totals > 0
    if target is None:
        target = float(np.median(totals[positive])) if positive.any() else 1.0
    scale = np.divide(target, totals, out=np.zeros(n_obs), where=positive)
    data = np.log1p(counts.data * scale[rows]).astype(np.float32)
    data[~positive[rows]] = 0.0  # also where the count was NaN or infinite
    values = sp.csr_matrix((data, counts.indices.copy(), counts.indptr.copy()), shape=counts.shape)
    values.eliminate_zeros()
    return values, totals, float(target)


def zscore(values: sp.spmatrix | np.ndarray, clip: float = 10.0) -> np.ndarray:
    """Centre and scale each gene to mean 0 and standard deviation 1 (population), clipped.

    Parameters
    ----------
    values
        spots (or cells) × genes.
    clip
        Largest absolute value of the result.

    Returns
    -------
    numpy.ndarray
        spots × genes, dense float32. A constant gene becomes zeros. The only dense copy made is the result.
    """
    n_obs, n_genes = values.shape
    if sp.issparse(values):
        values = values.tocsc()
        columns = np.repeat(np.arange(n_genes), np.diff(values.indptr))
        mean = np.bincount(columns, weights=values.data, minlength=n_genes) / max(n_obs, 1)
        # Two passes: the deviations of the stored values plus those of the zeros. The textbook one-pass formula cancels.
        deviation = np.bincount(columns, weights=(values.data - mean[columns]) ** 2, minlength=n_genes)
        variance = (deviation + (n_obs - np.diff(values.indptr)) * mean**2) / max(n_obs, 1)
        result = values.toarray(order="C").astype(np.float32, copy=False)
    else:
        result = np.array(values, dtype=np.float32, order="C")
        mean = np.mean(result, axis=0, dtype=np.float64)
        variance = np.var(result, axis=0, dtype=np.float64)
    sd = np.sqrt(variance)
    constant = ~(sd > 1e-6 * np.maximum(np.abs(mean), 1e-6))  # also NaN; float32 noise is no variation
    inverse = np.divide(1.0, sd, out=np.zeros(n_genes), where=~constant)
    result -= mean.astype(np.float32)
    result *= inverse.astype(np.float32)
    result[:, constant] = 0.0
    return np.clip(result, -clip, clip, out=result)


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Each row brought to length 1; a row of zeros stays. Products of such rows are cosines."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(length > 0, length, 1)


def averaging(nearest: np.ndarray, n_columns: int) -> sp.csr_matrix:
    """(rows, n_columns): each row averages over the columns that ``nearest`` (rows, k) names for it."""
    n_rows, k = nearest.shape
    weights = np.full(nearest.size, 1 / k, dtype=np.float32)
    return sp.csr_matrix((weights, nearest.ravel(), np.arange(0, nearest.size + 1, k)), shape=(n_rows, n_columns))


def highly_variable(counts: sp.csr_matrix, n_top: int, batch: np.ndarray | None = None) -> np.ndarray:
    """The most variable genes of a reference: scanpy's 'seurat' flavour on log-normalised counts.

    Parameters
    ----------
    counts
        cells × genes, raw counts.
    n_top
        How many genes to choose; all when there are no more.
    batch
        cells: batch labels. Genes are then ranked within each batch, and by the number of batches they vary in.

    Returns
    -------
    numpy.ndarray
        genes, bool.
    """
    import anndata as ad
    import pandas as pd
    import scanpy as sc

    n_cells, n_genes = counts.shape
    if n_top >= n_genes:
        return np.ones(n_genes, dtype=bool)
    values, _, _ = log_normalise(counts)
    adata = ad.AnnData(X=values, obs=pd.DataFrame(index=[str(i) for i in range(n_cells)]))
    key = None
    if batch is not None:
        labels = pd.Series(np.asarray(batch, dtype=str))
        # A batch of a few cells says nothing about variability, and scanpy's bins fail on it.
        small = labels.map(labels.value_counts()) < 20
        labels[small] = "others"
        if labels.nunique() > 1 and labels.value_counts().min() >= 20:
            adata.obs["batch"] = pd.Categorical(labels.to_numpy())
            key = "batch"
    adata.uns["log1p"] = {"base": None}  # tells scanpy that X is log-transformed
    table = sc.pp.highly_variable_genes(adata, n_top_genes=n_top, flavor="seurat", batch_key=key, inplace=False)
    # scanpy's own choice exceeds n_top where genes tie (bins of one gene), so the ranking is cut here; file order breaks what ties are left
    ranking = [c for c in ("highly_variable_nbatches", "dispersions_norm", "dispersions") if c in table]
    table.index = np.arange(n_genes)
    best = table.sort_values(ranking, ascending=False, kind="stable", na_position="last").index[:n_top]
    chosen = np.zeros(n_genes, dtype=bool)
    chosen[best] = True
    return chosen
