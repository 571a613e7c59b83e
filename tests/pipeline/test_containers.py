"""The project's image, built here from nothing, and the pipeline in it with podman, docker's command line and charliecloud."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import anndata as ad
import pytest

ROOT = Path(__file__).resolve().parents[2]
IMAGE = re.search(r"spadit/core:[^'\"]+", (ROOT / "conf/base.config").read_text(encoding="utf-8"))[0]
SAMPLES = ("osmfish_cortex", "pdac_st_mit")

pytestmark = pytest.mark.container


def checked(command: list, minutes: float = 10, **options) -> str:
    """Run a command and return what it printed; its last lines are the message when it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60 * minutes, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout[-6000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> dict:
    """Environment variables with podman settings that work on this machine."""
    if not shutil.which("podman"):
        pytest.skip("podman is not installed")
    environment = dict(os.environ)
    if "CONTAINERS_CONF" not in environment:
        conf = tmp_path_factory.mktemp("podman") / "containers.conf"
        checked([ROOT / "containers/podman-conf.sh", conf])
        environment["CONTAINERS_CONF"] = str(conf)
    return environment


@pytest.fixture(scope="session")
def image(environment) -> str:
    """The image, built unless its layers are there already: about 10 minutes."""
    exists = subprocess.run(["podman", "image", "exists", "docker.io/library/debian:bookworm-slim"], env=environment).returncode == 0
    if not exists and (os.geteuid() != 0 or not shutil.which("debootstrap")):
        pytest.skip("needs the image debian:bookworm-slim, or root and debootstrap to make it")
    if not exists and shutil.disk_usage("/").free < 30e9:
        pytest.skip("needs 30 GB of free disk to build the image")
    checked([ROOT / "containers/base.sh"], env=environment)
    checked([ROOT / "containers/build.sh"], minutes=25, env=environment)
    return IMAGE


def run_pipeline(folder: Path, environment: dict, profile: str, *arguments: str) -> str:
    command = [sys.executable, ROOT / "spadit", "run", "-profile", profile, "--outdir", "results", "-ansi-log", "false", *arguments]
    return checked(command, minutes=20, cwd=folder, env=environment)


def task_scripts(folder: Path) -> list[str]:
    return [p.read_text(encoding="utf-8") for p in folder.glob("work/*/*/.command.run")]


def check_results(folder: Path) -> None:
    """Both slides are imputed, and the files belong to who started the run."""
    for sample in SAMPLES:
        path = folder / "results" / "slides" / sample / f"{sample}.imputed.h5ad"
        assert ad.read_h5ad(path, backed="r").n_vars >= 33
        assert path.stat().st_uid == os.getuid()
    assert (folder / "results" / "multiqc" / "multiqc_report.html").stat().st_size > 1e6


def test_image_holds_what_is_locked_and_nothing_of_this_machine(image, environment):
    def inside(command: str) -> str:
        return checked(["podman", "run", "--rm", image, "sh", "-c", command], env=environment).strip()

    assert inside("id -u") == "1000"
    assert "procps" in inside("ps --version")
    locked = dict(re.findall(r"^([\w-]+)==(\S+)(?: \\)?$", (ROOT / "containers/core/requirements.txt").read_text(encoding="utf-8"), re.M))
    found = dict(line.split("==") for line in inside("pip list --format freeze").splitlines() if "==" in line)
    normal = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found.items()}
    assert locked["torch"] == normal["torch"] and {n: normal.get(n) for n in locked} == locked
    assert (
        inside(
            "cat /etc/pip.conf /etc/apt/apt.conf.d/99build /run/build-ca.crt 2>/dev/null; pip config list; ls ~/.cache 2>/dev/null; true"
        )
        == ""
    )
    assert inside("multiqc --version").startswith("multiqc, version")


def test_peers_image_adds_what_is_locked(image, environment):
    checked([ROOT / "containers/build.sh", "peers"], minutes=10, env=environment)
    peers = image.replace("core", "peers")
    names = "novosparc, scvi.external, tangram, torchvision"
    checked(["podman", "run", "--rm", peers, "python3", "-c", f"import {names}"], env=environment)
    lock = (ROOT / "containers/peers/requirements.txt").read_text(encoding="utf-8")
    found = checked(["podman", "run", "--rm", peers, "pip", "list", "--format", "freeze"], env=environment)
    normal = {re.sub(r"[-_.]+", "-", n).lower(): v for n, v in re.findall(r"^(\S+)==(\S+)$", found, re.M)}
    locked = dict(re.findall(r"^([\w-]+)==([^\s;]+)", lock, re.M))
    assert {name: normal.get(name) for name in locked} == locked
    assert checked(["podman", "run", "--rm", peers, "sh", "-c", "id -u; pip config list"], env=environment).strip() == "1000"


def test_podman(image, environment, tmp_path):
    run_pipeline(tmp_path, environment, "test,podman")
    assert all("podman run" in script and image in script for script in task_scripts(tmp_path))
    check_results(tmp_path)


def test_docker_command_line(image, environment, tmp_path):
    """podman takes docker's arguments: the wiring of -profile docker, without its daemon."""
    shim = tmp_path / "bin" / "docker"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {shutil.which("podman")} "$@"\n', encoding="utf-8")
    shim.chmod(0o755)
    path = f"{shim.parent}{os.pathsep}{environment['PATH']}"
    run_pipeline(tmp_path, {**environment, "PATH": path}, "test,docker", "-stub-run")
    assert all("docker run" in script for script in task_scripts(tmp_path))


def test_charliecloud(image, environment, tmp_path):
    if not shutil.which("ch-run"):
        pytest.skip("charliecloud is not installed")
    environment = {"USER": "root", **environment, "NXF_CHARLIECLOUD_CACHEDIR": str(tmp_path / "images")}
    try:
        checked([ROOT / "containers/charliecloud.sh"], env=environment)
        run_pipeline(tmp_path, environment, "test,charliecloud")
        assert all("ch-run" in script for script in task_scripts(tmp_path))
        check_results(tmp_path)
    finally:
        shutil.rmtree(tmp_path / "images", ignore_errors=True)
