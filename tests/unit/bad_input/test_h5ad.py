"""What is wrong with a slide's or a reference's h5ad file: each case is one change to a good file, made with h5py alone.

A case is refused in words, or read with the right counts. Nothing ends with a traceback, hangs, or is wrong without a word.
"""

from __future__ import annotations

import os
import re
import shutil
import time

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from spadit import io

SPOTS, GENES = 40, 12


def put(file: h5py.File, name: str, values, **options) -> h5py.Dataset:
    """Replace an array, with the attributes that anndata expects."""
    if name in file:
        del file[name]
    made = file.create_dataset(name, data=values, **options)
    made.attrs["encoding-type"], made.attrs["encoding-version"] = "array", "0.2.0"
    return made


def dense(file: h5py.File, change=None, dtype=np.float64) -> None:
    """X as a dense matrix, with a change to it."""
    group = file["X"]
    matrix = sp.csr_matrix((group["data"][:], group["indices"][:], group["indptr"][:]), shape=tuple(group.attrs["shape"])).toarray()
    matrix = matrix.astype(dtype)
    changed = change(matrix) if change else None
    put(file, "X", matrix if changed is None else changed)


def entry(value):
    """One entry of the matrix set to a value."""

    def change(matrix):
        matrix[3, 4] = value

    return lambda file: dense(file, change)


def sparse_data(change, dtype=None):
    """A change to the values of the sparse X."""

    def apply(file):
        values = file["X/data"][:].astype(dtype or file["X/data"].dtype)
        changed = change(values)
        put(file, "X/data", values if changed is None else changed)

    return apply


def part(name, change):
    """Another array in place of X/indices or X/indptr."""
    return lambda file: put(file, f"X/{name}", change(file[f"X/{name}"][:]))


def setting(position, value):
    """An array with one value replaced."""

    def change(values):
        values[position] = value
        return values

    return change


def attribute(name, key, value):
    def apply(file):
        file[name].attrs[key] = value

    return apply


def without_attribute(name, key):
    def apply(file):
        del file[name].attrs[key]

    return apply


def remove(*names):
    def apply(file):
        for name in names:
            del file[name]

    return apply


def array(name, make):
    return lambda file: put(file, name, make(file))


def group_at(name):
    def apply(file):
        del file[name]
        file.create_group(name)

    return apply


def names_of(axis, make):
    """Other names of spots or genes."""

    def apply(file):
        index = file[axis].attrs["_index"]
        old = file[axis][index].asstr()[:]
        values = make(list(old))
        del file[axis][index]
        made = file[axis].create_dataset(index, data=values)
        made.attrs["encoding-type"], made.attrs["encoding-version"] = "string-array", "0.2.0"

    return apply


def spatial(make):
    return lambda file: put(file, "obsm/spatial", make(file["obsm/spatial"][:]))


def coordinate(value):
    return spatial(setting((2, 1), value))


def external_link(file):
    file["X2"] = h5py.ExternalLink("/etc/passwd", "/")


def external_counts(file):
    file.require_group("layers")["counts"] = h5py.ExternalLink("other.h5", "/X")


def soft_link(file):
    file["again"] = h5py.SoftLink("/obs")


def soft_loop(file):
    file["a"], file["b"] = h5py.SoftLink("/b"), h5py.SoftLink("/a")


def dangling_link(file):
    del file["X"]
    file["X"] = h5py.SoftLink("/nowhere")


def external_storage(file):
    file.create_dataset("secret", shape=(10,), dtype="u1", external=[("/etc/hostname", 0, 10)])


def virtual(file):
    layout = h5py.VirtualLayout(shape=(4,), dtype="f4")
    layout[:] = h5py.VirtualSource("other.h5", "data", shape=(4,))
    file.create_virtual_dataset("virtual", layout)


