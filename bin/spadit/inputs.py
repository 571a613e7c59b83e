"""What the user gives: the samplesheet and the parameters, checked whole, so that all mistakes are told at once.

Nothing here looks for the files that the sheet names: inside a task only the sheet itself is at hand. The workflow resolves
and checks them.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import io
import json
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from spadit.contracts import Inputs
from spadit.errors import InputError
from spadit.files import read_json, read_whole

SCHEMES = ("https", "http", "ftp", "s3", "gs", "az")
"""URL schemes that a file may have."""
FORMATS = {".csv": ",", ".tsv": "\t", ".txt": "\t", ".yaml": "yaml", ".yml": "yaml", ".json": "json"}
PATH_COLUMNS = ("st", "sc", "genes")
LARGEST_SHEET = 10_000_000
"""Bytes."""
LARGEST_YAML = 1_000_000
"""Bytes: YAML takes ten times as long to read."""
MOST_ROWS = 10_000
MOST_COLUMNS = 100
MOST_SAID = 100
"""Problems that are told at once; the others are counted."""
TYPE_WORDS = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "text",
    "object": "a mapping",
    "array": "a list",
}
LIMIT_WORDS = {"minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most", "exclusiveMaximum": "less than"}


def check_inputs(
    sheet: str | Path,
    params: str | Path | None,
    schema_input: str | Path,
    schema_params: str | Path | None,
    predictions: str | Path | None = None,
) -> Inputs:
    """Check a samplesheet and, when given, the pipeline's parameters.

    Parameters
    ----------
    sheet
        The samplesheet.
    params
        JSON file with all parameters of the run; not checked when None.
    schema_input, schema_params
        The JSON schemas: ``assets/schema_input.json`` and ``nextflow_schema.json``.
    predictions
        Sheet of predictions that were made elsewhere.

    Returns
    -------
    Inputs
        The slides, and one sentence for everything that is wrong. No exception is raised for the user's mistakes.
    """
    inputs = Inputs()
    if params:
        try:
            given = _read_json(params)
            inputs.errors += check_params(given, _read_json(schema_params)) + check_benchmark(given)
        except InputError as error:
            inputs.errors.append(str(error))
    try:
        slides, errors, warnings = check_sheet(sheet, _read_json(schema_input))
    except InputError as error:
        inputs.errors.append(str(error))
    else:
        inputs.slides = slides
        inputs.errors += errors
        inputs.warnings += warnings
    if predictions:
        try:
            inputs.predictions, errors = check_predictions(predictions, [row["sample"] for row in inputs.slides])
        except InputError as error:
            errors = [str(error)]
        inputs.errors += [f"Predictions: {error}" for error in errors]
    if len(inputs.errors) > MOST_SAID:
        inputs.errors[MOST_SAID:] = [f"And {len(inputs.errors) - MOST_SAID:,} more problems of such kinds."]
    return inputs


def closest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that a misspelt name most likely means; case, '-' and '_' don't count."""

    def plain(s: str) -> str:
        return re.sub(r"[-_\s]", "", s).casefold()

    by_plain = {plain(c): c for c in candidates}
    found = difflib.get_close_matches(plain(name), by_plain, n=1, cutoff=0.6)
    return by_plain[found[0]] if found else None


def _read_json(path: str | Path | None) -> dict:
    content = read_json(path or "", "a JSON file", LARGEST_SHEET)
    if not isinstance(content, dict):
        raise InputError(f"{path} should hold a JSON object, but holds a {type(content).__name__}.", "Check the file.")
    return content


