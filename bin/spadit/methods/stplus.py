"""Peer: stPlus, an autoencoder of spots and cells together; a hidden gene is the weighted mean over the nearest cells in its embedding."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pandas as pd

from spadit.methods.base import Method
from spadit.methods.packaged import check, closed_room, most_variable, reference_log
from spadit.preprocess import log_normalise

MAX_EPOCHS = 10_000
TOP_GENES = 2000
N_NEIGHBOURS = 50


def impute(slide, reference, genes, *, seed=0, device="cpu", target=None) -> np.ndarray:
    """spots × genes, log scale (of the reference)."""
    check("stPlus", slide, reference)
    taken = {*slide.var_names, *genes}
    others = most_variable(slide, reference, [g for g in reference.var_names if g not in taken], TOP_GENES)
    columns = [*slide.var_names, *genes, *others]
    cells = pd.DataFrame(reference_log(slide, reference, columns, target).toarray(), columns=columns)
    if not others:  # stPlus fails where there is nothing to choose from
        cells["no gene"], others = np.float32(0), ["no gene"]
    spots = pd.DataFrame(log_normalise(slide.layers["counts"], target=target)[0].toarray(), columns=list(slide.var_names))
    with closed_room(seed) as folder:
        model = _package()
        on_device = mock.patch.object(model.VAE, "cuda", lambda network: network.to(device))
        with on_device, mock.patch.object(model, "DataLoader", _loader(model.DataLoader, device)):
            result = model.stPlus(
                spots,
                cells,
                np.array(genes),
                save_path_prefix=str(folder / "model"),
                top_k=len(others),
                n_neighbors=min(N_NEIGHBOURS, len(cells)),
                max_epoch_num=MAX_EPOCHS,
                random_seed=seed,
                verbose=False,
            )
    # a spot whose neighbours all lie at distance 0 (or that has one) is weighted 0/0: nothing but the mean is known of it
    values = result[list(genes)].to_numpy(np.float32)
    return np.where(np.isfinite(values), values, cells[list(genes)].to_numpy().mean(axis=0))


def _package():
    """stPlus's module. On import it makes CUDA torch's default for the whole process, and fails without it."""
    import torch

    with mock.patch.object(torch, "set_default_tensor_type"):
        import stPlus.model
    return stPlus.model


def _loader(original: type, device: str):
    """A DataLoader in this process (its own has four workers), whose batches' ``.cuda()`` means ``device``."""
    import torch

    class Batch(torch.Tensor):
        def cuda(self):
            return self.as_subclass(torch.Tensor).to(device)

    class Loader:
        def __init__(self, dataset, batch_size, shuffle, num_workers):
            self.batches = original(dataset, batch_size=batch_size, shuffle=shuffle)

        def __iter__(self):
            return ((x.as_subclass(Batch), y) for x, y in self.batches)

    return Loader


METHOD = Method(
    "stPlus",
    "method",
    "autoencoder of spots and cells together; weighted mean of the hidden gene over the 50 cells nearest in its embedding",
    "Chen S, Zhang B, Chen X, Zhang X, Jiang R. stPlus: a reference-based method for the accurate enhancement of spatial "
    "transcriptomics. Bioinformatics 37, i299-i307 (2021). doi:10.1093/bioinformatics/btab298.",
    impute,
    requires=("stPlus",),
    defaults={"top_k": TOP_GENES, "t_min": 5, "n_neighbors": N_NEIGHBOURS, "converge_ratio": 0.004, "batch_size": 512,
              "learning_rate": "4e-3 below 10,000 cells, else 8e-5", "weight_decay": 2e-4},
    differs="The package as it is, but for the device: it asks for CUDA and four loading processes, and gets what is there and none.",
    scale="log",
    minutes=6,
)  # fmt: skip
