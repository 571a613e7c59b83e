"""Hostile names and secrets in a real run: nothing of them is run by a shell, and nothing of them is found afterwards."""

from __future__ import annotations

import json

from nf import ROOT, environment, nextflow, tasks

SECRET = "hunter2hunter2"


def test_names_that_a_shell_would_run(tmp_path):
    """The real scripts, in a folder with quotes and a command in its name; slides that can't be read, so that it is quick."""
    folder = tmp_path / 'it\'s $(touch pwned) `touch pwned` a "folder"; touch pwned'
    data = folder / "my data & (more)"
    data.mkdir(parents=True)
    for name in ("st (1).h5ad", "sc, two.h5ad", "-st.h5ad"):
        (data / name).write_text("not HDF5 \x1b[2J")
    link = folder / "link.h5ad"
    link.symlink_to("/etc/passwd")  # out of the folder: read as what it is, which is no slide
    (folder / "my sheet (1).csv").write_text(
        "sample,st,sc,species,batch\n"
        'a.b-c_1,my data & (more)/st (1).h5ad,"my data & (more)/sc, two.h5ad",Mus musculus,donor (x)\n'
        'b,link.h5ad,"my data & (more)/sc, two.h5ad",,\n'.replace("my data & (more)", "data")
    )
    data.rename(folder / "data")
    (folder / "params.json").write_text(json.dumps({"multiqc_title": "it's <b>$(touch pwned)</b> `touch pwned` \"; touch pwned"}))
    home = environment(tmp_path)["NXF_HOME"]
    arguments = ("--input", "my sheet (1).csv", "--outdir", "out $(touch pwned)", "-params-file", "params.json")
    result = nextflow("run", ROOT, *arguments, cwd=folder, timeout=240, NXF_HOME=home)
    assert result.returncode != 0 and "0 of 2 slides done" in result.stdout, result.stdout
    assert "not an HDF5 file" in result.stdout and "\x1b[2J" not in result.stdout
    assert "Traceback" not in result.stdout and "\tat " not in result.stdout and "root:" not in result.stdout
    assert list(tmp_path.rglob("pwned*")) == []
    assert tasks(folder / "out $(touch pwned)", "COMPLETED")["READ_SLIDE"] == ["a.b-c_1", "b"]
    report = (folder / "out $(touch pwned)/multiqc/multiqc_report.html").read_text(encoding="utf-8")
    assert "root:x:0:0" not in report


def test_secrets_are_found_nowhere(tmp_path):
    """Parameters named like secrets and passwords in URLs: the run is refused, and neither its words nor its files repeat them."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "s.csv").write_text(f"sample,st,sc\na,https://me:{SECRET}@host/st.h5ad,sc.h5ad\n")
    given = {
        "aws_secret_key": SECRET,
        "nested": {"api_token": SECRET},
        "start_model": f"https://host/model?token={SECRET}",
    }
    (tmp_path / "params.json").write_text(json.dumps(given))
    arguments = ("--input", "s.csv", "--outdir", "out", "-params-file", tmp_path / "params.json")
    result = nextflow("run", ROOT, *arguments, cwd=folder, timeout=240)
    assert result.returncode != 0 and "nothing was run" in result.stdout, result.stdout
    assert "--aws_secret_key is unknown" in result.stdout and "user name or password" in result.stdout
    assert SECRET not in result.stdout
    kept = json.loads((folder / "out/pipeline_info/params.json").read_text())
    assert kept["aws_secret_key"] == "***" and kept["start_model"] == "https://host/model?…"
    held = [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and "nxf_home" not in path.parts and SECRET.encode() in path.read_bytes()
    ]
    assert set(held) <= {"s.csv", ".nextflow.log"}, held

    # files that are handed to a task, or looked for, before anything is checked
    for name, value in (("model", f"https://me:{SECRET}@host/s"), ("input", "s$(touch pwned).csv")):
        (tmp_path / "params.json").write_text(json.dumps({"input": "s.csv", name: value}))
        result = nextflow("run", ROOT, "--outdir", "out", "-params-file", tmp_path / "params.json", cwd=folder, timeout=240)
        assert result.returncode != 0 and f"Parameter --{name} h" in result.stdout and SECRET not in result.stdout, result.stdout
    assert list(tmp_path.rglob("pwned*")) == []
