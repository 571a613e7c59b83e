"""Samplesheets, sheets of predictions and parameters that are wrong: CHECK_INPUTS tells all in sentences, or takes them as they are."""

from __future__ import annotations

import json
import os

import pytest

from spadit.contracts import Inputs

ROW = "a,st.h5ad,sc.h5ad"
HEADER = "sample,st,sc"


def csv(*rows, header=HEADER):
    return "\n".join([header, *rows]) + "\n"


def one(**values):
    """A sheet with one row, as JSON, so that a value may be any text."""
    return json.dumps([{"sample": "a", "st": "st.h5ad", "sc": "sc.h5ad"} | values])


BILLION = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{c}: &{c} [{','.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
)

# name: (file name, content, words of the message); None: taken
SHEETS = {
    "empty file": ("s.csv", "", "is empty"),
    "blanks only": ("s.csv", " \n\n \n", "is empty"),
    "byte order mark only": ("s.csv", b"\xef\xbb\xbf", "is empty"),
    "UTF-16": ("s.csv", csv(ROW).encode("utf-16"), "UTF-16"),
    "Latin-1": ("s.csv", csv("ä,st.h5ad,sc.h5ad").encode("latin-1"), "not UTF-8 text (row 2)"),
    "NUL characters": ("s.csv", csv("a\0,b,c"), "NUL characters"),
    "a spreadsheet": ("s.xlsx", b"PK\x03\x04", "ending '.xlsx' is unknown"),
    "a spreadsheet named CSV": ("s.csv", b"PK\x03\x04\xff\xfe\x00", "not UTF-8 text"),
    "no ending": ("sheet", csv(ROW), "ending '' is unknown"),
    "no header": ("s.csv", ROW + "\n", "Column 'sample' is missing"),
    "header only": ("s.csv", csv(), "holds no slides"),
    "semicolons": ("s.csv", csv(ROW).replace(",", ";"), "separated by semicolons"),
    "tabs in a CSV": ("s.csv", csv(ROW).replace(",", "\t"), "separated by tabs"),
    "commas in a TSV": ("s.tsv", csv(ROW), "separated by commas"),
    "column missing": ("s.csv", "sample,st\na,b\n", "Column 'sc' is missing"),
    "column misspelt": ("s.csv", csv("a,b,c,d", header="sample,st,sc,specis"), "Did you mean 'species'?"),
    "column twice": ("s.csv", csv("a,b,c,d", header="sample,st,sc,st"), "'st' occurs twice"),
    "column without a name": ("s.csv", csv("a,b,c,d", header="sample,,st,sc"), "has no name"),
    "10,000 columns": ("s.csv", csv(header=",".join(f"c{i}" for i in range(10_000))), "10,000 columns"),
    "more values than columns": ("s.csv", csv(ROW + ",x"), "has 4 values"),
    "an open quote": ("s.csv", csv('"a,st.h5ad,sc.h5ad'), "can't be read as a table"),
    "a field of 200,000 characters": ("s.csv", csv("a" * 200_000 + ",b,c"), "can't be read as a table"),
    "12 MB": ("s.csv", "x" * 12_000_000, "larger than 10 MB"),
    "2 MB of YAML": ("s.yaml", "- {sample: a}\n" * 150_000, "larger than 1 MB"),
    "20,000 rows": ("s.csv", csv(*(f"s{i},a,b" for i in range(20_000))), "20,000 rows; at most 10,000"),
    "3,000 wrong rows": ("s.csv", csv(*(f"s {i},a,b" for i in range(3_000))), "And 2,900 more problems"),
    "3,000 rows, pairs of the same name but for case": ("s.csv", csv(*(f"{'aA'[i % 2]}{i // 2},a,b" for i in range(3_000))), None),
    "JSON that ends early": ("s.json", '[{"sample": "a"', "can't be read as JSON"),
    "JSON 100,000 deep": ("s.json", "[" * 100_000, "can't be read as JSON"),
    "a number of 10,000 digits": ("s.json", f'[{{"sample": {"9" * 10_000}, "st": "a", "sc": "b"}}]', "is not allowed (it has 10000 char"),
    "JSON of one slide": ("s.json", '{"sample": "a"}', "should hold a list of slides"),
    "JSON of texts": ("s.json", '["a"]', "is not a mapping"),
    "JSON with a list as value": ("s.json", '[{"sample": ["a"], "st": "a", "sc": "b"}]', "should be text"),
    "JSON with a key twice": ("s.json", '[{"sample": "a", "sample": "b", "st": "x", "sc": "y"}]', "occurs twice"),
    "JSON with NaN": ("s.json", '[{"sample": NaN, "st": "a", "sc": "b"}]', "should be text"),
    "half a surrogate pair": ("s.json", one(st="\ud800.h5ad"), "invisible character"),
    "YAML with tabs": ("s.yaml", "-\tsample: a\n\t- b", "can't be read as YAML"),
    "YAML that makes an object": ("s.yaml", "- !!python/object/apply:os.system ['touch pwned']\n", "is not a mapping"),
    "YAML of a billion laughs": ("s.yaml", BILLION, "should hold a list"),
    "YAML of a billion laughs in a row": ("s.yaml", "- x: &a [1,1]\n  y: &b [*a,*a]\n  z: [*b,*b]\n", "should be text"),
    "YAML alias of itself": ("s.yaml", "&a [*a]", "can't be read as YAML"),
    "YAML 1,200 deep": ("s.yaml", "[" * 1_200, "can't be read as YAML"),
    "YAML of two documents": ("s.yaml", "- {sample: a, st: b, sc: c}\n---\n- {}\n", "can't be read as YAML"),
    # names
    "no name": ("s.csv", csv(",st.h5ad,sc.h5ad"), "the value is empty"),
    "same name twice": ("s.csv", csv(ROW, ROW), "is also in row 2"),
    "a blank in the name": ("s.csv", csv("a b,st.h5ad,sc.h5ad"), "for the shell"),
    "a command as name": ("s.csv", csv("$(id),st.h5ad,sc.h5ad"), "not allowed"),
    "backticks in the name": ("s.csv", csv("`id`,st.h5ad,sc.h5ad"), "not allowed"),
    "a quote in the name": ("s.csv", csv("a'b,st.h5ad,sc.h5ad"), "not allowed"),
    "a line break in the name": ("s.json", one(sample="a\nid"), "not allowed"),
    "a name that ends with a line break": ("s.json", one(sample="a\n"), None),
    "a name that leaves the folder": ("s.csv", csv("../../x,st.h5ad,sc.h5ad"), "a path"),
    "the name ..": ("s.csv", csv("..,st.h5ad,sc.h5ad"), "begins with '.'"),
    "a name like an option": ("s.csv", csv("-rf,st.h5ad,sc.h5ad"), "begins with '-'"),
    "a hidden name": ("s.csv", csv(".a,st.h5ad,sc.h5ad"), "begins with '.'"),
    "HTML as name": ("s.csv", csv("<script>alert(1)</script>,st.h5ad,sc.h5ad"), "not allowed"),
    "a name of 65 characters": ("s.csv", csv("a" * 65 + ",st.h5ad,sc.h5ad"), "it has 65 characters"),
    "letters of another alphabet": ("s.csv", csv("аlpha,st.h5ad,sc.h5ad"), "non-ASCII"),
    "digits of another alphabet": ("s.csv", csv("a٣,st.h5ad,sc.h5ad"), "non-ASCII"),
    "an escape sequence as name": ("s.csv", csv("\x1b[2Jx,st.h5ad,sc.h5ad"), "not allowed"),
    # paths
    "no slide": ("s.csv", csv("a,,sc.h5ad"), "column 'st': the value is empty"),
    "no reference": ("s.csv", csv("a,st.h5ad,"), "column 'sc': the value is empty"),
    "slide is the reference": ("s.csv", csv("a,x.h5ad,x.h5ad"), "same file"),
    "a path of 5,000 characters": ("s.csv", csv("a," + "x" * 5_000 + ",sc.h5ad"), "at most 4096"),
    "a command in the path": ("s.csv", csv("a,x$(id).h5ad,sc.h5ad"), "meaning for the shell"),
    "a pattern for files": ("s.csv", csv("a,*.h5ad,sc.h5ad"), "meaning for the shell"),
    "braces": ("s.csv", csv("a,{x}.h5ad,sc.h5ad"), "meaning for the shell"),
    "a quote in the path": ("s.csv", csv("a,x'y.h5ad,sc.h5ad"), "meaning for the shell"),
    "a path like an option": ("s.csv", csv("a,d/--help,sc.h5ad"), "begins with '-'"),
    "a home folder": ("s.csv", csv("a,~/x.h5ad,sc.h5ad"), "not expanded"),
    "a Windows path": ("s.csv", csv("a,C:\\x.h5ad,sc.h5ad"), "Windows path"),
    "a line break in the path": ("s.json", one(st="x\ny.h5ad"), "invisible character"),
    "text that runs backwards": ("s.csv", csv("a,x\u202ey.h5ad,sc.h5ad"), "invisible character"),
    "blanks in the path": ("s.csv", csv("a,my data/st (1).h5ad,sc.h5ad"), None),
    # URLs
    "file:": ("s.csv", csv("a,file:///etc/passwd,sc.h5ad"), "unknown scheme 'file'"),
    "gopher:": ("s.csv", csv("a,gopher://h/x,sc.h5ad"), "unknown scheme"),
    "javascript:": ("s.csv", csv("a,javascript://x/%0aalert(1),sc.h5ad"), "unknown scheme"),
    "jar:": ("s.csv", csv("a,jar://x/y!z,sc.h5ad"), "unknown scheme"),
    "a password in the URL": ("s.csv", csv("a,https://user:hunter2@h/x.h5ad,sc.h5ad"), "user name or password"),
    "a password with @ in the URL": ("s.csv", csv("a,https://user:hun@ter2@h/x.h5ad,sc.h5ad"), "user name or password"),
    "a URL of a folder": ("s.csv", csv("a,https://h/x/,sc.h5ad"), "not a URL of a file"),
    "a URL without a host": ("s.csv", csv("a,https:///x,sc.h5ad"), "not a URL of a file"),
    "a signed URL": ("s.csv", csv("a,https://h/x.h5ad?X-Amz-Signature=abc,sc.h5ad"), None),
    "upper-case scheme": ("s.csv", csv("a,HTTPS://h/x.h5ad,sc.h5ad"), None),
    # optional columns
    "an unknown platform": ("s.json", one(platform="visum"), "is not known"),
    "a command as species": ("s.json", one(species="mouse'; id #"), "not allowed"),
    "an option as batch": ("s.json", one(batch="--help"), "not allowed"),
    "a quote in batch": ("s.json", one(batch="a'b"), "not allowed"),
    "a gene list by gopher": ("s.json", one(genes="gopher://h/x"), "unknown scheme"),
    "a number as sample": ("s.json", '[{"sample": 7, "st": "a", "sc": "b"}]', None),
    "quoted values with separators": ("s.csv", csv('a,"x,y.h5ad",sc.h5ad'), None),
    "Windows line ends": ("s.csv", csv(ROW).replace("\n", "\r\n"), None),
    "byte order mark": ("s.csv", b"\xef\xbb\xbf" + csv(ROW).encode(), None),
}


@pytest.fixture
def check(root, tmp_path, step):
    """``check(sheet, params, predictions) -> (Inputs, what was said)`` by the executable."""

    def run(sheet, params=None, predictions=None):
        output, more = tmp_path / "inputs.json", []
        if params is not None:
            (tmp_path / "params.json").write_text(params if isinstance(params, str) else json.dumps(params))
            more = ["--params", tmp_path / "params.json", "--schema-params", root / "nextflow_schema.json"]
        more += ["--predictions", predictions] if predictions else []
        schema = root / "assets" / "schema_input.json"
        outcome = step("check_inputs", "--input", sheet, "--schema-input", schema, "--output", output, *more, failure=False)
        assert outcome.code == 0 and "Traceback" not in outcome.said, outcome.said
        return Inputs.from_json(output), outcome.said

    return run


@pytest.mark.parametrize("case", SHEETS)
def test_samplesheets(case, check, tmp_path):
    name, content, says = SHEETS[case]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    inputs, _ = check(path)
    if says is None:
        assert inputs.errors == [] and inputs.slides
        return
    assert any(says in error for error in inputs.errors), inputs.errors[:5]
    assert len(inputs.errors) <= 101 and not (tmp_path / "pwned").exists()
    for error in inputs.errors:
        assert error.isprintable() and len(error) < 2500 and "hunter" not in error and "ter2" not in error


def test_sheets_that_are_no_files(check, tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    for name, says in (("pipe.csv", "pipe"), ("folder.csv", "directory"), ("loop.csv", "can't be read"), ("none.csv", "no such file")):
        inputs, _ = check(tmp_path / name)
        assert len(inputs.errors) == 1 and says in inputs.errors[0]


# name: (parameters, words of the message); None: taken
PARAMS = {
    "unknown": ({"seeed": 1}, "Did you mean --seed?"),
    "unknown, and a secret": ({"aws_token": "hunter2"}, "--aws_token is unknown"),
    "no samplesheet": ({"input": None}, "--input is missing"),
    "samplesheet by gopher": ({"input": "gopher://h/x.csv"}, "unknown scheme"),
    "samplesheet by file:": ({"input": "file:///x.csv"}, "unknown scheme"),
    "samplesheet with a password": ({"input": "https://user:hunter2@h/x.csv"}, "user name or password"),
    "samplesheet with a command": ({"input": "$(touch pwned).csv"}, "meaning for the shell"),
    "samplesheet of another kind": ({"input": "s.xlsx"}, "not allowed"),
    "option without a value": ({"outdir": True}, "without a value"),
    "empty outdir": ({"outdir": ""}, "--outdir"),
    "outdir with a password": ({"outdir": "s3://key:hunter2@bucket/x"}, "user name or password"),
    "outdir with a line break": ({"outdir": "a\nb"}, "invisible character"),
    "outdir with a quote": ({"outdir": "it's here (1)"}, None),
    "seed below zero": ({"seed": -1}, "at least 0"),
    "seed beyond 32 bits": ({"seed": 2**32}, "at most 4294967295"),
    "seed with a command": ({"seed": "0; touch pwned"}, "whole number"),
    "seed of another alphabet": ({"seed": "٣"}, "whole number"),
    "seed as a fraction": ({"seed": 1.5}, "whole number"),
    "seed as a whole fraction": ({"seed": 5.0}, "whole number"),
    "seed with an exponent": ({"seed": "1e3"}, "whole number"),
    "seed with an underscore": ({"seed": "1_000"}, "whole number"),
    "seed as text": ({"seed": "7"}, None),
    "seed as a list": ({"seed": [1]}, "whole number"),
    "one fold": ({"folds": 1}, "at least 2"),
    "51 folds": ({"folds": 51}, "at most 50"),
    "folds 5.0": ({"folds": 5.0}, "whole number"),
    "folds in a file with a command": ({"folds": "`id`.json", "benchmark": True}, "not allowed|meaning"),
    "a folds file without a benchmark": ({"folds": "x.json"}, "there is none"),
    "ratio of two": ({"split_ratio": "7:3"}, "three whole numbers"),
    "ratio with zero": ({"split_ratio": "7:0:1"}, "three whole numbers"),
    "ratio with a command": ({"split_ratio": "7:2:1'; touch pwned; '"}, "three whole numbers"),
    "ratio as a time": ({"split_ratio": 25321}, "three whole numbers"),
    "preset unknown": ({"preset": "fst"}, "did you mean 'fast'?"),
    "device with a command": ({"device": "cpu; touch pwned"}, "one of auto, cpu, cuda"),
    "percent above 100": ({"max_mito_percent": 101}, "at most 100"),
    "percent NaN": ({"max_mito_percent": "nan"}, "a number"),
    "percent as a fraction": ({"max_mito_percent": "12.5"}, None),
    "steps zero": ({"max_steps": 0}, "at least 1"),
    "steps without limit": ({"max_steps": "inf"}, "whole number"),
    "draws 101": ({"draws": 101}, "at most 100"),
    "counts maybe": ({"counts": "maybe"}, "true or false"),
    "strict as a number": ({"strict": 1}, "true or false"),
    "model by another scheme": ({"model": "smb://h/x"}, "unknown scheme"),
    "model with a pattern": ({"model": "results/*"}, "meaning for the shell"),
    "model with a slash at its end": ({"model": "s3://bucket/results/"}, None),
    "start_model in a home folder": ({"start_model": "~/x"}, "not expanded"),
    "method misspelt": ({"methods": "rigde", "benchmark": True}, "Did you mean 'ridge'?"),
    "method with a command": ({"methods": "ridge'; touch pwned", "benchmark": True}, "is unknown"),
    "method twice": ({"methods": "ridge,ridge", "benchmark": True}, "named twice"),
    "predictions without a benchmark": ({"predictions": "p.csv"}, "there is none"),
    "predictions signed": ({"predictions": "https://h/p.csv?…", "benchmark": True}, "is not allowed"),
    "nine cells": ({"benchmark_cells": 9}, "at least 10"),
    "publish by magic": ({"publish_dir_mode": "magic"}, "one of symlink"),
    "an empty title": ({"multiqc_title": ""}, "--multiqc_title"),
    "HTML as title": ({"multiqc_title": "<script>alert(1)</script>"}, None),
    "a configuration with a command": ({"multiqc_config": "$(id).yml"}, "meaning for the shell"),
    "an escape sequence": ({"preset": "\x1b[2J"}, "\\x1b"),
    "a name of 10,000 characters": ({"x" * 10_000: 1}, "is unknown"),
    "200 unknown ones": ({f"zz{i}": i for i in range(200)}, "And 100 more problems"),
}


@pytest.mark.parametrize("case", PARAMS)
def test_parameters(case, check, tmp_path):
    params, says = PARAMS[case]
    (tmp_path / "s.csv").write_text(csv(ROW))
    inputs, said = check(tmp_path / "s.csv", {"input": "s.csv", **params})
    assert "hunter2" not in said + " ".join(inputs.errors) and not (tmp_path / "pwned").exists()
    if says is None:
        assert inputs.errors == []
        return
    assert any(word in error for error in inputs.errors for word in says.split("|")), inputs.errors[:5]
    assert all(error.isprintable() and len(error) < 2500 for error in inputs.errors) and len(inputs.errors) <= 101


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"a": NaN', "[" * 100_000, "\x00", '"' + "x" * 100])
def test_parameters_that_are_no_json(text, check, tmp_path):
    (tmp_path / "s.csv").write_text(csv(ROW))
    inputs, _ = check(tmp_path / "s.csv", text)
    assert len(inputs.errors) == 1 and "JSON" in inputs.errors[0]


# name: (row of the sheet of predictions, words)
PREDICTIONS = {
    "an unknown slide": ("b,mine,x.csv", "is no slide of the samplesheet"),
    "a method of ours": ("a,Ridge,x.csv", "is a method of this pipeline"),
    "a command as method": ("a,$(id),x.csv", "is not allowed"),
    "a method that leaves the folder": ("a,../x,x.csv", "is not allowed"),
    "a method of 65 characters": (f"a,{'m' * 65},x.csv", "is not allowed"),
    "no path": ("a,mine,", "is missing"),
    "a picture": ("a,mine,x.png", "is no .h5ad"),
    "a pickle": ("a,mine,x.pkl", "is no .h5ad"),
    "a packed h5ad": ("a,mine,x.h5ad.gz", "is no .h5ad"),
    "a command in the path": ("a,mine,`id`.csv", "meaning for the shell"),
    "file:": ("a,mine,file:///etc/passwd.csv", "unknown scheme"),
    "a password": ("a,mine,https://u:hunter2@h/x.csv", "user name or password"),
}


@pytest.mark.parametrize("case", PREDICTIONS)
def test_sheets_of_predictions(case, check, tmp_path):
    row, says = PREDICTIONS[case]
    (tmp_path / "s.csv").write_text(csv(ROW))
    (tmp_path / "p.csv").write_text(csv(row, header="sample,method,path"))
    inputs, _ = check(tmp_path / "s.csv", predictions=tmp_path / "p.csv")
    assert len(inputs.errors) == 1 and says in inputs.errors[0] and inputs.errors[0].startswith("Predictions: "), inputs.errors
    assert "hunter2" not in inputs.errors[0]
