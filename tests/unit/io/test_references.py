"""References in the forms in which they are passed around: 10x, MatrixMarket, loom, tables, exports of Seurat."""

from __future__ import annotations

import gzip

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse as sp
from bundles import GENES, N, barcodes, counts, features, same, write, write_10x_h5, write_10x_mtx

from spadit import io
from spadit.errors import InputError


def read(path, **more):
    return io.read(path, "reference", **more)


def refused(path, role="reference", **more) -> str:
    with pytest.raises(InputError) as caught:
        io.read(path, role, **more)
    assert caught.value.remedy
    return str(caught.value)


def platform(adata) -> str:
    return adata.uns["spadit"]["platform"]


def test_10x_hdf5(tmp_path):
    for legacy in (False, True):
        path = write_10x_h5(tmp_path / "x.h5", counts(), barcodes(), features(), "cellranger-7.0.0", legacy)
        cells = read(path)
        same(cells, barcodes())
        assert platform(cells) == "tenx" and list(cells.var["gene_ids"]) == [f[0] for f in features()] and "spatial" not in cells.obsm
    assert "counts but no positions" in refused(path, "slide")


def test_two_genomes_in_one_file(tmp_path):
    path = write_10x_h5(tmp_path / "x.h5", counts()[:, :3], barcodes(), features()[:3], legacy=True)
    other = write_10x_h5(tmp_path / "y.h5", counts()[:, 3:], barcodes(), features()[3:], legacy=True)
    with h5py.File(path, "r+") as file, h5py.File(other) as second:
        second.copy("mm10", file, "mm11")
    same(read(path), barcodes())


def test_10x_folders(tmp_path):
    for packed, kind in ((True, True), (False, False)):  # Cell Ranger 3 and later; before
        folder = write_10x_mtx(tmp_path / f"filtered{packed}", counts(), barcodes(), features(kind), packed)
        cells = read(folder)
        same(cells, barcodes())
        assert platform(cells) == "tenx" and cells.uns["spadit"]["files"] == sorted(f.name for f in folder.iterdir())