def virtual_x(file):
    layout = h5py.VirtualLayout(shape=(SPOTS, GENES), dtype="f4")
    layout[:] = h5py.VirtualSource("other.h5", "data", shape=(SPOTS, GENES))
    del file["X"]
    file.create_virtual_dataset("X", layout)


def hard_loop(file):
    file["obs"]["again"] = file["obs"]
    file["obs"].attrs["column-order"] = np.array(["again"], dtype=h5py.string_dtype())


def harmless_loop(file):
    file["uns"]["again"] = file["/"]


def huge(name, shape, dtype="f4", **options):
    """An array that is declared and not stored."""

    def apply(file):
        if name in file:
            del file[name]
        made = file.create_dataset(name, shape=shape, dtype=dtype, chunks=options.pop("chunks", True), **options)
        made.attrs["encoding-type"], made.attrs["encoding-version"] = "array", "0.2.0"

    return apply


def twice_packed(file):
    """134 MB of zeros, packed into one chunk and packed again: a few kilobytes are stored."""
    import zlib

    import h5py.h5z

    size = 1 << 27
    space = h5py.h5s.create_simple((size,), (size,))
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((size,))
    plist.set_deflate(9)
    plist.set_deflate(9)
    assert h5py.h5z.FILTER_DEFLATE
    made = h5py.h5d.create(file["obs"].id, b"bomb", h5py.h5t.NATIVE_UINT8, space, dcpl=plist)
    packer, inner = zlib.compressobj(9), bytearray()
    for _ in range(size >> 20):
        inner += packer.compress(bytes(1 << 20))
    inner += packer.flush()
    made.write_direct_chunk((0,), zlib.compress(bytes(inner), 9))
    file["obs/bomb"].attrs["encoding-type"], file["obs/bomb"].attrs["encoding-version"] = "array", "0.2.0"
    file["obs"].attrs["column-order"] = np.array(["bomb"], dtype=h5py.string_dtype())


def wide_chunk(file):
    """Ten values in a chunk of four gigabytes."""
    made = file["obs"].create_dataset("wide", shape=(SPOTS,), maxshape=(None,), chunks=(1 << 29,), dtype="f4", compression="gzip")
    made.attrs["encoding-type"], made.attrs["encoding-version"] = "array", "0.2.0"


def unknown_filter(file):
    """Values packed by a program that isn't here (zstandard), as the file says."""
    del file["X"]
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((SPOTS, GENES))
    plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
    space = h5py.h5s.create_simple((SPOTS, GENES))
    made = h5py.h5d.create(file.id, b"X", h5py.h5t.IEEE_F32LE, space, dcpl=plist)
    made.write_direct_chunk((0, 0), b"not zstandard")


def obs_column(values, name="extra"):
    def apply(file):
        put(file, f"obs/{name}", values)
        file["obs"].attrs["column-order"] = np.array([name], dtype=h5py.string_dtype())

    return apply


def bad_codes(file):
    group = file["obs"].create_group("kind")
    group.attrs["encoding-type"], group.attrs["encoding-version"], group.attrs["ordered"] = "categorical", "0.2.0", False
    put(group, "codes", np.full(SPOTS, 7, dtype="i1"))
    made = group.create_dataset("categories", data=np.array(["a", "b"], dtype=h5py.string_dtype()))
    made.attrs["encoding-type"], made.attrs["encoding-version"] = "string-array", "0.2.0"
    file["obs"].attrs["column-order"] = np.array(["kind"], dtype=h5py.string_dtype())


def as_text(matrix):
    return matrix.astype("S8")


def raw_without_var(file):
    file["raw/X"] = np.ones((SPOTS, GENES))
    del file["X"]


def layers_is_an_array(file):
    if "layers" in file:
        del file["layers"]
    file["layers"] = np.arange(3)


def obsm_is_an_array(file):
    del file["obsm"]
    file["obsm"] = np.arange(3)


def log_base_bomb(file):
    dense(file, lambda m: np.log1p(m))
    group = file["uns"].create_group("log1p")
    group.create_dataset("base", shape=(10**10,), dtype="f8", chunks=True)


