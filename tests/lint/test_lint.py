"""The style of every file, as the tools of its kind see it. ./spadit test puts the tools in the PATH."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def check(*command: str) -> None:
    """Run a linter in the repository; its output is the message when it finds something."""
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not in the PATH; ./spadit test puts it there")
    environment = {**os.environ, "NFCORE_NO_VERSION_CHECK": "1", "NO_COLOR": "1", "COLUMNS": "140"}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"


def tracked_texts() -> list[Path]:
    """The text files of the repository (without git: none)."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [f for f in files if f.is_file() and f.suffix not in {".h5ad", ".png", ".gz", ".jpg", ".pdf", ".ico", ".safetensors"}]


def test_ruff():
    check("ruff", "check", ".")


def test_nextflow_lint():
    version = subprocess.run(["nextflow", "-version"], capture_output=True, text=True).stdout if shutil.which("nextflow") else ""
    found = re.search(r"version (\d+)\.(\d+)", version)
    if not found or (int(found[1]), int(found[2])) < (25, 4):
        pytest.skip("nextflow lint needs Nextflow 25.04 or newer")
    check("nextflow", "lint", "-o", "concise", "main.nf", "nextflow.config", "workflows", "subworkflows", "modules", "conf")


def test_nf_core_lint():
    check("nf-core", "--hide-progress", "pipelines", "lint", "--dir", ".")


def test_prettier():
    check("prettier", "--check", ".")


def test_no_package_registry_is_named():
    """Users have mirrors of their own: no file may say where packages come from."""
    pattern = re.compile(r"(^|[^a-z-])(--)?(extra-)?index" + r"-url|files\.pythonhosted|registry\.npmjs|repo1?\.maven", re.M)
    naming = [str(f.relative_to(ROOT)) for f in tracked_texts() if pattern.search(f.read_text(encoding="utf-8", errors="replace"))]
    assert naming == []


def test_versions_agree():
    """One version: of the library, the manifest, the images and their labels."""
    version = re.search(r'__version__ = "(.+)"', (ROOT / "bin/spadit/__init__.py").read_text(encoding="utf-8"))[1]
    assert re.search(r"\n\s*version\s*=\s*'(\d.+)'", (ROOT / "nextflow.config").read_text(encoding="utf-8"))[1] == version
    assert set(re.findall(r"spadit/[a-z]+:([^'\"]+)", (ROOT / "conf/base.config").read_text(encoding="utf-8"))) == {version}
    for image in ("core", "peers"):
        dockerfile = (ROOT / "containers" / image / "Dockerfile").read_text(encoding="utf-8")
        assert f'image.version="{version}"' in dockerfile and f"spadit/{image}:{version} " in dockerfile
    assert f"ARG VERSION={version}\n" in dockerfile  # the core that peers are put on


def locked(name: str) -> dict[str, str]:
    """Package -> version of a lock file; each has at least one hash."""
    text = (ROOT / name).read_text(encoding="utf-8")
    entries = re.findall(r"^([a-z0-9.-]+)==([^\s;]+)([^\n]*)\\\n((?:    --hash=sha256:[0-9a-f]{64}.*\n)+)", text, re.M)
    assert len(entries) == len(re.findall(r"^\w", text, re.M)), f"{name}: a package without a hash"
    return {package: version for package, version, *_ in entries}


def test_peers_lie_on_top_of_the_core():
    """Nothing is installed twice, what builds is the core's, and every method's package is locked."""
    core, peers = locked("containers/core/requirements.txt"), locked("containers/peers/requirements.txt")
    assert not set(core) & set(peers)
    [(package, version)] = locked("containers/peers/build.txt").items()
    assert package not in peers and core[package] == version
    assert peers["torchvision"].split(".")[1:] == [str(int(core["torch"].split(".")[1]) + 15), core["torch"].split(".")[2]]
    from spadit.methods import METHODS

    required = {name.lower() for method in METHODS.values() for name in method.requires}
    assert required <= set(peers), "a method's package is not in containers/peers"
    extra = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("peers = [")[2].partition("]")[0]
    assert required == set(re.findall(r'^ +"([a-z-]+)', extra, re.M)) - {"torchvision"}, "the extra 'peers' of pyproject.toml"
