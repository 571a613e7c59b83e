"""./spadit bundle: what it makes is unpacked, set up and run in a network namespace that has no way out."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from nf import ROOT

pytestmark = pytest.mark.slow

# What CHECK_INPUTS imports. The whole lock is 3.5 GB to fetch and minutes to install: here only the way is walked, by a copy of the
# project that asks for less
NEEDED = ("attrs", "jsonschema", "jsonschema-specifications", "pyyaml", "referencing", "rpds-py", "typing-extensions")
NEEDED_BY_PEERS = ("absl-py", "docrep")  # docrep comes as a source archive


def reduced(text: str, kept: tuple[str, ...]) -> str:
    """A lock file with those packages only."""
    entries = re.findall(r"^[a-z0-9].*\n(?:[ \t]+\S.*\n)+", text, re.M)
    return "".join(entry for entry in entries if re.match(r"[\w.-]+", entry)[0] in kept)


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A git clone of the working tree with reduced lock files."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("needs a git clone")
    folder = tmp_path_factory.mktemp("bundle") / "clone of a user"
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)

    def edit(name: str, change) -> None:
        path = folder / name
        before = path.read_text(encoding="utf-8")
        after = change(before)
        assert after != before, f"{name}: nothing was changed"
        path.write_text(after, encoding="utf-8")

    edit("containers/core/requirements.txt", lambda text: reduced(text, NEEDED))
    edit("containers/peers/requirements.txt", lambda text: reduced(text, NEEDED_BY_PEERS))
    edit("spadit", lambda text: re.sub(r'check = "import lightning.*"', 'check = "import jsonschema, yaml"', text))
    edit("spadit", lambda text: re.sub(r"CORE_(SIZE|DOWNLOADS) = .*", r"CORE_\1 = 0.1 * GB", text))
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], cwd=folder, check=True, timeout=60, capture_output=True)
    (folder / "secret.txt").write_text("git doesn't know me", encoding="utf-8")
    return folder


def test_bundle_installs_and_runs_without_network(clone, tmp_path):
    no_network = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    if not shutil.which("unshare") or subprocess.run([*no_network, "true"], capture_output=True, timeout=20).returncode:
        pytest.skip("needs unshare and the right to make a network namespace")
    if not shutil.which("java"):
        pytest.skip("needs Java")
    python = os.path.realpath(sys.executable)  # of the machine, not of an environment
    archive = tmp_path / "bundle.tar"
    made = subprocess.run([python, "spadit", "bundle", "--to", archive], cwd=clone, capture_output=True, text=True, timeout=280)
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("sha256sum -c bundle.tar.sha256 && tar -xf bundle.tar && cd spadit-0.1.0 && ./spadit demo")
    names = tarfile.open(archive).getnames()
    assert all(name.startswith("spadit-0.1.0/") for name in names) and not any("secret" in name or "/.git/" in name for name in names)
    wheels = [name for name in names if "/bundle/wheels/" in name]
    assert len(wheels) >= len(NEEDED) + len(NEEDED_BY_PEERS) and len([n for n in names if re.search(r"/bundle/jars/.*\.jar$", n)]) > 30
    assert sorted(tmp_path.iterdir()) == [archive, Path(f"{archive}.sha256")], "something is left of making it"

    # the machine without network: no caches, no settings of pip or Maven, no Nextflow
    home, programs = tmp_path / "home", tmp_path / "programs"
    home.mkdir()
    programs.mkdir()
    (programs / "python3").symlink_to(python)
    # the reduced environment has no MultiQC, whose version a stub asks for
    (programs / "multiqc").write_text("#!/bin/sh\necho multiqc, version 0\n", encoding="utf-8")
    (programs / "multiqc").chmod(0o755)
    java = {name: os.environ[name] for name in ("JAVA_HOME", "JAVA_CMD") if name in os.environ}
    path = os.pathsep.join([str(programs), str(Path(shutil.which("java")).parent), "/usr/bin", "/bin"])
    variables = {"HOME": str(home), "PATH": path, "LC_ALL": "C.UTF-8", "NXF_ANSI_LOG": "false", **java}
    if shutil.which("nextflow", path=path):
        pytest.skip("a Nextflow of the system would be taken")

    def offline(*command, seconds: int = 250, cwd: Path = tmp_path) -> subprocess.CompletedProcess:
        return subprocess.run([*no_network, *command], cwd=cwd, env=variables, capture_output=True, text=True, timeout=seconds)

    alone = offline("python3", "-c", "import socket; socket.create_connection(('192.0.2.1', 80), 5)", seconds=30)
    assert alone.returncode and "unreachable" in alone.stderr, "this isn't a machine without network"
    unpacked = offline("sh", "-c", "sha256sum -c bundle.tar.sha256 && tar -xf bundle.tar")
    assert unpacked.returncode == 0, unpacked.stderr
    top = tmp_path / "spadit-0.1.0"
    run = offline("./spadit", "run", "-profile", "test", "-stub-run", "--outdir", "results", cwd=top)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "from the bundle" in run.stderr and run.stdout.count("IMPUTE (") == 2 and "REPORT_COHORT:MULTIQC" in run.stdout
    assert (top / "results/multiqc/multiqc_report.html").exists()
    installed = list((home / ".cache/spadit").glob("env-*/lib/python*/site-packages/jsonschema-*.dist-info"))
    assert installed, "the tasks' packages didn't come from the bundle"

    # another Python is refused before anything is made
    facts = json.loads((top / "bundle/bundle.json").read_text(encoding="utf-8"))
    (top / "bundle/bundle.json").write_text(json.dumps({**facts, "python": "3.8"}), encoding="utf-8")
    shutil.rmtree(next((home / ".cache/spadit").glob("env-*[0-9a-f]")))
    refused = offline("./spadit", "run", "-profile", "test", cwd=top)
    assert refused.returncode == 1 and "This bundle is for Python 3.8" in refused.stderr
