"""What must not be in the code, and what must not get out: no pickle, no shell, no markup from data, no secrets, nobody's rights."""

from __future__ import annotations

import ast
import json
import os
import re
import stat

import pytest

from spadit import cli
from spadit.errors import InputError, SpaditError, printable
from spadit.files import finished
from spadit.inputs import masked

# ---- the code ----------------------------------------------------------------------------------------------------------

FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.load",
    "subprocess.getoutput", "subprocess.getstatusoutput", "shutil.unpack_archive",
}  # fmt: skip
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "telnetlib"}


def sources(root):
    """Every Python file that a user runs, with its syntax tree."""
    paths = [*(root / "bin").rglob("*.py"), *(root / "benchmarks").rglob("*.py"), *(root / "containers").rglob("*.py"), root / "spadit"]
    assert len(paths) > 60
    for path in paths:
        yield path.relative_to(root), ast.parse(path.read_text(encoding="utf-8"))


def dotted(node) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def problems_of(tree) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"line {node.lineno}: import of {n}" for n in names if n.split(".")[0] in FORBIDDEN_MODULES]
        if not isinstance(node, ast.Call):
            continue
        name, options = dotted(node.func), {k.arg: k.value for k in node.keywords}
        if name == "torch.load" and getattr(options.get("weights_only"), "value", False) is True:
            continue
        # a loader class of its own, made from BaseLoader, which leaves every value a text
        if name == "yaml.load" and dotted(options.get("Loader")) == "Loader" and "BaseLoader" in ast.unparse(tree):
            continue
        if name in FORBIDDEN_CALLS or name.split(".")[-1] in ("extractall", "read_pickle", "to_pickle", "mktemp"):
            found.append(f"line {node.lineno}: {name}")
        if getattr(options.get("shell"), "value", False) is True or getattr(options.get("allow_pickle"), "value", False) is True:
            found.append(f"line {node.lineno}: {name} with a shell or pickles")
    return found


def test_no_pickle_no_eval_no_shell(root):
    assert {str(path): problems_of(tree) for path, tree in sources(root) if problems_of(tree)} == {}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from joblib import load", "eval('1')", "torch.load(p)", "torch.load(p, weights_only=False)",
        "yaml.load(t, yaml.Loader)", "subprocess.run(c, shell=True)", "np.load(p, allow_pickle=True)",
        "tempfile.mktemp()", "df.to_pickle(p)", "archive.extractall(p)",
    ],
)  # fmt: skip
def test_the_scan_finds_it(code):
    assert problems_of(ast.parse(code))


@pytest.mark.parametrize("code", ["network.eval()", "torch.load(p, weights_only=True)", "yaml.safe_load(t)", "tempfile.mkdtemp()"])
def test_the_scan_leaves_what_is_fine(code):
    assert not problems_of(ast.parse(code))


def nextflow_scripts(root):
    for path in [root / "main.nf", *(f for d in ("modules/local", "subworkflows", "workflows") for f in (root / d).rglob("*.nf"))]:
        yield path.relative_to(root), path.read_text(encoding="utf-8")


def test_no_module_runs_what_data_say(root):
    """Neither a pickle nor an evaluated text in any script block; shell tools that interpret their input don't occur."""
    for path, text in nextflow_scripts(root):
        text = re.sub(r"eval\((?:'[^\n]*?'|'''[^\n]*?''')\)", "", text)  # Nextflow's own output qualifier, with a constant text
        for word in (
            r"\beval\b",
            r"\bpickle\b",
            r"\bsh -c\b",
            r"\bbash -c\b",
            r"\bsource\b",
            r"\bcurl\b",
            r"\bwget\b",
            r"/tmp\b",
            r"\bmktemp\b",
        ):
            assert not re.search(word, text), f"{path}: {word}"


