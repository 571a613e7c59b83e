import gzip
import shutil
import subprocess
import sys

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from spadit import io
from spadit.coarse import N_SMOOTH
from spadit.errors import InputError
from spadit.io.counts import NEIGHBOURS, log_base
from spadit.metrics import neighbours


def counts_of(adata):
    return adata.layers["counts"].toarray()


def read_slide(path, **kwargs):
    return io.read(path, "slide", **kwargs)


def test_a_slide_in_the_intermediate_form(make_slide, save):
    slide = make_slide()
    path = save(slide, "st.h5ad")
    result = read_slide(path)
    counts = result.layers["counts"]
    assert result.X is None and sp.issparse(counts) and counts.format == "csr" and counts.dtype == np.float32
    np.testing.assert_array_equal(counts.toarray(), slide.X.toarray())
    np.testing.assert_array_equal(result.obsm["spatial"], slide.obsm["spatial"])
    assert result.obsm["spatial"].dtype == np.float64
    assert list(result.obs_names) == list(slide.obs_names) and list(result.var_names) == list(slide.var_names)
    facts = result.uns["spadit"]
    assert facts["source"] == "st.h5ad" and facts["platform"] == "h5ad" and facts["role"] == "slide" and facts["counts_from"] == "X"
    assert facts["sha256"] == io.sha256(path) and len(facts["sha256"]) == 64
    assert io.warnings_of(result) == []


def forms(slide):
    """The same counts in all the ways a file may hold them."""
    dense = slide.X.toarray()
    for name, matrix in {
        "dense float64": dense.astype(np.float64),
        "dense int": dense.astype(np.int64),
        "csc": sp.csc_matrix(slide.X),
        "csr uint16": slide.X.astype(np.uint16),
        "csr float64": slide.X.astype(np.float64),
    }.items():
        other = slide.copy()
        other.X = matrix
        yield name, other
    explicit = slide.X.tocoo()
    zeros = np.argwhere(dense == 0)[:5]
    data = np.concatenate([explicit.data, np.zeros(5)])
    rows, columns = np.concatenate([explicit.row, zeros[:, 0]]), np.concatenate([explicit.col, zeros[:, 1]])
    other = slide.copy()
    other.X = sp.csr_matrix((data, (rows, columns)), shape=slide.shape)
    yield "explicit zeros", other


def test_dense_and_sparse_files_of_the_same_data_give_identical_output(make_slide, save, tmp_path):
    slide = make_slide(names=[f"g{i}" for i in range(30)])
    expected = read_slide(save(slide)).layers["counts"]
    for name, other in forms(slide):
        counts = read_slide(save(other)).layers["counts"]
        assert counts.dtype == expected.dtype, name
        for part in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(counts, part), getattr(expected, part), err_msg=name)


def test_dense_files_are_read_in_blocks(make_slide, save, monkeypatch):
    slide = make_slide()
    expected = counts_of(read_slide(save(slide)))
    slide.X = slide.X.toarray()
    monkeypatch.setattr("spadit.io.h5ad.DENSE_BLOCK", 70)
    np.testing.assert_array_equal(counts_of(read_slide(save(slide))), expected)


def normalised(slide):
    result = slide.copy()
    totals = np.asarray(slide.X.sum(axis=1))
    result.X = sp.csr_matrix(np.log1p(slide.X.toarray() / totals * 1e4).astype(np.float32))
    return result


def test_raw_counts_are_found_in_a_layer_or_in_raw(make_slide, save):
    slide = make_slide()
    layered = normalised(slide)
    layered.layers["counts"] = slide.X
    result = read_slide(save(layered))
    assert result.uns["spadit"]["counts_from"] == "layers['counts']"
    np.testing.assert_array_equal(counts_of(result), slide.X.toarray())

    wide = make_slide(n_genes=35)  # raw has genes that X lacks
    narrow = normalised(wide)[:, :20].copy()
    narrow.raw = wide
    result = read_slide(save(narrow))
    assert result.uns["spadit"]["counts_from"] == "raw.X" and result.n_vars == 35
    np.testing.assert_array_equal(counts_of(result), wide.X.toarray())


def test_x_may_be_absent(make_slide, save):
    slide = make_slide()
    slide.layers["counts"] = slide.X
    expected = slide.X.toarray()
    slide.X = None
    np.testing.assert_array_equal(counts_of(read_slide(save(slide))), expected)


