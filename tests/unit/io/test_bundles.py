"""Every platform's bundle in its own layout and versions, read back entry by entry, and what is wrong with damaged ones."""

from __future__ import annotations

import logging
import os
import re
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
from bundles import (
    GENES,
    N,
    barcodes,
    cosmx,
    counts,
    curio,
    features,
    gef,
    merscope,
    places,
    same,
    slideseq,
    visium,
    visium_hd,
    write,
    write_10x_h5,
    xenium,
)

from spadit import io
from spadit.errors import InputError


def read(path, **more):
    return io.read(path, "slide", **more)


def refused(path, **more) -> str:
    """The message and remedy with which a slide is refused; no other exception."""
    with pytest.raises(InputError) as caught:
        read(path, **more)
    assert caught.value.remedy
    return str(caught.value)


# ---- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "matrix"), [(1, "h5"), (1, "mtx"), (2, "h5"), (3, "h5"), (3, "mtx")])
def test_visium(tmp_path, caplog, version, matrix):
    outs = visium(tmp_path / "outs", version, matrix)
    caplog.set_level(logging.INFO)
    slide = read(tmp_path)  # the folder that holds outs
    same(slide, barcodes(), places())
    facts = slide.uns["spadit"]
    assert facts["platform"] == "visium" and facts["source"] == tmp_path.name and facts["warnings"] == []
    assert "is read as visium: it holds tissue_positions" in caplog.text
    assert len(facts["files"]) == (5 if matrix == "mtx" else 3) and all(f.startswith("outs/") for f in facts["files"])
    assert list(slide.var["gene_ids"]) == [f[0] for f in features()] and "feature_types" not in slide.var
    assert {"array_row", "array_col"} <= set(slide.obs) and "in_tissue" not in slide.obs
    again = read(outs, platform="visium")
    same(again, barcodes(), places())
    assert again.uns["spadit"]["sha256"] != facts["sha256"]  # of names, too
    write(outs / "spatial/tissue_lowres_image.png", "changed")
    assert read(tmp_path).uns["spadit"]["sha256"] == facts["sha256"]  # what isn't read doesn't count
    scale = outs / "spatial/scalefactors_json.json"
    write(scale, '{"spot_diameter_fullres": 90}')
    assert read(tmp_path).uns["spadit"]["sha256"] != facts["sha256"]


def test_visium_with_a_prefix_and_antibodies(tmp_path):
    outs = visium(tmp_path / "v")
    full = np.c_[counts(), np.full(N, 70)]
    write_10x_h5(outs / "V1_Brain_filtered_feature_bc_matrix.h5", full, barcodes(), [*features(), ("CD3", "CD3", "Antibody Capture")])
    os.remove(outs / "filtered_feature_bc_matrix.h5")
    same(read(outs), barcodes(), places())


def test_the_raw_matrix_when_there_is_no_filtered_one(tmp_path):
    outs = visium(tmp_path / "v")
    names = [barcodes()[0], "OFFTISSUE0-1", *barcodes()[1:]]
    full = np.insert(counts(), 1, 5, axis=0)
    os.remove(outs / "filtered_feature_bc_matrix.h5")
    write_10x_h5(outs / "raw_feature_bc_matrix.h5", full, names, features())
    slide = read(outs)
    same(slide, barcodes(), places())
    assert "no filtered matrix" in io.warnings_of(slide)[0]


@pytest.mark.parametrize("bin_size", ["", 2, "8", 16])
def test_visium_hd(tmp_path, bin_size):
    outs = visium_hd(tmp_path / "outs")
    size = int(bin_size or 8)
    slide = read(outs, bin_size=bin_size)
    assert slide.uns["spadit"]["platform"] == "visium_hd"
    np.testing.assert_array_equal(slide.layers["counts"].toarray(), counts() * size)
    np.testing.assert_allclose(slide.obsm["spatial"], places())
    assert slide.obs_names[1] == f"s_{size:03d}um_00001_00002-1"


