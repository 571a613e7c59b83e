"""docs/reliability.md names a test for every fault and claim; each of them exists."""

import re

import pytest


@pytest.mark.parametrize("section", ["Faults", "Reproducibility"])
def test_every_row_names_a_test_that_exists(root, section):
    text = (root / "docs/reliability.md").read_text(encoding="utf-8")
    part = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", text, re.M | re.S).group(1)
    rows = [row for row in part.splitlines() if row.startswith("|")][2:]
    assert len(rows) >= 5
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, f"no test in: {row}"
        for file, test in named:
            assert f"def {test}(" in (root / file).read_text(encoding="utf-8"), f"{file} has no {test}"