def _shown(value: Any) -> str:
    """A value as it stands in a message: short, and without characters that would garble a terminal."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    text = masked(text)
    return text if len(text) <= 120 else text[:119] + "…"


def masked(text: str) -> str:
    """A text without what should stay secret in its URLs: user and password, and the query, where signed URLs keep their tokens."""
    text = re.sub(r"(?<=://)[^/\s]*@", "***@", text)
    return re.sub(r"(://[^\s?#]*)[?#]\S+", r"\1?…", text)


# ---- the samplesheet ----------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Row:
    """One slide of the sheet."""

    where: str
    """'Row 2' (line of the table, the header is row 1) or 'Entry 1' (of a YAML or JSON list)."""
    values: dict[str, str]


def check_sheet(path: str | Path, schema: dict) -> tuple[list[dict], list[str], list[str]]:
    """Read and check a samplesheet (CSV, TSV, YAML or JSON; UTF-8 with or without byte order mark).

    Parameters
    ----------
    path
        The sheet; its ending tells the format.
    schema
        Content of ``assets/schema_input.json``.

    Returns
    -------
    slides
        One dict per row: 'where' ('Row 2'), and every column of the schema; absent values are '', and so are those that are not allowed.
    errors
        Sentences with row, column, value and what is expected.
    warnings

    Raises
    ------
    InputError
        When the sheet can't be read as a table at all.
    """
    item = schema["items"]
    columns, required = item["properties"], item.get("required", [])
    rows, header = read_sheet(path)
    errors: list[str] = []
    for name in header:
        if name not in columns:
            near = closest(name, columns)
            hint = f"Did you mean '{near}'?" if near else f"Expected are: {', '.join(columns)}."
            errors.append(f"Column '{_shown(name)}' is unknown. {hint}")
    missing = [name for name in required if name not in header]
    errors += [f"Column '{name}' is missing. Expected are {', '.join(required)}, and optionally others." for name in missing]
    if not rows:
        errors.append("The samplesheet holds no slides. Expected is one row for each slide.")

    slides, warnings = [], []
    seen: dict[str, str] = {}
    folded: dict[str, str] = {}
    for row in rows:
        problems, wrong = _check_row(row, columns, [n for n in required if n not in missing])
        sample = row.values.get("sample", "")
        if sample and sample in seen:
            problems.append(
                f"{row.where}, column 'sample': '{_shown(sample)}' is also in {seen[sample].lower()}; every sample needs its own name."
            )
        elif sample:
            twin = folded.setdefault(sample.casefold(), sample) if sample.casefold() in folded else None
            folded.setdefault(sample.casefold(), sample)
            if twin:
                warnings.append(
                    f"{row.where}, column 'sample': '{_shown(sample)}' differs from '{_shown(twin)}' ({seen[twin].lower()}) in case only; "
                    "some file systems take them for the same."
                )
            seen[sample] = row.where
        errors += problems
        # Also rows with problems: whether the files are there is told in the same message
        slides.append({"where": row.where} | {name: "" if name in wrong else row.values.get(name, "") for name in columns})
    return slides, errors, warnings


def _check_row(row: Row, columns: dict, required: list[str]) -> tuple[list[str], set[str]]:
    """What is wrong with a row, in sentences, and the columns whose values are not allowed."""
    from jsonschema import Draft202012Validator

    problems, wrong = [], set()
    for name in required:
        if not row.values.get(name):
            what = columns[name].get("description", "a value").rstrip(".")
            problems.append(f"{row.where}, column '{name}': the value is empty; expected is {what[0].lower()}{what[1:]}.")
    for name, value in row.values.items():
        if not value or name not in columns:
            continue
        start = f"{row.where}, column '{name}': '{_shown(value)}'"
        expected = columns[name].get("errorMessage", _expected(columns[name]))
        valid = Draft202012Validator(columns[name]).is_valid(value)
        if not valid and "enum" in columns[name]:
            near = closest(value, columns[name]["enum"])
            hint = f" Did you mean '{near}'?" if near else ""
            problems.append(f"{start} is not known; expected is {_expected(columns[name])}.{hint}")
            wrong.add(name)
        elif not valid:
            why = _odd_characters(value) if name == "sample" else ""
            problems.append(f"{start} is not allowed{why}; expected is {expected}.")
            wrong.add(name)
        elif name in PATH_COLUMNS:
            problem = _path_problem(value)
            if problem:
                problems.append(f"{start} {problem}.")
                wrong.add(name)
    if row.values.get("st") and row.values.get("st") == row.values.get("sc"):
        same = _shown(row.values["sc"])
        problems.append(f"{row.where}, column 'sc': '{same}' is the same file as in column 'st'; expected is the reference.")
    return problems, wrong


def _odd_characters(name: str) -> str:
    odd = list(dict.fromkeys(c for c in name if not re.fullmatch(r"[A-Za-z0-9._-]", c)))
    if odd:
        foreign = [c for c in odd if ord(c) > 127]
        kind = "a non-ASCII character" if foreign else "a path" if "/" in odd or "\\" in odd else "a character with a meaning for the shell"
        return f" (it holds {kind}: {' '.join(repr(c) for c in (foreign or odd)[:5])})"
    if len(name) > 64:
        return f" (it has {len(name)} characters)"
    return f" (it begins with '{name[0]}')"


def _path_problem(value: str) -> str | None:
    """What is wrong with the place of a file: a relative or absolute path or a URL. Whether it exists isn't looked at."""
    control = next((c for c in value if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")), None)
    if control:
        return f"holds an invisible character ({control!r}); expected is a path or URL without it"
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", value)
    if re.match(r"[A-Za-z]:[\\/]", value) or "\\" in value:
        return "is a Windows path; expected is a path with '/' (in WSL: /mnt/c/…) or a URL"
    if scheme and value[scheme.end() :].startswith("//"):
        if scheme.group(1).lower() not in SCHEMES:
            return f"has the unknown scheme '{scheme.group(1)}'; expected is a path or a URL with one of {', '.join(SCHEMES)}"
        rest = value[scheme.end() + 2 :]
        if re.search(r"^[^/]*@", rest):
            return "holds a user name or password; expected is a URL without (give credentials in Nextflow's configuration)"
        if not re.match(r"[^/?#]+/.", rest) or value.endswith("/"):
            return "is not a URL of a file; expected is scheme://host-or-bucket/path/file"
        forbidden = " \"'`$;|<>*[]{}()"
    else:
        if value.startswith("~"):
            return "begins with '~'; expected is the whole path, as '~' is not expanded"
        forbidden = "\"'`$;|<>&*?[]{}!"
    found = next((c for c in value if c in forbidden), None)
    if found:
        return f"holds {found!r}, which has a meaning for the shell; expected is a path without it: rename the file"
    name = value.rstrip("/").rsplit("/", 1)[-1]
    if name.startswith("-"):
        return "has a file name that begins with '-', which programs take for an option; rename the file"
    return None


def read_sheet(path: str | Path) -> tuple[list[Row], list[str]]:
    """The rows of a samplesheet and the columns it has. Blank rows are left out, blanks around values taken off.

    Raises
    ------
    InputError
        When the file isn't there, is empty, isn't UTF-8, or can't be parsed in the format that its ending tells.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise InputError(
            f"{path.name}: the samplesheet's ending '{path.suffix}' is unknown.", f"Use one of {', '.join(FORMATS)}, as its content is."
        )
    kind = FORMATS[path.suffix.lower()]
    raw = read_whole(path, "the samplesheet", LARGEST_SHEET if kind != "yaml" else LARGEST_YAML, "Check --input.")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path.name} is UTF-16 text.", "Save it as UTF-8 (in a spreadsheet: 'CSV UTF-8').")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError(f"{path.name} is not UTF-8 text (row {line}).", "Save it as UTF-8 (in a spreadsheet: 'CSV UTF-8').") from error
    if not text.strip():
        raise InputError(f"{path.name}: the samplesheet is empty.", "Give a header (sample,st,sc) and one row for each slide.")
    if "\0" in text:
        raise InputError(f"{path.name} holds NUL characters: it is not a text file.", "Save it as UTF-8 text.")
    rows, header = _read_table(path.name, text, kind) if len(kind) == 1 else _read_list(path.name, text, kind)
    if len(rows) > MOST_ROWS or len(header) > MOST_COLUMNS:
        much = f"{len(rows):,} rows" if len(rows) > MOST_ROWS else f"{len(header):,} columns"
        raise InputError(f"{path.name} has {much}; at most {MOST_ROWS:,} rows and {MOST_COLUMNS} columns are read.", "Split the sheet.")
    return rows, header


def _read_table(name: str, text: str, delimiter: str) -> tuple[list[Row], list[str]]:
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise InputError(f"{name} can't be read as a table: {error}.", "Check the quotes in it.") from error
    first = next(i for i, cells in enumerate(lines) if any(c.strip() for c in cells))
    header = [c.strip() for c in lines[first]]
    while header and not header[-1]:
        header.pop()
    if len(header) == 1:
        for other, word, ending in ((";", "semicolons", ""), ("\t", "tabs", ".tsv"), (",", "commas", ".csv"), ("|", "'|'", "")):
            if other in header[0]:
                remedy = f"Name it …{ending}." if ending else "Save it with commas, or with tabs as .tsv."
                raise InputError(f"{name}: columns are separated by {word}, but its ending says otherwise.", remedy)
    if "" in header:
        raise InputError(f"{name}: column {header.index('') + 1} of the header (row {first + 1}) has no name.", "Name it or remove it.")
    _refuse_twice(name, header)
    rows = []
    for number, cells in enumerate(lines[first + 1 :], start=first + 2):
        cells = [c.strip() for c in cells]
        if not any(cells):
            continue
        if any(cells[len(header) :]):
            raise InputError(
                f"{name}: row {number} has {len(cells)} values, but the header has {len(header)} columns.",
                "Put values that hold the separator into double quotes.",
            )
        rows.append(Row(f"Row {number}", dict(zip(header, cells, strict=False))))
    return rows, header


def _read_list(name: str, text: str, kind: str) -> tuple[list[Row], list[str]]:
    """A YAML or JSON list of mappings. Values are taken as they are written: 007 stays '007' and NO stays 'NO'."""
    remedy = "Give a list with one entry for each slide: sample, st, sc."
    try:
        entries = _load_yaml(text) if kind == "yaml" else json.loads(text, parse_int=str, parse_float=str, object_pairs_hook=_pairs)
    except InputError as error:
        raise InputError(f"{name}: {error.message}", error.remedy) from error
    except Exception as error:  # the parsers have many kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name} can't be read as {kind.upper()}: {reason[:300]}.", remedy) from error
    if not isinstance(entries, list):
        raise InputError(f"{name} should hold a list of slides.", remedy)
    rows, header = [], []
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict):
            raise InputError(f"{name}: entry {number} is not a mapping.", remedy)
        values = {}
        for key, value in entry.items():
            value = "" if value is None or (kind == "yaml" and value in ("null", "~", "Null", "NULL")) else value
            if not isinstance(value, str):
                raise InputError(f"{name}: entry {number}, column '{_shown(str(key))}' should be text, but isn't.", "Put it in quotes.")
            values[str(key).strip()] = value.strip()
        header += [k for k in values if k not in header]
        rows.append(Row(f"Entry {number}", values))
    return rows, header


def _load_yaml(text: str) -> Any:
    import yaml

    class Loader(yaml.BaseLoader):  # scalars stay text, and no Python object can be made
        def construct_mapping(self, node, deep=False):
            _refuse_twice("", [k.value for k, _ in node.value if isinstance(k, yaml.ScalarNode)])
            return super().construct_mapping(node, deep)

    return yaml.load(text, Loader=Loader)  # noqa: S506 (a safe loader)


def _pairs(pairs: list[tuple[str, Any]]) -> dict:
    _refuse_twice("", [k for k, _ in pairs])
    return dict(pairs)


def _refuse_twice(name: str, columns: list[str]) -> None:
    seen: set[str] = set()
    twice = next((c for c in columns if c in seen or seen.add(c)), None)
    if twice is not None:
        raise InputError(f"{name + ': ' if name else ''}column '{_shown(twice)}' occurs twice.", "Keep one of them.")


def check_predictions(path: str | Path, samples: Iterable[str]) -> tuple[list[dict], list[str]]:
    """Read and check a sheet of predictions that were made elsewhere: columns sample, method and path.

    Parameters
    ----------
    samples
        The slides of the samplesheet.

    Returns
    -------
    rows
        where, sample, method, path; values that are not allowed are ''.
    errors

    Raises
    ------
    InputError
        When it can't be read as a table at all.
    """
    from spadit.methods import METHODS

    columns, samples = ("sample", "method", "path"), list(samples)
    read, header = read_sheet(path)
    errors = [f"Column '{_shown(name)}' is unknown. Expected are: {', '.join(columns)}." for name in header if name not in columns]
    missing = [name for name in columns if name not in header]
    errors += [f"Column '{name}' is missing. Expected are: {', '.join(columns)}." for name in missing]
    if missing:
        return [], errors
    rows, seen = [], set()
    own = {name.casefold() for name in METHODS}
    for row in read:
        values = {name: row.values.get(name, "") for name in columns}
        problems = {}
        if values["sample"] not in samples:
            near = closest(values["sample"], samples) if len(errors) < MOST_SAID else None  # a search in all names takes its time
            hint = f" Did you mean '{near}'?" if near else ""
            problems["sample"] = f"'{_shown(values['sample'])}' is no slide of the samplesheet.{hint}"
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", values["method"]):
            problems["method"] = f"'{_shown(values['method'])}' is not allowed; expected are letters, digits, '.', '_' and '-'."
        elif values["method"].casefold() in own:
            problems["method"] = f"'{values['method']}' is a method of this pipeline; expected is another name."
        elif (values["sample"], values["method"].casefold()) in seen:
            problems["method"] = f"'{values['method']}' is named twice for this slide."
        seen.add((values["sample"], values["method"].casefold()))
        wrong = "is missing" if not values["path"] else _path_problem(values["path"])
        if not wrong and not re.search(r"\.(h5ad|(csv|tsv)(\.gz)?)$", values["path"]):
            wrong = "is no .h5ad, .csv or .tsv file"
        if wrong:
            problems["path"] = f"'{_shown(values['path'])}' {wrong}."
        errors += [f"{row.where}, column '{name}': {problem}" for name, problem in problems.items()]
        rows.append({"where": row.where} | {name: "" if name in problems else value for name, value in values.items()})
    return rows, errors


# ---- parameters ---------------------------------------------------------------------------------------------------


def check_params(params: dict, schema: dict) -> list[str]:
    """Check parameters against an nf-core style schema. Nothing remote is ever loaded, whatever ``$schema`` says.

    Parameters
    ----------
    params
        All parameters of the run. None means not set. A number or boolean may be given as text, as command lines do.
    schema
        Content of ``nextflow_schema.json`` (draft 2020-12; groups in ``$defs``).

    Returns
    -------
    list of str
        One sentence per problem.
    """
    known, required = _flatten(schema)
    errors = []
    for name in required:
        if params.get(name) in (None, ""):
            errors.append(f"Parameter --{name} is missing; expected is {_expected(known[name])}.")
    for name, value in params.items():
        kebab = next((k for k in params if "-" in k and _camel(k) == name and k != name), None)
        if name not in known:
            if kebab or ("-" in name and _camel(name) in known):
                continue  # Nextflow adds 'myParam' when the user writes --my-param
            near = closest(name, known)
            hint = f"Did you mean --{near}?" if near else "See --help for all parameters."
            errors.append(f"Parameter --{_shown(name)} is unknown. {hint}")
        elif value is not None and not (name in required and value == ""):
            problem = _value_problem(value, known[name]) or _place_problem(name, value, known[name].get("format", ""))
            if problem:
                errors.append(f"Parameter --{name}: {problem}.")
    return errors


def check_benchmark(params: dict) -> list[str]:
    """What is wrong with the parameters of a benchmark beyond their types: unknown methods, and options without an effect."""
    errors = []
    runs = any(_as_typed(params.get(name), ["boolean"]) is True for name in ("benchmark", "robustness"))
    wanted = params.get("methods")
    if isinstance(wanted, str) and wanted:
        from spadit.methods import method_problems  # the registry takes a second to read

        errors += [f"Parameter --methods: {problem}" for problem in method_problems([n.strip() for n in wanted.split(",") if n.strip()])]
    for name in ("methods", "predictions"):
        if params.get(name) and not runs:
            errors.append(f"Parameter --{name} is about a benchmark, but there is none. Add --benchmark, or leave it out.")
    ablation = _as_typed(params.get("ablation"), ["boolean"]) is True
    if str(params.get("folds")).endswith(".json") and not (runs or ablation):
        errors.append("Parameter --folds: a file is about a benchmark, but there is none. Add --benchmark, or give a number.")
    return errors


def _camel(name: str) -> str:
    head, *rest = name.split("-")
    return head + "".join(r[:1].upper() + r[1:] for r in rest)


def _flatten(schema: dict) -> tuple[dict[str, dict], list[str]]:
    """All parameters of a schema with groups, and the required ones."""
    groups = [schema, *schema.get("$defs", {}).values(), *schema.get("definitions", {}).values()]
    known: dict[str, dict] = {}
    required: list[str] = []
    for group in groups:
        known.update(group.get("properties", {}))
        required += group.get("required", [])
    return known, [name for name in required if name in known]


def _types(definition: dict) -> list[str]:
    kind = definition.get("type", [])
    return [kind] if isinstance(kind, str) else list(kind)


def _value_problem(value: Any, definition: dict) -> str | None:
    from jsonschema import Draft202012Validator
    from referencing import Registry

    validator = Draft202012Validator(definition, registry=Registry())  # an empty registry: no reference leaves the file
    typed = _as_typed(value, _types(definition))
    broken = isinstance(typed, float) and "number" not in _types(definition)  # 5.0 is valid JSON for 5, but not on a command line
    if not broken and validator.is_valid(typed):
        return None
    problem = f"'{_shown(value)}' is not allowed; expected is {definition.get('errorMessage', _expected(definition))}"
    if value is True and "boolean" not in _types(definition):
        problem += " (the option was given without a value)"
    if "enum" in definition and isinstance(value, str):
        near = closest(value, map(str, definition["enum"]))
        problem += f" (did you mean '{near}'?)" if near else ""
    return problem


def _place_problem(name: str, value: Any, form: str) -> str | None:
    """What is wrong with a parameter that names a file or folder, beyond its type."""
    if not isinstance(value, str) or not value or form not in ("file-path", "directory-path"):
        return None
    problem = _path_problem(value if form == "file-path" else value.rstrip("/") or "/")
    if problem and "shell" in problem and name in ("input", "predictions"):  # only the name of a sheet is seen by a shell
        problem = _path_problem(value.rsplit("/", 1)[-1])
    elif problem and "shell" in problem and name == "outdir":  # and nothing of the results' folder
        problem = None
    return f"'{_shown(value)}' {problem}" if problem else None


def _as_typed(value: Any, types: list[str]) -> Any:
    """A value as the type that the schema asks for, where text and type can be told from each other."""
    if isinstance(value, str) and ("string" not in types or re.fullmatch(r"\d+", value) and "integer" in types):
        text = value.strip()
        if re.fullmatch(r"[+-]?\d+", text, re.ASCII) and {"integer", "number"} & set(types):
            return int(text)
        if "number" in types and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII):
            return float(text)
        if "boolean" in types and text.lower() in ("true", "false"):
            return text.lower() == "true"
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number and "string" in types and not {"integer", "number"} & set(types):
        return str(value)  # --multiqc_title 2024
    return value


def _expected(definition: dict) -> str:
    """What a schema asks for, in words."""
    if "enum" in definition:
        return "one of " + ", ".join(str(v) for v in definition["enum"] if v is not None)
    text = " or ".join(TYPE_WORDS.get(t, t) for t in _types(definition) if t != "null") or "a value"
    limits = []
    for key, word in LIMIT_WORDS.items():
        if key in definition:
            limits.append(f"{word} {definition[key]}")
    text += " of " + " and ".join(limits) if limits else ""
    if "minLength" in definition or "maxLength" in definition:
        text += f" of {definition.get('minLength', 0)} to {definition.get('maxLength', 'any number of')} characters"
    if "pattern" in definition:
        text += f" that matches {definition['pattern']}"
    return text