QUOTED = re.compile(r"'[^'\n]*\$\{[^}]*\}[^'\n]*'")
STAGED_OR_CHECKED = {
    # staged files, whose names Nextflow escapes
    "slide", "reference", "split", "model", "training", "imputed", "metrics", "evaluation", "h5ad", "input", "genes", "folds", "plan",
    "outside", "qc_slide", "qc_reference", "pairing", "curves", "plots", "inputs", "params_json", "versions", "sheet", "schema_input",
    "schema_params", "predictions", "resources", "bin_size",
    # made of constants, numbers and values that are quoted where they are put together
    "args", "task.cpus", "device", "platform", "batch", "species", "given", "wanted", "elsewhere", "compared", "begin", "what", "job.what",
    "job.fold", "job.rate", "job.seed", "files[what]",
    "meta.id",  # in stubs, and within double quotes; the sheet allows A-Za-z0-9._- alone
    "outside_names.join(' ')",  # the sheet of predictions allows A-Za-z0-9._- alone
}  # fmt: skip


def test_every_value_in_a_script_is_quoted_or_known_to_be_safe(root):
    """A new ${value} in a script has to be put into single quotes, or into the list above with a reason."""
    for path, text in nextflow_scripts(root):
        if path.parts[0] != "modules":
            continue
        for block in re.findall(r'"""(.*?)"""', text, flags=re.DOTALL):
            bare = QUOTED.sub("", block)
            for value in re.findall(r"(?<!\\)\$\{([^}]*)\}", bare):
                assert value.strip() in STAGED_OR_CHECKED, f"{path}: ${{{value}}} stands without quotes"


# ---- containers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["docker", "podman"])
def test_containers_have_no_more_rights_than_needed(root, name):
    text = (root / "conf" / f"{name}.config").read_text(encoding="utf-8")
    options = re.findall(r"^(docker|podman)\.runOptions\s*=\s*'(.*)'", text, flags=re.MULTILINE)
    assert options and "runOptions" not in (root / "conf" / "gpu.config").read_text(encoding="utf-8")  # a GPU takes nothing of it away
    for engine, given in options:
        assert "--cap-drop=ALL" in given and "--security-opt=no-new-privileges" in given
        assert ("-u $(id -u):$(id -g)" if engine == "docker" else "--user 0:0") in given
        assert not re.search(
            r"--privileged|--cap-add|seccomp=unconfined|--(pid|ipc|network|net|userns)[= ]host|docker\.sock|--device /", given
        )


def test_no_configuration_gives_rights(root):
    for path in [*(root / "conf").glob("*.config"), root / "nextflow.config"]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"privileged|cap-add|unconfined|add-caps|allow-setuid|fakeroot|docker\.sock", text), path.name


def test_the_image_doesn_t_run_as_root(root):
    text = (root / "containers/core/Dockerfile").read_text(encoding="utf-8")
    users = re.findall(r"^USER\s+(\S+)", text, flags=re.MULTILINE)
    assert users and users[-1] not in ("root", "0", "0:0")


# ---- secrets and words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:hunter2@host/x.csv", "https://***@host/x.csv"),
        ("https://me:hun@ter2@host/x.csv", "https://***@host/x.csv"),
        ("https://hunter2@host/x.csv", "https://***@host/x.csv"),
        ("https://host/x.h5ad?X-Amz-Signature=hunter2&x=1", "https://host/x.h5ad?…"),
        ("see https://a:hunter2@b/c and s3://b/k?hunter2", "see https://***@b/c and s3://b/k?…"),
        ("/data/me@home/x.csv", "/data/me@home/x.csv"),
        ("what? yes", "what? yes"),
    ],
)
def test_urls_are_shown_without_secrets(text, shown):
    assert masked(text) == shown and "hunter2" not in shown


def test_nothing_that_a_file_holds_garbles_a_terminal():
    assert printable("a\x1b[2Jb\u202ec\nd\0") == "a\\x1b[2Jb\\u202ec d\\x00"
    error = InputError("x" * 10_000, "y")
    assert len(error.message) == 1000 and error.message.endswith("…")


