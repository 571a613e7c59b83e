"""What the imputed genes of a slide say together: which vary in space, which mark the reference's cell types, which are alike.

Only genes that are not 'do not use' take part. Everything is made from imputed values, and says so.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from spadit.metrics import morans_i, neighbours
from spadit.preprocess import log_normalise, zscore
from spadit.report.explorer import Places, Read

MAX_GENES = 400
"""In the map of genes and the heatmap."""
MAX_CELLS = 4000
"""Of the reference, in the search for markers (seeded)."""
MIN_CELLS = 10
"""A smaller cell type has no markers."""
N_MARKERS = 6
N_VARIABLE = 15
MAX_SOUGHT = 3000
"""Genes, the most reliable ones, among which spatially variable ones are sought."""
TYPE_COLUMNS = (
    "cell_type", "celltype", "cell_types", "celltypes", "cell type", "cell_type_name", "cell_ontology_class", "annotation", "annotations",
    "cell_class", "subclass", "class", "major_type", "celltype_major", "cell_subtype", "leiden", "louvain", "cluster", "clusters",
)  # fmt: skip
"""Columns of the reference's obs that name its cell types, the first that is there; case doesn't matter."""
MAX_TYPES = 60


def usable(var: pd.DataFrame) -> np.ndarray:
    """Positions of the genes that may be used, the most reliable first."""
    positions = np.flatnonzero((var["reliability_class"].astype(str) != "do not use").to_numpy())
    return positions[np.argsort(-var["reliability"].to_numpy(dtype=float)[positions], kind="stable")]


def spatially_variable(tables: AnnData, read: Read, places: Places, n: int = N_VARIABLE) -> pd.DataFrame:
    """The usable genes of highest Moran's I of the imputed map (6 nearest neighbours).

    Returns
    -------
    gene, moran, moran_measured (NaN where not measured), reliability_class; from high to low.
    """
    positions = usable(tables.var)[:MAX_SOUGHT]
    measured = tables.var["measured"].to_numpy(dtype=bool)
    graph = neighbours(places.xy)
    moran = np.zeros(len(positions))
    for start in range(0, len(positions), 256):
        columns = positions[start : start + 256]
        moran[start : start + 256] = morans_i(places.average(read("X", columns)), graph)
    best = np.argsort(-moran, kind="stable")[:n]
    rows = [
        {
            "gene": str(tables.var_names[positions[k]]),
            "moran": float(moran[k]),
            "moran_measured": float(morans_i(places.average(read("observed", positions[[k]])), graph)[0])
            if measured[positions[k]]
            else np.nan,
            "reliability_class": str(tables.var["reliability_class"].iloc[positions[k]]),
        }
        for k in best
    ]
    return pd.DataFrame(rows, columns=["gene", "moran", "moran_measured", "reliability_class"])


@dataclasses.dataclass
class Markers:
    """Genes that mark the reference's cell types."""

    column: str
    """Of the reference's obs."""
    table: dict[str, list[str]]
    """Cell type -> genes, the clearest first."""
    n_cells: int
    """That were looked at."""


def type_column(reference: AnnData) -> str | None:
    """The column of obs that names cell types (:data:`TYPE_COLUMNS`): text, between 2 and 60 of them."""
    by_name = {str(c).casefold(): c for c in reversed(list(reference.obs))}
    for name in TYPE_COLUMNS:
        column = by_name.get(name)
        if column is not None and 2 <= reference.obs[column].nunique() <= MAX_TYPES:
            return column
    return None


def markers(reference: AnnData, tables: AnnData, n: int = N_MARKERS, seed: int = 0) -> Markers | None:
    """Markers of each cell type among the usable genes: scanpy's rank_genes_groups (t-test, one type against the rest, log-normalised).

    A marker has a corrected p below 0.01 and at least twice the rest's expression. None when the reference names no cell types.
    """
    import scanpy as sc

    column = type_column(reference)
    if column is None:
        return None
    rows = np.arange(reference.n_obs)
    if len(rows) > MAX_CELLS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MAX_CELLS, replace=False))
    types = reference.obs[column].astype(str).to_numpy()[rows]
    sizes = pd.Series(types).value_counts()
    kept = sizes[(sizes >= MIN_CELLS) & (sizes.index != "nan")].index.tolist()
    if len(kept) < 2:
        return None
    values = log_normalise(sp.csr_matrix(reference.layers["counts"])[rows])[0]
    names = set(tables.var_names[usable(tables.var)])
    genes = np.flatnonzero([gene in names for gene in reference.var_names])
    if not len(genes):
        return None
    data = AnnData(values[:, genes], obs=pd.DataFrame({"type": pd.Categorical(types)}, index=[str(i) for i in range(len(rows))]))
    data.var_names = reference.var_names[genes]
    data.uns["log1p"] = {"base": None}
    sc.tl.rank_genes_groups(data, "type", groups=sorted(kept), method="t-test", n_genes=min(50, len(genes)))
    table = {}
    for name in sorted(kept):
        found = sc.get.rank_genes_groups_df(data, name)
        found = found[(found["pvals_adj"] < 0.01) & (found["logfoldchanges"] >= 1)]
        table[name] = found["names"].astype(str).head(n).tolist()
    return Markers(str(column), table, len(rows))


def embedding(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """Genes on a plane, (genes, 2): t-SNE (scikit-learn) of standardised maps in at most 30 principal components.

    Parameters
    ----------
    values
        places × genes.
    """
    from sklearn.manifold import TSNE

    from spadit.reference import components_of

    points = components_of(zscore(values).T, 30, seed)[0]
    n = len(points)
    return TSNE(
        perplexity=min(30.0, max(2.0, (n - 1) / 4)), init="pca" if points.shape[1] > 1 else "random", random_state=seed
    ).fit_transform(points)
