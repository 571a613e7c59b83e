"""Runs an executable's entry point within a test's own process or one like it, and looks at how it ended."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

LIMIT = 30
"""Seconds that any bad input may take; all of them take less than one on a machine of their own."""
MODULES: dict = {}


class TooLong(BaseException):
    """Not an Exception: nothing in the library may swallow it."""


@contextlib.contextmanager
def time_limit(seconds: int = LIMIT):
    """Raise TooLong when the block takes longer. pytest-timeout's alarm goes on afterwards."""

    def stop(*_):
        raise TooLong(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    begun = time.monotonic()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, left - (time.monotonic() - begun)))


@dataclasses.dataclass
class Outcome:
    """How a step ended."""

    code: int
    said: str
    """What it wrote to stderr and stdout."""
    failure: dict | None
    """The content of failure.json."""

    @property
    def reason(self) -> str:
        return f"{self.failure['reason']} {self.failure['remedy']}".strip() if self.failure else ""

    def check_refused(self) -> None:
        """Exit code 0 with a failure.json that is a sentence and a remedy; nothing that looks like a bug."""
        assert self.failure is not None, f"was not refused: {self.said}"
        assert self.code == 0 and self.failure["kind"] == "failure"
        assert "Traceback" not in self.said and "Internal error" not in self.said, self.said
        assert self.failure["reason"].endswith((".", "…")) and len(self.failure["reason"]) <= 1000
        assert all(c.isprintable() for c in self.reason)

    def check_fine(self) -> None:
        assert self.code == 0 and self.failure is None, self.said
        assert "Traceback" not in self.said


def run_step(root: Path, folder: Path, step: str, *arguments: object, failure: bool = True) -> Outcome:
    """Call ``bin/spadit_<step>.py`` as a task would; its exit code, its words and its failure.json."""
    if step not in MODULES:
        spec = importlib.util.spec_from_file_location(f"executable_{step}", root / "bin" / f"spadit_{step}.py")
        MODULES[step] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(MODULES[step])
    told = folder / f"{step}.failure.json"
    told.unlink(missing_ok=True)
    words, handlers, argv, variables = io.StringIO(), logging.root.handlers[:], sys.argv, dict(os.environ)
    logging.root.handlers[:] = []
    sys.argv = [f"spadit_{step}.py", "--id", "s1", *(["--failure", str(told)] if failure else []), *map(str, arguments)]
    try:
        with time_limit(), contextlib.redirect_stderr(words), contextlib.redirect_stdout(words):
            code = MODULES[step].main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        logging.root.handlers[:], sys.argv = handlers, argv
        os.environ.clear()
        os.environ.update(variables)
    content = json.loads(told.read_text(encoding="utf-8")) if told.exists() else None
    return Outcome(code, words.getvalue(), content)


class Apart:
    """:func:`run_step` in processes of their own, forked within milliseconds from one that has no threads.

    The answer is None when a library's C code crashed or stood still there: no exception and no alarm would tell of that.
    """

    def __init__(self, root: Path) -> None:
        paths = os.pathsep.join([str(root / "bin"), str(Path(__file__).parent)])
        environment = os.environ | {"PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )
        self._root = root

    def __call__(self, folder: Path, step: str, *arguments: object) -> Outcome | None:
        json.dump([str(self._root), str(folder), step, *map(str, arguments)], self._process.stdin)
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert answer != "raised", f"{step} {arguments} raised an exception or took longer than {LIMIT} s"
        return Outcome(**answer) if answer else None

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def _serve() -> None:
    """A line of JSON for every line of JSON, until the input ends."""
    import spadit.io.h5ad  # what takes long to import is imported once  # noqa: F401

    for line in sys.stdin:
        root, folder, *rest = json.loads(line)
        child = os.fork()
        if not child:
            print(json.dumps(dataclasses.asdict(run_step(Path(root), Path(folder), *rest))), flush=True)
            os._exit(0)
        until, ended = time.monotonic() + LIMIT + 5, (0, 0)
        while ended == (0, 0) and time.monotonic() < until:
            time.sleep(0.002)
            ended = os.waitpid(child, os.WNOHANG)
        if ended == (0, 0):
            os.kill(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
        if ended[1]:
            print("null" if os.WIFSIGNALED(ended[1]) else '"raised"', flush=True)


if __name__ == "__main__":
    _serve()
