"""Slides and references on which a method's published behaviour is easy to see."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from spadit.methods import METHODS


def installed(name: str):
    """The method; the test is skipped when its package isn't installed."""
    method = METHODS[name]
    if method.missing():
        pytest.skip(f"needs {', '.join(method.missing())}: the extra 'peers'")
    return method


def data(counts: np.ndarray, names: list[str], places: np.ndarray | None = None) -> ad.AnnData:
    """As the pipeline's steps hand it on: counts in layers['counts']."""
    adata = ad.AnnData(
        obs=pd.DataFrame(index=[f"o{i}" for i in range(len(counts))]),
        var=pd.DataFrame(index=names),
        layers={"counts": sp.csr_matrix(counts.astype(np.float32))},
    )
    if places is not None:
        adata.obsm["spatial"] = np.asarray(places, dtype=float)
    return adata


def two_types(n_spots: int = 80, n_cells: int = 120, n_genes: int = 20):
    """Two cell types with their own halves of the genes, on the left and right of the slide; a hidden marker of each.

    Returns slide, reference, the two hidden genes and which spots are of the first type.
    """
    rng = np.random.default_rng(0)
    names = [f"G{i}" for i in range(n_genes)] + ["marker0", "marker1"]
    owner = np.array([i % 2 for i in range(n_genes)] + [0, 1])

    def counts(types):
        return rng.poisson(np.where(owner[None, :] == types[:, None], 8.0, 0.5))

    types = rng.integers(0, 2, n_spots)
    places = np.column_stack([types + rng.uniform(0, 0.8, n_spots), rng.uniform(0, 1, n_spots)])
    slide = data(counts(types)[:, :n_genes], names[:n_genes], places)
    return slide, data(counts(rng.integers(0, 2, n_cells)), names), names[n_genes:], types == 0


def gradient(n_spots: int = 60, n_cells: int = 150):
    """Spots along a line, genes that peak somewhere on it, and cells from everywhere on it; some genes are hidden.

    Returns slide, reference, hidden genes and their expected counts (spots × genes).
    """
    rng = np.random.default_rng(0)
    names = [f"G{i}" for i in range(16)]
    peaks = np.linspace(0, 1, 16)

    def expected(at):
        return 30 * np.exp(-(((at[:, None] - peaks) / 0.2) ** 2)) + 0.2

    at = np.linspace(0, 1, n_spots)
    hidden = names[2::5]
    visible = [g for g in names if g not in hidden]
    columns = [names.index(g) for g in visible]
    slide = data(rng.poisson(expected(at))[:, columns], visible, np.column_stack([at, np.zeros(n_spots)]))
    reference = data(rng.poisson(expected(rng.uniform(0, 1, n_cells))), names)
    return slide, reference, hidden, expected(at)[:, [names.index(g) for g in hidden]]
