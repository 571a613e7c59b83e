import json
import re
import string
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spadit.contracts import Inputs
from spadit.errors import InputError
from spadit.inputs import check_benchmark, check_inputs, check_params, check_predictions, check_sheet, closest
from spadit.io import READERS

HEADER = "sample,st,sc"


@pytest.fixture(scope="session")
def schema(root):
    return json.loads((root / "assets" / "schema_input.json").read_text(encoding="utf-8"))


@pytest.fixture
def check(tmp_path, schema):
    def run(text, name="sheet.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
        return check_sheet(path, schema)

    return run


def errors_of(check, row, header=HEADER):
    return check(f"{header}\n{row}\n")[1]


def test_good_sheets_of_all_formats_give_the_same_slides(check):
    rows = [["a", "x/st.h5ad", "/d/sc.h5ad"], ["b", "https://host/st.h5ad", "s3://bucket/sc.h5ad"]]
    expected, *problems = check("\n".join([HEADER, *map(",".join, rows)]))
    assert problems == [[], []]
    assert [slide.pop("where") for slide in expected] == ["Row 2", "Row 3"]
    assert expected[0] == {
        "sample": "a",
        "st": "x/st.h5ad",
        "sc": "/d/sc.h5ad",
        "platform": "",
        "bin_size": "",
        "genes": "",
        "species": "",
        "batch": "",
    }
    entries = [dict(zip(HEADER.split(","), r, strict=True)) for r in rows]
    yaml = "".join(f"- sample: {e['sample']}\n  st: {e['st']}\n  sc: {e['sc']}\n" for e in entries)
    tsv = "\n".join("\t".join(r) for r in [HEADER.split(","), *rows])
    for text, name in ((tsv, "s.tsv"), (tsv, "s.txt"), (yaml, "s.yaml"), (yaml, "s.YML"), (json.dumps(entries), "s.json")):
        slides, *problems = check(text, name)
        assert problems == [[], []], name
        assert [{k: v for k, v in slide.items() if k != "where"} for slide in slides] == expected, name


def test_byte_order_mark_windows_line_ends_blank_rows_and_blanks_are_tolerated(check):
    slides, errors, _ = check(b"\xef\xbb\xbf sample , st,sc\r\n\r\n a ,st.h5ad, sc.h5ad\r\n,,\r\n")
    assert errors == []
    assert slides[0]["sample"] == "a" and slides[0]["sc"] == "sc.h5ad"


@pytest.mark.parametrize("text", ["", "\n \n", "\ufeff"])
def test_an_empty_sheet_is_an_error(check, text):
    with pytest.raises(InputError, match="empty"):
        check(text)


@pytest.mark.parametrize(("text", "name"), [(HEADER, "s.csv"), (f"{HEADER}\n,,\n", "s.csv"), ("[]", "s.json"), ("[]", "s.yaml")])
def test_a_sheet_without_rows_is_an_error(check, text, name):
    assert any("holds no slides" in e for e in check(text, name)[1])


def test_a_missing_sheet_is_an_error(tmp_path, schema):
    with pytest.raises(InputError, match="no such file"):
        check_sheet(tmp_path / "none.csv", schema)


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ("sample;st;sc\na;b;c", "s.csv", "separated by semicolons"),
        ("sample\tst\tsc\na\tb\tc", "s.csv", "separated by tabs"),
        ("sample,st,sc\na,b,c", "s.tsv", "separated by commas"),
        ("sample,st,sc\na,b,c", "s.xlsx", "ending '.xlsx' is unknown"),
        ("sample,st,sc\na,b,c,d", "s.csv", "row 2 has 4 values"),
        ("sample,st,st\na,b,c", "s.csv", "'st' occurs twice"),
        ('sample,st,sc\na,"b,c', "s.csv", "can't be read as a table"),
        ("sample,,sc\na,b,c", "s.csv", "has no name"),
        ("sample,st,sc\ncafé,b,c".encode("latin-1"), "s.csv", r"not UTF-8 text \(row 2\)"),
        ("sample,st,sc\na,b,c".encode("utf-16"), "s.csv", "UTF-16"),
        ("sample,st,sc\na,b\0,c", "s.csv", "NUL"),
        ("{", "s.json", "can't be read as JSON"),
        ('{"sample": "a"}', "s.json", "list of slides"),
        ("[1]", "s.json", "entry 1 is not a mapping"),
        ('[{"sample": true, "st": "x", "sc": "y"}]', "s.json", "should be text"),
        ('[{"sample": "a", "sample": "b"}]', "s.json", "occurs twice"),
        ("- sample: a\n  sample: b\n", "s.yaml", "occurs twice"),
        ("- sample: [a]\n", "s.yaml", "should be text"),
        ("a: [", "s.yaml", "can't be read as YAML"),
        ("- !!python/object/apply:os.system [id]\n", "s.yaml", "not a mapping"),
        ("[" * 100_000, "s.json", "can't be read as JSON"),
    ],
)
def test_a_sheet_that_is_no_table_gets_one_clear_sentence(check, text, name, says):
    with pytest.raises(InputError, match=says) as caught:
        check(text, name)
    assert caught.value.message.startswith(name) and caught.value.remedy


