import numpy as np
import pytest
import scipy.sparse as sp

from spadit import io
from spadit.contracts import QualityControl
from spadit.errors import InputError
from spadit.qc import mitochondrial, quality_control


@pytest.fixture
def slide(make_slide, intermediate):
    return intermediate(make_slide(), "slide")


def set_counts(adata, dense):
    adata.layers["counts"] = sp.csr_matrix(np.asarray(dense, dtype=np.float32))


def removed(facts):
    return {f["name"]: f["removed"] for f in facts.filters}


def test_nothing_is_removed_from_a_clean_slide_and_the_facts_are_right(slide):
    dense = slide.layers["counts"].toarray()
    result, facts = quality_control(slide, "slide", "s1")
    assert result.shape == slide.shape and set(removed(facts).values()) == {0} and facts.warnings == []
    assert facts.id == "s1" and facts.before == facts.after
    assert facts.before["n_obs"] == 60 and facts.before["n_genes"] == 30
    assert facts.before["median_counts"] == np.median(dense.sum(1)) and facts.before["median_genes"] == np.median((dense > 0).sum(1))
    assert facts.before["zero_share"] == pytest.approx((dense == 0).mean()) and facts.before["mito_share"] is None
    assert len(facts.quantiles["counts"]) == 21 and facts.quantiles["counts"][10] == np.median(dense.sum(1))
    assert facts.quantiles["genes"][0] == (dense > 0).sum(1).min()


def test_all_zero_spots_and_genes_are_removed_with_reason_and_order_is_kept(slide):
    dense = slide.layers["counts"].toarray()
    dense[[4, 9]] = 0
    dense[:, [0, 7, 8]] = 0
    set_counts(slide, dense)
    result, facts = quality_control(slide, "slide")
    assert removed(facts) == {"empty": 2, "min_counts": 0, "min_genes": 0, "max_mito": 0, "min_observations": 3, "empty_after_genes": 0}
    assert facts.filters[0]["reason"] == "no counts at all" and facts.filters[0]["axis"] == "spots" and facts.filters[4]["axis"] == "genes"
    keep = np.delete(np.arange(60), [4, 9])
    np.testing.assert_array_equal(result.layers["counts"].toarray(), np.delete(dense[keep], [0, 7, 8], axis=1))
    np.testing.assert_array_equal(result.obsm["spatial"], slide.obsm["spatial"][keep])
    assert result.uns["spadit"]["removed_genes"] == ["Gene0", "Gene7", "Gene8"]
    assert slide.shape == (60, 30)  # the input isn't changed
    assert facts.before["n_obs"] - facts.after["n_obs"] == 2 and facts.before["n_genes"] - facts.after["n_genes"] == 3


def test_filters_apply_in_order_and_each_spot_is_counted_once(make_reference, intermediate):
    reference = intermediate(make_reference(names=["MT-A", *[f"G{i}" for i in range(19)]]), "reference")
    dense = np.full((80, 20), 1.0)
    dense[:, 0] = 0
    dense[0] = 0  # empty
    dense[1], dense[1, 5] = 0, 2  # few counts, few genes, too
    dense[2], dense[2, 5] = 0, 50  # few genes
    dense[3, 0] = 100  # mitochondrial
    dense[4:, 6] = 0  # gene in 0 of the cells left
    set_counts(reference, dense)
    result, facts = quality_control(reference, "reference", min_counts=5, min_genes=2, min_observations=2, max_mito=50)
    # cell 3 alone has MT-A; G5 (column 6) is left in none of the cells kept
    assert removed(facts) == {"empty": 1, "min_counts": 1, "min_genes": 1, "max_mito": 1, "min_observations": 2, "empty_after_genes": 0}
    assert result.shape == (76, 18) and {f["axis"] for f in facts.filters} == {"cells", "genes"}
    assert facts.before["mito_share"] == 0.0 and facts.after["mito_share"] is None
    assert "removed_genes" not in result.uns["spadit"]


def test_spots_that_lose_all_their_genes_go_too(slide):
    dense = np.ones((60, 30))
    dense[7] = 0
    dense[:, 3] = 0
    dense[7, 3] = 9  # the only gene of spot 7, in no other spot
    set_counts(slide, dense)
    result, facts = quality_control(slide, "slide", min_observations=2)
    assert removed(facts)["min_observations"] == 1 and removed(facts)["empty_after_genes"] == 1
    assert "spot7" not in result.obs_names


def test_mitochondrial_genes():
    names = ["MT-CO1", "mt-Co1", "Mt-co1", "MTOR", "Mt1", "ENSG00000198804", "AMT-1"]
    assert mitochondrial(names).tolist() == [True, True, True, False, False, False, False]


def test_mitochondrial_share(make_slide, intermediate):
    slide = intermediate(make_slide(n_genes=4, names=["mt-A", "B", "C", "D"]), "slide")
    set_counts(slide, np.tile([1, 1, 1, 1], (60, 1)))
    assert quality_control(slide, "slide")[1].before["mito_share"] == pytest.approx(0.25)


def test_a_mitochondrial_limit_without_such_genes_warns(slide):
    assert "had no effect" in quality_control(slide, "slide", max_mito=10)[1].warnings[0]


def test_warnings_of_the_reader_reach_the_facts(slide):
    slide.uns["spadit"]["warnings"] = ["Something odd."]
    result, facts = quality_control(slide, "slide")
    assert facts.warnings == ["Something odd."] and io.warnings_of(result) == ["Something odd."]


def test_removing_most_spots_warns(slide):
    dense = slide.layers["counts"].toarray()
    dense[15:] = 0
    set_counts(slide, dense)
    assert "removed 45 of 60 spots" in quality_control(slide, "slide")[1].warnings[0]


@pytest.mark.parametrize("n_spots", [1, 9])
def test_too_few_spots(make_slide, intermediate, n_spots):
    with pytest.raises(InputError, match=f"s1 has {n_spots} spots? only, but at least 10 are needed"):
        quality_control(intermediate(make_slide(n_spots=n_spots), "slide"), "slide", "s1")


def test_one_gene(make_slide, intermediate):
    with pytest.raises(InputError, match="has 1 gene only, but at least 2"):
        quality_control(intermediate(make_slide(n_genes=1), "slide"), "slide")


def test_nothing_left_says_which_filter_took_what(slide):
    dense = slide.layers["counts"].toarray()
    dense[:5] = 0
    set_counts(slide, dense)
    with pytest.raises(InputError) as caught:
        quality_control(slide, "slide", "s1", min_counts=1e6)
    assert caught.value.message.startswith("s1: 0 of 60 spots are left")
    assert "5 spots with no counts at all; 55 spots with fewer than 1e+06 counts" in caught.value.message
    assert "Loosen" in caught.value.remedy


def test_all_zero_counts(slide):
    set_counts(slide, np.zeros(slide.shape))
    with pytest.raises(InputError, match="60 spots with no counts at all"):
        quality_control(slide, "slide")


def test_facts_survive_the_file(slide, tmp_path):
    result, facts = quality_control(slide, "slide")
    facts.to_json(tmp_path / "qc.json")
    assert QualityControl.from_json(tmp_path / "qc.json") == facts
    io.write_h5ad(result, tmp_path / "qc.h5ad")
    np.testing.assert_array_equal(io.load(tmp_path / "qc.h5ad").layers["counts"].toarray(), slide.layers["counts"].toarray())
