"""Peer: Tangram, cells are mapped onto spots so that the visible genes' maps come out; hidden genes are carried along."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from spadit.methods.base import Method
from spadit.methods.packaged import check, closed_room, expected_to_log, reference_log

N_EPOCHS = 1000
MODE = "cells"
DENSITY = "rna_count_based"


def impute(slide, reference, genes, *, seed=0, device="cpu", target=None) -> np.ndarray:
    """spots × genes, log scale: the mapped cells' counts, normalised per spot as the slide is."""
    check("Tangram", slide, reference)
    names = [f"g{i}" for i in range(slide.n_vars + len(genes))]  # Tangram lower-cases names: two genes could become one
    visible = names[: slide.n_vars]
    cells = reference_log(slide, reference, [*slide.var_names, *genes])
    cells.data = np.expm1(cells.data)  # Tangram's tutorial gives cells with equal totals, without the logarithm
    sc = ad.AnnData(sp.csr_matrix(cells), obs=pd.DataFrame(index=[f"c{i}" for i in range(cells.shape[0])]), var=pd.DataFrame(index=names))
    spots = sp.csr_matrix(slide.layers["counts"]).astype(np.float32)
    st = ad.AnnData(spots, obs=pd.DataFrame(index=[f"s{i}" for i in range(slide.n_obs)]), var=pd.DataFrame(index=visible))
    with closed_room(seed):
        import tangram

        tangram.pp_adatas(sc, st, genes=visible, gene_to_lowercase=False)
        shared = set(sc.uns["training_genes"])
        adata_map = tangram.map_cells_to_space(
            sc,
            st,
            cv_train_genes=[g for g in visible if g in shared],  # its own list comes from a set: another order in every process
            mode=MODE,
            density_prior=DENSITY,
            num_epochs=N_EPOCHS,
            device=device,
            verbose=False,
        )
        projected = tangram.project_genes(adata_map, sc)
    expected = np.zeros((slide.n_obs, len(names)), dtype=np.float32)  # genes that no cell has were left out
    expected[:, [int(g[1:]) for g in projected.var_names]] = np.asarray(projected.X)
    return expected_to_log(expected, slide, target)


METHOD = Method(
    "Tangram",
    "method",
    "cells mapped onto spots by gradient descent on the visible genes' cosine similarity; hidden genes projected with the map",
    "Biancalani T, Scalia G, Buffoni L, et al. Deep learning and alignment of spatially resolved single-cell transcriptomes with Tangram. "
    "Nat. Methods 18, 1352-1362 (2021). doi:10.1038/s41592-021-01264-7.",
    impute,
    licence="BSD-3-Clause",
    requires=("tangram-sc",),
    defaults={"mode": MODE, "density_prior": DENSITY, "num_epochs": N_EPOCHS, "learning_rate": 0.1},
    differs="The package as it is. All visible genes are its markers; projected counts are normalised by the spot's total over the visible "
    "genes and logged.",
    scale="log",
    minutes=12,
)