def test_yaml_and_json_values_stay_as_written(check):
    assert check("- sample: 007\n  st: NO\n  sc: 1.10\n  species: null\n", "s.yaml")[0][0] == {
        "where": "Entry 1", "sample": "007", "st": "NO", "sc": "1.10", "platform": "", "bin_size": "", "genes": "",
        "species": "", "batch": ""
    }  # fmt: skip
    assert check('[{"sample": 12, "st": 1.10, "sc": "x"}]', "s.json")[0][0]["st"] == "1.10"


def test_all_errors_are_told_at_once_with_row_column_and_value(check):
    _, errors, _ = check("sample,st,sc,platform\na b,st.h5ad,sc.h5ad,auto\nok,,sc.h5ad,h5da\n\nok,gopher://h/x,sc.h5ad,\n")
    text = "\n".join(errors)
    assert len(errors) == 5
    assert re.search(r"Row 2, column 'sample': 'a b' .*expected is 1 to 64", text)
    assert "Row 3, column 'st': the value is empty; expected is path or URL of the slide" in text
    assert re.search(
        r"Row 3, column 'platform': 'h5da' is not known; expected is one of auto, h5ad, .*, tables. Did you mean 'h5ad'\?", text
    )
    assert re.search(r"Row 5, column 'st': 'gopher://h/x' has the unknown scheme 'gopher'.*https, http, ftp, s3, gs, az", text)
    assert "Row 5, column 'sample': 'ok' is also in row 3" in text


def test_rows_with_problems_are_kept_without_their_bad_values(check):
    """So that a missing file in such a row is told in the same message."""
    slides, errors, _ = check("sample,st,sc,platform\na b,st.h5ad,$x.h5ad,h5da\nb,,sc.h5ad,\n")
    assert len(errors) == 4
    assert [(s["where"], s["sample"], s["st"], s["sc"], s["platform"]) for s in slides] == [
        ("Row 2", "", "st.h5ad", "", ""),
        ("Row 3", "b", "", "sc.h5ad", ""),
    ]


def test_unknown_and_missing_columns_name_the_closest(check):
    _, errors, _ = check("smaple,st,sc,foo\na,st.h5ad,sc.h5ad,x\n")
    assert "Column 'smaple' is unknown. Did you mean 'sample'?" in errors
    assert any(e.startswith("Column 'foo' is unknown. Expected are: sample, st, sc") for e in errors)
    assert any(e.startswith("Column 'sample' is missing.") for e in errors)
    assert len(errors) == 3


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Müller", "non-ASCII character: 'ü'"),
        ("样本", "non-ASCII"),
        ("../etc", "a path: '/'"),
        ("..", "begins with '.'"),
        ("a/b", "a path"),
        ("a;rm -rf", "shell"),
        ("$(id)", "shell"),
        ("a`id`", "shell"),
        ("-rf", "begins with '-'"),
        ("a" * 65, "65 characters"),
        ("a b", "shell"),
    ],
)
def test_bad_sample_names(check, name, says):
    errors = errors_of(check, f"{name},st.h5ad,sc.h5ad")
    assert len(errors) == 1
    assert errors[0].startswith("Row 2, column 'sample': '") and says in errors[0] and "expected is" in errors[0]


@pytest.mark.parametrize("name", ["a", "A1", "slide_1.v2-b", "a" * 64, "0"])
def test_good_sample_names(check, name):
    assert errors_of(check, f"{name},st.h5ad,sc.h5ad") == []


