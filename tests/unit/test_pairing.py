import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from spadit import io
from spadit.contracts import Pairing
from spadit.errors import PairingError
from spadit.pairing import _best_match, pair


@pytest.fixture
def build(make_slide, make_reference, intermediate):
    def run(slide_names, reference_names, **columns):
        slide = intermediate(make_slide(names=slide_names), "slide")
        reference = intermediate(make_reference(names=reference_names), "reference")
        for name, values in columns.items():
            side, column = name.split("_", 1)
            (slide if side == "slide" else reference).var[column] = values
        return slide, reference

    return run


def names(n, prefix="Gene", start=0):
    return [f"{prefix}{i}" for i in range(start, start + n)]


def ensembl(n, start=0, species="", version=None):
    return [f"ENS{species}G{i + 1:011d}" + ("" if version is None else f".{version}") for i in range(start, start + n)]


def test_shared_genes_by_symbol(build):
    slide, reference = build(names(20), names(30, start=5))
    before = slide.layers["counts"].copy()
    result, ref, facts = pair(slide, reference, "s1", "r1", n_top_genes=10)
    assert facts.matched_by == "symbol" and facts.n_shared == 15 and facts.n_unmeasured == 15
    assert (facts.sample, facts.reference, facts.n_spots, facts.n_cells) == ("s1", "r1", 60, 80)
    assert facts.slide_only == names(5) and facts.dropped == {} and facts.warnings == []
    assert result.var_names[result.var["shared"]].tolist() == names(15, start=5)
    assert ref.var_names[ref.var["shared"]].tolist() == names(15, start=5)
    assert ref.var["highly_variable"].sum() == facts.n_top_genes == 10
    assert "shared" not in slide.var and (slide.layers["counts"] != before).nnz == 0  # the input isn't changed
    assert result.layers["counts"].format == "csr" and result.obsm["spatial"].shape == (60, 2)


def test_case_and_shuffled_order_carry_the_right_counts(build):
    upper = [n.upper() for n in names(20)][::-1]
    slide, reference = build(names(20), upper)
    _, ref, facts = pair(slide, reference)
    assert facts.matched_by == "symbol, case folded" and facts.n_shared == 20
    assert ref.var_names.tolist() == names(20)[::-1] and ref.var["reference_name"].tolist() == upper
    np.testing.assert_array_equal(ref.layers["counts"].toarray(), reference.layers["counts"].toarray())


def test_exact_names_go_first_when_case_is_ignored(build):
    slide, reference = build([*names(12), "abc", "Lower"], [*names(12), "ABC", "abc", "LOWER", "gene3"])
    _, ref, facts = pair(slide, reference)
    assert facts.n_shared == 14
    partner = dict(zip(ref.var_names, ref.var["reference_name"], strict=True))
    assert partner["abc"] == "abc" and partner["Lower"] == "LOWER" and partner["Gene3"] == "Gene3"
    assert facts.dropped == {"reference gene with the same symbol (case ignored) as another one": 2}
    assert facts.n_unmeasured == 0 and "ABC" not in ref.var_names  # else it would be imputed beside the measured abc


@pytest.mark.parametrize("version", [None, 7])
def test_ensembl_ids_with_and_without_version(build, version):
    slide, reference = build(ensembl(20, version=3), ensembl(25, version=version))
    _, ref, facts = pair(slide, reference)
    assert facts.matched_by == ("Ensembl id") and facts.n_shared == 20 and facts.n_unmeasured == 5
    assert ref.var_names[:20].tolist() == ensembl(20, version=3)


@pytest.mark.parametrize("column", ["gene_ids", "ensembl", "gene_id", "feature_id"])
def test_ensembl_ids_in_a_column(build, column):
    slide, reference = build(ensembl(20), names(20), **{f"reference_{column}": ensembl(20, version=2)[::-1]})
    _, ref, facts = pair(slide, reference)
    assert facts.matched_by == "Ensembl id" and facts.n_shared == 20
    assert ref.var_names.tolist() == ensembl(20)[::-1] and ref.var["reference_name"].tolist() == names(20)


def test_symbols_in_a_column(build):
    slide, reference = build(names(20), ensembl(20), reference_gene_symbols=names(20)[::-1])
    _, ref, facts = pair(slide, reference)
    assert facts.matched_by == "symbol" and ref.var_names.tolist() == names(20)[::-1]


