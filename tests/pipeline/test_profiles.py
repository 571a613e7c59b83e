"""Profiles that can't be run here are resolved: what ``nextflow config`` makes of them is compared with what is expected.

A configuration made here has every file of conf/, with parameters, and every ``site.config`` of docs/running, as a profile of its own,
so that one start of Nextflow resolves them all. The strict parser keeps profiles apart when all are shown (the older one mixes them).
"""

from __future__ import annotations

import hashlib
import re
import subprocess

import pytest
from nf import ROOT, command, nextflow, site_config

GIVEN = {
    "registry": "registry.example.org/lab", "aws_queue": "queue", "aws_region": "eu-central-1", "google_project": "project",
    "google_location": "europe-west4", "azure_batch_account": "batch", "azure_storage_account": "storage", "azure_location": "westeurope",
    "k8s_namespace": "lab", "k8s_claim": "claim",
}  # fmt: skip
HARDENED = "--cap-drop=ALL --security-opt=no-new-privileges"
GPU = "process.'withLabel:process_gpu|process_method'.containerOptions"
BY_SCHEDULER = '{ [slurm: "--gres=gpu:${task.accelerator.request}", lsf: "-gpu num=${task.accelerator.request}"][task.executor] ?: \'\' }'
EXPECTED = {
    "docker": {
        "docker.enabled": "true", "docker.runOptions": f"'-u $(id -u):$(id -g) -e HOME=/tmp {HARDENED}'",
        GPU: "{ task.accelerator ? '--gpus all' : '' }",
    },
    "podman": {"podman.enabled": "true", "docker.enabled": "false", GPU: "{ task.accelerator ? '--device nvidia.com/gpu=all' : '' }"},
    "singularity": {"singularity.enabled": "true", "singularity.autoMounts": "true", GPU: "{ task.accelerator ? '--nv' : '' }"},
    "apptainer": {"apptainer.enabled": "true", "docker.enabled": "false", GPU: "{ task.accelerator ? '--nv' : '' }"},
    "charliecloud": {"charliecloud.enabled": "true", "charliecloud.writeFake": "false", "docker.enabled": "false"},
    "shifter": {"shifter.enabled": "true", "docker.enabled": "false"},
    "conda": {"conda.enabled": "true", "docker.enabled": "false", "process.conda": f"'{ROOT}/containers/conda/environment.yml'"},
    "gpu": {
        "process.'withLabel:process_gpu'.accelerator": "1", "process.'withLabel:process_gpu'.clusterOptions": BY_SCHEDULER,
        "process.'withName:RUN_METHOD|RUN_PEER'.accelerator": "1",
    },
    "arm64": {"process.arch": "'linux/arm64'"},
    "slurm": {"process.executor": "'slurm'", "executor.queueSize": "100"},
    "sge": {"process.executor": "'sge'", "process.penv": "'smp'"},
    "lsf": {"process.executor": "'lsf'"},
    "pbs": {"process.executor": "'pbspro'"},
    "awsbatch": {
        "process.executor": "'awsbatch'", "process.queue": "'queue'", "aws.region": "'eu-central-1'", "aws.batch.maxSpotAttempts": "5",
    },
    "googlebatch": {
        "process.executor": "'google-batch'", "google.project": "'project'", "google.location": "'europe-west4'",
        "google.batch.spot": "true", "google.batch.maxSpotAttempts": "5",
    },
    "azurebatch": {
        "process.executor": "'azurebatch'", "azure.batch.accountName": "'batch'", "azure.batch.location": "'westeurope'",
        "azure.storage.accountName": "'storage'", "azure.batch.autoPoolMode": "true", "azure.batch.deletePoolsOnCompletion": "true",
    },
    "k8s": {"process.executor": "'k8s'", "k8s.namespace": "'lab'", "k8s.storageClaimName": "'claim'", "k8s.runAsUser": "1000"},
}  # fmt: skip
SITES = {
    "docker": {"docker.registry": "'registry.example.org/lab'"},
    "podman": {
        "podman.registry": "'registry.example.org/lab'", "podman.runOptions": f"'--user 0:0 {HARDENED} --ulimit nofile=65536'",
    },
    "singularity": {
        "process.container": "'/shared/images/spadit-core.sif'",
        "process.'withName:RUN_PEER'.container": "'/shared/images/spadit-peers.sif'",
    },
    "apptainer": {"process.container": "'/shared/images/spadit-core.sif'", "apptainer.cacheDir": "'/shared/images'"},
    "charliecloud": {"charliecloud.cacheDir": "'/shared/images/charliecloud'"},
    "shifter": {"process.container": "'docker:registry.example.org/lab/spadit/core:0.1.0'"},
    "conda": {"conda.cacheDir": "'/shared/conda'", "conda.useMicromamba": "true"},
    "slurm": {
        "process.queue": "'long'", "process.clusterOptions": "'--account=lab42'", "executor.queueSize": "200",
        "process.'withLabel:process_gpu'.clusterOptions": "'--account=lab42 --gres=gpu:1'",
    },
    "sge": {"process.penv": "'threads'", "process.'withLabel:process_gpu'.clusterOptions": "'-P lab42 -l gpu=1'"},
    "lsf": {"process.queue": "'normal'", "executor.perJobMemLimit": "true"},
    "pbs": {"process.'withLabel:process_gpu'.clusterOptions": "'-A lab42 -l select=1:ncpus=6:mem=24gb:ngpus=1'"},
    "awsbatch": {
        "process.'withLabel:process_gpu'.queue": "'spadit-gpu'",
        "aws.batch.cliPath": "'/home/ec2-user/miniconda/bin/aws'",
    },
    "googlebatch": {"google.batch.spot": "false", "google.batch.network": "'projects/my-project/global/networks/lab'"},
    "azurebatch": {"azure.registry.server": "'lab.azurecr.io'", "process.'withLabel:process_gpu'.machineType": "'Standard_NC6s_v3'"},
    "k8s": {"k8s.serviceAccount": "'nextflow'"},
    "gpu": {"process.'withLabel:process_gpu'.queue": "'gpu'", "process.'withLabel:process_gpu'.maxForks": "1"},
    "offline": {"process.container": "'/shared/images/spadit-core.sif'"},
}  # fmt: skip
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs/running").glob("*.md") if path.stem != "README"}