def deep(file):
    group = file["uns"]
    for _ in range(3000):
        group = group.create_group("a")


REFUSED = {
    # the matrix
    "no matrix at all": (remove("X"), "holds no matrix"),
    "X is an empty group": (group_at("X"), "not a matrix of numbers"),
    "X is one number": (array("X", lambda f: 3.0), "holds no matrix"),
    "X has one dimension": (array("X", lambda f: np.ones(SPOTS)), "X is 40, but obs × var is 40 × 12"),
    "X has three dimensions": (array("X", lambda f: np.ones((SPOTS, GENES, 2))), "X is 40 × 12 × 2"),
    "X is transposed": (lambda f: dense(f, lambda m: m.T.copy()), "X is 12 × 40"),
    "X lacks a row": (lambda f: dense(f, lambda m: m[1:]), "X is 39 × 12"),
    "X lacks a column": (lambda f: dense(f, lambda m: m[:, 1:]), "X is 40 × 11"),
    "X has no rows": (array("X", lambda f: np.zeros((0, GENES))), "X is 0 × 12"),
    "text in X": (lambda f: dense(f, as_text), "not a matrix of numbers"),
    "complex numbers in X": (lambda f: dense(f, None, np.complex128), "not a matrix of numbers"),
    "pairs of values in X": (array("X", lambda f: np.zeros((SPOTS, GENES), dtype=[("a", "f4"), ("b", "f4")])), "not a matrix of numbers"),
    "texts of any length in X": (
        lambda f: put(f, "X", np.full((SPOTS, GENES), "one", dtype=object), dtype=h5py.string_dtype()),
        "not a matrix of numbers",
    ),
    "NaN in X": (entry(np.nan), r"missing \(NaN\) .*spot 'spot3', gene 'Gene4'"),
    "all of X is NaN": (lambda f: dense(f, lambda m: m * np.nan), r"480 values that are no counts, the first is missing"),
    "infinite value in X": (entry(np.inf), "infinite"),
    "minus infinity in X": (entry(-np.inf), "infinite|negative"),
    "negative value in X": (entry(-1), "negative"),
    "minus a half in X": (entry(-0.5), "negative"),
    "scaled values in X": (lambda f: dense(f, lambda m: (m - m.mean(0)) / (m.std(0) + 1)), "negative"),
    "a count beyond float32": (entry(1e300), "infinite|too large"),
    "a count that swallows the others": (entry(1e20), "too large"),
    "64-bit whole number that is no count": (lambda f: dense(f, setting((3, 4), 2**62), np.int64), "too large"),
    "unsigned 64-bit maximum": (lambda f: dense(f, setting((3, 4), 2**64 - 1), np.uint64), "too large"),
    "a negative 64-bit whole number": (lambda f: dense(f, setting((3, 4), -(2**62)), np.int64), "negative"),
    "float16 overflow": (lambda f: dense(f, setting((3, 4), np.inf), np.float16), "infinite"),
    "NaN in sparse values": (sparse_data(setting(5, np.nan)), "missing"),
    "infinite sparse value": (sparse_data(setting(5, np.inf)), "infinite"),
    "negative sparse value": (sparse_data(setting(5, -2)), "negative"),
    "text as sparse values": (sparse_data(lambda v: v.astype("S4")), "can't be read|not a matrix"),
    "sparse float16, which nothing writes": (sparse_data(lambda v: v.astype(np.float16)), "does not support dtype"),
    "sparse big-endian, which nothing writes": (sparse_data(lambda v: v.astype(">f4")), "does not support dtype"),
    # sparse structure
    "sparse without data": (remove("X/data"), "not a matrix of numbers"),
    "sparse without indices": (remove("X/indices"), "not a matrix of numbers"),
    "sparse without indptr": (remove("X/indptr"), "not a matrix of numbers"),
    "sparse without a shape": (without_attribute("X", "shape"), "but obs × var is"),
    "sparse with a shape of text": (attribute("X", "shape", "40x12"), "but obs × var is"),
    "sparse with a shape of one number": (attribute("X", "shape", np.array([SPOTS])), "but obs × var is"),
    "sparse with a huge shape": (attribute("X", "shape", np.array([SPOTS, 10**15])), "but obs × var is"),
    "sparse with a negative shape": (attribute("X", "shape", np.array([SPOTS, -GENES])), "but obs × var is"),
    "sparse of an unknown encoding": (attribute("X", "encoding-type", "coo_matrix"), "can't be read|not a matrix"),
    "sparse of a later version": (attribute("X", "encoding-version", "9.9.9"), "can't be read"),
    "an index beyond the genes": (part("indices", setting(5, 10_000)), "X is damaged"),
    "a negative index": (part("indices", setting(5, -1)), "X is damaged"),
    "indices of another number than values": (part("indices", lambda v: v[:-3]), "X is damaged|can't be read"),
    "values of another number than indices": (sparse_data(lambda v: v[:-3]), "X is damaged|can't be read"),
    "fractional indices": (part("indices", lambda v: v + 0.5), "its indices are no whole numbers"),
    "fractional indptr": (part("indptr", lambda v: v + 0.5), "its indices are no whole numbers"),
    "indptr too short": (part("indptr", lambda v: v[:-2]), "damaged|can't be read"),
    "indptr too long": (part("indptr", lambda v: np.append(v, v[-1])), "damaged|can't be read"),
    "indptr that decreases": (part("indptr", lambda v: v[::-1].copy()), "damaged|can't be read"),
    "indptr that doesn't begin with 0": (part("indptr", setting(0, 3)), "damaged|can't be read"),
    "indptr beyond the values": (part("indptr", setting(-1, 10**9)), "damaged|can't be read"),
    "negative indptr": (part("indptr", setting(3, -5)), "damaged|can't be read"),
    "two-dimensional indices": (part("indices", lambda v: v.reshape(1, -1)), "not a matrix of numbers"),
    "indices are a group": (group_at("X/indices"), "not a matrix of numbers"),
    # spots and genes
    "no obs": (remove("obs"), "no 'obs' and 'var'"),
    "no var": (remove("var"), "no 'obs' and 'var'"),
    "obs is an array": (array("obs", lambda f: np.arange(SPOTS)), "'obs' is not a table"),
    "obs is an empty group": (group_at("obs"), "'obs' (is not a table|can't be read)"),
    "var is a text": (array("var", lambda f: "genes"), "'var' is not a table"),
    "obs names its index column, which isn't there": (remove("obs/_index"), "'obs' can't be read"),
    "obs without the note of its index": (without_attribute("obs", "_index"), "'obs' can't be read"),
    "obs of a later version": (attribute("obs", "encoding-version", "77.0"), "'obs' can't be read"),
    "obs of an unknown encoding": (attribute("obs", "encoding-type", "spreadsheet"), "'obs' can't be read"),
    "fewer names than spots": (names_of("obs", lambda n: n[:-1]), "X is 40 × 12|but obs × var"),
    "more names than genes": (names_of("var", lambda n: [*n, "more"]), "but obs × var"),
    "no spots": (
        lambda f: (names_of("obs", lambda n: np.array([], dtype=h5py.string_dtype()))(f), spatial(lambda s: s[:0])(f)),
        "no spots",
    ),
    "no genes": (names_of("var", lambda n: np.array([], dtype=h5py.string_dtype())), "no genes"),
    "no gene has a name": (names_of("var", lambda n: [""] * GENES), "No gene has a name"),
    "a column of obs of another length": (obs_column(np.arange(SPOTS + 1)), "'obs' can't be read"),
    "a column of obs with two dimensions": (obs_column(np.ones((SPOTS, 2, 2))), "'obs' can't be read"),
    "codes beyond the categories": (bad_codes, "'obs' can't be read"),
    "obs that holds itself": (hard_loop, "'obs' can't be read"),
    # coordinates
    "no coordinates": (remove("obsm/spatial"), "no spatial coordinates"),
    "no obsm": (remove("obsm"), "no spatial coordinates"),
    "obsm is an array": (obsm_is_an_array, "no spatial coordinates"),
    "NaN as a coordinate": (coordinate(np.nan), "for 1 spots, the first is 'spot2'"),
    "infinite coordinate": (coordinate(np.inf), "missing or infinite"),
    "all coordinates NaN": (spatial(lambda s: s * np.nan), "for 40 spots"),
    "a coordinate far from any slide": (coordinate(1e300), "no place on a slide"),
    "one column of coordinates": (spatial(lambda s: s[:, :1]), "40 × 1, but 40 × 2 is expected"),
    "coordinates without columns": (spatial(lambda s: s[:, :0]), "40 × 0"),
    "coordinates in one dimension": (spatial(lambda s: s[:, 0]), "is 40, but"),
    "coordinates in three dimensions": (spatial(lambda s: s[..., None]), "40 × 2 × 1"),
    "coordinates of fewer spots": (spatial(lambda s: s[1:]), "39 × 2"),
    "coordinates transposed": (spatial(lambda s: s.T.copy()), "2 × 40"),
    "text as coordinates": (array("obsm/spatial", lambda f: np.full((SPOTS, 2), b"left")), "not numbers"),
    "all spots at one place": (spatial(np.zeros_like), "same place"),
    "spots closer than numbers can tell": (spatial(lambda s: s * 1e-200), "same place"),
    "coordinates are a group": (group_at("obsm/spatial"), "obsm"),
    # links, and arrays that swell
    "a link to another file": (external_link, "'/X2' is a link to another file"),
    "counts linked from another file": (external_counts, "'/layers/counts' is a link to another file"),
    "a symbolic link": (soft_link, "'/again' is a symbolic link"),
    "symbolic links in a circle": (soft_loop, "is a symbolic link"),
    "X is a link to nowhere": (dangling_link, "'/X' is a symbolic link"),
    "values kept in /etc": (external_storage, "'/secret' keeps its values in another file"),
    "a virtual array": (virtual, "'/virtual' keeps its values in another file"),
    "X is a virtual array": (virtual_x, "'/X' keeps its values in another file"),
    "X declares 10^16 values and stores none": (huge("X", (10**8, 10**8)), "would take up 40,000,000.00 GB"),
    "an obs column declares 10^12 values": (huge("obs/extra", (10**12,), "f8"), "would take up"),
    "sparse values declare 10^11 entries": (huge("X/data", (10**11,)), "'/X/data' .* would take up"),
    "coordinates declare 10^9 columns": (huge("obsm/spatial", (SPOTS, 10**9), "f8"), "would take up"),
    "an unread array declares 10^12 values": (huge("uns/extra", (10**6, 10**6)), "'/uns/extra' .* would take up"),
    "packed twice": (twice_packed, "'/obs/bomb' .* would take up 0.13 GB"),
    "forty values in a chunk of two gigabytes": (wide_chunk, "'/obs/wide' .* would take up 2.15 GB"),
    "the base of the logarithm is 80 GB": (log_base_bomb, "'/uns/log1p/base' .* would take up"),
    "packed by a program that isn't here": (unknown_filter, "can't be read"),
    # other layouts
    "raw without var, and no X": (raw_without_var, "holds no matrix"),
    "layers is an array, and no X": (lambda f: (layers_is_an_array(f), remove("X")(f)), "holds no matrix"),
    "10x matrix in the file's place": (
        lambda f: (remove(*list(f))(f), f.create_group("matrix")),
        "counts but no positions",
    ),
    "HDF5 with nothing in it": (lambda f: remove(*list(f))(f), "no 'obs' and 'var'"),
}


