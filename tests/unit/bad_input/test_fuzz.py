"""Anything at all: hypothesis makes sheets, parameters, JSON files and damaged h5ad files. All end in words or a right result, in time."""

from __future__ import annotations

import json
import random

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from steps import Apart

from spadit import contracts, io
from spadit.benchmark import Folds
from spadit.errors import InputError
from spadit.split import read_genes

QUICK = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@settings(max_examples=80, **QUICK)
@given(st.lists(st.dictionaries(st.sampled_from(["sample", "st", "sc", "platform", "genes", "species", "batch", "x"]), JSON)), JSON)
def test_any_sheet_and_any_parameters(folder, root, session_step, rows, params):
    (folder / "s.json").write_text(json.dumps(rows))
    (folder / "p.json").write_text(json.dumps(params))
    schemas = ["--schema-input", root / "assets" / "schema_input.json", "--schema-params", root / "nextflow_schema.json"]
    given_files = ["--input", folder / "s.json", "--params", folder / "p.json", *schemas, "--output", folder / "i.json"]
    outcome = session_step("check_inputs", *given_files)
    assert outcome.code == 0 and "Traceback" not in outcome.said and outcome.failure is None, outcome.said
    inputs = contracts.Inputs.from_json(folder / "i.json")
    assert inputs.errors  # no input was given in the parameters, so nothing of this may run
    assert all(error.isprintable() for error in inputs.errors)


@settings(max_examples=150, **QUICK)
@given(st.sampled_from(sorted(contracts.Contract.__subclasses__(), key=lambda c: c.kind)), JSON)
def test_any_json_in_place_of_a_contract(folder, kind, content):
    if isinstance(content, dict):
        content |= {"kind": kind.kind, "version": kind.version}
    path = folder / "c.json"
    path.write_text(json.dumps(content))
    try:
        kind.from_json(path)
    except InputError as error:
        assert error.message.isprintable()


@settings(max_examples=150, **QUICK)
@given(
    st.one_of(
        st.binary(max_size=60), JSON.map(lambda j: json.dumps({"seed": 0, "folds": j}).encode()), JSON.map(lambda j: json.dumps(j).encode())
    )
)
def test_any_file_of_folds_and_any_gene_list(folder, content):
    (folder / "f.json").write_bytes(content)
    for read in (lambda path: Folds.from_json(path, ["A", "B", "C", "D"]), read_genes):
        try:
            assert read(folder / "f.json")
        except InputError as error:
            assert error.message.isprintable()


@pytest.fixture(scope="session")
def good(make_slide, folder):
    slide = make_slide(25, 12)
    slide.obs["region"] = ["a", "b", "c", "d", "e"] * 5
    slide.write_h5ad(folder / "good.h5ad")
    return (folder / "good.h5ad").read_bytes()


@pytest.fixture(scope="session")
def apart(root, folder, good):
    apart = Apart(root)
    outcome = apart(folder, "read", "--role", "slide", "--input", folder / "good.h5ad", "--output", folder / "read.h5ad")
    outcome.check_fine()
    yield apart
    apart.close()


def check_damaged(path, apart, folder):
    outcome = apart(folder, "read", "--role", "slide", "--input", path, "--output", path.with_name("read.h5ad"))
    if outcome is None:
        return  # HDF5's own library broke down: test_cli.py has what the executable makes of that
    if outcome.failure is not None:
        outcome.check_refused()
        return
    outcome.check_fine()
    result = io.load(path.with_name("read.h5ad"), "slide")
    counts = result.layers["counts"]
    # whatever was changed: finite counts that are not negative, places for all spots, as many names as rows and columns
    assert np.isfinite(counts.data).all() and (counts.data >= 0).all() and np.isfinite(result.obsm["spatial"]).all()
    assert counts.shape == (result.n_obs, result.n_vars) and result.obs_names.is_unique and result.var_names.is_unique


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=80, **QUICK)
@given(st.integers(0, 2**32), st.integers(1, 30))
def test_any_flipped_bytes(folder, good, apart, seed, n):
    content, rng = bytearray(good), random.Random(seed)
    for _ in range(n):
        content[rng.randrange(8, len(content))] = rng.randrange(256)
    path = folder / "flipped.h5ad"
    path.write_bytes(content)
    check_damaged(path, apart, folder)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, **QUICK)
@given(st.data())
def test_any_array_in_any_place(folder, good, apart, data):
    """Every array and group of a file, exchanged for something else of any type and shape, or taken away."""
    path = folder / "exchanged.h5ad"
    path.write_bytes(good)
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        name = data.draw(st.sampled_from(sorted(names)))
        attributes = dict(file[name].attrs)
        del file[name]
        kind = data.draw(st.sampled_from(["f8", "f4", "f2", "i8", "u1", "?", "S3", "text", "group", "nothing"]))
        shape = tuple(data.draw(st.lists(st.sampled_from([0, 1, 2, 12, 13, 25, 26]), max_size=3)))
        if kind == "group":
            made = file.create_group(name)
        elif kind == "text":
            made = file.create_dataset(name, data=np.full(shape, "x", dtype=object), dtype=h5py.string_dtype())
        elif kind != "nothing":
            made = file.create_dataset(name, data=np.ones(shape).astype(kind))
        if kind != "nothing" and data.draw(st.booleans()):
            for key, value in attributes.items():
                made.attrs[key] = value
    check_damaged(path, apart, folder)
