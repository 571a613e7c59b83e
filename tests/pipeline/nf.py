"""How the tests call Nextflow, and what they read back."""

from __future__ import annotations

import contextlib
import csv
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def command() -> list[str]:
    """The Nextflow to test with: the environment variable NXF, else ``nextflow`` on PATH; the test is skipped when there is none."""
    if os.environ.get("NXF"):
        return shlex.split(os.environ["NXF"])
    if shutil.which("nextflow"):
        return ["nextflow"]
    pytest.skip("needs Nextflow: put it on PATH or name it in the environment variable NXF")


def site_config(page: str) -> str:
    """The configuration that a page of docs/running shows as an example."""
    return re.search(r"```groovy\n(.*?)```", (ROOT / f"docs/running/{page}.md").read_text(encoding="utf-8"), re.S)[1]


def environment(folder: Path, **extra: str) -> dict[str, str]:
    """Variables for a run in ``folder``: offline, without the user's own Nextflow settings, this Python and ``bin/`` first on PATH."""
    home = folder / "nxf_home"
    home.mkdir(parents=True, exist_ok=True)
    user_home = Path(os.environ.get("NXF_HOME", Path.home() / ".nextflow"))
    for name in ("framework", "capsule", "plugins", "dist"):  # an installed Nextflow keeps its programs there
        if (user_home / name).is_dir() and not (home / name).exists():
            (home / name).symlink_to(user_home / name)
    path = os.pathsep.join([str(Path(sys.executable).parent), str(ROOT / "bin"), os.environ["PATH"]])
    kept = {k: v for k, v in os.environ.items() if k not in ("NXF_SYNTAX_PARSER", "NXF_EXECUTOR", "NXF_WORK", "PYTHONPATH")}
    return {**kept, "NXF_OFFLINE": "true", "NXF_HOME": str(home), "NXF_ANSI_LOG": "false", "PATH": path, **extra}


def nextflow(*arguments: object, cwd: Path, timeout: int = 900, **extra: str) -> subprocess.CompletedProcess:
    """Run ``nextflow <arguments>`` in ``cwd``; stdout and stderr come together in ``.stdout``. ``extra`` adds environment variables.

    Once in some hundred runs Nextflow 25.04 stands still (seen once, cause unknown). Then what every thread was doing and the end of the
    log go into a warning, which pytest shows at the end, and the run is tried once more. A second time fails the test.
    """
    cwd.mkdir(parents=True, exist_ok=True)
    command_line = [*command(), *map(str, arguments)]
    done = _run(command_line, cwd, environment(cwd, **extra), timeout)
    if isinstance(done, str):
        warnings.warn(done, stacklevel=2)
        done = _run(command_line, cwd, environment(cwd, **extra), timeout)
    if isinstance(done, str):
        pytest.fail(done)
    return done


def _run(command_line: list[str], cwd: Path, variables: dict[str, str], timeout: int) -> subprocess.CompletedProcess | str:
    """The finished process, or, when it didn't end in time, what it was doing."""
    with subprocess.Popen(
        command_line, cwd=cwd, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            stdout, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            log = cwd / ".nextflow.log"
            tail = log.read_text(encoding="utf-8", errors="replace")[-5000:] if log.exists() else "no log"
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGQUIT)  # Java prints its threads on this signal and goes on
            time.sleep(3)
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            stdout, _ = process.communicate()
            return f"Nextflow did not end within {timeout} s.\n--- output, with Java's threads\n{stdout}\n--- .nextflow.log\n{tail}"
    return subprocess.CompletedProcess(command_line, process.returncode, stdout)


def trace(outdir: Path) -> list[dict[str, str]]:
    """Rows of the newest trace below ``outdir``, with ``process`` (last part of the name) and ``tag`` added."""
    newest = max((outdir / "pipeline_info").glob("execution_trace_*.txt"), key=lambda path: path.stat().st_mtime_ns)
    rows = list(csv.DictReader(newest.read_text(encoding="utf-8").splitlines(), delimiter="\t"))
    for row in rows:
        name, _, tag = row["name"].partition(" (")
        row["process"], row["tag"] = name.split(":")[-1], tag.rstrip(")")
    return rows


def tasks(outdir: Path, status: str | None = None) -> dict[str, list[str]]:
    """Process -> sorted tags of its tasks in the newest trace, of one status ('COMPLETED', 'CACHED', 'FAILED') or of all."""
    found: dict[str, list[str]] = {}
    for row in trace(outdir):
        if status in (None, row["status"]):
            found.setdefault(row["process"], []).append(row["tag"])
    return {process: sorted(tags) for process, tags in sorted(found.items())}