def test_a_bad_counts_layer_is_passed_over_with_a_warning(make_slide, save):
    slide = make_slide()
    slide.layers["counts"] = slide.X * -1.0
    result = read_slide(save(slide))
    assert result.uns["spadit"]["counts_from"] == "X" and "layers['counts']" in io.warnings_of(result)[0]


def test_log_data_given_as_counts_warns_and_is_transformed_back(make_slide, save):
    slide = make_slide()
    result = read_slide(save(normalised(slide)))
    assert "log-transformed" in io.warnings_of(result)[0] and "natural logarithm" in io.warnings_of(result)[0]
    totals = np.asarray(slide.X.sum(axis=1))
    np.testing.assert_allclose(counts_of(result), slide.X.toarray() / totals * 1e4, rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(counts_of(result).sum(axis=1), 1e4, rtol=1e-4)


@pytest.mark.parametrize("base", [2.0, 10.0])
def test_other_logarithms_are_recognised(make_slide, base):
    counts = make_slide(n_spots=200).X.toarray()
    values = np.log1p(counts * np.random.default_rng(0).uniform(0.5, 3, size=(200, 1))) / np.log(base)
    assert log_base(sp.csr_matrix(values.astype(np.float32))) == base


def test_logarithms_of_a_fixed_sum_are_recognised():
    rng = np.random.default_rng(0)
    tpm = rng.gamma(0.3, size=(60, 200))
    tpm = tpm / tpm.sum(axis=1, keepdims=True) * 1e6
    assert log_base(sp.csr_matrix(np.log2(tpm + 1).astype(np.float32))) == 2.0


def test_the_base_that_scanpy_notes_is_believed(make_slide, save):
    slide = normalised(make_slide())
    slide.X = slide.X / np.log(2)
    slide.uns["log1p"] = {"base": 2.0}
    assert "base 2" in io.warnings_of(read_slide(save(slide)))[0]


def test_fractional_counts_are_not_taken_for_logarithms(make_slide, save):
    slide = make_slide()
    rng = np.random.default_rng(0)
    slide.X.data = slide.X.data * rng.uniform(0.6, 1.0, size=slide.X.data.size).astype(np.float32)
    slide.X.data[0] = 29.5  # stays below the limit
    slide.X.data = np.minimum(slide.X.data, 29.5)
    result = read_slide(save(slide))
    np.testing.assert_allclose(counts_of(result), slide.X.toarray())
    assert "fractional values" in io.warnings_of(result)[0] and "perhaps log-transformed" in io.warnings_of(result)[0]
    slide.X.data[0] = 400.5
    assert "not raw counts" in io.warnings_of(read_slide(save(slide)))[0]


@pytest.mark.parametrize(("value", "says"), [(np.nan, "missing (NaN)"), (-1.0, "negative"), (np.inf, "infinite"), (1e300, "infinite")])
@pytest.mark.parametrize("dense", [True, False])
def test_values_that_are_no_counts_are_refused_and_located(make_slide, save, value, says, dense):
    slide = make_slide()
    matrix = slide.X.toarray().astype(np.float64)
    matrix[3, 7] = value
    slide.X = matrix if dense else sp.csr_matrix(matrix)
    with pytest.raises(InputError) as caught:
        read_slide(save(slide, "bad.h5ad"))
    assert says in caught.value.message and "spot 'spot3', gene 'Gene7'" in caught.value.message
    assert caught.value.message.startswith("bad.h5ad: X holds") and "raw counts" in caught.value.remedy


# ---- coordinates -----------------------------------------------------------------------------------------------------


def test_no_coordinates_is_an_error_for_slides_only(make_slide, save):
    slide = make_slide()
    del slide.obsm["spatial"]
    path = save(slide)
    with pytest.raises(InputError, match=r"no spatial coordinates \(obsm\['spatial'\]\)"):
        read_slide(path)
    assert "spatial" not in io.read(path, "reference").obsm


@pytest.mark.parametrize("columns", [("x", "y"), ("x_centroid", "y_centroid"), ("array_col", "array_row")])
def test_coordinates_in_obs_columns(make_slide, save, columns):
    slide = make_slide()
    spatial = slide.obsm.pop("spatial")
    slide.obs[columns[0]], slide.obs[columns[1]] = spatial.T
    result = read_slide(save(slide))
    np.testing.assert_array_equal(result.obsm["spatial"], spatial)
    assert columns[0] in io.warnings_of(result)[0]


def test_coordinates_under_another_name_as_a_table_or_with_three_columns(make_slide, save):
    slide = make_slide()
    spatial = slide.obsm.pop("spatial")
    slide.obsm["X_spatial"] = pd.DataFrame(np.c_[spatial, spatial[:, 0]], index=slide.obs_names, columns=list("xyz"))
    result = read_slide(save(slide))
    np.testing.assert_array_equal(result.obsm["spatial"], spatial)
    assert len(io.warnings_of(result)) == 2


@pytest.mark.parametrize(
    ("spatial", "says"),
    [
        (lambda s: np.where(np.arange(len(s))[:, None] == 2, np.nan, s), "for 1 spots, the first is 'spot2'"),
        (lambda s: s[:, :1], "60 × 1, but 60 × 2 is expected"),
        (lambda s: np.zeros_like(s), "all 60 spots at the same place"),
        (lambda s: s.astype(str), "not numbers"),
    ],
)
def test_bad_coordinates(make_slide, save, spatial, says):
    slide = make_slide()
    values = spatial(slide.obsm["spatial"])
    if values.dtype.kind == "U":
        values[0, 0] = "left"
        slide.obsm["spatial"] = pd.DataFrame(values, index=slide.obs_names, columns=["x", "y"])
    else:
        slide.obsm["spatial"] = values
    with pytest.raises(InputError, match=says):
        read_slide(save(slide))


# ---- names -----------------------------------------------------------------------------------------------------------


def test_duplicated_genes_are_added_up_with_a_warning(make_slide, save):
    slide = make_slide(n_genes=6, names=["A", "B", "A", "C", "B", "A"])
    dense = slide.X.toarray()
    result = read_slide(save(slide))
    assert list(result.var_names) == ["A", "B", "C"]
    np.testing.assert_array_equal(counts_of(result), np.c_[dense[:, [0, 2, 5]].sum(1), dense[:, [1, 4]].sum(1), dense[:, 3]])
    assert "2 gene names occur more than once ('A', 'B')" in io.warnings_of(result)[0]


def test_duplicated_spots_are_made_unique_with_a_warning(make_slide, save):
    slide = make_slide()
    slide.obs_names = ["s"] * 3 + [f"t{i}" for i in range(57)]
    result = read_slide(save(slide))
    assert list(result.obs_names[:3]) == ["s", "s-1", "s-2"] and "1 names of spots occur" in io.warnings_of(result)[0]


def test_genes_without_a_name_are_left_out_with_a_warning(make_slide, save):
    slide = make_slide(n_genes=4, names=["A", "", "B", "nan"])
    result = read_slide(save(slide))
    assert list(result.var_names) == ["A", "B"] and "2 genes without a name" in io.warnings_of(result)[0]


def test_columns_of_obs_and_var_are_kept(make_slide, save):
    slide = make_slide()
    slide.obs["region"] = pd.Categorical(["a", "b"] * 30)
    slide.var["gene_ids"] = [f"ENSG{i:011d}" for i in range(30)]
    result = read_slide(save(slide))
    assert list(result.obs["region"]) == ["a", "b"] * 30 and list(result.var["gene_ids"]) == list(slide.var["gene_ids"])


def test_odd_columns_and_uns_can_be_written_again(make_slide, save, tmp_path):
    slide = make_slide()
    slide.obs["number"] = pd.array([1, None] * 30, dtype="Int64")
    slide.obs["flag"] = pd.array([True, None] * 30, dtype="boolean")
    slide.obs["text"] = ["a", None] * 30
    slide.obs["when"] = pd.Categorical([1, 2] * 30)
    slide.uns["anything"] = {"a": np.arange(3)}
    result = read_slide(save(slide))
    io.write_h5ad(result, tmp_path / "out.h5ad")
    again = io.load(tmp_path / "out.h5ad", "slide")
    np.testing.assert_array_equal(counts_of(again), counts_of(result))
    assert list(tmp_path.glob(".*")) == []


def test_batch_becomes_a_column(make_reference, save):
    path = save(make_reference())
    assert set(io.read(path, "reference", batch="cell_type").obs["batch"]) == {"type0", "type1", "type2", "type3"}
    with pytest.raises(InputError, match="no column 'cel_type'.*Did you mean 'cell_type'"):
        io.read(path, "reference", batch="cel_type")


@pytest.mark.parametrize("n", [2, 3, 7])
def test_sections_upon_one_another_are_laid_side_by_side(make_slide, save, n):
    """Each is moved as a whole; afterwards no spot's nearest neighbours are of another section."""
    slide = make_slide(40 * n)
    slide.obs["section"] = [f"s{i % n}" for i in range(slide.n_obs)]
    read = read_slide(save(slide), batch="section")
    assert np.array_equal(read.obsm["spatial_given"], slide.obsm["spatial"])
    for name in read.obs["batch"].cat.categories:
        moved = (read.obsm["spatial"] - read.obsm["spatial_given"])[read.obs["batch"] == name]
        assert np.allclose(moved, moved[0])
    graph = neighbours(read.obsm["spatial"], NEIGHBOURS).tocoo()
    assert NEIGHBOURS == 8 == N_SMOOTH  # what the coarse condition looks at; more than anything else does
    assert (read.obs["batch"].to_numpy()[graph.row] == read.obs["batch"].to_numpy()[graph.col]).all()
    assert any(f"{n} sections" in warning for warning in io.warnings_of(read))


def test_sections_that_lie_apart_stay_where_they_are(make_slide, save):
    slide = make_slide(60)
    slide.obs["section"] = np.where(slide.obsm["spatial"][:, 0] < 5, "left", "right")
    read = read_slide(save(slide), batch="section")
    assert np.array_equal(read.obsm["spatial"], slide.obsm["spatial"]) and "spatial_given" not in read.obsm
    assert set(read.obs["batch"]) == {"left", "right"}


def test_a_batch_column_may_be_missing_in_a_slide(make_slide, save):
    assert "batch" not in read_slide(save(make_slide()), batch="donor").obs


# ---- files that are not what they should be ---------------------------------------------------------------------------


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="none.h5ad: there is no such file"):
        read_slide(tmp_path / "none.h5ad")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\x00\x01\x02", "is not an HDF5 file"),
        (gzip.compress(b"\x89HDF\r\n\x1a\n"), "gzip archive: unpack"),
        (b"PK\x03\x04", "zip archive"),
        (b"<!DOCTYPE html>", "failed download"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
    ],
)
def test_files_of_another_kind(tmp_path, content, says):
    path = tmp_path / "st.h5ad"
    path.write_bytes(content)
    for platform in ("auto", "h5ad"):
        with pytest.raises(InputError, match=says) as caught:
            read_slide(path, platform=platform)
        assert "h5ad" in caught.value.remedy or "again" in caught.value.remedy