def test_names_that_differ_in_case_only_are_a_warning(check):
    slides, errors, warnings = check(f"{HEADER}\na,st.h5ad,sc.h5ad\nA,st.h5ad,sc.h5ad\n")
    assert len(slides) == 2 and not errors and "in case only" in warnings[0]


@pytest.mark.parametrize(
    "path",
    [
        "st.h5ad",
        "../data/st.h5ad",
        "/a b/ü.h5ad",
        "https://h.org/x/st.h5ad?download=1&v=2",
        "s3://b/k/st.h5ad",
        "az://c/st.h5ad",
        "FTP://h/x",
    ],
)
def test_good_paths(check, path):
    assert errors_of(check, f"a,{path},sc.h5ad") == []


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("file:///etc/passwd", "unknown scheme"),
        ("javascript://x/y", "unknown scheme"),
        ("https://user:secret@h/x.h5ad", "user name or password"),
        ("https://h", "not a URL of a file"),
        ("s3://", "not a URL of a file"),
        ("~/st.h5ad", "'~' is not expanded"),
        ("C:\\data\\st.h5ad", "Windows path"),
        ("a$(id).h5ad", "meaning for the shell"),
        ("*.h5ad", "meaning for the shell"),
        ("x/-rf", "begins with '-'"),
        ("a\u202eb", "invisible character"),
        ("sc.h5ad", "same file as in column 'st'"),
    ],
)
def test_bad_paths(check, path, says):
    errors = errors_of(check, f"a,{path},sc.h5ad")
    assert len(errors) == 1 and says in errors[0]
    assert "secret" not in errors[0]


@pytest.mark.parametrize(
    ("column", "value"),
    [("species", "mouse;id"), ("batch", "--x"), ("platform", "visum"), ("bin_size", "8um"), ("bin_size", "0"), ("genes", "gopher://x/y")],
)
def test_bad_optional_values(check, column, value):
    errors = errors_of(check, f"a,st.h5ad,sc.h5ad,{value}", f"{HEADER},{column}")
    assert len(errors) == 1 and errors[0].startswith(f"Row 2, column '{column}': '{value}'")


def test_platforms_of_the_schema_are_those_that_can_be_read(schema):
    assert set(schema["items"]["properties"]["platform"]["enum"]) == {"auto", *READERS}


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["csv", "tsv", "yaml", "json"]))
def test_any_bytes_give_slides_or_sentences(tmp_path_factory, schema, content, ending):
    path = tmp_path_factory.getbasetemp() / f"wild.{ending}"
    path.write_bytes(content)
    try:
        slides, errors, _ = check_sheet(path, schema)
    except InputError as error:
        assert error.message
    else:
        assert bool(slides) or bool(errors)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=20), min_size=3, max_size=7))
def test_any_text_in_a_row_is_safe_when_accepted(tmp_path_factory, schema, cells):
    path = tmp_path_factory.getbasetemp() / "row.json"
    columns = list(schema["items"]["properties"])
    path.write_text(json.dumps([dict(zip(columns, cells, strict=False))]), encoding="utf-8")
    slides, errors, _ = check_sheet(path, schema)
    assert bool(slides) or bool(errors)
    for slide in slides:
        if not slide["sample"]:
            assert errors
            continue
        assert set(slide["sample"]) <= set(string.ascii_letters + string.digits + "._-") and slide["sample"][0] not in ".-_"
        assert not set(slide["st"] + slide["sc"]) & set("\"'`$;|<>\\\n\r\0")


# ---- parameters ------------------------------------------------------------------------------------------------------

PARAMS = {
    "$schema": "https://nowhere.invalid/schema",
    "$defs": {
        "io": {
            "properties": {"input": {"type": "string", "pattern": r"^\S+$"}, "outdir": {"type": "string", "default": "results"}},
            "required": ["input"],
        },
        "model": {
            "properties": {
                "folds": {"type": "integer", "minimum": 2, "maximum": 20},
                "max_mito_percent": {"type": "number", "minimum": 0, "maximum": 100},
                "preset": {"type": "string", "enum": ["paper", "default"]},
                "strict": {"type": "boolean"},
                "max_steps": {"type": ["integer", "null"], "minimum": 1},
                "min_shared_genes": {"type": "integer"},
                "multiqc_title": {"type": "string"},
                "seed": {"type": "integer", "minimum": 0, "maximum": 4294967295},
            }
        },
    },
    "allOf": [{"$ref": "#/$defs/io"}, {"$ref": "#/$defs/model"}],
}