def duplicate_genes(file):
    names_of("var", lambda n: [n[0], n[0], *n[2:]])(file)


FINE = {
    # name: (change, change of the counts that are expected)
    "nothing changed": (lambda f: None, None),
    "dense": (dense, None),
    "dense float16": (lambda f: dense(f, None, np.float16), None),
    "dense 64-bit whole numbers": (lambda f: dense(f, None, np.int64), None),
    "dense unsigned bytes": (lambda f: dense(f, None, np.uint8), None),
    "dense big-endian": (lambda f: dense(f, None, ">f8"), None),
    "dense and packed": (lambda f: (dense(f), put(f, "X", f["X"][:], compression="gzip", chunks=(7, 5))), None),
    "big-endian indices": (part("indices", lambda v: v.astype(">i4")), None),
    "sparse 16-bit": (sparse_data(lambda v: v.astype(np.uint16)), None),
    "64-bit indices": (part("indices", lambda v: v.astype(np.int64)), None),
    "a very large but possible count": (entry(2.0**24), setting((3, 4), 2**24)),
    "minus zero": (entry(-0.0), setting((3, 4), 0)),
    "a group that holds the whole file": (harmless_loop, None),
    "groups 3000 deep": (deep, None),
    "an unknown encoding in uns": (lambda f: f["uns"].create_group("x").attrs.__setitem__("encoding-type", "pickle"), None),
    "an object of another program in uns": (lambda f: f["uns"].create_dataset("o", data=np.void(b"\x80\x04K\x01.")), None),
    "coordinates of whole numbers": (spatial(lambda s: np.c_[np.arange(SPOTS), np.arange(SPOTS) % 7]), None),
    "coordinates with a third column": (spatial(lambda s: np.c_[s, s[:, 0]]), None),
    "coordinates below zero": (spatial(lambda s: -s), None),
    "names as bytes of one length": (
        lambda f: names_of("obs", lambda n: np.array([s.encode() for s in n]))(f),
        None,
    ),
    "spots of one name": (names_of("obs", lambda n: ["spot"] * SPOTS), None),
    "names with line breaks and escapes": (names_of("obs", lambda n: [f"{s}\n\x1b[2J" for s in n]), None),
    "names of 10,000 characters": (names_of("obs", lambda n: [s + "x" * 10_000 for s in n]), None),
    "names in other alphabets": (names_of("obs", lambda n: [s + "点\u202e" for s in n]), None),
    "genes of one name are added up": (
        duplicate_genes,
        lambda m: np.c_[m[:, 0] + m[:, 1], m[:, 2:]],
    ),
    "a gene without a name is left out": (names_of("var", lambda n: ["", *n[1:]]), lambda m: m[:, 1:]),
    "layers is an array": (layers_is_an_array, None),
    "no uns": (remove("uns"), None),
    "raw without var": (lambda f: f.__setitem__("raw/X", np.ones((SPOTS, GENES))), None),
    "an obs column of text": (obs_column(np.array(["a"] * SPOTS, dtype=h5py.string_dtype())), None),
}


