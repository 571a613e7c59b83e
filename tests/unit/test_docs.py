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
