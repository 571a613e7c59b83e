"""Made-up slides and references of any size, for tests of scale: tissue domains, cell types, dropout, library sizes; and marked as made up.

What is imputed from them says nothing of accuracy on tissue: values follow from cell types and a few programs by construction.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

from spadit.errors import InputError

WARNING = "These data are synthetic (spadit.synthetic): made for tests of scale, they say nothing of biology."
N_PROGRAMS = 6
"""Programs that change a gene's expression within a cell type, and over the tissue."""
CELLS_PER_SPOT = 8
BLOCK = 1 << 22
"""Entries that are drawn at once: memory doesn't grow with the size of the result."""


@dataclasses.dataclass(frozen=True)
class Tissue:
    """What slide and reference have in common.

    Parameters
    ----------
    profiles
        Share of each gene in the counts of each cell type, (types, genes), rows summing to 1.
    loadings
        What a program does to a gene, log scale, (programs, genes).
    abundance
        Share of each type in the reference, (types,).
    depths
        Counts per cell to draw from, (any number,).
    genes
        Names, (genes,).
    """

    profiles: np.ndarray
    loadings: np.ndarray
    abundance: np.ndarray
    depths: np.ndarray
    genes: np.ndarray


def synthetic_pair(
    n_spots: int,
    n_cells: int,
    n_measured: int = 500,
    n_unmeasured: int = 5000,
    seed: int = 0,
    reference: anndata.AnnData | None = None,
    n_types: int = 12,
    n_domains: int = 7,
    spot_depth: float = 300.0,
    dropout: float = 0.2,
) -> tuple[anndata.AnnData, anndata.AnnData]:
    """A slide and a reference that go together, as :func:`spadit.io.read` would give them.

    The tissue is a hexagonal grid of spots in domains with wavy borders. A domain has its own mixture of cell types; a spot holds some 8
    cells of it, and programs that rise and fall over the tissue. The slide sees each gene with an efficiency of its own (what a platform
    does), each spot with a depth of its own, and loses counts at random where there are few.

    Parameters
    ----------
    n_measured, n_unmeasured
        Genes of the slide; genes that only the reference has.
    seed
        Of all that is drawn: the same seed, the same data.
    reference
        Cells × genes with raw counts in ``layers['counts']``. Cell types' profiles, their shares and the depths are then its own (of
        ``obs['cell_type']``, else of clusters); else they are drawn, too.
    spot_depth
        Counts of a spot over the measured genes, on average.
    dropout
        Share of the counts of a spot that are lost where one is expected; fewer where more are.

    Returns
    -------
    slide
        (spots, measured genes), ``obs['domain']``.
    reference
        (cells, genes), ``obs['cell_type']``. Both: ``layers['counts']`` CSR float32, ``uns['spadit']['platform'] == 'synthetic'`` and a
        warning that says so.

    Raises
    ------
    InputError
        When a size is too small, or the real reference has fewer genes than asked for.
    """
    for name, value, least in (
        ("n_spots", n_spots, 1),
        ("n_cells", n_cells, 1),
        ("n_measured", n_measured, 2),
        ("n_unmeasured", n_unmeasured, 0),
    ):
        if value < least:
            raise InputError(f"{name} is {value}, but at least {least} is needed.", f"Give a larger {name}.")
    rng = np.random.default_rng(seed)
    n_genes = n_measured + n_unmeasured
    tissue = _drawn_tissue(n_genes, n_types, rng) if reference is None else _tissue_of(reference, n_genes, n_types, rng)
    measured = np.sort(rng.choice(n_genes, n_measured, replace=False, p=_visibility(tissue)))
    slide = _slide(tissue, measured, n_spots, n_domains, spot_depth, dropout, rng)
    return _marked(slide, "slide", seed), _marked(_reference(tissue, n_cells, rng), "reference", seed)


