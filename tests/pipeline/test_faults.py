"""What is killed, filled or taken away, under real Nextflow: the results are those of the undisturbed run, or it is said what to do."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faults import SMALL, assert_equal_results, shims, slides
from nf import ROOT, command, environment, nextflow, tasks, trace

from spadit.manifest import InputError, read_manifest, verify

pytestmark = [pytest.mark.fault, pytest.mark.slow]
AS_IT_WAS = {"missing": [], "changed": [], "unlisted": []}


def on_path(folder, first) -> dict[str, str]:
    return {"PATH": os.pathsep.join([str(first), environment(folder)["PATH"]])}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, make_slide, make_reference):
    """One slide alone, nothing in its way."""
    folder = tmp_path_factory.mktemp("undisturbed")
    sheet = slides(folder, ["a"], make_slide, make_reference)
    done = nextflow("run", ROOT, "--input", sheet, "--outdir", "out", *SMALL, cwd=folder, timeout=300)
    assert done.returncode == 0, done.stdout
    return folder / "out"


@contextlib.contextmanager
def tmpfs(folder, size: str, *options: str):
    """A small file system of its own; needs root and the right to mount."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", ",".join([f"size={size}", *options]), "tmpfs", folder], capture_output=True, timeout=30
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=False, timeout=30)


def test_the_undisturbed_run_is_whole(undisturbed, tmp_path):
    assert verify(undisturbed) == AS_IT_WAS
    manifest = read_manifest(undisturbed)
    assert manifest["success"] and "slides/a/a.imputed.h5ad" in manifest["files"] and "multiqc/multiqc_report.html" in manifest["files"]
    assert not (undisturbed / "pipeline_info/running.json").exists()