def test_the_matching_that_shares_most_is_taken(build):
    slide, reference = build(names(20), [*names(12), *names(8, "Old")], slide_gene_ids=ensembl(20), reference_gene_ids=ensembl(20))
    assert pair(slide, reference)[2].matched_by == "Ensembl id"
    slide, reference = build(names(20), names(20), slide_gene_ids=ensembl(20), reference_gene_ids=ensembl(20))
    assert pair(slide, reference)[2].matched_by == "symbol"


def test_many_to_one_keeps_the_first_and_counts_the_others(build):
    ids = ensembl(20)
    slide, reference = build(names(20), names(21, "Ref"), slide_gene_ids=[*ids[:19], ids[0]], reference_gene_ids=[*ids, ids[3]])
    result, ref, facts = pair(slide, reference)
    assert facts.n_shared == 19
    assert facts.dropped == {
        "reference gene with the same Ensembl id as another one": 1,
        "slide gene with the same Ensembl id as another one": 1,
    }
    assert facts.slide_only == ["Gene19"] and ref.var_names.is_unique and ref.n_vars == 20


def test_a_reference_gene_whose_name_is_taken_is_left_out(build):
    # By id Gene0 is Ref0; the reference's own 'Gene0' is another gene, which can't have that name in the result.
    slide, reference = build(names(20), [*names(20, "Ref"), "Gene0"], slide_gene_ids=ensembl(20), reference_gene_ids=ensembl(21))
    _, ref, facts = pair(slide, reference)
    assert facts.dropped == {"reference gene whose name is that of another gene of the slide": 1}
    assert ref.var_names.is_unique and facts.n_shared == 20


def test_all_zero_genes_do_not_take_part(build):
    slide, reference = build(names(20), names(25))
    for adata, zero in ((slide, [0]), (reference, [1, 2, 24])):
        dense = adata.layers["counts"].toarray()
        dense[:, zero] = 0
        adata.layers["counts"] = sp.csr_matrix(dense)
    result, ref, facts = pair(slide, reference)
    assert facts.dropped["all zero in the slide"] == 1 and facts.dropped["all zero in the reference"] == 3
    assert facts.n_shared == 17 and facts.slide_only == ["Gene1", "Gene2"]
    assert "Gene0" not in result.var_names


def test_genes_measured_but_removed_in_qc_are_not_imputed(build):
    slide, reference = build(names(20), names(30))
    slide.uns["spadit"]["removed_genes"] = ["GENE25", "Gene26"]
    _, ref, facts = pair(slide, reference)
    assert facts.dropped == {"measured by the slide, but removed in quality control": 2}
    assert not {"Gene25", "Gene26"} & set(ref.var_names) and facts.n_unmeasured == 8
    slide, reference = build(ensembl(20), names(30), reference_gene_ids=ensembl(30))
    slide.uns["spadit"]["removed_genes"] = [ensembl(30, version=4)[25]]
    assert pair(slide, reference)[2].n_unmeasured == 9


# ---- what goes wrong -------------------------------------------------------------------------------------------------

MOUSE = [f"{a}{b}{i}" for i, (a, b) in enumerate(zip("GSPVCRTANFLM" * 2, ["ad", "st", "lp", "ip"] * 6, strict=True))]
HUMAN = [f"{a}{b}{i}" for i, (a, b) in enumerate(zip("GSPVCRTANFLM" * 2, ["XD", "QT", "WP", "KP"] * 6, strict=True))]


@pytest.mark.parametrize(
    ("slide_names", "reference_names", "hint"),
    [
        (names(20), names(20, "Other"), "name their genes in the same way"),
        (names(20), ensembl(20), "The slide names its genes by symbols, the reference by Ensembl ids"),
        (ensembl(20, species="MUS"), ensembl(20), "The slide's Ensembl ids are mouse, the reference's human"),
        (MOUSE, HUMAN, "The slide's symbols are Capitalised as mouse genes, the reference's UPPER CASE as human genes"),
        (names(20), [f"GRCh38_{n}" for n in names(20)], "The reference's gene names begin with a genome prefix"),
        (names(20), names(20, start=15), "lower --min_shared_genes"),
    ],
)
def test_too_few_shared_genes(build, slide_names, reference_names, hint):
    slide, reference = build(slide_names, reference_names)
    with pytest.raises(PairingError) as caught:
        pair(slide, reference, "s1", "r1", species="mouse")
    error = caught.value
    n = len(set(slide_names) & set(reference_names))
    assert f"share {n} genes, but at least 10 are needed" in error.message
    assert "Slide s1" in error.message and "reference r1" in error.message
    assert slide_names[0] in error.message and reference_names[0] in error.message
    assert hint in error.remedy and "The samplesheet says: mouse" in error.remedy