def test_a_directory(tmp_path):
    with pytest.raises(InputError, match="is a directory"):
        read_slide(tmp_path)


def test_truncated_file(make_slide, save):
    path = save(make_slide())
    content = path.read_bytes()
    for share in (0.2, 0.5, 0.9):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(InputError, match="truncated"):
            read_slide(path)


def test_a_file_damaged_inside_ends_with_an_input_error(make_slide, save):
    slide = make_slide(n_spots=300, n_genes=100)
    path = save(slide)
    with h5py.File(path, "r+") as file:
        file["X/indices"][5] = 100_000
    with pytest.raises(InputError, match="X is damaged"):
        read_slide(path)
    content = bytearray(save(slide).read_bytes())
    rng = np.random.default_rng(0)
    for _ in range(30):  # any flipped bytes: right, or refused in words, never a crash with a traceback
        broken = bytearray(content)
        for position in rng.integers(100, len(broken), size=40):
            broken[position] = rng.integers(256)
        path.write_bytes(broken)
        try:
            read_slide(path)
        except InputError as error:
            assert error.message.startswith("data.h5ad") or "gene" in error.message


def test_hdf5_that_is_not_h5ad(tmp_path):
    path = tmp_path / "x.h5ad"
    with h5py.File(path, "w") as file:
        file["something"] = np.arange(3)
    with pytest.raises(InputError, match="no 'obs' and 'var'"):
        read_slide(path)
    with h5py.File(path, "w") as file:
        file.create_group("matrix")
    with pytest.raises(InputError, match="10x HDF5 matrix"):
        read_slide(path, platform="h5ad")


