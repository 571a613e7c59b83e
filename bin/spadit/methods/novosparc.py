"""Peer: novoSpaRc, cells are laid out over the slide by optimal transport; neighbours stay neighbours, visible genes are the atlas."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import scipy.spatial

from spadit.errors import MethodError
from spadit.methods.base import Method
from spadit.methods.packaged import check, closed_room, most_variable, reference_log
from spadit.preprocess import log_normalise

ALPHA = 0.8
EPSILON = 5e-3
MAX_EPSILON = 5e-1
N_NEIGHBOURS = 5
TOP_GENES = 2000
MAX_CELLS = 1000
MAX_SPOTS = 3000


def impute(slide, reference, genes, *, seed=0, device="cpu", target=None) -> np.ndarray:
    """spots × genes, log scale (of the reference): the mean over cells, weighted by how much of each is laid on the spot."""
    check("novoSpaRc", slide, reference)
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(slide.n_obs)[:MAX_SPOTS])
    cells = np.sort(rng.permutation(reference.n_obs)[:MAX_CELLS])
    places = np.asarray(slide.obsm["spatial"], dtype=np.float64)
    atlas = log_normalise(slide.layers["counts"], target=target)[0][chosen].toarray()
    visible, wanted, variable = (
        reference_log(slide, reference, names, target)[cells].toarray()
        for names in (list(slide.var_names), list(genes), most_variable(slide, reference, reference.var_names, TOP_GENES))
    )
    if not visible.any() or not atlas.any():
        raise MethodError("The method 'novoSpaRc' needs cells and spots with counts in the visible genes: of those it drew, none has any.")
    dataset = ad.AnnData(visible, var=pd.DataFrame(index=[f"g{i}" for i in range(visible.shape[1])]))
    dataset.obs_names = [f"c{i}" for i in range(len(cells))]
    with closed_room(seed):
        import novosparc

        tissue = novosparc.cm.Tissue(dataset=dataset, locations=places[chosen])
        tissue.setup_linear_cost(markers_to_use=np.arange(slide.n_vars), atlas_matrix=atlas)
        tissue.setup_smooth_costs(
            dge_rep=variable, num_neighbors_s=min(N_NEIGHBOURS, len(cells)), num_neighbors_t=min(N_NEIGHBOURS, len(chosen)), verbose=False
        )
        plan = _transport(tissue)
    weights = plan / plan.sum(axis=0, keepdims=True)
    nearest = scipy.spatial.cKDTree(places[chosen]).query(places)[1] if len(chosen) < slide.n_obs else np.arange(slide.n_obs)
    return (weights.T @ wanted)[nearest].astype(np.float32)


def _transport(tissue) -> np.ndarray:
    """cells × spots, each spot with some mass. Where the regularisation is too weak for the numbers, it is tried with ten times as much.

    novoSpaRc does so itself, but waits for a printed message of POT that is a warning by now.
    """
    epsilon = EPSILON
    while epsilon < MAX_EPSILON:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tissue.reconstruct(alpha_linear=ALPHA, epsilon=epsilon, search_epsilon=False, verbose=False)
        failed = any("numerical errors" in str(w.message) for w in caught)
        if not failed and np.isfinite(tissue.gw).all() and (tissue.gw.sum(axis=0) > 0).all():
            return tissue.gw
        epsilon *= 10
    raise MethodError("The method 'novoSpaRc' found no transport of cells to spots: its numbers fail at every regularisation.")


METHOD = Method(
    "novoSpaRc",
    "method",
    "optimal transport of cells to spots, four parts by the visible genes and one part by keeping neighbours together",
    "Nitzan M, Karaiskos N, Friedman N, Rajewsky N. Gene expression cartography. Nature 576, 132-137 (2019). "
    "doi:10.1038/s41586-019-1773-3.",
    impute,
    requires=("novosparc", "POT"),
    defaults={"alpha_linear": ALPHA, "epsilon": EPSILON, "num_neighbors": N_NEIGHBOURS, "max_cells": MAX_CELLS, "max_spots": MAX_SPOTS},
    differs="The package as it is, with the settings of its tutorial (its function's default epsilon is 5e-4), but for at most "
    f"{MAX_CELLS:,} cells and {MAX_SPOTS:,} spots, seeded draws, since time and memory grow with their squares. Other spots get the value "
    "of the nearest drawn one.",
    scale="log",
    minutes=3,
)
