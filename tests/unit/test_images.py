"""./spadit images with a container engine that is a script, and the definitions. The real images: tests/pipeline/test_containers.py."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from image_checks import check_bill_of_materials

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "containers" / "core"

# An engine that knows one image, spadit/core, notes how it was called, and answers as podman does
ENGINE = """#!{python}
import json, pathlib, sys
folder = pathlib.Path({folder!r})
arguments = sys.argv[1:]
with open(folder / "calls", "a") as stream:
    stream.write(" ".join(arguments) + "\\n")
if arguments[:2] == ["image", "inspect"]:
    if arguments[2].startswith("spadit/core:"):
        print((folder / "core.json").read_text())
    else:
        sys.exit("Error: " + arguments[2] + ": image not known")
elif arguments[0] == "run":
    answer = json.loads((folder / "answer.json").read_text())
    print(json.dumps(answer))
    sys.exit(bool(answer.get("wrong")))
elif arguments[0] == "save":
    pathlib.Path(arguments[arguments.index("-o") + 1]).write_bytes(b"an archive")
elif arguments[0] == "load":
    print("Loaded image: localhost/spadit/core:0.1.0")
elif arguments[0] == "build":
    sys.exit((folder / "error").read_text())
"""


@pytest.fixture
def images(monkeypatch):
    """containers/images.py as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "containers"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    import images

    return images


@pytest.fixture
def engine(tmp_path, monkeypatch, images):
    """The folder of a fake podman that is the only program in the PATH."""
    (tmp_path / "bin").mkdir()
    for name in ("podman", "docker"):
        program = tmp_path / "bin" / name
        program.write_text(ENGINE.format(python=sys.executable, folder=str(tmp_path)), encoding="utf-8")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.chdir(tmp_path)
    facts = {"Id": "sha256:" + "ab" * 32, "Size": 8_800_000_000, "Created": "2026-01-02T03:04:05.678Z", "Config": {"User": "spadit"}}
    (tmp_path / "core.json").write_text(json.dumps([facts]), encoding="utf-8")
    answer = {
        "python": "3.11.2", "uid": 1000, "seconds": 1.0, "modules": 2, "versions": {"torch": "2.9.1"}, "wrong": [],
        "requirements": {"requirements.txt": images.digest(CORE / "requirements.txt")},
    }  # fmt: skip
    (tmp_path / "answer.json").write_text(json.dumps(answer), encoding="utf-8")
    return tmp_path