def test_a_file_without_any_matrix(make_slide, save):
    slide = make_slide()
    slide.X = None
    with pytest.raises(InputError, match="holds no matrix"):
        read_slide(save(slide))


@pytest.mark.parametrize(("rows", "columns", "what"), [(0, 5, "spots"), (5, 0, "genes")])
def test_zero_spots_or_genes(save, rows, columns, what):
    adata = ad.AnnData(X=np.zeros((rows, columns), dtype=np.float32), obsm={"spatial": np.zeros((rows, 2))})
    with pytest.raises(InputError, match=f"holds no {what}"):
        read_slide(save(adata))


def test_wrong_shape(make_slide, save):
    path = save(make_slide())
    with h5py.File(path, "r+") as file:
        del file["X"]
        file["X"] = np.zeros((3, 4))
    with pytest.raises(InputError, match="X is 3 × 4, but obs × var is 60 × 30"):
        read_slide(path)


def test_links_are_refused(make_slide, save, tmp_path):
    path = save(make_slide())
    other = tmp_path / "other.h5"
    shutil.copy(path, other)
    for link in (h5py.ExternalLink(str(other), "/X"), h5py.SoftLink("/obs")):
        with h5py.File(path, "r+") as file:
            if "extra" in file:
                del file["extra"]
            file["extra"] = link
        with pytest.raises(InputError, match="'/extra' is a"):
            read_slide(path)
    with h5py.File(path, "r+") as file:
        del file["extra"]
        file.create_dataset("extra", shape=(10,), dtype="u1", external=[(str(other), 0, 10)])
    with pytest.raises(InputError, match="in another file"):
        read_slide(path)