@pytest.fixture(scope="module")
def good(make_slide, tmp_path_factory):
    """A good slide's file and its counts."""
    folder = tmp_path_factory.mktemp("good")
    slide = make_slide(SPOTS, GENES)
    slide.uns["note"] = "x"
    slide.write_h5ad(folder / "st.h5ad")
    return folder / "st.h5ad", slide.X.toarray()


def changed(good, tmp_path, change):
    path = tmp_path / "st.h5ad"
    shutil.copy(good[0], path)
    with h5py.File(path, "r+") as file:
        change(file)
    return path


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_words(case, good, tmp_path, step):
    change, says = REFUSED[case]
    path, output = changed(good, tmp_path, change), tmp_path / "out.h5ad"
    began = time.monotonic()
    outcome = step("read", "--role", "slide", "--input", path, "--output", output)
    outcome.check_refused()
    assert re.search(says, outcome.reason), outcome.reason
    assert not output.exists() and time.monotonic() - began < 20


@pytest.mark.parametrize("case", FINE)
def test_read_right(case, good, tmp_path, step):
    change, expect = FINE[case]
    path, output = changed(good, tmp_path, change), tmp_path / "out.h5ad"
    step("read", "--role", "slide", "--input", path, "--output", output).check_fine()
    expected = good[1].copy()
    result = expect(expected) if expect else expected
    np.testing.assert_array_equal(io.load(output, "slide").layers["counts"].toarray(), expected if result is None else result)