class Arguments:
    id, role, threads, failure, usage = "s1", "slide", 1, None, None


@pytest.mark.parametrize(
    ("error", "code", "traceback"),
    [
        (SpaditError("It is wrong.", "Mend it."), 2, False),
        (MemoryError(), 137, False),
        (OSError(28, "No space left on device", "out.h5ad"), 1, False),
        (RuntimeError("boom"), 2, True),
    ],
)
def test_how_each_kind_of_failure_ends(capsys, error, code, traceback):
    """Only a bug shows a traceback, because only that is to be reported with one."""

    def work(_):
        raise error

    assert cli.run("read", Arguments(), work) == code
    said = capsys.readouterr().err
    assert ("Traceback" in said) == traceback and "s1" in said


# ---- files -------------------------------------------------------------------------------------------------------------


def test_temporary_files_are_private(tmp_path):
    before = os.umask(0)
    try:
        with finished(tmp_path / "out.txt") as path:
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            path.write_text("x")
    finally:
        os.umask(before)
    assert [p.name for p in tmp_path.iterdir()] == ["out.txt"]


def test_a_link_in_an_output_s_place_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "precious").write_text("keep me")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "precious").write_text("keep me")
    for name, target in (("out.txt", "precious"), ("out", "folder")):
        (tmp_path / name).symlink_to(tmp_path / target)
        with finished(tmp_path / name) as path:
            path.write_text("new")
        assert not (tmp_path / name).is_symlink() and (tmp_path / name).read_text() == "new"
    assert (tmp_path / "precious").read_text() == (tmp_path / "folder" / "precious").read_text() == "keep me"


# ---- pages -------------------------------------------------------------------------------------------------------------

HOSTILE = "<img src=x onerror=alert(1)>\"'</script><script>alert(2)</script>&amp;{{7*7}}"


def test_the_cohort_s_pages_escape_what_data_say(tmp_path):
    """A failure's reason may hold names from a file: MultiQC prints HTML as it is given, so it has to be escaped before."""
    from spadit.contracts import Failure, Inputs
    from spadit.report import cohort

    inputs = Inputs(slides=[{"where": "Row 2", "sample": "one", "st": "a", "sc": "b", "reference": "ref"}])
    (tmp_path / "facts").mkdir()
    Failure("one", "slide", "read", f"It holds {HOSTILE}.", HOSTILE).to_json(tmp_path / "facts" / "one.read.failure.json")
    params = {"multiqc_title": HOSTILE, "input": "s.csv"}
    cohort.summarize(inputs, tmp_path / "facts", params, {HOSTILE: {HOSTILE: HOSTILE}}, tmp_path / "mqc")
    pages = list((tmp_path / "mqc").glob("*_mqc.json"))
    assert pages
    shown = "".join(page.read_text(encoding="utf-8") for page in pages)
    assert "onerror" in shown and "<img src=x" not in shown and "<script" not in shown and "</script" not in shown
    assert json.loads((tmp_path / "mqc" / "slides.json").read_text())[0]["status"] == "failed"


def test_the_slide_s_page_escapes_and_runs_its_own_script_only(root):
    """Every value goes through a template with escaping on; put in unescaped are the project's own scripts (the only ones that the page
    allows, by checksum) and style, numbers in base64, and JSON without '<'."""
    from spadit.report import explorer

    text = (root / "bin/spadit/report/slide.py").read_text(encoding="utf-8")
    assert "autoescape=True" in text and "Markup(" not in text
    template = (root / "bin/spadit/report/slide.html.j2").read_text(encoding="utf-8")
    assert sorted(re.findall(r"\{\{\s*([\w.]+)\s*\|\s*safe", template)) == [
        "allowed", "css", "drawn_json", "drawn_values", "script",
    ]  # fmt: skip
    assert "</script" not in explorer.as_json({"name": HOSTILE}) and "script-src {{ allowed|safe }}" in template
    assert "default-src 'none'" in template and "autoescape false" not in template
