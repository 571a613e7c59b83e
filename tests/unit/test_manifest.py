"""The check of an output folder against its manifest, and the comparison of two output folders."""

import hashlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from spadit.errors import InputError
from spadit.files import finished, write_text
from spadit.manifest import MANIFEST, main, read_manifest, verify


def sealed(folder, **more):
    """An output folder with a manifest, as a run leaves it."""
    for name, text in {
        "slides/a/a.metrics.csv": "gene,pcc\n",
        "slides/a/model/x/model.json": "{}",
        "pipeline_info/params.json": "{}",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    files = {
        str(path.relative_to(folder)): {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in folder.rglob("*")
        if path.is_file()
    }
    content = {"kind": "manifest", "version": 1, "pipeline": "0", "success": True, "folders": ["slides", "pipeline_info"], "files": files}
    write_text(folder / MANIFEST, json.dumps(content | more))
    (folder / "pipeline_info/execution_trace_1.txt").write_text("written later")
    return folder


def test_a_folder_as_it_was_left_passes(tmp_path, capsys):
    assert main([str(sealed(tmp_path))]) == 0
    assert capsys.readouterr().out == "3 files are as the run left them.\n"


def test_what_is_missing_changed_or_not_listed_is_named(tmp_path, capsys):
    folder = sealed(tmp_path)
    (folder / "slides/a/a.metrics.csv").write_text("gene,PCC\n")  # as long as before
    (folder / "slides/a/model/x/model.json").unlink()
    (folder / "slides/a/more.txt").write_text("")
    assert verify(folder) == {
        "missing": ["slides/a/model/x/model.json"],
        "changed": ["slides/a/a.metrics.csv"],
        "unlisted": ["slides/a/more.txt"],
    }
    assert main([str(folder)]) == 1
    said = capsys.readouterr()
    assert "missing   slides/a/model/x/model.json" in said.out and "unlisted  slides/a/more.txt" in said.out
    assert "3 of 3 files are not as the run left them" in said.err


def test_a_torn_file_is_noticed(tmp_path):
    folder = sealed(tmp_path)
    (folder / "slides/a/a.metrics.csv").write_text("gene,")
    assert verify(folder)["changed"] == ["slides/a/a.metrics.csv"]


def test_without_a_manifest_it_is_said_why(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2 and "There is no manifest" in capsys.readouterr().err
    (tmp_path / "pipeline_info").mkdir()
    (tmp_path / "pipeline_info/running.json").write_text("{}")
    assert main([str(tmp_path)]) == 2 and "has not ended, or was killed" in capsys.readouterr().err
    (tmp_path / MANIFEST).write_text('{"kind": "manif')
    assert main([str(tmp_path)]) == 2 and "can't be read as JSON" in capsys.readouterr().err
    (tmp_path / MANIFEST).write_text('{"kind": "other"}')
    assert main([str(tmp_path)]) == 2
    assert main([]) == 2 and main(["--help"]) == 0


@pytest.mark.parametrize("name", ["../other/file", "/etc/passwd"])
def test_a_manifest_that_names_files_elsewhere_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="outside its folder"):
        read_manifest(sealed(tmp_path, files={name: {"size": 1, "sha256": ""}}))


def test_a_run_with_an_error_is_told(tmp_path, capsys):
    assert main([str(sealed(tmp_path, success=False))]) == 0
    assert "ended with an error" in capsys.readouterr().err


def test_the_launcher_checks_without_an_environment(root, tmp_path):
    """With Python's standard library only: -S leaves out all packages."""
    done = subprocess.run(
        [sys.executable, "-S", "-E", root / "spadit", "verify", sealed(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "3 files are as the run left them.\n"), done.stderr


def test_every_folder_that_is_published_to_is_in_the_manifest(root):
    listed = re.search(r"return \[(.*)\]", (root / "subworkflows/local/outputs/main.nf").read_text()).group(1)
    texts = [path.read_text() for folder in ("modules", "conf", "subworkflows") for path in (root / folder).rglob("*.*") if path.is_file()]
    used = {name for text in texts for name in re.findall(r"params\.outdir\}/(\w+)", text)}
    assert used and used <= set(re.findall(r"'(\w+)'", listed))


def test_everything_published_overwrites_what_a_killed_run_left_torn(root):
    """Nextflow leaves published files of cached tasks as they are unless told so."""
    texts = [*(root / "modules/local").rglob("main.nf"), root / "conf/modules.config"]
    rules = [rule for path in texts for rule in re.findall(r"mode: params\.publish_dir_mode,\s*(.{0,20})", path.read_text())]
    assert len(rules) >= 15 and all(rule.startswith("overwrite: 'deep'") for rule in rules)


# Files that are whole


def test_what_is_written_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done = []
    sync, replace = "spadit.files.os.fsync", "spadit.files.os.replace"
    monkeypatch.setattr(sync, lambda descriptor: done.append("sync"))
    monkeypatch.setattr(replace, lambda *paths: done.append("rename"))
    with finished(tmp_path / "file") as path:
        path.write_text("x")
    assert done == ["sync", "rename", "sync"]
    done.clear()
    with finished(tmp_path / "folder") as path:
        (path / "below").mkdir(parents=True)
        (path / "below" / "file").write_text("x")
    assert done == ["sync", "sync", "sync", "rename", "sync"]


@pytest.mark.fault
def test_a_writer_that_is_killed_leaves_no_half_file(root, tmp_path):
    code = (
        f"import os, signal, sys\nsys.path.insert(0, {str(root / 'bin')!r})\nfrom spadit.files import finished\n"
        "with finished(sys.argv[1]) as path:\n    path.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "file"], timeout=60)
    assert done.returncode == -9 and not (tmp_path / "file").exists()


# Two output folders


@pytest.fixture(scope="module")
def reproducibility():
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "reproducibility.py"
    spec = importlib.util.spec_from_file_location("reproducibility", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["reproducibility"] = module
    spec.loader.exec_module(module)
    return module


def results(folder, shift=0.0, seconds=1.0, text="fine"):
    folder = folder / "slides" / "a"
    folder.mkdir(parents=True)
    data = ad.AnnData(np.arange(6, dtype=np.float32).reshape(2, 3) + np.float32(shift))
    data.uns["note"] = text
    data.write_h5ad(folder / "a.imputed.h5ad")
    (folder / "a.metrics.csv").write_text(f"gene,pcc,seconds,note\nA,{0.5 + shift},{seconds},{text}\nB,nan,,\n")
    (folder / "a.training.json").write_text(json.dumps({"seconds": seconds, "fits": [{"pcc": 0.5 + shift, "name": text}], "n": [1, 2, 3]}))
    (folder / "a.report.html").write_text(f"<p>trained in {seconds:.0f} s, {text}</p>")
    return folder.parents[1]


def verdicts(module, one, two):
    return {row.name.rpartition("/")[2]: (row.verdict, row.difference) for row in module.compare(one, two)}


def test_equal_folders_are_identical_or_equal_but_for_times(reproducibility, tmp_path):
    one = results(tmp_path / "1")
    found = verdicts(reproducibility, one, results(tmp_path / "2"))
    assert len(found) == 4 and {verdict for verdict, _ in found.values()} == {reproducibility.IDENTICAL}
    found = verdicts(reproducibility, one, results(tmp_path / "3", seconds=75.0))
    assert found.pop("a.imputed.h5ad")[0] == reproducibility.IDENTICAL
    assert {verdict for verdict, _ in found.values()} == {reproducibility.BUT_MEASURED}


def test_numbers_are_compared_one_by_one(reproducibility, tmp_path):
    found = verdicts(reproducibility, results(tmp_path / "1"), results(tmp_path / "2", shift=0.25))
    for name in ("a.imputed.h5ad", "a.metrics.csv", "a.training.json"):
        assert found[name][0] == reproducibility.WITHIN and 0.05 <= found[name][1] <= 0.25


def test_other_content_and_files_on_one_side_are_told(reproducibility, tmp_path):
    one, two = results(tmp_path / "1"), results(tmp_path / "2", text="other")
    assert {verdict for verdict, _ in verdicts(reproducibility, one, two).values()} == {reproducibility.DIFFERENT}
    (one / "slides/a/more.csv").write_text("x")
    assert verdicts(reproducibility, one, two)["more.csv"][0] == reproducibility.ONE_ONLY