def test_tasks_and_nextflow_killed_then_resumed_give_the_undisturbed_results(undisturbed, tmp_path, make_slide, make_reference):
    """A training and a reader are killed (SIGKILL) and tried again; one slide never gets enough memory; a second run wants the same folder;
    then the whole machine's processes are killed in the middle, and a published file is left torn; -resume ends the run."""
    sheet = slides(tmp_path, ["c", "a"], make_slide, make_reference)
    for file in undisturbed.parent.glob("data/*.h5ad"):  # the very same files: results hold their checksums
        shutil.copy(file, tmp_path / "data")
    plan = {
        "spadit_train.py a": {"kill": "checkpoint"},
        "spadit_read.py c": {"kill": 0.5},
        "spadit_evaluate.py c": {"memory": 300_000_000},
    }
    path = on_path(tmp_path, shims(tmp_path / "shims", plan))
    arguments = ["run", str(ROOT), "--input", str(sheet), "--outdir", "out", *map(str, SMALL)]
    with open(tmp_path / "first.log", "w") as log:
        first = subprocess.Popen(
            [*command(), *arguments], cwd=tmp_path, env=environment(tmp_path, **path), stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for(tmp_path / "out/pipeline_info/running.json", first)
        other = nextflow("run", ROOT, "--input", sheet, "--outdir", tmp_path / "out", *SMALL, cwd=tmp_path / "elsewhere", timeout=120)
        assert other.returncode != 0 and "Another run, started at" in other.stdout and "choose another --outdir" in other.stdout
        assert "\tat " not in other.stdout
        wait_for(tmp_path / "shims/spadit_impute.py a.calls", first)
    finally:
        kill_all(first, tmp_path)
    assert first.wait(30) != 0
    assert (tmp_path / "shims/spadit_train.py a.killed").exists() and (tmp_path / "shims/spadit_read.py c.killed").exists()
    with pytest.raises(InputError, match="has not ended, or was killed"):
        read_manifest(tmp_path / "out")
    torn = tmp_path / "out/slides/a/facts/a.qc.json"
    torn.write_bytes(torn.read_bytes()[:100])

    again = nextflow(*arguments, "-resume", cwd=tmp_path, timeout=300, **path)
    assert again.returncode == 0, again.stdout
    assert "1 of 2 slides done." in again.stdout
    assert_equal_results(undisturbed / "slides/a", tmp_path / "out/slides/a")
    assert verify(tmp_path / "out") == AS_IT_WAS
    assert not (tmp_path / "work/checkpoints/a").exists()
    failed = {row["sample"]: row for row in json.loads((tmp_path / "out/multiqc/slides.json").read_text())}["c"]
    assert failed["status"] == "failed" and "137 is out of memory" in failed["remedy"]
    assert len((tmp_path / "shims/spadit_evaluate.py c.calls").read_text().splitlines()) >= 3  # tried three times
    assert tasks(tmp_path / "out", "CACHED")["TRAIN"]  # what was done before the kill wasn't done again


def test_a_clock_that_jumps_changes_nothing(undisturbed, tmp_path, make_slide, make_reference):
    """Two days back as a training begins, three forward while imputing (libfaketime under Nextflow and the tasks' shells); then -resume
    with the right time. The times of files stay the kernel's; Python has the right time, since libfaketime breaks its time.sleep."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("needs libfaketime")
    sheet = slides(tmp_path, ["a"], make_slide, make_reference)
    for file in undisturbed.parent.glob("data/*.h5ad"):
        shutil.copy(file, tmp_path / "data")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python3").write_text(f'#!/bin/sh\nunset LD_PRELOAD\nexec {sys.executable} "$@"\n')
    (tmp_path / "bin/python3").chmod(0o755)
    clock = tmp_path / "clock"
    clock.write_text("+0")
    faked = {
        "LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_CACHE_DURATION": "1", "NO_FAKE_STAT": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # else Java waits without sleeping
    }  # fmt: skip
    path = on_path(tmp_path, tmp_path / "bin")
    arguments = ["run", str(ROOT), "--input", str(sheet), "--outdir", "out", *map(str, SMALL)]
    with open(tmp_path / "first.log", "w") as log:
        run = subprocess.Popen(
            [*command(), *arguments],
            cwd=tmp_path,
            env=environment(tmp_path, **path, **faked),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        for step, jump in (("TRAIN (a)", "-2d"), ("IMPUTE (a)", "+3d")):
            while f":{step}" not in (said := (tmp_path / "first.log").read_text()):
                assert run.poll() is None, said
                time.sleep(0.1)
            clock.write_text(jump)
        assert run.wait(300) == 0, (tmp_path / "first.log").read_text()
    finally:
        kill_all(run, tmp_path)
    submitted: dict[str, str] = {}
    for row in trace(tmp_path / "out"):  # an IMPUTE that seems to run for three days is tried again
        submitted.setdefault(row["process"], row["submit"])
    assert submitted["IMPUTE"] < submitted["TRAIN"] < submitted["EVALUATE"]  # the clock did jump: a run takes no day
    assert submitted["TRAIN"][:10] < submitted["EVALUATE"][:10]
    assert_equal_results(undisturbed / "slides/a", tmp_path / "out/slides/a")
    assert verify(tmp_path / "out") == AS_IT_WAS

    again = nextflow(*arguments, "-resume", cwd=tmp_path, timeout=300, **path)
    assert again.returncode == 0, again.stdout
    assert tasks(tmp_path / "out", "CACHED")["TRAIN"] and tasks(tmp_path / "out", "CACHED")["IMPUTE"]
    assert_equal_results(undisturbed / "slides/a", tmp_path / "out/slides/a")


def wait_for(path, process, seconds: float = 240) -> None:
    limit = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, f"Nextflow ended before there was {path.name}: {(path.parents[2] / 'first.log')}"
        assert time.monotonic() < limit, f"no {path.name} within {seconds} s"
        time.sleep(0.1)


def kill_all(process, folder) -> None:
    """What a machine that loses power does to a run: Nextflow and all its tasks are gone at once. Tasks are known by their folder."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    for _ in range(3):
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != os.getpid():
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{entry}/cwd").startswith(f"{folder}/work/"):
                        os.kill(int(entry), signal.SIGKILL)
        time.sleep(0.2)


def test_a_read_only_output_folder_is_said_at_once(tmp_path, make_slide, make_reference):
    sheet = slides(tmp_path, ["a"], make_slide, make_reference)
    with tmpfs(tmp_path / "out", "1m", "ro") as out:
        done = nextflow("run", ROOT, "-stub-run", "--input", sheet, "--outdir", out, cwd=tmp_path, timeout=120)
    assert done.returncode != 0
    assert str(out) in done.stdout and "ead-only file system" in done.stdout and "\tat " not in done.stdout


def test_a_full_disk_under_the_output_folder_ends_the_run_and_leaves_no_half_file(tmp_path, make_slide, make_reference):
    sheet = slides(tmp_path, ["a"], make_slide, make_reference)
    with tmpfs(tmp_path / "out", "64k") as out:
        with contextlib.suppress(OSError), open(out / "filler", "wb", buffering=0) as filler:
            for _ in range(14):
                filler.write(bytes(4096))  # leaves two pages: enough to start, too little for what is published
        done = nextflow("run", ROOT, "-stub-run", "--input", sheet, "--outdir", out, cwd=tmp_path, timeout=200)
        assert done.returncode != 0
        assert "No space left on device" in done.stdout or "Failed to publish file" in done.stdout
        assert not (out / "pipeline_info/manifest.json").exists() or verify(out)["changed"] == []
        for name in ("params.json", "software_versions.yml"):
            if (out / "pipeline_info" / name).exists():
                assert (out / "pipeline_info" / name).read_text().endswith(("}\n", "}", "'\n"))


def test_a_full_disk_under_a_task_is_tried_again_and_leaves_no_half_file(tmp_path, make_slide, make_reference):
    slides(tmp_path, ["a"], make_slide, make_reference)
    with tmpfs(tmp_path / "task", "12k") as task:
        done = subprocess.run(
            [ROOT / "bin/spadit_read.py", "--id", "a", "--input", tmp_path / "data/a.h5ad", "--output", task / "a.h5ad"],
            env=environment(tmp_path), capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        left = list(task.iterdir())
    assert done.returncode == 1  # a failing disk: the pipeline tries again
    assert "a: step read could not write: No space left on device. Make room there" in done.stderr
    assert left == []
