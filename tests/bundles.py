"""Small bundles in each vendor's own layout, all with the same counts, so that what is read can be compared entry by entry."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import scipy.io
import scipy.sparse as sp

GENES = ["Gad1", "Slc17a7", "Mbp", "Aqp4", "Pvalb"]
N = 12


def barcodes(n: int = N) -> list[str]:
    """Barcodes as 10x Genomics writes them."""
    letters = np.random.default_rng(3).choice(list("ACGT"), size=(n, 16))
    return ["".join(row) + "-1" for row in letters]


def counts(n: int = N, genes: int = len(GENES)) -> np.ndarray:
    """spots × genes; every spot and gene has some."""
    values = np.random.default_rng(1).poisson(1.5, size=(n, genes))
    values[np.arange(n), np.arange(n) % genes] += 1
    return values


def places(n: int = N) -> np.ndarray:
    """x and y, all different."""
    return np.c_[100.5 + 10 * np.arange(n), 900.25 - 7 * np.arange(n)]


def write(path: Path, text: str) -> Path:
    """A text file; gzip when its name ends with .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.name.endswith(".gz") else text.encode())
    return path


def write_10x_h5(
    path: Path, matrix: np.ndarray, names: list[str], features: list[tuple[str, str, str]], version: str = "", legacy: bool = False
) -> Path:
    """features: (id, name, type). ``legacy``: Cell Ranger 2, one group per genome."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = sp.csc_matrix(matrix.T)
    with h5py.File(path, "w") as file:
        group = file.create_group("mm10" if legacy else "matrix")
        group["barcodes"] = np.array(names, dtype="S")
        group["data"], group["indices"] = columns.data.astype("i4"), columns.indices.astype("i8")
        group["indptr"], group["shape"] = columns.indptr.astype("i8"), np.array(columns.shape, dtype="i4")
        if legacy:
            group["genes"] = np.array([f[0] for f in features], dtype="S")
            group["gene_names"] = np.array([f[1] for f in features], dtype="S")
        else:
            for i, name in enumerate(("id", "name", "feature_type")):
                group[f"features/{name}"] = np.array([f[i] for f in features], dtype="S")
            group["features/genome"] = np.array([b"mm10"] * len(features))
            file.attrs["filetype"], file.attrs["version"] = "matrix", 2
            if version:
                file.attrs["software_version"] = version
    return path


def write_10x_mtx(folder: Path, matrix: np.ndarray, names: list[str], features: list[tuple[str, ...]], packed: bool = True) -> Path:
    """matrix.mtx, features.tsv (genes.tsv before Cell Ranger 3, not packed) and barcodes.tsv."""
    end = ".gz" if packed else ""
    stream = io.BytesIO()
    scipy.io.mmwrite(stream, sp.coo_matrix(matrix.T), field="integer")
    write(folder / f"matrix.mtx{end}", stream.getvalue().decode())
    write(folder / f"{'features' if packed else 'genes'}.tsv{end}", "".join("\t".join(f) + "\n" for f in features))
    write(folder / f"barcodes.tsv{end}", "".join(f"{n}\n" for n in names))
    return folder


def features(kind: bool = True) -> list[tuple[str, ...]]:
    """(id, name, type)"""
    return [(f"ENSMUSG{i:011d}", g, "Gene Expression")[: 3 if kind else 2] for i, g in enumerate(GENES)]


def positions_table(names: list[str], extra: int = 3) -> pd.DataFrame:
    """Visium's table: all spots of the array, some of them off the tissue, in another order than the counts."""
    x, y = places(len(names) + extra).T
    table = pd.DataFrame(
        {
            "barcode": [*names, *(f"OFFTISSUE{i}-1" for i in range(extra))],
            "in_tissue": [1] * len(names) + [0] * extra,
            "array_row": np.arange(len(names) + extra),
            "array_col": np.arange(len(names) + extra)[::-1],
            "pxl_row_in_fullres": y,
            "pxl_col_in_fullres": x,
        }
    )
    return table.iloc[::-1]


def visium(folder: Path, version: int = 3, matrix: str = "h5") -> Path:
    """The folder ``outs`` of Space Ranger."""
    names = barcodes()
    if matrix == "h5":
        write_10x_h5(folder / "filtered_feature_bc_matrix.h5", counts(), names, features(), f"spaceranger-{version}.0.1")
    else:
        write_10x_mtx(folder / "filtered_feature_bc_matrix", counts(), names, features())
    table = positions_table(names)
    if version == 1:
        write(folder / "spatial/tissue_positions_list.csv", table.to_csv(index=False, header=False))
    else:
        write(folder / "spatial/tissue_positions.csv", table.to_csv(index=False))
    write(folder / "spatial/scalefactors_json.json", '{"spot_diameter_fullres": 89.4, "tissue_hires_scalef": 0.17}')
    write(folder / "spatial/tissue_lowres_image.png", "")
    return folder


