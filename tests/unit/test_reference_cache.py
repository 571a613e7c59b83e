"""A reference is read once, whatever run needs it: same content as without a cache, and nothing damaged or outdated is ever taken."""

import anndata as ad
import numpy as np
import pytest

from spadit import io, reference_cache
from spadit.contracts import QualityControl
from spadit.errors import InputError
from spadit.reference_cache import content_sha256, prepare_reference


@pytest.fixture
def path(make_reference, save):
    reference = make_reference(n_cells=30, n_genes=12)
    reference.obs["donor"] = ["a", "b"] * 15
    return save(reference, "cells.h5ad")


@pytest.fixture
def prepare(path, tmp_path, monkeypatch):
    """``prepare(**changes) -> (h5ad, facts, came from the cache?, was the original read?)``."""
    read, first = [], io.read
    monkeypatch.setattr(io, "read", lambda *rest: (read.append(rest), first(*rest))[1])

    def call(**changes):
        read.clear()
        out, facts = tmp_path / "out.h5ad", tmp_path / "facts.json"
        given = {"path": path, "id": "mouse", "cache": tmp_path / "cache", "min_genes": 2, "batch": "donor"} | changes
        cached = prepare_reference(output=out, facts=facts, **given)
        assert cached != bool(read)
        return ad.read_h5ad(out), QualityControl.from_json(facts), cached

    return call


def entries(tmp_path):
    return sorted(p for p in (tmp_path / "cache").iterdir())


def assert_same(one, other):
    (a, facts_a, _), (b, facts_b, _) = one, other
    assert facts_a == facts_b
    assert (a.layers["counts"] != b.layers["counts"]).nnz == 0 and a.obs.equals(b.obs) and a.var.equals(b.var)
    assert {k: str(v) for k, v in a.uns["spadit"].items()} == {k: str(v) for k, v in b.uns["spadit"].items()}


def test_what_comes_from_the_cache_is_what_was_read(prepare, tmp_path):
    plain = prepare(cache=None)
    assert not plain[2] and not (tmp_path / "cache").exists()
    first, second = prepare(), prepare()
    assert (first[2], second[2]) == (False, True)
    assert_same(first, plain)
    assert_same(second, plain)
    (entry,) = entries(tmp_path)  # no half-made one beside it
    assert sorted(p.name for p in entry.iterdir()) == ["entry.json", "qc.json", "reference.h5ad"]


def test_the_same_content_under_another_name_is_known(prepare, path, tmp_path):
    prepare()
    other = tmp_path / "elsewhere.h5ad"
    other.write_bytes(path.read_bytes())
    found, facts, cached = prepare(path=other, id="mouse_2")
    assert cached and facts.id == "mouse_2"
    assert (found.uns["spadit"]["id"], found.uns["spadit"]["source"]) == ("mouse_2", "elsewhere.h5ad")
    assert io.load(tmp_path / "out.h5ad", "reference").n_obs == 30


@pytest.mark.parametrize("change", ["content", "threshold", "batch", "version"])
def test_whatever_it_follows_from_makes_another_entry(prepare, path, tmp_path, monkeypatch, change):
    prepare()
    changes = {"threshold": {"min_genes": 3}, "batch": {"batch": None}}.get(change, {})
    if change == "content":
        cells = ad.read_h5ad(path)
        cells.X = cells.X + np.eye(*cells.shape, dtype=np.float32)
        cells.write_h5ad(path)
    if change == "version":
        monkeypatch.setattr(reference_cache, "__version__", "9.9.9")
    assert not prepare(**changes)[2] and len(entries(tmp_path)) == 2
    assert prepare(**changes)[2]


@pytest.mark.parametrize("damage", ["reference.h5ad", "qc.json", "entry.json", "cut", "empty"])
def test_a_damaged_entry_is_made_anew(prepare, tmp_path, damage, caplog):
    first = prepare()
    (entry,) = entries(tmp_path)
    if damage == "empty":
        for part in entry.iterdir():
            part.unlink()
    else:
        target = entry / ("reference.h5ad" if damage == "cut" else damage)
        content = bytearray(target.read_bytes())
        content[len(content) // 2] ^= 1
        target.write_bytes(content[:-10] if damage == "cut" else content)
    again = prepare()
    assert not again[2] and "is damaged" in caplog.text and "made anew" in caplog.text
    assert_same(again, first)
    assert prepare()[2] and entries(tmp_path) == [entry]


def test_a_cache_that_cannot_be_written_only_warns(prepare, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file, not a folder")
    found, _, cached = prepare()
    assert not cached and found.n_obs == 30 and "was not kept in the cache" in caplog.text


def test_an_unusable_reference_is_told_and_not_kept(prepare, tmp_path, make_reference, save):
    with pytest.raises(InputError, match="left after quality control"):
        prepare(min_counts=1e9)
    assert not (tmp_path / "cache").exists()


def test_folders_are_known_by_their_files_names_and_content(tmp_path):
    for name, text in (("a", "1"), ("sub/b", "2")):
        (tmp_path / "one" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "one" / name).write_text(text)
    first = content_sha256(tmp_path / "one")
    assert first == content_sha256(tmp_path / "one")
    (tmp_path / "one/a").rename(tmp_path / "one/c")
    assert content_sha256(tmp_path / "one") != first
