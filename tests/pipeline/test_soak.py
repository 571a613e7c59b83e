"""Many small slides, several rounds, one task in five killed at a random moment: every result is the undisturbed run's, and nothing grows.

    SPADIT_SOAK="50 3" ./spadit test tests/pipeline/test_soak.py --all -s

In the suite it is 3 slides and 1 round. SPADIT_SOAK_CSV names a file to which the measurements are written.
"""

from __future__ import annotations

import csv
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest
from faults import SMALL, assert_equal_results, shims, slides
from nf import ROOT, command, environment, nextflow

from spadit.manifest import verify

N_SLIDES, N_ROUNDS = (int(n) for n in os.environ.get("SPADIT_SOAK", "3 1").split())
SECONDS = 280 if N_SLIDES < 10 else 120 * N_SLIDES
"""A run's limit."""
pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(max(1200, (N_ROUNDS + 1) * SECONDS))]


class Watch(threading.Thread):
    """Looks every second at the open files and the memory of Nextflow's process."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self.pid, self.files, self.memory, self.over = pid, [], [], threading.Event()

    def run(self) -> None:
        while not self.over.wait(1):
            try:
                self.files.append(len(os.listdir(f"/proc/{self.pid}/fd")))
                pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
            except OSError:
                return
            self.memory.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)


def watched(*arguments, cwd: Path, path: str) -> tuple[int, str, Watch]:
    """A run of Nextflow that is looked at: exit code, output, measurements."""
    cwd.mkdir(parents=True, exist_ok=True)
    with open(cwd / "run.log", "w") as log:
        process = subprocess.Popen(
            [*command(), *map(str, arguments)], cwd=cwd, env=environment(cwd, PATH=path), stdout=log, stderr=log, start_new_session=True
        )
        watch = Watch(process.pid)
        watch.start()
        try:
            code = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            pytest.fail(f"Nextflow did not end within {SECONDS} s: {(cwd / 'run.log').read_text()[-3000:]}")
        finally:
            watch.over.set()
            watch.join(5)
    return code, (cwd / "run.log").read_text(), watch


def size(folder: Path) -> float:
    """MiB of all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()) / 2**20


def test_soak(tmp_path, make_slide, make_reference):
    names = [f"s{i:02}" for i in range(N_SLIDES)]
    sheet = slides(tmp_path, names, make_slide, make_reference)
    arguments = ("run", ROOT, "--input", sheet, "--outdir", "out", *SMALL)
    quiet = nextflow(*arguments, cwd=tmp_path / "undisturbed", timeout=SECONDS)
    assert quiet.returncode == 0, quiet.stdout

    rows = []
    for number in range(N_ROUNDS):
        folder, begun = tmp_path / f"round{number}", time.monotonic()
        shim = shims(tmp_path / f"shims{number}", {"*": {"share": 0.2, "seconds": 4, "seed": number}})
        code, said, watch = watched(*arguments, cwd=folder, path=os.pathsep.join([str(shim), environment(folder)["PATH"]]))
        assert code == 0, said
        assert_equal_results(tmp_path / "undisturbed/out", folder / "out")
        assert verify(folder / "out") == {"missing": [], "changed": [], "unlisted": []}
        assert not list((folder / "work/checkpoints").rglob("state_*"))
        assert not [path for path in (folder / "out").rglob(".*") if path.is_file()]
        killed = sum(len(path.read_text()) for path in shim.glob("*.killed"))
        calls = sum(len(path.read_text().splitlines()) for path in shim.glob("*.calls"))
        last = len(watch.files) // 4 or 1  # the last quarter of the run beside the one before the middle
        middle = slice(len(watch.files) // 4, len(watch.files) // 2 + 1)
        rows.append(
            {
                "round": number, "slides": N_SLIDES, "tasks": calls, "killed": killed, "seconds": round(time.monotonic() - begun),
                "open_files_middle": max(watch.files[middle]), "open_files_end": max(watch.files[-last:]),
                "memory_mib": round(max(watch.memory)),
                "results_mib": round(size(folder / "out"), 1), "work_mib": round(size(folder / "work"), 1),
            }
        )  # fmt: skip
        print(rows[-1])
        assert killed >= (1 if calls >= 20 else 0)
        assert rows[-1]["open_files_end"] <= 1.5 * rows[-1]["open_files_middle"] + 50
    for name in ("memory_mib", "results_mib", "open_files_end"):  # from round to round
        assert max(row[name] for row in rows) <= 1.3 * rows[0][name] + 50
    if os.environ.get("SPADIT_SOAK_CSV"):
        with open(os.environ["SPADIT_SOAK_CSV"], "w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, rows[0])
            writer.writeheader()
            writer.writerows(rows)