def test_one_size_of_visium_hd(tmp_path):
    outs = visium_hd(tmp_path / "outs", (8,))
    alone = outs / "binned_outputs/square_008um"
    for name in ("square_008um", "renamed"):
        slide = read(alone.rename(tmp_path / name) if name == "square_008um" else (tmp_path / "square_008um").rename(tmp_path / name))
        assert slide.uns["spadit"]["platform"] == "visium_hd"
        np.testing.assert_array_equal(slide.layers["counts"].toarray(), counts() * 8)
    outs = visium_hd(tmp_path / "two", (2, 16))
    assert "no squares of 8 µm (there are 2, 16)" in refused(outs)
    assert "no squares of x µm" in refused(outs, bin_size="x")


@pytest.mark.parametrize(
    ("version", "cells", "matrix"),
    [("xenium-1.0.1", "csv", "h5"), ("xenium-1.7.0.2", "bytes", "mtx"), ("xenium-3.1.0.4", "parquet", "h5")],
)
def test_xenium(tmp_path, version, cells, matrix):
    slide = read(xenium(tmp_path / "xe", version, cells, matrix))
    same(slide, None, places())
    assert slide.obs_names[0] == ("1" if version.startswith("xenium-1.0") else "aaabalin-1")
    assert slide.uns["spadit"]["platform"] == "xenium" and io.warnings_of(slide) == [] and list(slide.obs["cell_area"]) == [30.5] * N


@pytest.mark.parametrize(("prefix", "suffix"), [("", ""), ("datasets_mouse_brain_", "_S1R1")])
def test_merscope(tmp_path, prefix, suffix):
    slide = read(merscope(tmp_path / "region_0", prefix, suffix))
    same(slide, [str(110883424764611924 + i) for i in range(N)], places())
    assert slide.uns["spadit"]["platform"] == "merscope" and list(slide.obs["volume"]) == [812.5] * N


@pytest.mark.parametrize(("packed", "quoted"), [(True, False), (False, True)])
def test_cosmx(tmp_path, packed, quoted):
    slide = read(cosmx(tmp_path / "lung", packed, quoted))
    names = [f"{f}_{c}" for f in (1, 2) for c in range(1, 7)]
    same(slide, names, places() - [0, 2000])  # negative y is usual here
    assert slide.uns["spadit"]["platform"] == "cosmx" and io.warnings_of(slide) == []


def test_stereoseq_squares(tmp_path):
    expected = np.c_[np.arange(N) * 50.0, np.arange(N) * 100.0]
    for sizes in ((1,), (1, 10), (10, 50), (50,)):
        slide = read(gef(tmp_path / "c.tissue.gef", sizes=sizes), bin_size="" if sizes != (1, 10) else 50)
        order = np.lexsort((slide.obsm["spatial"][:, 0], slide.obsm["spatial"][:, 1]))
        np.testing.assert_array_equal(slide.obsm["spatial"][order], expected)
        np.testing.assert_array_equal(slide.layers["counts"].toarray()[order], counts())
        assert list(slide.var_names) == GENES and slide.uns["spadit"]["platform"] == "stereoseq" and slide.obs_names[order[1]] == "50_100"
    fine = read(gef(tmp_path / "c.tissue.gef", sizes=(1,)), bin_size=25)
    np.testing.assert_array_equal(fine.layers["counts"].toarray().sum(0), counts().sum(0))
    assert fine.n_obs > N and not (fine.obsm["spatial"] % 25).any()
    assert "no squares of bin 25 (there are 10, 50)" in refused(gef(tmp_path / "c.gef", sizes=(10, 50)), bin_size=25)


def test_stereoseq_squares_counted_by_their_number(tmp_path):
    path = gef(tmp_path / "c.gef", sizes=(50,))
    with h5py.File(path, "r+") as file:
        records = file["geneExp/bin50/expression"][:]
        records["x"], records["y"] = records["x"] // 50, records["y"] // 50
        file["geneExp/bin50/expression"][:] = records
    np.testing.assert_array_equal(read(path).obsm["spatial"], np.c_[np.arange(N) * 50.0, np.arange(N) * 100.0])


