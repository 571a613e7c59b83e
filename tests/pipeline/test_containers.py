"""The project's image, built here from nothing, and the pipeline in it with podman, docker's command line, charliecloud and Apptainer."""

from __future__ import annotations

import csv
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from image_checks import check_bill_of_materials
from nf import site_config
from packaging.markers import Marker

ROOT = Path(__file__).resolve().parents[2]
IMAGE = re.search(r"spadit/core:[^'\"]+", (ROOT / "conf/base.config").read_text(encoding="utf-8"))[0]
NAME = IMAGE.replace("/", "-").replace(":", "-")
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
def lists(tmp_path_factory) -> Path:
    """Where the build of the images leaves its lists of what they hold."""
    return tmp_path_factory.mktemp("images")


def images(environment: dict, *arguments: object, minutes: float = 15) -> str:
    """What ./spadit images prints on standard output."""
    command = [sys.executable, ROOT / "spadit", "images", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 * minutes, env=environment)
    assert done.returncode == 0, f"./spadit images {arguments}: {done.stderr[-6000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def image(environment, lists) -> str:
    """The image, built unless its layers are there already: about 10 minutes."""
    exists = subprocess.run(["podman", "image", "exists", "docker.io/library/debian:bookworm-slim"], env=environment).returncode == 0
    if not exists and (os.geteuid() != 0 or not shutil.which("debootstrap")):
        pytest.skip("needs the image debian:bookworm-slim, or root and debootstrap to make it")
    if not exists and shutil.disk_usage("/").free < 30e9:
        pytest.skip("needs 30 GB of free disk to build the image")
    checked([ROOT / "containers/base.sh"], env=environment)
    images(environment, "build", "core", "--to", lists, minutes=25)
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


@pytest.fixture(scope="session")
def plain(environment, tmp_path_factory) -> Path:
    """The osmFISH slide, run with the programs of this machine."""
    folder = tmp_path_factory.mktemp("plain")
    demo = ROOT / "assets/demo"
    row = f"osmfish_cortex,{demo}/osmfish_cortex/st.h5ad,{demo}/osmfish_cortex/sc.h5ad,mouse"
    (folder / "sheet.csv").write_text(f"sample,st,sc,species\n{row}\n", encoding="utf-8")
    run_pipeline(folder, environment, "test", "--input", "sheet.csv")
    return folder


def check_same_numbers(folder: Path, plain: Path) -> None:
    """The osmFISH slide is the same to 1e-4, if not to the bit, as without a container."""
    inside, outside = (run / "results/slides/osmfish_cortex" for run in (folder, plain))
    first, second = (ad.read_h5ad(results / "osmfish_cortex.imputed.h5ad") for results in (inside, outside))
    assert first.obs_names.equals(second.obs_names) and first.var_names.equals(second.var_names)
    assert np.ptp(first.X) > 1
    np.testing.assert_allclose(first.X, second.X, rtol=0, atol=1e-4)
    tables = [
        pd.read_csv(results / "osmfish_cortex.metrics.csv").set_index(["method", "gene"]).sort_index() for results in (inside, outside)
    ]
    pd.testing.assert_frame_equal(*tables, rtol=0, atol=1e-4)


def test_image_holds_what_is_locked_and_nothing_of_this_machine(image, environment):
    def inside(command: str) -> str:
        return checked(["podman", "run", "--rm", image, "sh", "-c", command], env=environment).strip()

    assert inside("id -u") == "1000"
    assert "procps" in inside("ps --version")
    assert (
        inside(
            "cat /etc/pip.conf /etc/apt/apt.conf.d/99build /run/build-ca.crt 2>/dev/null; pip config list; ls ~/.cache 2>/dev/null; true"
        )
        == ""
    )
    assert inside("multiqc --version").startswith("multiqc, version")


def locked(image: str) -> dict[str, str]:
    """Package -> version of a lock file's entries that are meant for the image: Debian 12, Python 3.11."""
    text = (ROOT / "containers" / image / "requirements.txt").read_text(encoding="utf-8")
    system = {"python_full_version": "3.11.2", "python_version": "3.11", "sys_platform": "linux", "platform_machine": platform.machine()}
    entries = re.findall(r"^([\w-]+)==([^\s;]+) *(?:; *([^\\\n]+))?", text, re.M)
    return {name: version for name, version, marker in entries if not marker or Marker(marker.strip()).evaluate(system)}


def test_every_locked_package_loads_without_network_rights_and_root(image, environment):
    """Also: the size is below its limit, and the image was made from this revision's lock. The versions are compared once more here."""
    [found] = json.loads(images(environment, "test")).values()
    assert {name: found["versions"].get(name) for name in locked("core")} == locked("core")
    assert found["uid"] == 1000 and 5e9 < found["size"] < 9.5e9 and found["modules"] > 90


def test_what_the_image_holds_is_listed(image, lists):
    bom = json.loads((lists / f"{NAME}.sbom.json").read_text(encoding="utf-8"))
    check_bill_of_materials(bom)
    purls = {component["purl"].partition("?")[0] for component in bom["components"]}
    assert {f"pkg:pypi/{name}@{version}" for name, version in locked("core").items()} <= purls
    assert any(purl.startswith("pkg:deb/debian/python3.11@") for purl in purls)
    with open(lists / f"{NAME}.licences.csv", encoding="utf-8") as stream:
        assert len(list(csv.DictReader(stream))) == len(purls)


def test_peers_image_adds_what_is_locked(image, environment, lists):
    images(environment, "build", "peers", "--to", lists)
    [found] = json.loads(images(environment, "test", "peers")).values()
    both = {**locked("core"), **locked("peers")}
    assert {name: found["versions"].get(name) for name in both} == both
    peers = image.replace("core", "peers")
    assert checked(["podman", "run", "--rm", peers, "sh", "-c", "id -u; pip config list"], env=environment).strip() == "1000"


def test_podman(image, environment, plain, tmp_path):
    run_pipeline(tmp_path, environment, "test,podman")
    assert all("podman run" in script and image in script for script in task_scripts(tmp_path))
    check_results(tmp_path)
    check_same_numbers(tmp_path, plain)


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


def test_apptainer(image, environment, plain, tmp_path):
    """As its page says: an image file made from the image's archive, named in the example of a site.config."""
    if not shutil.which("apptainer"):
        pytest.skip("apptainer is not installed")
    if shutil.disk_usage(tmp_path).free < 30e9:
        pytest.skip("needs 30 GB of free disk to make the image file")
    folder = tmp_path / "images"
    environment = {**environment, "APPTAINER_CACHEDIR": str(folder / "cache"), "APPTAINER_TMPDIR": str(folder)}
    try:
        images(environment, "save", "core", "--to", folder)
        checked(["apptainer", "build", "spadit-core.sif", f"docker-archive:{NAME}.tar"], minutes=40, cwd=folder, env=environment)
        checked(["apptainer", "exec", "spadit-core.sif", "python3", "/opt/spadit/check.py"], cwd=folder, env=environment)
        site = site_config("apptainer").replace("/shared/images", str(folder))
        (tmp_path / "site.config").write_text(site, encoding="utf-8")
        run_pipeline(tmp_path, environment, "test,apptainer", "-c", "site.config")
        assert all("apptainer exec" in script and f"{folder}/spadit-core.sif" in script for script in task_scripts(tmp_path))
        check_results(tmp_path)
        check_same_numbers(tmp_path, plain)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