# ---- files that are no h5ad at all -------------------------------------------------------------------------------------


def fifo(path):
    os.mkfifo(path)


def link_loop(path):
    path.symlink_to(path.with_name("b"))
    path.with_name("b").symlink_to(path)


OTHER_FILES = {
    "not there": (lambda p: None, "no such file"),
    "empty": (lambda p: p.write_bytes(b""), "is empty"),
    "a directory": (lambda p: p.mkdir(), "is a directory"),
    "a pipe": (fifo, "a pipe or a device"),
    "a device": (lambda p: p.symlink_to("/dev/zero"), "a pipe or a device"),
    "symbolic links in a circle": (link_loop, "no such file|can't be opened"),
    "a dangling symbolic link": (lambda p: p.symlink_to("/nowhere/at/all"), "no such file"),
    "text": (lambda p: p.write_text("gene,count\n"), "is one table, but a slide needs"),
    "zeros": (lambda p: p.write_bytes(bytes(4096)), "not an HDF5 file"),
    "the signature alone": (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n"), "can't be read|cut short"),
    "the signature and rubbish": (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + os.urandom(5000)), "can't be read|cut short"),
    "a gzip archive": (lambda p: p.write_bytes(b"\x1f\x8b\x08\0"), "cut short"),
    "a zip archive": (lambda p: p.write_bytes(b"PK\x03\x04"), "zip archive"),
    "a pickle": (lambda p: p.write_bytes(b"\x80\x04\x95\x0b\0\0\0\0\0\0\0\x8c\x02os\x94."), "not an HDF5 file"),
    "a web page": (lambda p: p.write_text("<!DOCTYPE html>"), "failed download"),
    "a zarr folder whose codec is pickle": (
        lambda p: (p.mkdir(), (p / ".zarray").write_text('{"filters": [{"id": "pickle"}], "dtype": "|O"}')),
        "is a directory",
    ),
}