def test_stereoseq_in_blocks(tmp_path, monkeypatch):
    path = gef(tmp_path / "c.gef")
    expected = read(path)
    monkeypatch.setattr("spadit.io.stereoseq.RECORDS", 7)
    found = read(path)
    np.testing.assert_array_equal(found.layers["counts"].toarray(), expected.layers["counts"].toarray())
    cells = gef(tmp_path / "c.cellbin.gef", cells=True)
    np.testing.assert_array_equal(read(cells).layers["counts"].toarray(), counts())


def test_stereoseq_cells(tmp_path):
    path = gef(tmp_path / "c" / "c.cellbin.gef", cells=True)
    for named in (path, path.parent):
        same(read(named), [str(i + 7) for i in range(N)], np.c_[np.arange(N) * 50.0, np.arange(N) * 100.0])
    assert "holds cells, not squares" in refused(path, bin_size=50)


def test_slideseq(tmp_path):
    names = [b[:14] for b in barcodes()]
    for folder in (curio(tmp_path / "curio"), slideseq(tmp_path / "v2"), slideseq(tmp_path / "v1", 1)):
        slide = read(folder)
        same(slide, names, places())
        assert slide.uns["spadit"]["platform"] == "slideseq"


def tables(folder, genes_in_rows=False, named=True, sep=","):
    names = [f"c{i}" for i in range(N)]
    table = pd.DataFrame(counts(), index=names, columns=GENES)
    where = pd.DataFrame({"cell": names, "X": places()[:, 0], "Y": places()[:, 1], "region": "cortex"})
    end = "csv" if sep == "," else "tsv"
    write(folder / f"counts.{end}", (table.T if genes_in_rows else table).to_csv(sep=sep, index=named))
    write(folder / f"coordinates.{end}.gz", (where.iloc[::-1] if named else where.drop(columns="cell")).to_csv(sep=sep, index=False))
    return folder


@pytest.mark.parametrize("genes_in_rows", [False, True])
@pytest.mark.parametrize("sep", [",", "\t"])
def test_tables(tmp_path, genes_in_rows, sep):
    slide = read(tables(tmp_path / "t", genes_in_rows, sep=sep))
    same(slide, [f"c{i}" for i in range(N)], places())
    assert slide.uns["spadit"]["platform"] == "tables" and list(slide.obs["region"]) == ["cortex"] * N


def test_tables_without_names_are_matched_by_order(tmp_path):
    slide = read(tables(tmp_path / "t", named=False))
    same(slide, [f"spot{i + 1}" for i in range(N)], places())
    assert "matched by order" in io.warnings_of(slide)[0]


def test_counts_are_read_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("spadit.io.bundle.BLOCK", 12)
    same(read(merscope(tmp_path / "m")), None, places())
    same(read(slideseq(tmp_path / "s")), None, places())


def test_batch_is_a_column_of_the_cells(tmp_path):
    assert set(read(cosmx(tmp_path / "c"), batch="fov").obs["batch"]) == {"1", "2"}


def test_a_bundle_can_be_a_reference(tmp_path):
    reference = io.read(xenium(tmp_path / "x"), "reference", batch="cell_area")
    assert "spatial" not in reference.obsm and set(reference.obs["batch"]) == {"30.5"}


# ---- what is wrong ----------------------------------------------------------------------------------------------------

MISSING = [
    (visium, "filtered_feature_bc_matrix.h5", "matrix of counts is missing (looked for filtered_feature_bc_matrix.h5"),
    (xenium, "cell_feature_matrix.h5", "matrix of counts is missing (looked for cell_feature_matrix.h5"),
    (xenium, "cells.parquet", "table of cells is missing (looked for cells.parquet or cells.csv.gz"),
    (merscope, "cell_metadata.csv", "table of cells is missing (looked for cell_metadata.csv"),
    (cosmx, "Lung5_metadata_file.csv.gz", "table of cells is missing (looked for *metadata_file.csv.gz"),
    (curio, "S1_barcodes.tsv", "list of barcodes is missing"),
    (curio, "S1_MatchedBeadLocation.csv", "table of positions is missing (looked for *MatchedBeadLocation.csv"),
    (slideseq, "Puck_200115_08_bead_locations.csv", "table of positions is missing (looked for *bead_locations*.csv"),
    (slideseq, "Puck_200115_08.digital_expression.txt.gz", "matrix of counts is missing"),
]


