"""Runs an executable's entry point within the test's own process, and looks at how it ended."""

from __future__ import annotations

import pytest
from steps import Outcome, run_step


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