@pytest.mark.parametrize("case", OTHER_FILES)
def test_other_files(case, tmp_path, step):
    make, says = OTHER_FILES[case]
    path = tmp_path / "st.h5ad"
    make(path)
    outcome = step("read", "--role", "slide", "--input", path, "--output", tmp_path / "out.h5ad")
    outcome.check_refused()
    assert re.search(says, outcome.reason), outcome.reason


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999])
def test_cut_short(share, good, tmp_path, step):
    content = good[0].read_bytes()
    path = tmp_path / "st.h5ad"
    path.write_bytes(content[: int(len(content) * share)])
    outcome = step("read", "--role", "slide", "--input", path, "--output", tmp_path / "out.h5ad")
    outcome.check_refused()
    assert re.search("cut short|can't be read|not an HDF5", outcome.reason), outcome.reason


def test_a_file_that_must_not_be_read(good, tmp_path, step, monkeypatch):
    """Where the tests run as root no file is refused, so the refusal is played."""
    import builtins

    path = tmp_path / "st.h5ad"
    shutil.copy(good[0], path)
    real = builtins.open

    def refuse(file, *arguments, **options):
        if str(file) == str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(file, *arguments, **options)

    monkeypatch.setattr(builtins, "open", refuse)
    outcome = step("read", "--role", "slide", "--input", path, "--output", tmp_path / "out.h5ad")
    outcome.check_refused()
    assert "Permission denied" in outcome.reason


# ---- what only later steps see -----------------------------------------------------------------------------------------