@pytest.mark.parametrize(("make", "name", "says"), MISSING)
def test_a_missing_file_is_named(tmp_path, make, name, says):
    folder = make(tmp_path / "slide")
    os.remove(folder / name)
    assert f"slide: the {says}" in refused(folder)


def test_missing_positions_are_named_when_the_platform_is(tmp_path):
    outs = visium(tmp_path / "slide")
    shutil.rmtree(outs / "spatial")
    assert "table of positions is missing (looked for spatial/*tissue_positions.parquet" in refused(outs, platform="visium")
    assert "squares of Visium HD are missing" in refused(outs, platform="visium_hd")
    one = tables(tmp_path / "t")
    os.remove(one / "coordinates.csv.gz")
    assert "table of coordinates is missing" in refused(one)
    os.rename(one / "counts.csv", one / "unknown.csv")
    assert "is a directory that no reader recognises: it holds unknown.csv" in refused(one)
    (tmp_path / "empty").mkdir()
    assert "it is empty" in refused(tmp_path / "empty")


def test_two_slides_in_one_folder(tmp_path):
    folder = merscope(merscope(tmp_path / "m", "a_"), "b_")
    assert "the table of counts is there 2 times ('a_cell_by_gene.csv', 'b_cell_by_gene.csv')" in refused(folder)


def test_newer_software_is_tried_with_a_warning(tmp_path):
    for folder, says in ((visium(tmp_path / "v", 9), "spaceranger-9.0.1"), (xenium(tmp_path / "x", "xenium-12.0.0"), "xenium-12.0.0")):
        slide = read(folder)
        same(slide, None, places())
        (warning,) = io.warnings_of(slide)
        assert says in warning and "newer than the reader knows" in warning
    slide = read(gef(tmp_path / "c.gef", version=11))
    assert "newer" in io.warnings_of(slide)[0]


def test_a_renamed_column_is_named(tmp_path):
    folder = xenium(tmp_path / "x", "xenium-9.0.0", "csv")
    table = pd.read_csv(folder / "cells.csv.gz").rename(columns={"x_centroid": "x_center"})
    write(folder / "cells.csv.gz", table.to_csv(index=False))
    assert "cells.csv.gz has no column with x (looked for x_centroid; there are 'cell_id', 'x_center'" in refused(folder)
    outs = visium(tmp_path / "v", 1)
    write(outs / "spatial/tissue_positions_list.csv", "a-1,1,0\n")
    assert "3 columns, but 6 are expected" in refused(outs)


CUT = [
    (visium, "filtered_feature_bc_matrix.h5"),
    (xenium, "cells.parquet"),
    (cosmx, "Lung5_exprMat_file.csv.gz"),
    (cosmx, "Lung5_metadata_file.csv.gz"),
    (merscope, "cell_by_gene.csv"),
    (slideseq, "Puck_200115_08.digital_expression.txt.gz"),
    (curio, "S1_MoleculesPerMatchedBead.mtx"),
]


@pytest.mark.parametrize(("make", "name"), CUT)
def test_truncated_files(tmp_path, make, name):
    folder = make(tmp_path / "slide")
    content = (folder / name).read_bytes()
    for share in (0.3, 0.6, 0.97):
        (folder / name).write_bytes(content[: int(len(content) * share)])
        message = refused(folder)
        assert name in message, message
    (folder / name).write_bytes(b"")
    assert name in refused(folder)


def test_a_truncated_gef_and_mtx_folder(tmp_path):
    path = gef(tmp_path / "c.gef")
    path.write_bytes(path.read_bytes()[:3000])
    assert "c.gef is cut short" in refused(path)
    outs = visium(tmp_path / "v", 3, "mtx")
    packed = outs / "filtered_feature_bc_matrix/matrix.mtx.gz"
    packed.write_bytes(packed.read_bytes()[:-30])
    assert "matrix.mtx.gz" in refused(outs)


