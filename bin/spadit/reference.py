"""The single-cell reference, made ready once for all that is computed from it."""

from __future__ import annotations

from collections.abc import Sequence

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from spadit.errors import InputError
from spadit.preprocess import averaging, highly_variable, log_normalise, zscore

N_COMPONENTS = 15
N_NEIGHBOURS = 15
N_CLUSTERS = 40
"""Groups of like cells that a spot is taken to be a mixture of; at least 4 cells each on average."""
N_TOP_GENES = 2000
"""Genes that say which cells are alike, when the reference doesn't name its highly variable ones."""


class Reference:
    """Log-normalised cells in two views: as they are, and averaged over like cells.

    Counts of a single cell are sparse: a gene that is there is often not seen. The average of a cell and its 15 nearest (in 15 principal
    components of the whole reference) shows it. The first view takes library sizes from the slide's visible genes, so that cells and spots
    are on the same footing; the second from all genes of the reference. Each says something of its own, so both are used. Groups of like
    cells (k-means in the same components) stand for the cell types that a spot may be a mixture of.

    Everything is put in the order of names, so that the order of cells and genes in the file doesn't matter.

    Parameters
    ----------
    reference
        Cells × genes, raw counts in ``layers['counts']``; ``var['highly_variable']``, if there, names the genes that say which
        cells are alike.
    max_cells
        More cells than this are subsampled (seeded).
    cells
        Names of the cells to use instead, e.g. those that a saved model was trained with.

    Raises
    ------
    InputError
        When one of the named cells isn't in the reference.
    """

    def __init__(self, reference: anndata.AnnData, max_cells: int = 4000, seed: int = 0, cells: Sequence[str] | None = None):
        if cells is None:
            cells = np.array(sorted(reference.obs_names))
            if len(cells) > max_cells:
                cells = cells[np.sort(np.random.default_rng(seed).choice(len(cells), max_cells, replace=False))]
        rows = reference.obs_names.get_indexer(cells)
        if (rows < 0).any():
            raise InputError(
                f"{int((rows < 0).sum())} cells that the model was trained with are not in this reference.",
                "Give the reference that the model was trained with.",
            )
        order = np.argsort(reference.var_names.to_numpy().astype(str), kind="stable")
        self.cells = [str(name) for name in cells]
        self.genes = reference.var_names[order].astype(str)
        counts = sp.csr_matrix(reference.layers["counts"])[:, order]
        values = log_normalise(counts)[0]
        mean = np.asarray(values.mean(0)).ravel()
        square = np.asarray(values.multiply(values).mean(0)).ravel()
        detected = np.asarray((counts > 0).mean(0)).ravel()
        self.statistics = pd.DataFrame(
            {"mean": mean, "sd": np.sqrt(np.maximum(square - mean**2, 0)), "detected": detected}, index=self.genes
        )
        self.values = values[rows].tocsc()
        self._counts = counts[rows].tocsc()
        if "highly_variable" in reference.var:
            chosen = reference.var["highly_variable"].to_numpy(bool)[order]
        else:
            chosen = highly_variable(counts[rows], N_TOP_GENES)
        self.highly_variable = self.genes[chosen].tolist()
        components = components_of(zscore(self.values[:, np.flatnonzero(chosen)]), N_COMPONENTS, seed)[0]
        self._average = like_rows(components, components, N_NEIGHBOURS + 1)
        n_clusters = max(1, min(N_CLUSTERS, len(cells) // 4))
        group = KMeans(n_clusters, n_init=2, random_state=seed).fit_predict(components)
        member = sp.csr_matrix((np.ones(len(cells), dtype=np.float32), (group, np.arange(len(cells)))), shape=(n_clusters, len(cells)))
        self._clusters = (member @ self._counts).toarray().astype(np.float32)

    def vectors(self, genes: Sequence[str], visible: Sequence[str]) -> list[np.ndarray]:
        """z-scored cells × genes (float32) of both views: as they are (library sizes from the visible genes), and averaged over like cells.

        Raises
        ------
        InputError
            When a gene isn't in the reference.
        """
        columns, seen = self._columns(genes), self._columns(visible)
        totals = np.asarray(self._counts[:, seen].sum(1)).ravel()
        target = np.median(totals[totals > 0]) if (totals > 0).any() else 1.0
        scale = np.divide(target, totals, out=np.zeros(len(totals)), where=totals > 0)
        own = np.log1p(self._counts[:, columns].toarray() * scale[:, None]).astype(np.float32)
        return [zscore(own), zscore(self._average @ self.values[:, columns].toarray())]

    def cluster_counts(self, genes: Sequence[str]) -> np.ndarray:
        """Counts of genes in groups of like cells, (clusters, genes) float32. Raises as :meth:`vectors`."""
        return self._clusters[:, self._columns(genes)]

    def _columns(self, genes: Sequence[str]) -> np.ndarray:
        columns = self.genes.get_indexer(list(genes))
        if (columns < 0).any():
            missing = [gene for gene, column in zip(genes, columns, strict=True) if column < 0]
            raise InputError(f"{len(missing)} genes are not in the reference, e.g. {', '.join(missing[:5])}.")
        return columns


def components_of(z: np.ndarray, n: int, seed: int, more: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """The rows of z in its first n components, (rows, at most n), and those of ``more`` in the same ones. Zeros where nothing varies."""
    n = min(n, z.shape[0] - 1, z.shape[1])
    if n < 1 or not z.any():
        return np.zeros((len(z), 1), dtype=np.float32), None if more is None else np.zeros((len(more), 1), dtype=np.float32)
    pca = PCA(n, svd_solver="randomized", random_state=seed).fit(z)
    return pca.transform(z), None if more is None else pca.transform(more)


def like_rows(points: np.ndarray, pool: np.ndarray, k: int) -> sp.csr_matrix:
    """points × pool: each row averages over the k points of the pool nearest to it, itself among them if it is in the pool."""
    k = min(k, len(pool))
    nearest = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(pool).kneighbors(points, return_distance=False)
    return averaging(nearest, len(pool))
