"""Made-up slides: of the sizes asked for, the same for the same seed, like tissue, like the reference they come from, and marked."""

import anndata as ad
import numpy as np
import pytest

from spadit import synthetic
from spadit.errors import InputError
from spadit.metrics import morans_i, neighbours
from spadit.preprocess import log_normalise
from spadit.synthetic import WARNING, hexagonal, synthetic_pair


@pytest.fixture(scope="module")
def pair():
    return synthetic_pair(600, 400, 40, 60, seed=3)


def test_sizes_names_and_the_pipelines_own_form(pair):
    slide, reference = pair
    assert slide.shape == (600, 40) and reference.shape == (400, 100)
    assert set(slide.var_names) < set(reference.var_names)
    for data in pair:
        counts = data.layers["counts"]
        assert data.X is None and counts.format == "csr" and counts.dtype == np.float32 and (counts.data == counts.data.round()).all()
        assert data.obs_names.is_unique and 0.02 < counts.nnz / np.prod(data.shape) < 0.95
    assert slide.obsm["spatial"].shape == (600, 2) and slide.obs["domain"].nunique() > 2 and reference.obs["cell_type"].nunique() > 5


def test_it_is_marked_wherever_it_goes(pair, tmp_path):
    from spadit.qc import quality_control

    for data, role in zip(pair, ("slide", "reference"), strict=True):
        path = tmp_path / f"{role}.h5ad"
        data.write_h5ad(path)
        facts = ad.read_h5ad(path).uns["spadit"]
        assert facts["synthetic"] and facts["platform"] == "synthetic" and WARNING in list(facts["warnings"])
        assert WARNING in quality_control(data, role)[1].warnings  # so the report shows it


def test_the_seed_decides(pair):
    again, other = (synthetic_pair(600, 400, 40, 60, seed=seed) for seed in (3, 4))
    for a, b, c in zip(pair, again, other, strict=True):
        assert (a.layers["counts"] != b.layers["counts"]).nnz == 0 and list(a.var_names) == list(b.var_names)
        assert a.layers["counts"].sum() != c.layers["counts"].sum()


def test_genes_follow_the_tissue_and_cells_their_types(pair):
    slide, reference = pair
    values = log_normalise(slide.layers["counts"])[0].toarray()
    seen = (values > 0).mean(0) > 0.2
    assert np.median(morans_i(values[:, seen], neighbours(slide.obsm["spatial"]))) > 0.1
    shuffled = slide.obsm["spatial"][np.random.default_rng(0).permutation(600)]
    assert np.median(morans_i(values[:, seen], neighbours(shuffled))) < 0.05
    values = log_normalise(reference.layers["counts"])[0].toarray()
    types = reference.obs["cell_type"].to_numpy()
    within = np.mean([values[types == t].var(0) * (types == t).mean() * len(set(types)) for t in set(types)], axis=0)
    assert np.median(within / values.var(0)) < 0.9


def test_depth_and_dropout_are_settings():
    deep, shallow, dropped = (
        synthetic_pair(300, 20, 50, 0, seed=1, **settings)[0].layers["counts"]
        for settings in ({"spot_depth": 1000, "dropout": 0.0}, {"spot_depth": 100, "dropout": 0.0}, {"spot_depth": 100, "dropout": 0.6})
    )
    assert 5 < deep.sum() / shallow.sum() < 20 and dropped.sum() < 0.9 * shallow.sum() and dropped.nnz < shallow.nnz


def test_a_real_reference_gives_its_genes_types_and_depths():
    _, real = synthetic_pair(10, 500, 30, 30, seed=5)
    slide, made = synthetic_pair(200, 400, 20, 30, seed=0, reference=real)
    assert set(made.var_names) <= set(real.var_names) and slide.n_vars == 20 and made.n_vars == 50
    assert made.obs["cell_type"].nunique() <= real.obs["cell_type"].nunique()
    a, b = (np.asarray(data[:, made.var_names].layers["counts"].mean(0)).ravel() for data in (real, made))
    assert np.corrcoef(np.log(a + 0.1), np.log(b + 0.1))[0, 1] > 0.9
    del real.obs["cell_type"]  # then clusters stand for types
    assert 1 < synthetic_pair(200, 400, 20, 30, seed=0, reference=real, n_types=6)[1].obs["cell_type"].nunique() <= 6


def test_blocks_bound_the_memory_and_change_no_sizes(monkeypatch):
    monkeypatch.setattr(synthetic, "BLOCK", 64)
    slide, reference = synthetic_pair(33, 21, 5, 4)
    assert slide.shape == (33, 5) and reference.shape == (21, 9)


def test_spots_lie_on_a_hexagonal_grid():
    places = hexagonal(500)
    from scipy.spatial import cKDTree

    distance = cKDTree(places).query(places, 7)[0]
    assert np.isclose(np.median(distance[:, 1:], axis=0), 100).all()
    assert 0.7 < np.ptp(places[:, 0]) / np.ptp(places[:, 1]) < 1.4


def test_sizes_that_cannot_be_are_told():
    with pytest.raises(InputError, match="n_spots is 0, but at least 1 is needed"):
        synthetic_pair(0, 5, 5, 5)
    _, real = synthetic_pair(10, 50, 5, 5)
    with pytest.raises(InputError, match="detected genes, but 50 are asked for"):
        synthetic_pair(10, 10, 25, 25, reference=real)