def change(path: Path, **values) -> None:
    """Set entries of a JSON file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    target = content[0] if isinstance(content, list) else content
    target.update(values)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_the_check_runs_without_network_rights_and_root(images, engine, capsys):
    assert images.main(["test"]) == 0
    [call] = [line for line in (engine / "calls").read_text().splitlines() if line.startswith("run")]
    for option in ("--network none", "--cap-drop all", "--read-only", "--user 1000:1000", "no-new-privileges"):
        assert option in call
    assert " -v " not in call and call.endswith("python3 /opt/spadit/check.py")
    assert json.loads(capsys.readouterr().out)["spadit/core:0.1.0"]["versions"] == {"torch": "2.9.1"}


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("core.json", {"Size": 9_600_000_000}, "takes 9.60 GB, more than 9.5 GB"),
        ("core.json", {"Config": {"User": ""}}, "runs as root"),
        ("answer.json", {"uid": 0}, "it runs as root"),
        ("answer.json", {"wrong": ["scanpy: import scanpy: ImportError: no"]}, "scanpy: import scanpy: ImportError: no"),
        (
            "answer.json",
            {"requirements": {"requirements.txt": "0" * 64}},
            "not made from containers/core/requirements.txt of this revision",
        ),
    ],
)
def test_an_image_that_isn_t_as_it_should_be_is_refused(images, engine, capsys, file, values, message):
    change(engine / file, **values)
    assert images.main(["test", "core"]) == 1
    assert message in capsys.readouterr().err


def test_saved_and_loaded_again_and_a_changed_archive_is_refused(images, engine, capsys):
    assert images.main(["save", "--to", "out"]) == 0
    archive = engine / "out" / "spadit-core-0.1.0.tar"
    assert sorted(path.name for path in archive.parent.iterdir()) == [archive.name, archive.name + ".sha256"]
    assert subprocess.run(["/usr/bin/sha256sum", "-c", archive.name + ".sha256"], cwd=archive.parent, capture_output=True).returncode == 0
    assert images.main(["load", str(archive)]) == 0
    assert f"load -i {archive}" in (engine / "calls").read_text()

    (engine / "calls").write_text("")
    archive.write_bytes(b"another archive")
    assert images.main(["load", str(archive)]) == 1
    assert "its sha256 is another. Copy both again" in capsys.readouterr().err
    (archive.parent / (archive.name + ".sha256")).unlink()
    assert images.main(["load", str(archive)]) == 1 and images.main(["load", "nowhere.tar"]) == 1 and images.main(["load"]) == 1
    said = capsys.readouterr().err
    assert "nobody knows whether the archive is whole" in said and "nowhere.tar is not there" in said and "No archive is named" in said
    assert "load -i" not in (engine / "calls").read_text()


def test_missing_images_and_engines_are_named_with_a_remedy(images, engine, capsys, monkeypatch):
    assert images.main(["list"]) == 0
    assert re.search(r"spadit/core:0.1.0 +8.8 GB  2026-01-02\nspadit/peers:0.1.0 +not there", capsys.readouterr().out)
    assert images.main(["test", "peers"]) == 1
    assert "Build it: ./spadit images build peers, or load it" in capsys.readouterr().err
    monkeypatch.setenv("PATH", "/nowhere")
    assert images.main(["list"]) == 1
    assert "No container engine is there. Install one: apt-get install podman" in capsys.readouterr().err
    assert images.main(["--engine", "docker", "list"]) == 1
    assert "docker is not in the PATH" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        images.main(["test", "spam"])


@pytest.mark.parametrize(
    ("printed", "remedy"),
    [
        ("initializing source docker://debian:bookworm-slim: pinging container registry", "containers/base.sh"),
        ("write /x: No space left on device", "30 GB"),
        ("THESE PACKAGES DO NOT MATCH THE HASHES", "package mirror"),
        ("crun: setrlimit `RLIMIT_NOFILE`: Operation not permitted", "containers/podman-conf.sh"),
        ("Cannot connect to the Docker daemon", "--engine podman"),
        ("something else", "something else"),
    ],
)
def test_a_failing_build_is_explained(images, engine, capsys, printed, remedy):
    (engine / "error").write_text(printed)
    assert images.main(["--engine", "docker", "build", "--to", "logs", "--", "--pull=never"]) == 1
    assert remedy in capsys.readouterr().err
    assert printed in (engine / "logs" / "spadit-core-0.1.0.build.log").read_text(encoding="utf-8")
    assert "build -t spadit/core:0.1.0 --pull=never" in (engine / "calls").read_text()


def test_what_an_image_holds_is_listed(images, engine):
    """With what contents.py finds on this machine, whose dpkg and Python are asked as the image's are."""
    if not Path("/usr/bin/dpkg-query").exists():
        pytest.skip("needs dpkg")
    found = subprocess.run(
        [sys.executable, ROOT / "containers/contents.py"], capture_output=True, text=True, check=True, timeout=120, env={"PATH": "/usr/bin"}
    )
    contents = json.loads(found.stdout)
    assert {"torch", "numpy"} <= {entry["name"] for entry in contents["python"]} and "dpkg" in {e["name"] for e in contents["debian"]}
    assert {e["name"]: e["licence"] for e in contents["python"]}["scanpy"] == "BSD-3-Clause"
    (engine / "answer.json").write_text(json.dumps(contents), encoding="utf-8")
    images.list_contents("podman", "core", engine)
    bom = json.loads((engine / "spadit-core-0.1.0.sbom.json").read_text(encoding="utf-8"))
    check_bill_of_materials(bom)
    with open(engine / "spadit-core-0.1.0.licences.csv", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["kind", "package", "version", "licence", "page"]
    assert len(rows) == len(bom["components"]) == len(contents["python"]) + len(contents["debian"]) and all(row["licence"] for row in rows)


# ---- the check inside the image


def test_the_check_finds_what_is_wrong(tmp_path):
    """With this Python: one package as locked, one of another version, one that isn't there, and one that isn't meant for it."""
    from importlib.metadata import version

    (tmp_path / "check.py").write_bytes((CORE / "check.py").read_bytes())
    (tmp_path / "peers").mkdir()
    lines = [f"packaging=={version('packaging')} \\", "    --hash=sha256:00", "numpy==0.1", "absent==1.0 ; python_version < '3'"]
    (tmp_path / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "peers" / "requirements.txt").write_text("No_Such.Package==2 ; python_version >= '3' \\\n", encoding="utf-8")
    done = subprocess.run([sys.executable, tmp_path / "check.py"], capture_output=True, text=True, timeout=60)
    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert set(found["wrong"]) == {f"numpy: {version('numpy')} instead of 0.1", "no-such-package: nothing instead of 2"}
    assert set(found["requirements"]) == {"requirements.txt", "peers/requirements.txt"} and found["versions"]["numpy"] == version("numpy")

    (tmp_path / "requirements.txt").write_text(lines[0], encoding="utf-8")
    (tmp_path / "peers" / "requirements.txt").write_text("", encoding="utf-8")
    done = subprocess.run([sys.executable, tmp_path / "check.py"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and json.loads(done.stdout)["modules"] == 1


# ---- the definitions


def test_apptainer_s_definition_is_the_dockerfile_s():
    """The same base, files, installation, environment and check."""
    dockerfile, definition = ((CORE / name).read_text(encoding="utf-8") for name in ("Dockerfile", "apptainer.def"))
    assert re.search(r"^FROM (\S+)$", dockerfile, re.M)[1] == re.search(r"^From: (\S+)$", definition, re.M)[1]
    copied = {name for names in re.findall(r"^COPY (.+) /opt/spadit/$", dockerfile, re.M) for name in names.split()}
    files = definition.partition("%files\n")[2].partition("\n\n")[0]
    assert {line.strip() for line in files.splitlines()} == {f"{name} /opt/spadit/{name}" for name in copied}
    assert re.search(r"^RUN sh (\S+)", dockerfile, re.M)[1] == re.search(r"^    sh (\S+)", definition, re.M)[1]
    variables = dockerfile.partition("ENV ")[2].partition("\n\n")[0].replace("\\\n", " ").split()
    assert variables == re.findall(r"^    export (\S+)$", definition, re.M)
    assert re.search(r"^%test\n    \S+ /opt/spadit/check.py$", definition, re.M)


@pytest.mark.parametrize("image", ["core", "peers", "gpu"])
def test_images_are_labelled_and_end_as_a_user(image):
    dockerfile = (ROOT / "containers" / image / "Dockerfile").read_text(encoding="utf-8")
    for label in ("title", "description", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in dockerfile
    assert re.findall(r"^USER (\S+)$", dockerfile, re.M)[-1] == "spadit" and "HEALTHCHECK" not in dockerfile
    assert not re.search(r"https?://(?!github\.com/spaditflow)", dockerfile)
