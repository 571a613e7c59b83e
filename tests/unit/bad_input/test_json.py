"""JSON files between steps, files of folds, gene lists, predictions and model folders that are damaged, or made by somebody else."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import re
import shutil

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest

from spadit import contracts
from spadit.api import SpaDiT, read_model
from spadit.benchmark import Folds, make_folds, read_prediction, shared_genes
from spadit.errors import InputError, MethodError
from spadit.imputation import plan_fits, reuse
from spadit.split import read_genes

EXAMPLE = {"str": "x", "bool": True, "int": 1, "float": 0.5, "dict": {}, "list[str]": ["x"], "list[dict]": [{}], "list[list[str]]": [["x"]]}
KINDS = [c for c in contracts.Contract.__subclasses__()]


def example(kind) -> dict:
    """A right file of a kind."""
    return {"kind": kind.kind, "version": kind.version} | {f.name: EXAMPLE[f.type] for f in dataclasses.fields(kind)}


DAMAGE = {
    "of a later version": lambda c: c | {"version": c["version"] + 1},
    "without a version": lambda c: {k: v for k, v in c.items() if k != "version"},
    "of another kind": lambda c: c | {"kind": "something"},
    "without a kind": lambda c: {k: v for k, v in c.items() if k != "kind"},
    "with an unknown field": lambda c: c | {"extra": 1},
    "a list": lambda c: [c],
    "null": lambda c: None,
    "with every field null": lambda c: {k: v if k in ("kind", "version") else None for k, v in c.items()},
    "with every field a list of lists": lambda c: {k: v if k in ("kind", "version") else [[[1]]] for k, v in c.items()},
    "with every field a text in a list": lambda c: {k: v if k in ("kind", "version") else [{"true": "x"}, 1] for k, v in c.items()},
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
@pytest.mark.parametrize("damage", DAMAGE)
def test_contracts(kind, damage, tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(example(kind)))
    kind.from_json(path)
    path.write_text(json.dumps(DAMAGE[damage](example(kind))))
    with pytest.raises(InputError):
        kind.from_json(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe{}", b"[" * 100_000, b'{"kind": "split", "kind": "x"}', b"9" * 10_000, b'{"kind": "split"}\0', b"NaN"],
    ids=["empty", "open", "UTF-16", "deep", "twice", "digits", "NUL", "NaN"],
)
def test_contracts_that_are_no_json(content, tmp_path):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InputError):
        contracts.Split.from_json(tmp_path / "x.json")


def test_members_of_lists_are_looked_at(tmp_path):
    good = example(contracts.Split)
    for field, value in (("train", ["a", 1]), ("folds", [["a"], "b"]), ("folds", [["a", None]]), ("unmeasured", [[]])):
        (tmp_path / "x.json").write_text(json.dumps(good | {field: value}))
        with pytest.raises(InputError, match=f"field '{field}'"):
            contracts.Split.from_json(tmp_path / "x.json")


# ---- files of folds ----------------------------------------------------------------------------------------------------

GENES = [f"G{i}" for i in range(8)]
HALF = [GENES[:3], GENES[3:6]]
FOLDS = {
    "empty": (b"", "can't be read as JSON"),
    "not JSON": (b"folds: []", "can't be read as JSON"),
    "UTF-16": ('{"folds": []}'.encode("utf-16"), "can't be read as JSON"),
    "100,000 deep": (b"[" * 100_000, "nested too deeply"),
    "a list": ([HALF], "doesn't hold folds"),
    "no folds": ({"seed": 0}, "doesn't hold folds"),
    "folds are a mapping": ({"folds": {"0": GENES}}, "doesn't hold folds"),
    "folds of numbers": ({"folds": [[1, 2], [3]]}, "doesn't hold folds"),
    "seed as text": ({"seed": "0", "folds": HALF}, "doesn't hold folds"),
    "seed true": ({"seed": True, "folds": HALF}, "doesn't hold folds"),
    "seed a fraction": ({"seed": 0.5, "folds": HALF}, "doesn't hold folds"),
    "seed below zero": ({"seed": -1, "folds": HALF}, "doesn't hold folds"),
    "seed of 40 digits": ({"seed": 10**40, "folds": HALF}, "doesn't hold folds"),
    "one fold": ({"folds": [GENES[:3]]}, "at least two folds"),
    "an empty fold": ({"folds": [GENES[:3], []]}, "none may be empty"),
    "a gene twice": ({"folds": [GENES[:3], GENES[2:4]]}, "more than once"),
    "a gene twice in a fold": ({"folds": [["G0", "G0"], ["G1"]]}, "more than once"),
    "a gene that isn't shared": ({"folds": [["g0"], ["G1"]]}, "Did you mean 'G0'?"),
    "too few visible": ({"folds": [GENES[:7], GENES[7:]]}, "visible genes"),
}


@pytest.mark.parametrize("case", FOLDS)
def test_folds(case, tmp_path):
    content, says = FOLDS[case]
    path = tmp_path / "folds.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(InputError, match=says):
        Folds.from_json(path, GENES)


# ---- gene lists --------------------------------------------------------------------------------------------------------

LISTS = {
    "empty": (b"", "names no gene"),
    "comments only": (b"# a\n\n", "names no gene"),
    "Latin-1": ("Gené".encode("latin-1"), "not a UTF-8 text"),
    "UTF-16": ("Gene\n".encode("utf-16"), "not a UTF-8 text"),
    "11 MB": (b"x" * 11_000_000, "larger than 10 MB"),
}


@pytest.mark.parametrize("case", LISTS)
def test_gene_lists(case, tmp_path):
    content, says = LISTS[case]
    (tmp_path / "genes.txt").write_bytes(content)
    with pytest.raises(InputError, match=says):
        read_genes(tmp_path / "genes.txt")


def test_a_gene_list_that_never_ends(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(InputError, match="not a file"):
            read_genes(path)


# ---- predictions -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def predicted(make_pair):
    slide, _, _ = make_pair(20, 30, 12, 14)
    folds = make_folds(shared_genes(slide), 3)
    rng = np.random.default_rng(0)
    return slide, folds, pd.DataFrame(rng.random((slide.n_obs, len(folds.genes))), index=slide.obs_names, columns=folds.genes)


def write(path, table):
    obs, var = pd.DataFrame(index=table.index), pd.DataFrame(index=table.columns)
    ad.AnnData(table.to_numpy(dtype=np.float64), obs=obs, var=var).write_h5ad(path)


def with_value(row, column, value):
    def change(table):
        table = table.astype(object)
        table.iloc[row, column] = value
        return table

    return change


TABLES = {
    "NaN": (with_value(3, 2, np.nan), "missing or infinite"),
    "infinite": (with_value(3, 2, np.inf), "missing or infinite"),
    "beyond float32": (with_value(3, 2, 1e300), "missing or infinite"),
    "text": (with_value(3, 2, "high"), "not all values are numbers"),
    "a spot is missing": (lambda t: t.iloc[1:], "1 of 20 spots are missing"),
    "a gene is missing": (lambda t: t.iloc[:, 1:], "1 of 12 genes are missing"),
    "transposed": (lambda t: t.T, "spots are missing"),
    "a spot twice": (lambda t: pd.concat([t, t.iloc[:1]]), "spots occur twice"),
    "a gene twice": (lambda t: pd.concat([t, t.iloc[:, :1]], axis=1), "genes occur twice"),
    "no values": (lambda t: t.iloc[:, :0], "genes are missing"),
    "no spots": (lambda t: t.iloc[:0], "spots are missing"),
}


@pytest.mark.parametrize("ending", ["csv", "tsv.gz", "h5ad"])
@pytest.mark.parametrize("case", TABLES)
@pytest.mark.filterwarnings("ignore")
def test_predictions(case, ending, predicted, tmp_path):
    slide, folds, table = predicted
    change, says = TABLES[case]
    table, path = change(table), tmp_path / f"mine.{ending}"
    if ending == "h5ad":
        if case == "text":
            pytest.skip("AnnData doesn't write text")
        write(path, table)
    else:
        table.to_csv(path, sep="\t" if "tsv" in ending else ",")
    with pytest.raises(MethodError, match=says):
        read_prediction(path, slide, folds)


def h5ad_with(change):
    def make(path, table):
        write(path, table)
        with h5py.File(path, "r+") as file:
            change(file)

    return make


def replace(file, name, value):
    del file[name]
    file[name] = value


def declare(file):
    del file["X"]
    file.create_dataset("X", shape=(20, 10**10), dtype="f4", chunks=True)


def other_folds(file):
    from anndata.io import write_elem

    names = file["var"]["_index"].asstr()[:]
    del file["var"]
    write_elem(file, "var", pd.DataFrame({"fold": range(len(names))}, index=names))


PREDICTION_FILES = {
    "an empty table": ("m.csv", lambda p, t: p.write_text(""), "can't be read|missing"),
    "rubbish": ("m.csv", lambda p, t: p.write_bytes(os.urandom(1000)), "can't be read|missing"),
    "rows of different length": ("m.csv", lambda p, t: p.write_text("a,b\n1,2\n1,2,3,4\n"), "can't be read"),
    "not gzip": ("m.csv.gz", lambda p, t: p.write_text("a,b\n"), "can't be read"),
    "gzip cut short": ("m.csv.gz", lambda p, t: p.write_bytes(gzip.compress(os.urandom(9999))[:5000]), "can't be read"),
    "gzip damaged": ("m.csv.gz", lambda p, t: p.write_bytes(gzip.compress(b"a,b\n" * 999)[:30] + bytes(50)), "can't be read"),
    "not there": ("m.csv", lambda p, t: None, "can't be read"),
    "a directory": ("m.csv", lambda p, t: p.mkdir(), "can't be read"),
    "a directory named h5ad": ("m.h5ad", lambda p, t: p.mkdir(), "can't be read"),
    "h5ad cut short": ("m.h5ad", lambda p, t: (h5ad_with(lambda f: None)(p, t), os.truncate(p, 5000)), "cut short"),
    "h5ad without X": ("m.h5ad", h5ad_with(lambda f: f.__delitem__("X")), "missing or infinite|can't be read"),
    "h5ad that links elsewhere": ("m.h5ad", h5ad_with(lambda f: replace(f, "X", h5py.ExternalLink("/etc/passwd", "/"))), "link to another"),
    "h5ad that swells": ("m.h5ad", h5ad_with(declare), "would take up"),
    "h5ad of other folds": ("m.h5ad", h5ad_with(other_folds), "made on other folds"),
    "h5ad with text in X": ("m.h5ad", h5ad_with(lambda f: replace(f, "X", np.full((20, 12), b"a"))), "numbers|can't be read"),
}


@pytest.mark.parametrize("case", PREDICTION_FILES)
@pytest.mark.filterwarnings("ignore")
def test_files_of_predictions(case, predicted, tmp_path):
    slide, folds, table = predicted
    name, make, says = PREDICTION_FILES[case]
    make(tmp_path / name, table)
    with pytest.raises(MethodError, match=says):
        read_prediction(tmp_path / name, slide, folds)


def test_a_table_that_swells_is_not_unpacked(predicted, tmp_path, monkeypatch):
    slide, folds, _ = predicted
    monkeypatch.setattr("spadit.benchmark.LARGEST_TABLE", 1 << 22)
    monkeypatch.setattr(pd, "read_csv", lambda *a, **k: pytest.fail("the table was read"))
    (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress(bytes(1 << 24)))
    with pytest.raises(MethodError, match="larger than"):
        read_prediction(tmp_path / "bomb.csv.gz", slide, folds)


# ---- model folders -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(make_pair, tiny, tmp_path_factory):
    """A saved model, with the slide and the reference it was fitted on."""
    slide, reference, split = make_pair()
    visible = slide[:, plan_fits(split)[0].visible]
    folder = tmp_path_factory.mktemp("model") / "evaluation"
    SpaDiT(device="cpu", **tiny).fit(visible, reference).save(folder)
    return folder, visible, reference, split


def described(change, checksum=True):
    """A change to model.json."""

    def apply(folder):
        content = json.loads((folder / "model.json").read_text())
        changed = change(content)
        (folder / "model.json").write_text(json.dumps(content if changed is None else changed))

    return apply


def weights(change):
    """Other weights, with the checksum that belongs to them."""

    def apply(folder):
        import hashlib

        path = folder / "weights.safetensors"
        path.write_bytes(change(path.read_bytes()))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        described(lambda c: c | {"weights_sha256": digest})(folder)

    return apply


def without_tensor(prefix):
    def change(raw):
        from safetensors.torch import load, save

        return save({k: v for k, v in load(raw).items() if not k.startswith(prefix)})

    return change


def elsewhere(name):
    def apply(folder):
        (folder / name).unlink()
        (folder / name).symlink_to("/etc/passwd")

    return apply


def pickled(folder):
    import torch

    torch.save({"a": torch.ones(1)}, folder / "weights.safetensors")
    weights(lambda raw: raw)(folder)


MODELS = {
    "no model.json": (lambda f: (f / "model.json").unlink(), "no file model.json"),
    "no weights": (lambda f: (f / "weights.safetensors").unlink(), "no file weights.safetensors"),
    "model.json cut short": (lambda f: os.truncate(f / "model.json", 100), "can't be read as JSON"),
    "model.json is a list": (described(lambda c: [c]), "of another kind or version"),
    "of a later version": (described(lambda c: c | {"version": 99}), "of another kind or version"),
    "of another kind": (described(lambda c: c | {"kind": "x"}), "of another kind or version"),
    "no settings": (described(lambda c: c.pop("settings") and None), "missing or of another type: settings"),
    "genes are a text": (described(lambda c: c | {"genes": "abc"}), "of another type: genes"),
    "genes are numbers": (described(lambda c: c | {"genes": [1]}), "of another type: genes"),
    "modes are a list": (described(lambda c: c | {"modes": []}), "of another type: modes"),
    "no checksum": (described(lambda c: c.pop("weights_sha256") and None), "weights_sha256"),
    "weights cut short": (lambda f: os.truncate(f / "weights.safetensors", 500), "does not match its checksum"),
    "another's weights": (described(lambda c: c | {"weights_sha256": "0" * 64}), "does not match its checksum"),
    "weights cut short, with their checksum": (weights(lambda raw: raw[:-100]), "can't be read"),
    "weights empty, with their checksum": (weights(lambda raw: b""), "can't be read"),
    "weights whose header is 2^60 bytes": (weights(lambda raw: (1 << 60).to_bytes(8, "little") + raw[8:]), "can't be read"),
    "weights are a pickle": (pickled, "can't be read"),
    "model.json is a link elsewhere": (elsewhere("model.json"), "link to a file elsewhere"),
    "weights are a link elsewhere": (elsewhere("weights.safetensors"), "link to a file elsewhere"),
    # those that only a load sees
    "unknown settings": (described(lambda c: c["settings"].update(hack=1)), "Unknown settings"),
    "unknown preset": (described(lambda c: c | {"preset": "x"}), "Unknown preset"),
    "a width of text": (described(lambda c: c["settings"].update(width="wide")), "is damaged"),
    "other widths than the weights'": (described(lambda c: c["settings"].update(width=32, token_width=32)), "is damaged"),
    "an unknown mode": (described(lambda c: c["modes"].update(x={"n_networks": 1, "n_steps": 1, "score": 0})), "is damaged|other|Unknown"),
    "no numbers of trust": (described(lambda c: c["trust"].clear()), "is damaged"),
    "a tensor is missing": (weights(without_tensor("stack.weights")), "is damaged"),
    "a network is missing": (weights(without_tensor("token.0.")), "is damaged"),
    "other genes": (described(lambda c: c | {"genes": ["x", "y"]}), "another slide"),
    "other spots": (described(lambda c: c | {"spots": ["x", "y"]}), "another slide"),
    "other cells": (described(lambda c: c | {"cells": ["x", "y"]}), "."),
    "other counts": (described(lambda c: c | {"counts_sha256": "0" * 64}), "other counts"),
}


@pytest.mark.parametrize("case", MODELS)
def test_model_folders(case, model, tmp_path):
    folder, slide, reference, split = model
    change, says = MODELS[case]
    copy = tmp_path / "model" / "evaluation"
    shutil.copytree(folder, copy)
    change(copy)
    with pytest.raises(Exception, match=re.escape(says) if "|" not in says and says != "." else says) as caught:
        SpaDiT.load(copy, slide, reference, "cpu")
    assert type(caught.value).__module__ == "spadit.errors", repr(caught.value)


def test_reuse_copies_nothing_else(model, tmp_path):
    """A folder that somebody gives may hold links to anything: only the two files of a model are taken."""
    folder, _, _, split = model
    given = tmp_path / "given"
    for plan in plan_fits(split):
        shutil.copytree(folder, given / plan.name)
        described(lambda c, plan=plan: c | {"genes": plan.visible})(given / plan.name)
        (given / plan.name / "extra").symlink_to("/etc/passwd")
        (given / plan.name / "up").symlink_to("/")
    reuse(given, split, tmp_path / "taken")
    taken = sorted(p.relative_to(tmp_path / "taken").parts[1] for p in (tmp_path / "taken").rglob("*") if p.is_file())
    assert set(taken) == {"model.json", "weights.safetensors"} and not any(p.is_symlink() for p in (tmp_path / "taken").rglob("*"))
    elsewhere("weights.safetensors")(given / plan_fits(split)[0].name)
    with pytest.raises(InputError, match="link to a file elsewhere"):
        reuse(given, split, tmp_path / "again")


def test_a_pickle_is_never_run(model, tmp_path):
    """What would run on loading a pickle doesn't: the file is refused before."""
    folder, slide, reference, _ = model
    shutil.copytree(folder, tmp_path / "m")
    program = b"cos\nsystem\n(S'touch %s/pwned'\ntR." % str(tmp_path).encode()
    weights(lambda raw: program)(tmp_path / "m")
    with pytest.raises(InputError):
        read_model(tmp_path / "m")
    assert not (tmp_path / "pwned").exists()
