"""The examples of docs/python.md run as they stand."""

import dataclasses
import re

import matplotlib
import numpy as np
import pytest

from spadit import settings


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_the_examples_run(root, tiny, tmp_path, monkeypatch, capsys):
    """With smaller networks; the rest is as printed: data, genes, calls."""
    matplotlib.use("Agg")
    small = dataclasses.replace(settings.PRESETS["default"], **tiny, max_spots=256)
    monkeypatch.setitem(settings.PRESETS, "default", small)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "assets").symlink_to(root / "assets")
    blocks = re.findall(r"```python\n(.*?)```", (root / "docs" / "python.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) >= 5
    names: dict = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert "reliability_class" in capsys.readouterr().out
    assert names["imputed"].shape == (names["slide"].n_obs, 4) and (tmp_path / "model" / "model.json").exists()
    np.testing.assert_array_equal(names["samples"].X, names["imputed"].X)  # a loaded model says what the fitted one said
    assert names["counts"].min() >= 0 and "draw_5" in names["samples"].layers


def test_messages_of_the_troubleshooting_page_are_those_of_the_source(root):
    """Each quoted message, part by part: parts are what stands between the names and numbers (…)."""
    files = [*root.glob("bin/**/*.py"), *root.glob("*.nf"), *root.glob("*/**/*.nf"), root / "spadit"]
    # strings that go over two lines are one, and what is filled in is left out
    source = "\n".join(path.read_text(encoding="utf-8") for path in files if "tests" not in path.parts)
    source = re.sub(r'"\s*\n\s*f?"', "", source)
    page = (root / "docs/troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"`([^`]+)`", "\n".join(line for line in page.splitlines() if line.startswith("### ")))
    assert len(messages) > 15
    missing = [part for message in messages for part in map(str.strip, message.split("…")) if part and part not in source]
    assert not missing