def test_good_parameters():
    params = {"input": "a.csv", "folds": 5, "max_mito_percent": "12.5", "preset": "paper", "strict": "true", "max_steps": None}
    assert check_params(params, PARAMS) == []
    assert check_params({"input": "a.csv", "folds": "5", "max_steps": "10", "multiqc_title": 2024}, PARAMS) == []


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"folds": "five"}, "Parameter --folds: 'five' is not allowed; expected is a whole number of at least 2 and at most 20."),
        ({"folds": 1}, "at least 2"),
        ({"folds": 2.5}, "a whole number"),
        ({"folds": True}, "given without a value"),
        ({"max_mito_percent": 101}, "at most 100"),
        ({"seed": -1}, "a whole number of at least 0 and at most 4294967295."),
        ({"max_mito_percent": "nan"}, "a number"),
        ({"preset": "papr"}, "expected is one of paper, default (did you mean 'paper'?)"),
        ({"strict": "yes"}, "true or false"),
        ({"outdir": True}, "given without a value"),
        ({"fold": 5}, "Parameter --fold is unknown. Did you mean --folds?"),
        ({"zzz": 5}, "Parameter --zzz is unknown. See --help"),
        ({"input": None}, "Parameter --input is missing"),
        ({"min-shared-genes": 5, "minSharedGenes": 5}, "Parameter --min-shared-genes is unknown. Did you mean --min_shared_genes?"),
    ],
)
def test_bad_parameters(params, says):
    errors = check_params({"input": "a.csv", **params}, PARAMS)
    assert len(errors) == 1 and says in errors[0]


def test_the_kebab_duplicate_of_a_known_parameter_is_ignored():
    schema = {"properties": {"myParam": {"type": "integer"}}}
    assert check_params({"my-param": 1, "myParam": 1}, schema) == []


def test_nothing_remote_is_loaded(monkeypatch):
    import socket

    monkeypatch.setattr(socket, "socket", lambda *a, **k: pytest.fail("a connection was tried"))
    assert check_params({"input": "a.csv", "folds": 5}, PARAMS) == []
    with pytest.raises(Exception, match="(?i)unresolvable"):
        check_params({"x": 1}, {"properties": {"x": {"$ref": "https://nowhere.invalid/x.json"}}})


def test_closest_looks_past_case_and_dashes():
    assert closest("Min-Shared-Genes", ["min_shared_genes", "folds"]) == "min_shared_genes"
    assert closest("zzz", ["min_shared_genes", "folds"]) is None


def test_the_schema_of_the_pipeline_accepts_its_own_defaults(root):
    path = root / "nextflow_schema.json"
    if not path.exists():
        pytest.skip("nextflow_schema.json isn't there yet")
    schema = json.loads(path.read_text(encoding="utf-8"))
    properties = {k: v for group in schema["$defs"].values() for k, v in group["properties"].items()}
    defaults = {name: p["default"] for name, p in properties.items() if "default" in p}
    assert check_params({**defaults, "input": "sheet.csv"}, schema) == []


# ---- the executable --------------------------------------------------------------------------------------------------


def test_check_inputs_collects_errors_of_parameters_and_sheet(root, tmp_path):
    sheet, params, schema = tmp_path / "s.csv", tmp_path / "p.json", tmp_path / "schema.json"
    sheet.write_text("sample,st,sc\na b,x,y\n")
    params.write_text(json.dumps({"input": "s.csv", "fold": 2}))
    schema.write_text(json.dumps(PARAMS))
    inputs = check_inputs(sheet, params, root / "assets" / "schema_input.json", schema)
    assert len(inputs.errors) == 2 and [slide["sample"] for slide in inputs.slides] == [""]


