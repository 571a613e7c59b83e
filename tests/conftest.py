"""Fixtures for all tests: small synthetic slides and references, and the demo slides' neighbours where they are at hand."""

from __future__ import annotations

import os

# before numpy and torch are imported: networks this small gain nothing from threads, which wait long for one another on busy cores
os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import settings

# the same examples in every run; --hypothesis-profile=default draws new ones
settings.register_profile("fixed", derandomize=True, database=None)
settings.load_profile("fixed")

LONG = ("slurm", "container", "slow")
"""Groups that ./spadit test leaves out unless --all is given."""
START = time.monotonic()
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bin"))

N_FACTORS = 4


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long groups come last. Images may have to be built: more time."""
    for item in items:
        if item.get_closest_marker("container") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(2400))
    items.sort(key=order)


def is_long(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) for name in LONG)


def order(item: pytest.Item) -> int:
    """Of the long groups first what breaks most: SLURM and faults, a few minutes each; then images; then the rest."""
    if not is_long(item):
        return 0
    return next((n for n, name in enumerate(("slurm", "fault", "container"), 1) if item.get_closest_marker(name)), 4)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """They are skipped once SPADIT_TEST_MINUTES have passed, so that a continuous integration ends in time."""
    minutes = float(os.environ.get("SPADIT_TEST_MINUTES", "inf"))
    if is_long(item) and time.monotonic() - START > 60 * minutes:
        pytest.skip(f"SPADIT_TEST_MINUTES: more than {minutes:.0f} minutes have passed")


def _loadings(names: list[str]) -> np.ndarray:
    """genes × factors. A gene has the same loadings wherever its name occurs, so slide and reference agree on who goes with whom."""
    return np.stack([np.random.default_rng(list(name.casefold().encode())).normal(size=N_FACTORS) for name in names])


def _names(n_genes: int) -> list[str]:
    return [f"Gene{i}" for i in range(n_genes)]


def _counts(factors: np.ndarray, names: list[str], rng: np.random.Generator) -> sp.csr_matrix:
    rate = np.exp(0.7 * factors @ _loadings(names).T + 0.5)
    return sp.csr_matrix(rng.poisson(rate).astype(np.float32))


def build_slide(n_spots: int = 60, n_genes: int = 30, seed: int = 0, names: list[str] | None = None) -> ad.AnnData:
    """A slide as a user would give it: raw counts in X, spots × genes; genes go together as in :func:`build_reference`."""
    names = list(names or _names(n_genes))
    rng = np.random.default_rng(seed)
    spatial = rng.uniform(0, 10, size=(n_spots, 2))
    waves = rng.normal(scale=0.6, size=(2, N_FACTORS))
    factors = np.sin(spatial @ waves + rng.uniform(0, 6, size=N_FACTORS)) * 1.4
    adata = ad.AnnData(
        X=_counts(factors, names, rng),
        obs=pd.DataFrame(index=[f"spot{i}" for i in range(n_spots)]),
        var=pd.DataFrame(index=names),
    )
    adata.obsm["spatial"] = spatial
    return adata


def build_reference(n_cells: int = 80, n_genes: int = 40, seed: int = 1, names: list[str] | None = None) -> ad.AnnData:
    """A reference as a user would give it: raw counts in X, cells × genes, four cell types."""
    names = list(names or _names(n_genes))
    rng = np.random.default_rng(seed)
    types = rng.integers(0, N_FACTORS, size=n_cells)
    factors = np.eye(N_FACTORS)[types] * 2 - 0.5 + rng.normal(scale=0.4, size=(n_cells, N_FACTORS))
    return ad.AnnData(
        X=_counts(factors, names, rng),
        obs=pd.DataFrame({"cell_type": [f"type{t}" for t in types]}, index=[f"cell{i}" for i in range(n_cells)]),
        var=pd.DataFrame(index=names),
    )


def _intermediate(adata: ad.AnnData, role: str) -> ad.AnnData:
    """The pipeline's own form of a synthetic object, as spadit.io.read would give it."""
    adata = adata.copy()
    adata.layers["counts"] = sp.csr_matrix(adata.X).astype(np.float32)
    adata.X = None
    adata.uns["spadit"] = {
        "id": role, "role": role, "platform": "h5ad", "source": f"{role}.h5ad", "sha256": "0" * 64, "counts_from": "X", "warnings": []
    }  # fmt: skip
    return adata


@pytest.fixture(scope="session")
def make_slide():
    """``make_slide(n_spots, n_genes, seed, names)``: a slide in the user's form (counts in X)."""
    return build_slide


@pytest.fixture(scope="session")
def make_reference():
    """``make_reference(n_cells, n_genes, seed, names)``: a reference in the user's form (counts in X)."""
    return build_reference


@pytest.fixture(scope="session")
def intermediate():
    """``intermediate(adata, role)``: the same in the pipeline's own form (counts in layers['counts'], X None)."""
    return _intermediate


@pytest.fixture(scope="session")
def make_pair():
    """``make_pair(n_spots, n_cells, n_genes, n_reference_genes, seed)``: slide, reference, Split, as PAIR and SPLIT leave them."""

    def build(n_spots: int = 60, n_cells: int = 80, n_genes: int = 30, n_reference_genes: int = 40, seed: int = 0):
        from spadit.pairing import pair
        from spadit.split import split_genes

        slide = _intermediate(build_slide(n_spots, n_genes, seed), "slide")
        reference = _intermediate(build_reference(n_cells, n_reference_genes, seed + 1), "reference")
        slide, reference, _ = pair(slide, reference, "slide", "reference")
        shared = slide.var_names[slide.var["shared"]].tolist()
        unmeasured = reference.var_names[~reference.var["shared"]].tolist()
        return slide, reference, split_genes(shared, unmeasured, seed=seed)

    return build


@pytest.fixture(scope="session")
def tiny() -> dict:
    """Settings of networks that are as small as they get and trained for a moment: for all but accuracy."""
    return {
        "width": 16, "depth": 1, "n_heads": 2, "n_reduced": 4, "token_width": 16, "token_depth": 1, "inner_folds": 3, "network_folds": 2,
        "n_models": 1, "max_steps": 10, "validate_every": 5, "checkpoint_every": 5,
    }  # fmt: skip


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real slides that can't be shipped with the project; the test is skipped where they aren't."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the slides of ../shared/data, which are not part of the project")
    return folder


@pytest.fixture
def save(tmp_path):
    """``save(adata, name) -> path``: write an h5ad file into the test's folder."""

    def write(adata: ad.AnnData, name: str = "data.h5ad") -> Path:
        path = tmp_path / name
        adata.write_h5ad(path)
        return path

    return write