CHAIN = {
    # name: (slide, reference) -> step that refuses, words
    "one spot": (lambda s, r: (s[:1], r), "qc", "1 spot only"),
    "one gene": (lambda s, r: (s[:, :1], r), "qc", "1 gene only"),
    "one cell": (lambda s, r: (s, r[:1]), "qc", "1 cell only"),
    "a slide of zeros": (lambda s, r: (zeroed(s), r), "qc", "are left after quality control"),
    "a reference of zeros": (lambda s, r: (s, zeroed(r)), "qc", "are left after quality control"),
    "no shared gene": (lambda s, r: (renamed(s, "Other{}"), r), "pair", "share 0 genes"),
    "too few shared genes": (lambda s, r: (s[:, :5].copy(), r), "pair", "share 5 genes, but at least 10"),
    "human slide, mouse reference": (
        lambda s, r: (renamed(s, "ENSG{:011d}"), renamed(r, "ENSMUSG{:011d}")),
        "pair",
        "use a reference of the same species",
    ),
    "ids against symbols": (lambda s, r: (renamed(s, "ENSG{:011d}"), r), "pair", "put the other kind into a column of var"),
    "two genomes in one reference": (
        lambda s, r: (s, renamed(r, "{}", [f"{'GRCh38' if i % 2 else 'mm10'}_Gene{i}" for i in range(r.n_vars)])),
        "pair",
        "mixes species",
    ),
    "no batch column": (lambda s, r: (s, r), "read", "has no column 'donor'"),
}


def zeroed(adata):
    adata = adata.copy()
    adata.X = sp.csr_matrix(adata.shape, dtype=np.float32)
    return adata


def renamed(adata, form, names=None):
    adata = adata.copy()
    adata.var_names = names or [form.format(i) for i in range(adata.n_vars)]
    return adata


@pytest.mark.parametrize("case", CHAIN)
def test_what_only_a_later_step_sees(case, make_slide, make_reference, tmp_path, step):
    change, at, says = CHAIN[case]
    files = dict(zip(("slide", "reference"), change(make_slide(), make_reference()), strict=True))
    for role, adata in files.items():
        adata = ad.AnnData(adata.X, obs=pd.DataFrame(adata.obs), var=pd.DataFrame(adata.var), obsm=dict(adata.obsm))
        adata.write_h5ad(tmp_path / f"{role}.h5ad")
        batch = ["--batch", "donor"] if at == "read" and role == "reference" else []
        outcome = step("read", "--role", role, "--input", tmp_path / f"{role}.h5ad", *batch, "--output", tmp_path / f"{role}.read.h5ad")
        if outcome.failure:
            break
        given = ["--input", tmp_path / f"{role}.read.h5ad", "--output", tmp_path / f"{role}.qc.h5ad", "--facts", tmp_path / f"{role}.json"]
        outcome = step("qc", "--role", role, *given)
        if outcome.failure:
            break
    else:
        outputs = ["--output-slide", tmp_path / "a.h5ad", "--output-reference", tmp_path / "b.h5ad", "--facts", tmp_path / "p.json"]
        outcome = step("pair", "--slide", tmp_path / "slide.qc.h5ad", "--reference", tmp_path / "reference.qc.h5ad", *outputs)
    outcome.check_refused()
    assert outcome.failure["step"] == at and re.search(says, outcome.reason), outcome.reason


def test_a_slide_in_the_reference_s_place(make_slide, tmp_path, step):
    make_slide().write_h5ad(tmp_path / "st.h5ad")
    step("read", "--role", "slide", "--input", tmp_path / "st.h5ad", "--output", tmp_path / "out.h5ad").check_fine()
    outcome = step("qc", "--role", "reference", "--input", tmp_path / "out.h5ad", "--output", tmp_path / "q", "--facts", tmp_path / "f")
    outcome.check_refused()
    assert "holds a slide, but a reference is expected" in outcome.reason