@pytest.fixture(scope="module")
def resolved(tmp_path_factory):
    """Profile -> setting -> value, as Nextflow resolves it: of conf/ ('slurm'), and of the pages ('site_slurm': profile, then example)."""
    said = subprocess.run([*command(), "-version"], capture_output=True, text=True, timeout=120).stdout
    version = re.search(r"version (\d+)\.(\d+)", said)
    if not version or (int(version[1]), int(version[2])) < (25, 4):
        pytest.skip("the strict parser needs Nextflow 25.04 or newer")
    folder = tmp_path_factory.mktemp("profiles")
    blocks = [f"    {name} {{ includeConfig '{ROOT}/conf/{name}.config' }}" for name in EXPECTED]
    for page in SITES:
        own = f"includeConfig '{ROOT}/conf/{page}.config'\n" if page in EXPECTED else ""
        (folder / f"{page}.config").write_text(own + site_config(page), encoding="utf-8")
        blocks.append(f"    site_{page} {{ includeConfig '{folder}/{page}.config' }}")
    given = "".join(f"params.{name} = '{value}'\n" for name, value in GIVEN.items())
    (folder / "all.config").write_text(given + "profiles {\n" + "\n".join(blocks) + "\n}\n", encoding="utf-8")
    done = nextflow("-C", folder / "all.config", "config", ROOT, "-flat", "-show-profiles", cwd=folder, timeout=120, NXF_SYNTAX_PARSER="v2")
    assert done.returncode == 0, done.stdout
    found: dict[str, dict[str, str]] = {}
    for profile, name, value in re.findall(r"^profiles\.(\w+)\.(.+?) = (.+)$", done.stdout, re.M):
        found.setdefault(profile, {})[name] = value
    return found


@pytest.mark.parametrize("profile", EXPECTED)
def test_profile(resolved, profile):
    assert {name: resolved[profile].get(name) for name in EXPECTED[profile]} == EXPECTED[profile]


@pytest.mark.parametrize("page", SITES)
def test_the_example_of_each_page(resolved, page):
    """As a user would give it: after the profile."""
    assert {name: resolved[f"site_{page}"].get(name) for name in SITES[page]} == SITES[page]


def test_every_profile_has_a_file_a_page_and_a_test():
    text = (ROOT / "nextflow.config").read_text(encoding="utf-8")
    profiles = {a for a, b in re.findall(r"^    (\w+) +\{ includeConfig 'conf/(\w+)\.config' \}", text, re.M) if a == b} - {
        "demo",
        "test",
        "test_full",
    }
    assert profiles == set(EXPECTED) and set(PAGES) == set(SITES) == (profiles - {"arm64"}) | {"offline"}
    for name, page in PAGES.items():
        assert name == "offline" or re.search(rf"-profile \S*\b{name}\b", page), name
        assert "## Tried?" in page
    listed = (ROOT / "docs/running/README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in listed for name in profiles) and all(f"({name}.md)" in listed for name in PAGES)


def test_profiles_together_as_they_are_used(tmp_path):
    """The pipeline's own configuration, with the parser of Nextflow 24.10."""
    done = nextflow("config", ROOT, "-flat", "-profile", "slurm,singularity,gpu", cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stdout
    settings = dict(re.findall(r"^(\S+) = (.+)$", done.stdout, re.M))
    for profile in ("slurm", "singularity", "gpu"):
        assert {name: settings.get(name) for name in EXPECTED[profile]} == EXPECTED[profile]
    assert settings["process.container"] == "'spadit/core:0.1.0'" and settings["docker.enabled"] == "false"


def test_what_a_cloud_lacks_is_said_before_anything_runs(tmp_path):
    """The executor is the local one, since Nextflow's plugins for clouds can't be had everywhere."""
    sheet = ROOT / "assets/demo/samplesheet.csv"
    done = nextflow(
        "run", ROOT, "-profile", "awsbatch,k8s", "-process.executor=local", "--input", sheet, "--k8s_claim", "c", cwd=tmp_path, timeout=120
    )
    assert done.returncode != 0
    for text in (
        "-profile awsbatch needs --aws_queue",
        "-profile awsbatch needs --registry",
        "-w s3://bucket/folder",
        "-profile k8s needs --registry",
    ):
        assert text in done.stdout, done.stdout
    assert "--k8s_claim" not in done.stdout and "\tat " not in done.stdout and not list(tmp_path.glob("work/*/*"))


def test_the_conda_environment_follows_the_lock_file():
    lock = hashlib.sha256((ROOT / "containers/core/requirements.txt").read_bytes()).hexdigest()
    text = (ROOT / "containers/conda/environment.yml").read_text(encoding="utf-8")
    assert f"sha256: {lock}\n" in text and "-r ../core/requirements.txt" in text and "--require-hashes" in text