def _drawn_tissue(n_genes: int, n_types: int, rng: np.random.Generator) -> Tissue:
    """Levels over four orders of magnitude; a tenth of the genes marks each type."""
    level = rng.normal(0, 1.8, n_genes)
    marks = rng.random((n_types, n_genes)) < 0.1
    profiles = np.exp(level + 0.3 * rng.normal(size=(n_types, n_genes)) + marks * rng.normal(1.8, 0.5, (n_types, n_genes)))
    names = np.array([f"Synth{i + 1:05d}" for i in range(n_genes)])
    return Tissue(_shares(profiles), _loadings(n_genes, rng), rng.dirichlet(np.full(n_types, 2.0)), rng.lognormal(8.0, 0.5, 4096), names)


def _tissue_of(reference: anndata.AnnData, n_genes: int, n_types: int, rng: np.random.Generator) -> Tissue:
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import TruncatedSVD

    from spadit.preprocess import log_normalise

    counts = sp.csr_matrix(reference.layers["counts"])
    seen = np.flatnonzero(np.bincount(counts.indices, minlength=counts.shape[1]) > 0)
    if len(seen) < n_genes:
        raise InputError(f"The reference has {len(seen):,} detected genes, but {n_genes:,} are asked for.", "Ask for fewer genes.")
    chosen = np.sort(rng.choice(seen, n_genes, replace=False))
    counts = counts[:, chosen]
    if "cell_type" in reference.obs:
        group = pd.factorize(reference.obs["cell_type"].astype(str), sort=True)[0]
    else:
        values = log_normalise(counts)[0]
        points = TruncatedSVD(min(15, n_genes - 1), random_state=0).fit_transform(values)
        group = MiniBatchKMeans(min(n_types, counts.shape[0]), n_init=3, random_state=0).fit_predict(points)
    member = sp.csr_matrix((np.ones(len(group), dtype=np.float32), (group, np.arange(len(group)))))
    sums = (member @ counts).toarray() + np.asarray(counts.sum(0)).ravel() / counts.sum()  # one count of the whole: no gene is impossible
    depths = np.asarray(counts.sum(1)).ravel()
    abundance = np.bincount(group) / len(group)
    return Tissue(_shares(sums), _loadings(n_genes, rng), abundance, np.maximum(depths, 1), reference.var_names[chosen].to_numpy(str))


def _shares(profiles: np.ndarray) -> np.ndarray:
    return (profiles / profiles.sum(1, keepdims=True)).astype(np.float32)


def _loadings(n_genes: int, rng: np.random.Generator) -> np.ndarray:
    """Each gene follows one or two programs, most of them weakly."""
    return (
        rng.gamma(0.5, 0.5, (N_PROGRAMS, n_genes)) * rng.choice([-1, 1], (N_PROGRAMS, n_genes)) * (rng.random((N_PROGRAMS, n_genes)) < 0.25)
    ).astype(np.float32)


def _visibility(tissue: Tissue) -> np.ndarray:
    """Panels are made of genes that are seen: the chance of a gene to be measured grows with the root of its level."""
    level = np.sqrt(tissue.abundance @ tissue.profiles)
    return level / level.sum()


def _reference(tissue: Tissue, n_cells: int, rng: np.random.Generator) -> anndata.AnnData:
    types = rng.choice(len(tissue.abundance), n_cells, p=tissue.abundance)
    depths = rng.choice(tissue.depths, n_cells)
    programs = rng.normal(0, 0.6, (n_cells, N_PROGRAMS)).astype(np.float32)
    parts = []
    for rows in _blocks(n_cells, len(tissue.genes)):
        rate = tissue.profiles[types[rows]] * np.exp(programs[rows] @ tissue.loadings)
        rate *= (depths[rows] / rate.sum(1))[:, None].astype(np.float32)
        parts.append(_drawn(rate * rng.gamma(4.0, 0.25, rate.shape).astype(np.float32), rng))
    obs = pd.DataFrame({"cell_type": pd.Categorical([f"type_{t + 1}" for t in types])}, index=[f"cell_{i + 1:07d}" for i in range(n_cells)])
    return anndata.AnnData(obs=obs, var=pd.DataFrame(index=tissue.genes), layers={"counts": sp.vstack(parts, format="csr")})