def test_a_group_that_holds_itself_does_not_hang(make_slide, save):
    path = save(make_slide())
    with h5py.File(path, "r+") as file:
        file["uns"]["again"] = file["uns"]
    assert read_slide(path).n_obs == 60


def test_unknown_platform_and_role(make_slide, save):
    path = save(make_slide())
    with pytest.raises(InputError, match="'visum' is not supported. Supported are: auto, h5ad"):
        read_slide(path, platform="visum")
    with pytest.raises(InputError, match="is a file, but visium is read from a folder"):
        read_slide(path, platform="visium")
    with pytest.raises(InputError, match="a bin size is given"):
        read_slide(path, bin_size=8)
    with pytest.raises(InputError, match="Role"):
        io.read(path, "reads")


def test_load_refuses_other_files_and_swapped_roles(make_slide, save, tmp_path):
    path = save(make_slide())
    with pytest.raises(InputError, match="not written by this pipeline"):
        io.load(path)
    io.write_h5ad(read_slide(path), tmp_path / "out.h5ad")
    with pytest.raises(InputError, match="holds a slide, but a reference is expected"):
        io.load(tmp_path / "out.h5ad", "reference")


# ---- the executable --------------------------------------------------------------------------------------------------


def run_read(root, path, output, *more):
    call = [sys.executable, root / "bin" / "spadit_read.py", "--id", "s1", "--role", "slide", "--input", path, "--output", output, *more]
    return subprocess.run([str(c) for c in call], capture_output=True, text=True)


def test_the_executable_writes_all_or_nothing(root, make_slide, save, tmp_path):
    slide = make_slide()
    good, output = save(slide, "good.h5ad"), tmp_path / "s1.h5ad"
    done = run_read(root, good, output)
    assert done.returncode == 0, done.stderr
    assert io.load(output, "slide").uns["spadit"]["id"] == "s1"
    first = output.read_bytes()
    assert run_read(root, good, output).returncode == 0 and output.read_bytes() == first  # same input, same bytes

    slide.X = slide.X * -1
    bad, output, failure = save(slide, "bad.h5ad"), tmp_path / "s2.h5ad", tmp_path / "f.json"
    done = run_read(root, bad, output)
    assert done.returncode == 2 and "negative" in done.stderr and "Traceback" not in done.stderr
    done = run_read(root, bad, output, "--failure", failure)
    assert done.returncode == 0 and failure.exists() and not output.exists()


def test_shared_slides_read(shared_data):
    slide = read_slide(shared_data / "breast_xenium" / "st.h5ad")
    assert slide.shape == (17136, 313) and io.warnings_of(slide) == []
