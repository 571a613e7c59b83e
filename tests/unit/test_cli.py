"""A step whose process crashes while it reads: what the executable makes of it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import os, signal, sys
import spadit.cli
from spadit.cli import guarded, parser, run
from spadit.files import finished

def main():
    p = parser("", "read")
    p.add_argument("--output")
    arguments = p.parse_args()
    return run("read", arguments, lambda _: {work})

if __name__ == "__main__":
    spadit.cli.STANDS_STILL = {still}
    sys.exit(guarded("read", main))
"""


@pytest.fixture
def ended(tmp_path, root):
    def call(work: str, *arguments: str, still: float = 3600):
        (tmp_path / "step.py").write_text(SCRIPT.format(work=work, still=still))
        command = [sys.executable, tmp_path / "step.py", "--id", "s1", "--role", "reference", "--output", tmp_path / "o.h5ad", *arguments]
        return subprocess.run(command, env={"PYTHONPATH": str(root / "bin")}, capture_output=True, text=True)

    return call


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGBUS", "SIGABRT"])
def test_a_crash_is_the_files_fault(ended, tmp_path, name):
    """Exit code 0 with a failure.json: the task's own crash would be tried again in vain."""
    done = ended(f"os.kill(os.getpid(), signal.{name})", "--failure", str(tmp_path / "failure.json"))
    assert done.returncode == 0 and "Traceback" not in done.stderr
    failure = json.loads((tmp_path / "failure.json").read_text())
    assert (failure["id"], failure["role"], failure["step"]) == ("s1", "reference", "read")
    assert name in failure["reason"] and "again" in failure["remedy"]


def test_a_crash_while_writing_is_the_disks(ended, tmp_path):
    """HDF5's library crashes when the disk is full: worth another try, and the half file is removed."""
    work = f"[f := finished('{tmp_path}/o.h5ad'), f.__enter__().write_text('half'), os.kill(os.getpid(), signal.SIGSEGV)]"
    done = ended(work, "--failure", str(tmp_path / "failure.json"))
    assert done.returncode == 1 and "could not write: No space left on device" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["step.py"]


def test_a_kill_for_memory_stays_one(ended, tmp_path):
    """137 is tried again with more memory."""
    done = ended("os.kill(os.getpid(), signal.SIGKILL)", "--failure", str(tmp_path / "failure.json"))
    assert done.returncode == 137 and not (tmp_path / "failure.json").exists()


@pytest.mark.parametrize(("work", "code"), [("None", 0), ("sys.exit(3)", 3), ("open('/does/not/exist')", 1)])
def test_other_endings_are_passed_on(ended, work, code):
    assert ended(work).returncode == code


def test_without_a_failure_file_it_ends_with_2(ended):
    done = ended("os.kill(os.getpid(), signal.SIGSEGV)")
    assert done.returncode == 2 and "damaged" in done.stderr


def test_a_reading_that_comes_to_no_end_is_the_files_fault(ended, tmp_path):
    work = "all(iter(lambda: 1, 0))"
    done = ended(work, "--failure", str(tmp_path / "failure.json"), still=1.0)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert "came to no end" in json.loads((tmp_path / "failure.json").read_text())["reason"]


def test_waiting_is_no_standing_still(ended, tmp_path):
    """A slow disk, a slow network: nothing is computed meanwhile."""
    done = ended("__import__('time').sleep(5)", "--failure", str(tmp_path / "failure.json"), still=1.0)
    assert done.returncode == 0 and not (tmp_path / "failure.json").exists()


def test_steps_without_networks_do_without_pytorch(root):
    """It takes longer to import than most of a small slide's steps take."""
    code = (
        "import sys; from spadit.cli import leave_out_annloader; leave_out_annloader(); import scanpy, spadit.evaluation, spadit.io; "
        "import spadit.pairing, spadit.plots.slide, spadit.qc, spadit.report.cohort, spadit.report.explorer, spadit.report.slide; "
        "import spadit.split; from spadit.methods import METHODS; assert len(METHODS) > 10; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(root / "bin")}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