def test_seurat_exported_as_matrix_market(tmp_path):
    """writeMM of the counts, names with write.csv or writeLines, and the table of cells."""
    folder = tmp_path / "seurat"
    folder.mkdir()
    scipy.io.mmwrite(folder / "matrix.mtx", sp.coo_matrix(counts().T), field="real")
    write(folder / "genes.csv", '"x"\n' + "".join(f'"{g}"\n' for g in GENES))  # with a header
    write(folder / "barcodes.txt", "".join(f"{b}\n" for b in barcodes()))
    table = pd.DataFrame({"orig.ident": ["a", "b"] * (N // 2), "nCount_RNA": 5}, index=barcodes()).iloc[::-1]
    write(folder / "metadata.csv", table.to_csv())
    cells = read(folder, batch="orig.ident")
    same(cells, barcodes())
    assert list(cells.obs["batch"]) == ["b", "a"] * (N // 2) or list(cells.obs["batch"]) == ["a", "b"] * (N // 2)
    assert cells.obs["batch"].iloc[0] == table["orig.ident"][barcodes()[0]]
    write(folder / "metadata.csv", table.iloc[2:].to_csv())
    assert "metadata.csv doesn't name every cell of barcodes.txt once" in refused(folder)


def test_seurat_exported_as_h5ad(tmp_path):
    """SeuratDisk's Convert: scaled values in X, log-normalised ones or counts in raw, old encodings, categories apart."""
    path = tmp_path / "seurat.h5ad"
    scaled = counts() - counts().mean(0)
    raw = sp.csr_matrix(counts().astype(float))
    with h5py.File(path, "w") as file:
        file["X"] = scaled
        for name, index in (("obs", barcodes()), ("var", GENES), ("raw/var", GENES)):
            group = file.create_group(name)
            group.attrs["_index"], group.attrs["encoding-type"], group.attrs["encoding-version"] = "_index", "dataframe", "0.1.0"
            group.attrs["column-order"] = np.array(["orig.ident"] if name == "obs" else [], dtype=h5py.string_dtype())
            group["_index"] = np.array(index, dtype=h5py.string_dtype())
        file["obs/orig.ident"] = np.zeros(N, dtype="i4")
        file["obs/__categories/orig.ident"] = np.array(["P1"], dtype=h5py.string_dtype())
        file["obs/orig.ident"].attrs["categories"] = file["obs/__categories/orig.ident"].ref
        group = file.create_group("raw/X")
        group.attrs["shape"], group.attrs["h5sparse_format"] = raw.shape, "csr"
        group.attrs["encoding-type"], group.attrs["encoding-version"], group.attrs["h5sparse_shape"] = "csr_matrix", "0.1.0", raw.shape
        group["data"], group["indices"], group["indptr"] = raw.data, raw.indices, raw.indptr
    cells = read(path, batch="orig.ident")
    same(cells, barcodes())
    assert cells.uns["spadit"]["counts_from"] == "raw.X" and set(cells.obs["batch"]) == {"P1"}


def loom(path, version=3):
    with h5py.File(path, "w") as file:
        file.create_dataset("matrix", data=counts().T.astype("f4"), chunks=(4, 4), compression="gzip")
        file["row_attrs/Gene"] = np.array(GENES, dtype=h5py.string_dtype())
        file["row_attrs/Accession"] = np.array([f[0] for f in features()], dtype="S")
        file["col_attrs/CellID"] = np.array(barcodes(), dtype=h5py.string_dtype())
        file["col_attrs/donor"] = np.array(["a", "b"] * (N // 2), dtype=h5py.string_dtype())
        file["col_attrs/tsne"] = np.zeros((N, 2))
        file["layers/spliced"] = counts().T
        if version == 3:
            file["attrs/LOOM_SPEC_VERSION"] = "3.0.0"
        else:
            file.attrs["LOOM_SPEC_VERSION"] = "2.0.1"
    return path


def test_loom(tmp_path, monkeypatch):
    for version in (2, 3):
        cells = read(loom(tmp_path / "a.loom", version), batch="donor")
        same(cells, barcodes())
        assert platform(cells) == "loom" and set(cells.obs["batch"]) == {"a", "b"} and io.warnings_of(cells) == []
        monkeypatch.setattr("spadit.io.bundle.BLOCK", 24)  # rows in blocks
    path = loom(tmp_path / "a.loom")
    assert "no coordinates" in refused(path, "slide")
    with h5py.File(path, "r+") as file:
        file["col_attrs/x"], file["col_attrs/y"] = np.arange(N), np.arange(N) * 2.0
    np.testing.assert_array_equal(io.read(path, "slide").obsm["spatial"], np.c_[np.arange(N), np.arange(N) * 2])
    with h5py.File(path, "r+") as file:
        file["matrix"][2, 3] = -1
    assert f"negative (-1, cell '{barcodes()[3]}', gene 'Mbp')" in refused(path)
    with h5py.File(path, "r+") as file:
        del file["row_attrs/Gene"], file["row_attrs/Accession"]
    assert "no column with the names of genes" in refused(path)


@pytest.mark.parametrize("corner", ["", "gene", "cell"])
@pytest.mark.parametrize("ending", [".csv", ".tsv.gz", ".txt"])
def test_tables(tmp_path, corner, ending):
    table = pd.DataFrame(counts(), index=barcodes(), columns=GENES)
    table = table.T if corner != "cell" else table
    table.index.name = corner or None
    text = table.to_csv(sep="," if ending == ".csv" else "\t")
    if not corner and ending == ".txt":  # as R's write.table does it: nothing above the names of rows
        text = text.replace("\t", "", 1)
    if ending == ".csv":  # as a spreadsheet saves it
        text = "\ufeff" + text.replace("\n", "\r\n")
    cells = read(write(tmp_path / f"counts{ending}", text))
    same(cells, barcodes())
    assert platform(cells) == "tables"


def test_a_table_with_a_table_of_cells(tmp_path):
    table = pd.DataFrame(counts().T, index=pd.Index(GENES, name="GENE"), columns=barcodes())
    write(tmp_path / "gse/expression.csv", table.to_csv())
    write(tmp_path / "gse/metadata.csv", pd.DataFrame({"donor": ["d1"] * N}, index=barcodes()).to_csv())
    cells = read(tmp_path / "gse", batch="donor")
    same(cells, barcodes())
    assert set(cells.obs["batch"]) == {"d1"}


def test_a_table_that_does_not_say_what_its_rows_are(tmp_path):
    table = pd.DataFrame(counts(), index=[f"a{i}" for i in range(N)], columns=[f"b{i}" for i in range(len(GENES))])
    assert "can't be told whether rows are genes ('a0', 'a1' …) or columns are ('b0', 'b1' …)" in refused(
        write(tmp_path / "x.csv", table.to_csv())
    )


def test_bad_tables(tmp_path):
    table = pd.DataFrame(counts().T, index=pd.Index(GENES, name="gene"), columns=barcodes()).to_csv()
    rows = table.splitlines()
    path = tmp_path / "c.csv"
    assert "row 4 has 11 values, but the header has 12 columns" in refused(
        write(path, "\n".join([*rows[:3], rows[3].rsplit(",", 1)[0], *rows[4:]]))
    )
    assert f"row 3, column '{barcodes()[0]}' holds 'NA'" in refused(
        write(path, "\n".join([*rows[:2], ",".join(["x", "NA", *rows[2].split(",")[2:]]), *rows[3:]]))
    )
    assert "holds a header only" in refused(write(path, rows[0] + "\n"))
    path.write_bytes(gzip.compress(table.encode())[:-20])
    assert "cut short" in refused(path)


def test_names_that_do_not_fit_the_matrix(tmp_path):
    folder = write_10x_mtx(tmp_path / "f", counts(), barcodes(), features())
    write(folder / "barcodes.tsv.gz", "".join(f"{b}\n" for b in barcodes()[:-2]))
    assert "matrix.mtx.gz is 5 × 12, but features.tsv.gz names 5 features and barcodes.tsv.gz 10 barcodes" in refused(folder)


def test_only_antibodies(tmp_path):
    path = write_10x_h5(tmp_path / "x.h5", counts(), barcodes(), [(g, g, "Antibody Capture") for g in GENES])
    assert "no feature of type 'Gene Expression' (there are 'Antibody Capture')" in refused(path)