def test_barcodes_that_do_not_match(tmp_path):
    outs = visium(tmp_path / "v")
    table = positions = outs / "spatial/tissue_positions.csv"
    original = positions.read_text()
    table.write_text(original.replace("-1,", "-2,"))
    message = refused(outs)
    assert "no spot of filtered_feature_bc_matrix.h5" in message and "has a position in tissue_positions.csv" in message
    # one spot without a position: left out and told
    table.write_text("\n".join(line for line in original.splitlines() if not line.startswith(barcodes()[4])) + "\n")
    slide = read(outs)
    assert slide.n_obs == N - 1 and f"1 of 12 spots have counts but no position ('{barcodes()[4]}')" in io.warnings_of(slide)[0]
    np.testing.assert_array_equal(slide.layers["counts"].toarray(), np.delete(counts(), 4, axis=0))


def test_positions_without_counts_are_left_out(tmp_path, caplog):
    folder = merscope(tmp_path / "m")
    cells = folder / "cell_metadata.csv"
    cells.write_text(cells.read_text() + "999,0,1.0,5,5,4,6\n")
    caplog.set_level(logging.INFO)
    assert read(folder).n_obs == N and "1 positions have no counts" in caplog.text


@pytest.mark.parametrize(
    ("name", "says"), [("cell_metadata.csv", "cell_metadata.csv names 1 spots"), ("cell_by_gene.csv", "cell_by_gene.csv names 1 spots")]
)
def test_names_that_occur_twice(tmp_path, name, says):
    folder = merscope(tmp_path / "m")
    lines = (folder / name).read_text().splitlines()
    (folder / name).write_text("\n".join([*lines, lines[3]]) + "\n")
    assert says in refused(folder)


def test_coordinates_that_are_missing_or_no_numbers(tmp_path):
    folder = merscope(tmp_path / "m")
    cells = folder / "cell_metadata.csv"
    original = cells.read_text()
    cells.write_text(original.replace("100.5,", ",", 1))
    assert "cell_metadata.csv is missing or infinite for 1 spots" in refused(folder)
    cells.write_text(original.replace("100.5,", "left,", 1))
    assert "column 'center_x' holds 'left'" in refused(folder)
    cells.write_text(re.sub(r"812\.5,[\d.]+,[\d.]+,", "812.5,5,5,", original))
    assert "all 12 spots at the same place" in refused(folder)


def test_negative_pixels_are_used_with_a_warning(tmp_path):
    outs = visium(tmp_path / "v")
    where = outs / "spatial/tissue_positions.csv"
    where.write_text(where.read_text().replace(",100.5", ",-100.5"))
    slide = read(outs)
    assert "puts 1 spots outside the image (negative pixels)" in io.warnings_of(slide)[0] and slide.obsm["spatial"][0, 0] == -100.5


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("-3", "negative (-3"),
        ("nan", "missing (NaN)"),
        ("inf", "infinite"),
        ("many", "'many', which is no count"),
        ("", "'', which is no count"),
    ],
)
def test_values_that_are_no_counts(tmp_path, value, says):
    folder = merscope(tmp_path / "m")
    lines = (folder / "cell_by_gene.csv").read_text().splitlines()
    cells = lines[3].split(",")
    cells[2] = value
    lines[3] = ",".join(cells)
    (folder / "cell_by_gene.csv").write_text("\n".join(lines) + "\n")
    message = refused(folder)
    assert says in message and "cell_by_gene.csv" in message and ("Slc17a7" in message)


def test_fractional_values_are_used_with_a_warning(tmp_path):
    folder = tables(tmp_path / "t")
    table = pd.read_csv(folder / "counts.csv", index_col=0) * 100 + 0.5
    table.to_csv(folder / "counts.csv")
    slide = read(folder)
    assert "fractional values" in io.warnings_of(slide)[0]
    np.testing.assert_allclose(slide.layers["counts"].toarray(), counts() * 100 + 0.5)


