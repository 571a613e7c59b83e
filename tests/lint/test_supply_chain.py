"""What the project is made of: pinned with hashes, nothing fetched while the pipeline runs, no secrets."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# modules that fetch things, and words that do so in a shell script
FETCHES_IN_PYTHON = {"ftplib", "fsspec", "http.client", "httpx", "boto3", "pip", "pooch", "requests", "socket", "urllib.request", "urllib3"}
FETCHES_IN_SHELL = re.compile(
    r"\b(curl|wget|(pip3?|conda|mamba|npm|apt|apt-get|uv)\s+(-\S+\s+)*(install|download|create|add)|git\s+clone|urlopen|urlretrieve)\b"
)
FETCHES_BY_PACKAGE = re.compile(r"\bhub\.load|\bdownload\s*=\s*True|\burlretrieve\b|\bfrom_pretrained\(")  # packages that fetch for others

SECRETS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bgithub_pat_\w{22}|\bglpat-[\w-]{20}"
    r"|\bhf_[A-Za-z0-9]{34}\b"
    r"|\bxox[abpr]-[\w-]{10}|\bpypi-AgEI\w|[a-z]+://[^\s/:@'\"{}]+:[^\s/@'\"{}$]+@[\w-]+\.\w"
    r"|(?i:(?<![a-z])(password|passwd|api_?key|secret|access_?token)['\"]?\s*[:=]\s*['\"][^'\"\s]{6,}['\"])"
)


def tracked(*patterns: str) -> list[Path]:
    """Files that git knows, of those patterns."""
    done = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("needs a git clone")
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_every_requirement_file_is_pinned_with_hashes():
    files = [path for path in tracked("*.txt") if path.name in ("requirements.txt", "build.txt")]
    assert {str(path.relative_to(ROOT)) for path in files} >= {"containers/core/requirements.txt", "tests/requirements.txt"}
    for path in files:
        entries = re.findall(r"^[^\s#].*(?:\n[ \t]+\S.*)*", path.read_text(encoding="utf-8"), re.M)
        assert entries
        for entry in entries:
            pinned = re.match(r"[A-Za-z0-9][\w.-]*==\d[\w.+!]*[ \t]*(;.*)?\\\n", entry)
            assert pinned and re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), f"{path}: {entry.splitlines()[0]}"
    lock = json.loads((ROOT / "tests/prettier/package-lock.json").read_text(encoding="utf-8"))
    assert all(entry["integrity"].startswith("sha512-") for name, entry in lock["packages"].items() if name)
    versions = re.findall(r"<version>(.+)</version>", (ROOT / "containers/nextflow/pom.xml").read_text(encoding="utf-8"))
    assert versions and all(re.fullmatch(r"\d+(\.\d+)*", version) for version in versions), "a range or LATEST isn't pinned"


def test_images_install_with_hashes_only():
    """Each pip of an image and of the launcher checks hashes; the only others are those of a wheel that the builder names with its hash."""
    for name in ("containers/core/install.sh", "containers/peers/Dockerfile", "containers/gpu/Dockerfile"):
        text = (ROOT / name).read_text(encoding="utf-8")
        lines = re.findall(r"^.*\bpip\b.* install .*$", text, re.M)
        assert lines
        for line in lines:
            assert "--no-deps" in line and ("--require-hashes" in line or re.search(r'"\$(torch|FLASH_ATTN)"', line)), f"{name}: {line}"


def imported(path: Path) -> set[str]:
    """Names of the modules that a Python file imports, each with its parents."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {".".join(name.split(".")[: i + 1]) for name in names for i in range(name.count(".") + 1)}


def test_nothing_is_fetched_while_the_pipeline_runs():
    executables = tracked("bin/*.py", "bin/**/*.py")
    scripts = tracked("main.nf", "nextflow.config", "workflows", "subworkflows", "modules", "conf")
    assert len(executables) > 50 and len(scripts) > 40
    for path in executables:
        assert not imported(path) & FETCHES_IN_PYTHON, f"{path} imports {imported(path) & FETCHES_IN_PYTHON}"
        found = FETCHES_BY_PACKAGE.search(path.read_text(encoding="utf-8"))
        assert not found, f"{path}: {found[0]}"
    for path in scripts:
        found = FETCHES_IN_SHELL.search(path.read_text(encoding="utf-8", errors="replace"))
        assert not found, f"{path}: {found[0]}"


@pytest.mark.parametrize("line", ["curl -O x", "pip install x", "python -m pip -q install x", "apt-get update && apt-get install x"])
def test_the_search_for_fetches_finds_them(line):
    assert FETCHES_IN_SHELL.search(line)


def test_the_search_for_imports_finds_them(tmp_path):
    path = tmp_path / "a.py"
    path.write_text("def f():\n    from urllib import request\n    import requests.sessions\n", encoding="utf-8")
    assert imported(path) & FETCHES_IN_PYTHON == {"urllib.request", "requests"}


def test_no_secrets():
    made_up = {Path(__file__).resolve(), ROOT / "tests/pipeline/test_hostile.py"}
    for path in tracked():
        found = SECRETS.search(path.read_text(encoding="utf-8", errors="replace")) if path.suffix != ".h5ad" else None
        assert not found or path in made_up, f"{path}: {found[0][:20]}…"


@pytest.mark.parametrize(
    "line", ["-----BEGIN RSA PRIVATE KEY-----", "api_key = 'abcdef123'", "https://me:abc123@example.org/simple", "AKIA" + "A" * 16]
)
def test_the_search_for_secrets_finds_them(line):
    assert SECRETS.search(line)