def _slide(
    tissue: Tissue, measured: np.ndarray, n_spots: int, n_domains: int, depth: float, dropout: float, rng: np.random.Generator
) -> anndata.AnnData:
    coordinates = hexagonal(n_spots)
    unit = coordinates / max(float(np.ptp(coordinates, axis=0).max()), 1.0)
    waves = np.sin(unit[:, ::-1] * rng.uniform(6, 14, 2) + rng.uniform(0, 6, 2)) * 0.05
    distance = np.linalg.norm((unit + waves)[:, None] - rng.uniform(0, 1, (n_domains, 2)), axis=2)
    nearness = np.exp(-distance / 0.02 + distance.min(1, keepdims=True) / 0.02)
    nearness /= nearness.sum(1, keepdims=True)  # so that borders are soft over a few spots
    n_types = len(tissue.abundance)
    mixtures = nearness @ rng.dirichlet(np.full(n_types, 0.4), n_domains)
    fields = np.stack([np.sin(unit @ rng.normal(0, 5, 2) + rng.uniform(0, 6)) for _ in range(N_PROGRAMS)], axis=1).astype(np.float32)
    efficiency = rng.lognormal(0, 0.5, len(measured))
    profiles, loadings = tissue.profiles[:, measured] * efficiency.astype(np.float32), tissue.loadings[:, measured]
    typical = profiles.sum(1).mean()
    cells = np.maximum(rng.poisson(CELLS_PER_SPOT, n_spots), 1)
    depths = depth * rng.lognormal(-0.08, 0.4, n_spots) * cells / CELLS_PER_SPOT
    parts = []
    for rows in _blocks(n_spots, len(measured)):
        own = rng.gamma(np.maximum(mixtures[rows] * CELLS_PER_SPOT, 1e-3), 1).astype(np.float32)
        rate = (own / np.maximum(own.sum(1, keepdims=True), 1e-9)) @ profiles * np.exp(0.6 * fields[rows] @ loadings)
        rate *= (depths[rows] / typical)[:, None].astype(np.float32)
        parts.append(_drawn(rate * (1 - dropout * np.exp(1 - np.maximum(rate, 1))), rng))
    obs = pd.DataFrame(
        {"domain": pd.Categorical([f"domain_{d + 1}" for d in distance.argmin(1)])}, index=[f"spot_{i + 1:07d}" for i in range(n_spots)]
    )
    var = pd.DataFrame(index=tissue.genes[measured])
    return anndata.AnnData(obs=obs, var=var, layers={"counts": sp.vstack(parts, format="csr")}, obsm={"spatial": coordinates})


def hexagonal(n: int, spacing: float = 100.0) -> np.ndarray:
    """The first n places of a hexagonal grid that is about as high as wide, row by row, (n, 2)."""
    width = max(1, round(np.sqrt(n * np.sqrt(3) / 2)))
    row, column = np.divmod(np.arange(n), width)
    return np.column_stack([spacing * (column + 0.5 * (row % 2)), spacing * np.sqrt(3) / 2 * row])


def _blocks(n_rows: int, n_columns: int) -> Iterator[slice]:
    step = max(1, BLOCK // max(n_columns, 1))
    return (slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step))


def _drawn(rate: np.ndarray, rng: np.random.Generator) -> sp.csr_matrix:
    return sp.csr_matrix(rng.poisson(rate).astype(np.float32))


def _marked(adata: anndata.AnnData, role: str, seed: int) -> anndata.AnnData:
    adata.uns["spadit"] = {
        "id": f"synthetic_{role}",
        "role": role,
        "platform": "synthetic",
        "synthetic": True,
        "seed": seed,
        "source": f"synthetic_{role}.h5ad",
        "counts_from": "layers['counts']",
        "warnings": [WARNING],
    }
    return adata