@pytest.mark.parametrize("text", ["sample,st,sc\na,x.h5ad,y.h5ad\n", "sample,st,sc\na b,x,y\n", "", None])
def test_the_executable_always_ends_well_and_tells(root, tmp_path, text):
    sheet, output = tmp_path / "s.csv", tmp_path / "inputs.json"
    if text is not None:
        sheet.write_text(text)
    call = [sys.executable, root / "bin" / "spadit_check_inputs.py", "--id", "inputs", "--input", sheet, "--output", output]
    done = subprocess.run([*call, "--schema-input", root / "assets" / "schema_input.json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    inputs = Inputs.from_json(output)
    assert bool(inputs.errors) == (text != "sample,st,sc\na,x.h5ad,y.h5ad\n")


def test_the_demo_sheet_is_right(root):
    folder = root / "assets" / "demo"
    slides, errors, warnings = check_sheet(folder / "samplesheet.csv", json.loads((root / "assets" / "schema_input.json").read_text()))
    assert [s["sample"] for s in slides] == ["osmfish_cortex", "pdac_st_mit"] and not errors and not warnings
    assert all((folder / s[c]).is_file() for s in slides for c in ("st", "sc"))


BENCHMARK = {"benchmark": True, "robustness": False, "ablation": False, "folds": 5, "methods": None, "predictions": None}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"methods": "rigde, knn50"}, ["The method 'rigde' is unknown. Did you mean 'ridge'?"]),
        ({"methods": "ridge,ridge"}, ["named twice"]),
        ({"methods": "ridge", "benchmark": False}, ["--methods is about a benchmark, but there is none"]),
        ({"predictions": "x.csv", "benchmark": False}, ["--predictions is about a benchmark"]),
        ({"folds": "x.json", "benchmark": False}, ["--folds: a file is about a benchmark"]),
        ({"folds": "x.json", "benchmark": False, "ablation": "true"}, []),
        ({"methods": "SpaDiT,oracle_ridge", "benchmark": False, "robustness": True}, []),
        ({"folds": 7}, []),
    ],
)
def test_parameters_of_a_benchmark(changes, said):
    problems = check_benchmark(BENCHMARK | changes)
    assert len(problems) == len(said) and all(text in problem for text, problem in zip(said, problems, strict=True))


@pytest.mark.parametrize(
    ("folds", "good"), [(5, True), ("5", True), ("60", False), (1, False), ("a.json", True), ("a.txt", False), (True, False)]
)
def test_folds_are_a_number_or_a_file(root, folds, good):
    schema = json.loads((root / "nextflow_schema.json").read_text(encoding="utf-8"))
    assert (check_params({"input": "x.csv", "folds": folds}, schema) == []) == good


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"genes": "Gad1,HLA-A,NKX2.1", "layers": "none", "output_dtype": "float16", "reference_cache": "/data/my cache"}, ""),
        ({"genes": "lists/wanted genes.txt", "layers": "counts,sd"}, ""),
        ({"genes": "Gad1;rm -rf x"}, "names of genes with commas between them, or a text file"),
        ({"genes": "it's"}, "names of genes with commas between them"),
        ({"genes": True}, "the option was given without a value"),
        ({"layers": "sd,uper"}, "some of sd, lower, upper and counts with commas between them (no blanks), or none"),
        ({"layers": "none,sd"}, "some of sd, lower, upper and counts"),
        ({"output_dtype": "float61"}, "one of float32, float16 (did you mean 'float16'?)"),
        ({"reference_cache": "s3://bucket/cache"}, "a folder of a file system that all tasks see"),
    ],
)
def test_what_is_imputed_and_written(root, given, expected):
    schema = json.loads((root / "nextflow_schema.json").read_text(encoding="utf-8"))
    errors = check_params({"input": "x.csv", **given}, schema)
    assert len(errors) == bool(expected) and all(expected in error for error in errors), errors


def test_sheet_of_predictions(tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text("sample,method,path\none,mine,a.h5ad\none,Mine,b.csv\noen,mine,a.csv\none,Ridge,a.csv\none,x,~/a.csv\none,y,a.png\n")
    rows, errors = check_predictions(path, ["one", "two"])
    assert rows[0] == {"where": "Row 2", "sample": "one", "method": "mine", "path": "a.h5ad"} and len(rows) == 6
    told = ("named twice", "mean 'one'", "a method of this pipeline", "begins with '~'", "is no .h5ad")
    for error, said in zip(errors, told, strict=True):
        assert said in error
    path.write_text("sample,methods,path\n")
    rows, errors = check_predictions(path, ["one"])
    assert rows == [] and [error.split(".")[0] for error in errors] == ["Column 'methods' is unknown", "Column 'method' is missing"]
