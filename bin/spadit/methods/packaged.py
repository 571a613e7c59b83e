"""What methods that call other people's packages have in common: a closed room to call them in, and inputs and outputs on one scale.

Such packages print, log, seed the global random generators and write files where they are started. In :func:`closed_room` none of it
gets out.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import random
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import anndata as ad
import numpy as np
import scipy.sparse as sp

from spadit.errors import MethodError
from spadit.methods.base import reference_values
from spadit.preprocess import log_normalise


@contextlib.contextmanager
def closed_room(seed: int) -> Iterator[Path]:
    """Within it the working directory is a fresh temporary folder (the value), nothing is printed or logged, and every global generator
    starts from the seed. After it all is as before: generators, folder, environment variables, logging, cuDNN's flags.
    """
    import torch

    root, before, variables = logging.getLogger(), Path.cwd(), dict(os.environ)
    level, disabled, off = root.level, root.manager.disable, root.disabled
    numpy_state, python_state = np.random.get_state(), random.getstate()
    cudnn = torch.backends.cudnn
    flags = cudnn.deterministic, cudnn.benchmark
    quiet = contextlib.ExitStack()
    with quiet:
        folder = Path(quiet.enter_context(tempfile.TemporaryDirectory(prefix="spadit-")))
        quiet.enter_context(contextlib.redirect_stdout(io.StringIO()))
        quiet.enter_context(contextlib.redirect_stderr(io.StringIO()))  # progress bars
        quiet.enter_context(warnings.catch_warnings())
        quiet.enter_context(torch.random.fork_rng())
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            os.chdir(folder)
            np.random.seed(seed)
            random.seed(seed)
            torch.manual_seed(seed)
            yield folder
        finally:
            os.chdir(before)
            np.random.set_state(numpy_state)
            random.setstate(python_state)
            cudnn.deterministic, cudnn.benchmark = flags
            logging.disable(disabled)
            root.setLevel(level)
            root.disabled = off
            for name in set(os.environ) - set(variables):
                del os.environ[name]
            os.environ.update(variables)


def check_sizes(method: str, n_spots: int, n_cells: int, least: int = 2) -> None:
    """Refuse so few spots or cells that the package would answer with a riddle. Raises MethodError."""
    for n, what in ((n_spots, "spots"), (n_cells, "cells")):
        if n < least:
            raise MethodError(f"The method '{method}' needs at least {least} {what} with counts, and there are {n}.")


def check(method: str, slide: ad.AnnData, reference: ad.AnnData, least: int = 2) -> None:
    """The same, and that a visible gene is detected on both sides. Raises MethodError."""
    check_sizes(method, slide.n_obs, reference.n_obs, least)
    columns = reference.var_names.get_indexer(slide.var_names)
    on_slide, in_cells = (np.asarray(x.sum(axis=0)).ravel() > 0 for x in (slide.layers["counts"], reference.layers["counts"][:, columns]))
    if not (on_slide & in_cells).any():
        raise MethodError(f"The method '{method}' needs a visible gene that is detected on the slide and in the reference: there is none.")


def reference_log(slide: ad.AnnData, reference: ad.AnnData, genes: Sequence[str], target: float | None = None) -> sp.csr_matrix:
    """``genes`` of the reference, log-normalised over the slide's visible genes, so that both are on the same footing: cells × genes."""
    visible = list(slide.var_names)
    return reference_values(visible, reference, genes, target)[:, len(visible) :]


def most_variable(slide: ad.AnnData, reference: ad.AnnData, among: Sequence[str], n: int) -> list[str]:
    """The ``n`` genes with the largest variance of log-normalised values in the reference, in the order of ``among``."""
    among = list(among)
    if len(among) <= n:
        return among
    values = reference_log(slide, reference, among).astype(np.float64)
    mean = np.asarray(values.mean(axis=0)).ravel()
    variance = np.asarray(values.multiply(values).mean(axis=0)).ravel() - mean**2
    chosen = np.sort(np.argsort(-variance, kind="stable")[:n])
    return [among[i] for i in chosen]


def expected_to_log(expected: np.ndarray, slide: ad.AnnData, target: float | None = None) -> np.ndarray:
    """Hidden genes of expected counts, log-normalised as a slide is: by their total over the visible genes.

    Parameters
    ----------
    expected
        spots × (visible genes, then hidden genes), on any scale per spot, not negative.
    slide
        The visible genes: where ``target`` is None, its median total is the target.

    Returns
    -------
    numpy.ndarray
        spots × hidden genes, float32. Spots without any expected count get zeros.
    """
    if target is None:
        target = log_normalise(slide.layers["counts"])[2]
    mask = np.arange(expected.shape[1]) < slide.n_vars
    return log_normalise(sp.csr_matrix(expected), mask, target)[0][:, slide.n_vars :].toarray()
