import json
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spadit import io
from spadit.contracts import Split
from spadit.errors import InputError
from spadit.split import named_genes, parse_ratio, read_genes, restrict, split_genes

NAMES = [f"Gene{i}" for i in range(100)]


def test_seven_two_one():
    split = split_genes(NAMES, ["U1", "U2"], "s1")
    assert (len(split.train), len(split.validation), len(split.test)) == (70, 20, 10)
    assert sorted(split.train + split.validation + split.test) == sorted(NAMES)
    assert [len(f) for f in split.folds] == [18] * 5
    assert split.unmeasured == ["U1", "U2"] and split.sample == "s1" and split.seed == 0


def test_the_split_is_the_same_for_ever():
    split = split_genes(NAMES[:20], seed=7)  # written down once: a change would silently move every published number
    assert split.test == ["Gene16", "Gene18"] and split.validation == ["Gene14", "Gene17", "Gene4", "Gene8"]
    assert split_genes(NAMES, seed=1).test != split_genes(NAMES, seed=0).test


@settings(deadline=None, max_examples=150)
@given(
    st.sets(st.text(min_size=1, max_size=8), min_size=10, max_size=60),
    st.integers(0, 2**31),
    st.integers(2, 5),
    st.randoms(use_true_random=False),
)
def test_any_genes_are_split_once_in_any_order(names, seed, folds, rng: random.Random):
    order = sorted(names)
    rng.shuffle(order)
    split = split_genes(order, seed=seed, folds=folds)
    assert split == split_genes(sorted(names), seed=seed, folds=folds)
    assert sorted(split.train + split.validation + split.test) == sorted(names)
    assert sorted(sum(split.folds, [])) == sorted(split.train + split.validation)
    assert split.test and split.validation and split.train
    assert max(map(len, split.folds)) - min(map(len, split.folds)) <= 1 and all(split.folds)


@pytest.mark.parametrize(
    ("n", "folds", "ratio"), [(0, 5, "7:2:1"), (3, 2, "7:2:1"), (5, 5, "7:2:1"), (10, 2, "0.1:10:10"), (20, 19, "7:2:1")]
)
def test_too_few_genes(n, folds, ratio):
    with pytest.raises(InputError, match=f"{n} shared genes are too few"):
        split_genes(NAMES[:n], folds=folds, ratio=ratio)


def test_few_genes_still_give_a_test_and_a_validation_gene():
    split = split_genes(NAMES[:7], folds=2, ratio="100:1:1")
    assert (len(split.train), len(split.validation), len(split.test)) == (5, 1, 1)


@pytest.mark.parametrize("ratio", ["", "7:2", "7:2:0", "a:b:c", "7:2:1:1", "-7:2:1", "nan:1:1", "1e400:1:1", "7 2 1"])
def test_bad_ratios(ratio):
    with pytest.raises(InputError, match="not three positive numbers"):
        split_genes(NAMES, ratio=ratio)


def test_other_ratios_and_folds():
    assert parse_ratio(" 8 : 1:1.0") == (8.0, 1.0, 1.0)
    with pytest.raises(InputError, match="too few"):
        split_genes(NAMES, folds=1)


# ---- gene lists ------------------------------------------------------------------------------------------------------


def test_read_genes(tmp_path):
    path = tmp_path / "genes.txt"
    path.write_text('\ufeff# my genes\nA\n\n "B",x\nC\tthird # why\nA\n', encoding="utf-8")
    assert read_genes(path) == ["A", "B", "C"]


@pytest.mark.parametrize(("content", "says"), [(b"", "names no gene"), (b"# only\n", "names no gene"), (b"\xff\xfe\x00", "not a UTF-8")])
def test_bad_gene_lists(tmp_path, content, says):
    path = tmp_path / "genes.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says):
        read_genes(path)
    with pytest.raises(InputError, match="no such file"):
        read_genes(tmp_path / "none.txt")


def test_genes_named_in_a_parameter():
    assert named_genes(" Gad1, Sst,,Gad1") == ["Gad1", "Sst"]
    with pytest.raises(InputError, match="',,' names no gene. Give --genes names"):
        named_genes(",,")


def test_restrict_keeps_the_order_of_the_reference():
    assert restrict(["Z", "A", "M"], ["A", "Z"]) == ["Z", "A"]
    assert restrict(["Z", "A"], ["Shared", "A"], ["Shared"]) == ["A"]
    assert restrict(["Z"], ["REF"], ["Shared"], {"REF": "Shared"}) == []


def test_unknown_genes_name_the_closest_and_at_most_ten():
    with pytest.raises(InputError) as caught:
        restrict(["Gad1", "Sst"], ["gad1", "Sstt", *[f"Xyz{i}" for i in range(20)]], source="genes.txt")
    message = caught.value.message
    assert message.startswith("genes.txt: 22 genes are not in the reference")
    assert message.count("Xyz") + message.count("'gad1'") + message.count("'Sstt'") == 10 and "and 12 more" in message
    with pytest.raises(InputError, match=r"'Sstt' \(did you mean 'Sst'\?\), 'gad1' \(did you mean 'Gad1'\?\)"):
        restrict(["Gad1", "Sst"], ["gad1", "Sstt"])


# ---- the executable --------------------------------------------------------------------------------------------------


def test_the_executable_never_looks_at_counts(root, make_pair, tmp_path):
    slide, reference, expected = make_pair()
    io.write_h5ad(slide, tmp_path / "s.h5ad")
    io.write_h5ad(reference, tmp_path / "r.h5ad")
    genes = tmp_path / "genes.txt"
    genes.write_text(expected.unmeasured[3] + "\n" + expected.train[0])

    def run(*more):
        call = [sys.executable, root / "bin" / "spadit_split.py", "--id", "slide", "--output", tmp_path / "split.json"]
        call += ["--slide", tmp_path / "s.h5ad", "--reference", tmp_path / "r.h5ad", *more]
        return subprocess.run([str(c) for c in call], capture_output=True, text=True)

    done = run()
    assert done.returncode == 0, done.stderr
    assert Split.from_json(tmp_path / "split.json") == expected
    import h5py

    with h5py.File(tmp_path / "s.h5ad", "r+") as file:  # without any counts the split is the same
        del file["layers"]
    first = (tmp_path / "split.json").read_bytes()
    assert run().returncode == 0 and (tmp_path / "split.json").read_bytes() == first
    assert run("--genes", genes).returncode == 0
    assert json.loads((tmp_path / "split.json").read_text())["unmeasured"] == [expected.unmeasured[3]]
    genes.write_text("Nonsense\n")
    done = run("--genes", genes)
    assert done.returncode == 2 and "genes.txt: 1 gene is not in the reference: 'Nonsense'" in done.stderr
    wanted = ",".join([expected.unmeasured[5], expected.unmeasured[1], expected.train[0]])
    assert run("--wanted", wanted).returncode == 0  # --genes of the pipeline, for slides without a list of their own
    assert json.loads((tmp_path / "split.json").read_text())["unmeasured"] == [expected.unmeasured[1], expected.unmeasured[5]]
    genes.write_text(expected.unmeasured[2])
    assert run("--wanted", "Nonsense", "--genes", genes).returncode == 0
    assert json.loads((tmp_path / "split.json").read_text())["unmeasured"] == [expected.unmeasured[2]]
    done = run("--wanted", "Nonsense")
    assert done.returncode == 2 and "--genes: 1 gene is not in the reference: 'Nonsense'" in done.stderr
