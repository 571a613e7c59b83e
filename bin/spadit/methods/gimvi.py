"""Peer: gimVI, one latent space for cells and spots; a spot's latent vector is decoded into the hidden genes."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from spadit.methods.base import Method
from spadit.methods.packaged import check, check_sizes, closed_room, expected_to_log

N_EPOCHS = 200
BATCH_SIZE = 128
LEAST = 10
"""Spots and cells: a tenth of them is for validation, and it can't be none."""


def impute(slide, reference, genes, *, seed=0, device="cpu", target=None) -> np.ndarray:
    """spots × genes, log scale: the decoded share of each gene, normalised by the visible genes' shares as the slide is."""
    check("gimVI", slide, reference, LEAST)
    columns = reference.var_names.get_indexer([*slide.var_names, *genes])
    names = [f"g{i}" for i in range(len(columns))]
    cells, spots = reference.layers["counts"][:, columns], slide.layers["counts"]
    cells = cells[np.asarray(cells.sum(axis=1)).ravel() > 0]  # a total of 0 has no logarithm, which the model starts from
    with_counts = np.asarray(spots.sum(axis=1)).ravel() > 0
    seq, spatial = _adata(cells, names), _adata(spots[with_counts], names[: slide.n_vars])
    check_sizes("gimVI", len(spatial), len(seq), LEAST)
    with closed_room(seed):
        import scvi
        from scvi.external import GIMVI

        scvi_seed, scvi.settings.seed = scvi.settings.seed, seed
        try:
            GIMVI.setup_anndata(seq)
            GIMVI.setup_anndata(spatial)
            model = GIMVI(seq, spatial)
            model.train(
                max_epochs=N_EPOCHS,
                accelerator="gpu" if str(device).startswith("cuda") else "cpu",
                devices=1,
                batch_size=_batch_size(len(seq), len(spatial)),
                enable_progress_bar=False,
                enable_model_summary=False,
                enable_checkpointing=False,
                logger=False,
            )
            shares = model.get_imputed_values(normalized=True)[1]
        finally:
            scvi.settings._seed = scvi_seed  # its setter would seed everything again
    expected = np.empty((slide.n_obs, len(names)), dtype=np.float32)
    expected[with_counts] = shares
    expected[~with_counts] = shares.mean(axis=0)  # nothing is known of a spot without counts
    return expected_to_log(expected, slide, target)


def _adata(counts: sp.spmatrix, names: list[str]) -> ad.AnnData:
    obs = pd.DataFrame(index=[str(i) for i in range(counts.shape[0])])
    return ad.AnnData(sp.csr_matrix(counts).astype(np.float32), obs=obs, var=pd.DataFrame(index=names))


def _batch_size(*sizes: int) -> int:
    """128, or the next smaller size with which no training set (nine tenths) ends with a batch of one: batch normalisation fails on it."""
    train = [int(np.ceil(0.9 * n)) for n in sizes]
    return next(b for b in range(BATCH_SIZE, 1, -1) if all(n % b != 1 for n in train))


METHOD = Method(
    "gimVI",
    "method",
    "variational autoencoder with one latent space for cells and spots; hidden genes are decoded from a spot's latent mean",
    "Lopez R, Nazaret A, Langevin M, et al. A joint model of unpaired data from scRNA-seq and spatial transcriptomics for imputing missing "
    "gene expression measurements. arXiv:1905.02269 (2019). doi:10.48550/arXiv.1905.02269.",
    impute,
    licence="BSD-3-Clause",
    requires=("scvi-tools",),
    defaults={"max_epochs": N_EPOCHS, "n_latent": 10, "kappa": 5, "batch_size": BATCH_SIZE, "distributions": "ZINB (cells), NB (spots)"},
    differs="The package as it is, on raw counts of the visible genes and those to impute. Its normalised output is divided by the visible "
    "genes' share and logged. Spots without counts are left out of the fit and get the mean of the others.",
    scale="log",
    minutes=10,
)