def test_links_inside_hdf5_are_refused(tmp_path):
    outs = visium(tmp_path / "v")
    path = outs / "filtered_feature_bc_matrix.h5"
    shutil.copy(path, tmp_path / "other.h5")
    with h5py.File(path, "r+") as file:
        del file["matrix/data"]
        file["matrix/data"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/matrix/data")
    assert "'/matrix/data' is a link to another file" in refused(outs)
    path = gef(tmp_path / "c.gef")
    with h5py.File(path, "r+") as file:
        del file["geneExp/bin1/expression"]
        file.create_dataset("geneExp/bin1/expression", shape=(10,), dtype="u1", external=[(str(tmp_path / "other.h5"), 0, 10)])
    assert "keeps its values in another file" in refused(path)


def test_absurd_sizes_are_refused_before_memory_is_allocated(tmp_path):
    outs = visium(tmp_path / "v")
    path = outs / "filtered_feature_bc_matrix.h5"
    with h5py.File(path, "r+") as file:
        del file["matrix/data"]
        file.create_dataset("matrix/data", shape=(10**12,), dtype="i4", chunks=(1 << 20,), compression="gzip")
    assert "'/matrix/data' (1000000000000) would take up" in refused(outs)
    folder = curio(tmp_path / "c")
    matrix = folder / "S1_MoleculesPerMatchedBead.mtx"
    matrix.write_text(re.sub(r"\n5 12 \d+\n", "\n5 12 60\n", matrix.read_text()).replace("\n5 12 60\n", "\n5 12 59999999999\n"))
    assert "claims 59,999,999,999 entries" in refused(folder)
    matrix.write_text("%%MatrixMarket matrix coordinate integer general\n4000000000 4000000000 1\n1 1 1\n")
    assert "is 4,000,000,000 × 4,000,000,000, but S1_genes.tsv names 5 features" in refused(folder)


def test_links_of_the_file_system(tmp_path):
    """A staged folder is a link, and files in it may be: all is well as long as they end at regular files."""
    real = xenium(tmp_path / "real")
    folder = tmp_path / "linked"
    folder.mkdir()
    for path in real.iterdir():
        (folder / path.name).symlink_to(path)
    same(read(folder), None, places())
    (folder / "cells.parquet").unlink()
    (folder / "cells.parquet").symlink_to(tmp_path / "nowhere.parquet")
    assert "cells.parquet is a link to a file that isn't there" in refused(folder)
    (folder / "cells.parquet").unlink()
    os.mkfifo(folder / "cells.parquet")
    assert "cells.parquet is not a regular file" in refused(folder)
    (folder / "cells.parquet").unlink()
    (folder / "cells.parquet").symlink_to("cells.parquet")
    assert "is a link to itself" in refused(folder)


def test_damaged_anywhere_ends_with_a_sentence(tmp_path):
    """Any flipped bytes in any file of a bundle: read, or refused in words, never a crash."""
    rng = np.random.default_rng(0)
    for make in (visium, xenium, merscope, cosmx, curio):
        folder = make(tmp_path / make.__name__)
        for path in [p for p in folder.rglob("*") if p.is_file() and p.stat().st_size]:
            content = path.read_bytes()
            for _ in range(4):
                broken = bytearray(content)
                for position in rng.integers(0, len(broken), size=5):
                    broken[position] = rng.integers(256)
                path.write_bytes(broken)
                try:
                    read(folder)
                except InputError as error:
                    assert error.remedy
            path.write_bytes(content)


def test_the_executable_reads_a_folder(tmp_path, root):
    import subprocess
    import sys

    folder = visium_hd(tmp_path / "my slide")
    call = [
        sys.executable,
        root / "bin/spadit_read.py",
        "--id",
        "s",
        "--input",
        folder,
        "--bin-size",
        "16",
        "--output",
        tmp_path / "s.h5ad",
    ]
    done = subprocess.run([str(c) for c in call], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "is read as visium_hd" in done.stderr, done.stderr
    np.testing.assert_array_equal(io.load(tmp_path / "s.h5ad", "slide").layers["counts"].toarray(), counts() * 16)