def visium_hd(folder: Path, sizes: tuple[int, ...] = (2, 8, 16)) -> Path:
    """The folder ``outs`` of Space Ranger 3 for Visium HD; the counts of a size are multiplied by it."""
    for size in sizes:
        squares = folder / f"binned_outputs/square_{size:03d}um"
        names = [f"s_{size:03d}um_{i:05d}_{2 * i:05d}-1" for i in range(N)]
        write_10x_h5(squares / "filtered_feature_bc_matrix.h5", counts() * size, names, features(), "spaceranger-3.1.2")
        (squares / "spatial").mkdir()
        positions_table(names).to_parquet(squares / "spatial/tissue_positions.parquet", index=False)
        write(squares / "spatial/scalefactors_json.json", f'{{"bin_size_um": {size}.0, "microns_per_pixel": 0.27}}')
    return folder


def xenium(folder: Path, version: str = "xenium-3.1.0.4", cells: str = "parquet", matrix: str = "h5") -> Path:
    """A Xenium output folder, with control probes among the features."""
    names = [f"aaab{'abcdefghijkl'[i]}lin-1" for i in range(N)] if not version.startswith("xenium-1.0") else [str(i + 1) for i in range(N)]
    full = np.c_[counts(), np.full((N, 2), 9)]
    rows = [*features(), ("NegControlProbe_1", "NegControlProbe_1", "Negative Control Probe"), ("U1", "U1", "Unassigned Codeword")]
    if matrix == "h5":
        write_10x_h5(folder / "cell_feature_matrix.h5", full, names, rows, "Xenium 9.0")
    else:
        write_10x_mtx(folder / "cell_feature_matrix", full, names, rows)
    x, y = places().T
    table = pd.DataFrame(
        {"cell_id": names, "x_centroid": x, "y_centroid": y, "transcript_counts": 5, "cell_area": 30.5, "nucleus_area": 9.5}
    )
    if cells == "parquet":
        table.to_parquet(folder / "cells.parquet", index=False)
    elif cells == "bytes":  # as early versions wrote names
        table.assign(cell_id=[n.encode() for n in names]).to_parquet(folder / "cells.parquet", index=False)
    else:
        write(folder / "cells.csv.gz", table.to_csv(index=False))
    write(folder / "experiment.xenium", f'{{"major_version": 6, "minor_version": 0, "analysis_sw_version": "{version}", "run_name": "r"}}')
    return folder


def merscope(folder: Path, prefix: str = "", suffix: str = "") -> Path:
    """A region's folder of MERSCOPE: numbers of 18 digits as names, blanks among the genes."""
    names = [str(110883424764611924 + i) for i in range(N)]
    table = pd.DataFrame(counts(), columns=GENES, index=pd.Index(names, name="cell"))
    table["Blank-1"], table["Blank-27"] = 4, 5
    x, y = places().T
    cells = pd.DataFrame(
        {"fov": 0, "volume": 812.5, "center_x": x, "center_y": y, "min_x": x - 1, "max_x": x + 1}, index=pd.Index(names, name="EntityID")
    )
    write(folder / f"{prefix}cell_by_gene{suffix}.csv", table.to_csv())
    write(folder / f"{prefix}cell_metadata{suffix}.csv", cells.iloc[::-1].to_csv())
    write(folder / "detected_transcripts.csv", ",barcode_id,global_x,global_y,global_z,x,y,fov,gene,transcript_id\n")
    return folder


