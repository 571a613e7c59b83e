"""Runs an executable's entry point within the test's own process, and looks at how it ended."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import json
import logging
import os
import signal
import sys
from pathlib import Path

import pytest

LIMIT = 30
"""Seconds that any bad input may take; all of them take less than one on a machine of their own."""
MODULES: dict = {}


class TooLong(BaseException):
    """Not an Exception: nothing in the library may swallow it."""


@contextlib.contextmanager
def time_limit(seconds: int = LIMIT):
    """Raise TooLong when the block takes longer."""

    def stop(*_):
        raise TooLong(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


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


@pytest.fixture
def step(root, tmp_path):
    """``step(name, *arguments) -> Outcome``."""

    def call(name: str, *arguments: object, failure: bool = True) -> Outcome:
        return run_step(root, tmp_path, name, *arguments, failure=failure)

    return call


@pytest.fixture(scope="session")
def session_step(root, tmp_path_factory):
    """The same for what is tried often (hypothesis)."""
    folder = tmp_path_factory.mktemp("step")

    def call(name: str, *arguments: object) -> Outcome:
        return run_step(root, folder, name, *arguments)

    return call