def test_the_minimum_can_be_set(build):
    slide, reference = build(names(20), names(20, start=15))
    assert pair(slide, reference, min_shared_genes=5)[2].n_shared == 5


@pytest.mark.parametrize(
    "mixed",
    [[*[f"GRCh38_{n}" for n in names(10)], *[f"mm10___{n}" for n in names(10)]], [*ensembl(10), *ensembl(10, species="MUS")]],
)
def test_mixed_species(build, mixed):
    for slide_names, reference_names, who in ((mixed, names(20), "slide s1"), (names(20), mixed, "reference r1")):
        slide, reference = build(slide_names, reference_names)
        with pytest.raises(PairingError, match=f"The {who} mixes species") as caught:
            pair(slide, reference, "s1", "r1")
        assert "one species" in caught.value.remedy


def test_orthologs_that_match_by_case_only_warn(build):
    slide, reference = build(MOUSE, [n.upper() for n in MOUSE])
    facts = pair(slide, reference, "s1", "r1", species="human")[2]
    assert facts.n_shared == len(MOUSE)
    assert "check that both are of one species" in facts.warnings[0] and "The samplesheet says human" in facts.warnings[1]


def test_a_small_overlap_warns(build):
    slide, reference = build(names(100), names(100, start=88))
    assert "Only 12 of the slide's 100 genes" in pair(slide, reference)[2].warnings[0]


GENE = st.text(alphabet="abAB1.-", min_size=1, max_size=4)


@settings(deadline=None, max_examples=200)
@given(st.lists(GENE, min_size=1, max_size=25, unique=True), st.lists(GENE, min_size=1, max_size=25, unique=True))
def test_any_names_are_matched_one_to_one(slide_names, reference_names):
    import anndata as ad
    import pandas as pd

    slide, reference = (ad.AnnData(shape=(1, len(n)), var=pd.DataFrame(index=n)) for n in (slide_names, reference_names))
    match = _best_match(slide, reference)
    assert len(set(match.slide)) == len(match.slide) == len(set(match.reference)) == len(match.reference)
    pairs = [(slide_names[i], reference_names[j]) for i, j in zip(match.slide, match.reference, strict=True)]
    assert all(a.casefold() == b.casefold() for a, b in pairs)
    exact = set(slide_names) & set(reference_names)
    assert {a for a, b in pairs if a == b} == exact
    folded = {n.casefold() for n in slide_names} & {n.casefold() for n in reference_names}
    assert {a.casefold() for a, _ in pairs} == folded


def test_the_whole_way_on_the_demo_slides(root, tmp_path):
    from spadit.qc import quality_control

    for name, n_genes in (("osmfish_cortex", 33), ("pdac_st_mit", 2448)):
        folder = root / "assets" / "demo" / name
        slide, _ = quality_control(io.read(folder / "st.h5ad", "slide"), "slide")
        reference, _ = quality_control(io.read(folder / "sc.h5ad", "reference"), "reference")
        slide, reference, facts = pair(slide, reference, name, species="mouse" if n_genes == 33 else "human")
        assert facts.n_shared == n_genes and facts.matched_by == "symbol" and facts.warnings == []
        facts.to_json(tmp_path / "p.json")
        assert Pairing.from_json(tmp_path / "p.json") == facts


def test_undetected_reference_genes_are_dropped_and_named(shared_data):
    from spadit.qc import quality_control

    folder = shared_data / "breast_xenium"
    slide, _ = quality_control(io.read(folder / "st.h5ad", "slide"), "slide")
    reference, facts = quality_control(io.read(folder / "sc.h5ad", "reference"), "reference")
    assert sum(f["removed"] for f in facts.filters if f["axis"] == "genes") == 23
    _, _, facts = pair(slide, reference, "xenium")
    assert facts.n_shared == 285 and facts.n_unmeasured == 2207 - 308