def cosmx(folder: Path, packed: bool = True, quoted: bool = False) -> Path:
    """The flat files of a CosMx slide: two fields of view, in which numbers of cells begin anew; cell 0 is what is outside of cells."""
    fov, cell = np.repeat([1, 2], N // 2), np.tile(np.arange(1, N // 2 + 1), 2)
    table = pd.DataFrame(counts(), columns=GENES)
    table["NegPrb01"], table["Negative5"], table["SystemControl1"] = 3, 1, 2
    table.insert(0, "fov", fov)
    table.insert(1, "cell_ID", cell)
    outside = table.iloc[[0, 6]].assign(cell_ID=0)
    table = pd.concat([outside.iloc[:1], table.iloc[:6], outside.iloc[1:], table.iloc[6:]])
    x, y = places().T
    cells = pd.DataFrame(
        {
            "fov": fov,
            "cell_ID": cell,
            "Area": 512,
            "CenterX_local_px": 5,
            "CenterY_local_px": 6,
            "CenterX_global_px": x,
            "CenterY_global_px": y - 2000,
        }
    )
    end = ".csv.gz" if packed else ".csv"
    csv = 2 if quoted else 0  # QUOTE_NONNUMERIC, as R writes
    write(folder / f"Lung5_exprMat_file{end}", table.to_csv(index=False, quoting=csv))
    write(folder / f"Lung5_metadata_file{end}", cells.to_csv(index=False, quoting=csv))
    write(folder / f"Lung5_tx_file{end}", "fov,cell_ID,x,y,target\n")
    return folder


def gef(path: Path, cells: bool = False, sizes: tuple[int, ...] = (1,), version: int = 2) -> Path:
    """A GEF file. Spot i of :func:`counts` is the square of 50 at (i, 2 i): its counts lie in several positions of the chip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = counts()
    with h5py.File(path, "w") as file:
        file.attrs["version"] = np.array([version], dtype="u4")
        if cells:
            kind = [
                ("id", "u4"),
                ("x", "i4"),
                ("y", "i4"),
                ("offset", "u4"),
                ("geneCount", "u2"),
                ("expCount", "u2"),
                ("dnbCount", "u2"),
                ("area", "u2"),
            ]
            matrix = sp.csr_matrix(values)
            table = np.zeros(N, dtype=kind)
            table["id"], table["x"], table["y"] = np.arange(N) + 7, np.arange(N) * 50, np.arange(N) * 100
            table["offset"], table["geneCount"], table["expCount"] = matrix.indptr[:-1], np.diff(matrix.indptr), values.sum(1)
            file["cellBin/cell"] = table
            records = np.zeros(matrix.nnz, dtype=[("geneID", "u4"), ("count", "u2")])
            records["geneID"], records["count"] = matrix.indices, matrix.data
            file["cellBin/cellExp"] = records
            file["cellBin/gene"] = np.array([(g.encode(), 0) for g in GENES], dtype=[("geneName", "S64"), ("offset", "u4")])
            return path
        for size in sizes:
            records, rows = [], []
            for j, gene in enumerate(GENES):
                start = len(records)
                for i in range(N):
                    if size < 50:  # one count at each of several positions of the square
                        records += [(50 * i + (7 * k) % 50 // size * size, 100 * i + k % 50 // size * size, 1) for k in range(values[i, j])]
                    elif values[i, j]:
                        records.append((50 * i, 100 * i, values[i, j]))
                rows.append((gene.encode(), start, len(records) - start))
            file[f"geneExp/bin{size}/expression"] = np.array(records, dtype=[("x", "i4"), ("y", "i4"), ("count", "u1")])
            file[f"geneExp/bin{size}/gene"] = np.array(rows, dtype=[("gene", "S64"), ("offset", "u4"), ("count", "u4")])
    return path


def curio(folder: Path) -> Path:
    """The output folder of Curio Seeker."""
    names = [b[:14] for b in barcodes()]
    stream = io.BytesIO()
    scipy.io.mmwrite(stream, sp.coo_matrix(counts().T), field="integer")
    write(folder / "S1_MoleculesPerMatchedBead.mtx", stream.getvalue().decode())
    write(folder / "S1_barcodes.tsv", "".join(f"{n}\n" for n in names))
    write(folder / "S1_genes.tsv", "".join(f"{n}\n" for n in GENES))
    x, y = places().T
    write(folder / "S1_MatchedBeadLocation.csv", pd.DataFrame({"barcode": names, "x": x, "y": y}).iloc[::-1].to_csv(index=False))
    return folder


def slideseq(folder: Path, version: int = 2) -> Path:
    """A puck of the Slide-seq papers: genes × beads."""
    names = [b[:14] for b in barcodes()]
    table = pd.DataFrame(counts().T, index=pd.Index(GENES, name="GENE"), columns=names)
    x, y = places().T
    beads = pd.DataFrame({"barcodes": names, "xcoord": x, "ycoord": y})
    if version == 2:
        write(folder / "Puck_200115_08.digital_expression.txt.gz", table.to_csv(sep="\t"))
        write(folder / "Puck_200115_08_bead_locations.csv", beads.to_csv(index=False))
    else:
        write(folder / "MappedDGEForR.csv", table.to_csv())
        write(folder / "BeadLocationsForR.csv", beads.to_csv(index=False))
    return folder


def same(adata, names: list[str] | None = None, spatial: np.ndarray | None = None) -> None:
    """The counts, genes and places are those of this module; spots have these names."""
    found = adata.layers["counts"]
    assert adata.X is None and found.format == "csr" and found.dtype == np.float32
    assert list(adata.var_names) == GENES
    np.testing.assert_array_equal(found.toarray(), counts())
    if names is not None:
        assert list(adata.obs_names) == names
    if spatial is not None:
        np.testing.assert_allclose(adata.obsm["spatial"], spatial)
        assert adata.obsm["spatial"].dtype == np.float64
