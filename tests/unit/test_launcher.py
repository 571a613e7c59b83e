"""The launcher: what it makes once, what it says when something is missing, what it passes on."""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAKE_NEXTFLOW = """#!/bin/sh
if [ "$1" = -version ]; then echo "      version {version} build 1"; exit 0; fi
echo "$@" > "{out}"
exit {code}
"""


@pytest.fixture
def launcher():
    """The launcher as a module (it has no .py ending)."""
    loader = importlib.machinery.SourceFileLoader("launcher", str(ROOT / "spadit"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("launcher", loader))
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    loader.exec_module(module)
    sys.dont_write_bytecode = written
    return module


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache of a user"
    monkeypatch.setenv("SPADIT_CACHE", str(folder))
    return folder


def program(folder: Path, name: str, text: str) -> Path:
    """An executable shell script."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A PATH that holds the usual programs, but neither Java, Maven nor Nextflow."""
    folder = tmp_path / "path"
    folder.mkdir()
    for name in ("sh", "bash", "env", "dirname", "readlink", "sleep", "cat"):
        (folder / name).symlink_to(f"/bin/{name}" if os.path.exists(f"/bin/{name}") else f"/usr/bin/{name}")
    monkeypatch.setenv("PATH", str(folder))
    for name in ("JAVA_HOME", "JAVA_CMD", "NXF_JAVA_HOME", "NXF_VER"):
        monkeypatch.delenv(name, raising=False)
    return folder


# ---- the command line


def spadit(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "spadit", *arguments], env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )


def test_help_names_the_commands_and_the_cache(cache):
    done = spadit("--help")
    assert done.returncode == 0 and done.stderr == ""
    for word in ("demo", "run", "test", "doctor", str(cache)):
        assert word in done.stdout


def test_version_is_the_library_s():
    assert spadit("--version").stdout == "SpaDiT-flow 0.1.0\n"


def test_unknown_command_is_refused():
    done = spadit("dmeo")
    assert done.returncode == 2 and "'dmeo' is no command. Commands: demo, run, test, images, bundle, verify, doctor" in done.stderr


def test_syntax_is_readable_for_an_old_python():
    """Else it would answer with a SyntaxError instead of the sentence that names the version."""
    import ast

    ast.parse((ROOT / "spadit").read_text(encoding="utf-8"), feature_version=(3, 6))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-profile", "docker", "--input", "x.csv"], False),
        (["-profile", "slurm,podman"], False),
        (["-profile=apptainer"], False),
        (["-with-docker"], False),
        (["-profile", "slurm,conda"], False),
        (["-profile", "awsbatch"], False),
        (["-profile", "k8s,gpu"], False),
        (["--help"], False),
        (["-profile", "slurm"], True),
        (["--input", "docker"], True),
        ([], True),
    ],
)
def test_python_environment_only_without_containers(launcher, arguments, expected):
    assert launcher.needs_python(arguments) is expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--input", "x.csv"], False),
        (["--input", "x.csv", "--benchmark"], True),
        (["--robustness", "-resume"], True),
        (["--ablation=true"], True),
        (["--benchmark", "false"], False),
        (["--benchmark", "false", "--ablation"], True),
        (["--benchmark_folds", "5"], False),
        (["-params-file", "on.yml"], True),
        (["-params-file", "on.json"], True),
        (["-params-file", "off.yml"], False),
        (["-params-file", "missing.yml"], False),
    ],
)
def test_other_methods_are_set_up_when_asked_for(launcher, tmp_path, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "on.yml").write_text("input: x.csv\nbenchmark: true\n")
    (tmp_path / "on.json").write_text('{"input": "x.csv",\n "robustness": true}')
    (tmp_path / "off.yml").write_text("input: x.csv\nbenchmark: false\nno_benchmark: true\n")
    assert launcher.needs_peers(arguments) is expected


@pytest.mark.parametrize(
    ("arguments", "first"),
    [(["--input", "x"], ["core"]), (["--benchmark"], ["peers", "core"]), (["--benchmark", "-profile", "docker"], [])],
)
def test_tasks_find_the_other_methods_python_first(launcher, path, tmp_path, monkeypatch, arguments, first):
    answer = 'if [ "$1" = -version ]; then echo "version 25.04.0"; else echo "$PATH" >'
    program(path, "nextflow", f'#!/bin/sh\n{answer} "{tmp_path / "out"}"; fi\n')
    monkeypatch.setenv("SPADIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(launcher, "core_environment", lambda: tmp_path / "core")
    monkeypatch.setattr(launcher, "peer_environment", lambda core: tmp_path / "peers")
    assert launcher.run(arguments) == 0
    folders = [str(tmp_path / name / "bin") for name in first]
    assert (tmp_path / "out").read_text().strip() == os.pathsep.join([*folders, str(path)])


def test_options_of_a_nextflow_command_line(launcher):
    arguments = ["--outdir", "a b", "-profile", "x,y", "-resume", "--outdir=c"]
    assert launcher.option(arguments, "--outdir") == "c"
    assert launcher.option(arguments, "-profile") == "x,y"
    assert launcher.option(arguments, "--input") is None
    assert launcher.without(arguments, "-profile") == ["--outdir", "a b", "-resume", "--outdir=c"]
    assert launcher.without(arguments, "--outdir") == ["-profile", "x,y", "-resume"]


def test_cache_folder(launcher, monkeypatch, tmp_path):
    monkeypatch.setenv("SPADIT_CACHE", str(tmp_path / "own"))
    assert launcher.cache_folder() == tmp_path / "own"
    monkeypatch.delenv("SPADIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert launcher.cache_folder() == tmp_path / "xdg" / "spadit"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert launcher.cache_folder() == tmp_path / "home" / ".cache" / "spadit"


# ---- making something once


def test_made_once_and_then_found(launcher, cache):
    calls = []

    def make(folder, log):
        calls.append(folder)
        folder.mkdir()

    target = cache / "thing-1"
    assert launcher.make_once(target, "the thing", make) == target
    assert launcher.make_once(target, "the thing", make) == target
    assert len(calls) == 1 and calls[0] != target and target.is_dir() and not calls[0].exists()


def test_failed_and_killed_set_ups_leave_nothing(launcher, cache):
    def make(folder, log):
        assert not folder.exists(), "what a killed set-up left is removed first"
        folder.mkdir()
        (folder / "half").touch()
        raise launcher.Problem("no")

    (cache / "thing-1.partial").mkdir(parents=True)
    with pytest.raises(launcher.Problem):
        launcher.make_once(cache / "thing-1", "the thing", make)
    assert sorted(p.name for p in cache.iterdir()) == ["thing-1.lock"]


@pytest.mark.fault
def test_two_starts_at_once_make_it_once(launcher, cache, capsys):
    calls = []

    def make(folder, log):
        calls.append(folder)
        time.sleep(1)
        folder.mkdir()

    threads = [threading.Thread(target=launcher.make_once, args=(cache / "thing-1", "the thing", make)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert "Waiting: another start is setting up the thing." in capsys.readouterr().err


def test_a_cache_that_can_t_be_written_is_named(launcher, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(launcher.Problem, match="can't be set up in .*Set SPADIT_CACHE to a folder you can write to"):
        launcher.make_once(tmp_path / "file" / "thing", "the thing", lambda folder, log: None)


def test_full_disk_is_said_before_anything_is_fetched(launcher, tmp_path):
    with pytest.raises(launcher.Problem, match=r"needs 1000000000.0 GB in .*GB are free.*SPADIT_CACHE"):
        launcher.check_disk(tmp_path, 1e18, "the Python environment")


# ---- the Python environment


def test_environment_is_named_by_its_requirements(launcher, cache, tmp_path):
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("numpy==1")
    second.write_text("numpy==2")
    assert launcher.environment_folder("env", first).parent == cache
    assert launcher.environment_folder("env", first) != launcher.environment_folder("env", second)
    assert launcher.environment_folder("env", first, bases=[cache / "a"]) != launcher.environment_folder("env", first, bases=[cache / "b"])


def make_small(launcher, requirements: Path, check: str = "pass", **options) -> Path:
    return launcher.python_environment("small", requirements, "the small environment", 1e6, 1e6, check, **options)


def toy_wheel(folder: Path, name: str, code: str = "") -> Path:
    """A wheel of one module, version 1."""
    import zipfile

    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", code)
        wheel.writestr(f"{name}-1.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        wheel.writestr(f"{name}-1.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{name}-1.dist-info/RECORD", "")
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_environment_is_made_and_its_programs_run_from_where_it_ends_up(launcher, cache, tmp_path):
    """Without packages: a venv and its pip, renamed after it was made."""
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# none\n")
    folder = make_small(launcher, requirements)
    pip = subprocess.run([folder / "bin" / "pip", "--version"], capture_output=True, text=True)
    assert pip.returncode == 0 and str(folder) in pip.stdout
    assert not list(cache.glob("*.partial"))
    start = time.monotonic()
    assert make_small(launcher, requirements) == folder
    assert time.monotonic() - start < 1


def test_a_package_without_its_hash_is_refused(launcher, cache, tmp_path, monkeypatch):
    """What the lock file promises is kept: only known files are installed. Needs no network: the 'index' is a folder."""
    import base64

    wheels = tmp_path / "wheels"
    toy_wheel(wheels, "toy")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"toy==1 --hash=sha256:{base64.b16encode(bytes(32)).decode().lower()}\n")
    with pytest.raises(launcher.Problem, match="a file isn't the one this revision was tested with.*Details: .*log"):
        make_small(launcher, requirements)
    assert not [p for p in cache.iterdir() if p.is_dir()]
    assert "HASHES" in next(cache.glob("*.log")).read_text()


TOY_BACKEND = """
import os, zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(os.path.join(folder, "toysource-1-py3-none-any.whl"), "w") as wheel:
        wheel.writestr("toysource.py", "")
        wheel.writestr("toysource-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: toysource\\nVersion: 1\\n")
        wheel.writestr("toysource-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("toysource-1.dist-info/RECORD", "")
    return "toysource-1-py3-none-any.whl"
"""


def test_only_the_named_packages_are_built_from_source(launcher, cache, tmp_path, monkeypatch):
    """A source archive runs its own code when it is installed: none may by accident. What builds it is locked, too."""
    import tarfile

    files = tmp_path / "files"
    source = files / "toysource-1"
    source.mkdir(parents=True)
    (source / "pyproject.toml").write_text('[build-system]\nrequires = ["toybackend"]\nbuild-backend = "toybackend"\n')
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: toysource\nVersion: 1\n")
    with tarfile.open(files / "toysource-1.tar.gz", "w:gz") as archive:
        archive.add(source, "toysource-1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(files))
    requirements, build = tmp_path / "requirements.txt", tmp_path / "build.txt"
    requirements.write_text(f"toysource==1 --hash=sha256:{sha256(files / 'toysource-1.tar.gz')}\n")
    build.write_text(f"toybackend==1 --hash=sha256:{sha256(toy_wheel(files, 'toybackend', TOY_BACKEND))}\n")
    with pytest.raises(launcher.Problem, match="lacks a package"):
        make_small(launcher, requirements, "import toysource")
    folder = make_small(launcher, requirements, "import toysource", sources=["toysource"], build_requirements=build)
    assert list(folder.glob("lib/python*/site-packages/toysource.py"))


def test_packages_of_all_bases_are_visible(launcher, cache, tmp_path):
    for name in ("a", "b"):
        packages = tmp_path / name / "lib" / "python3" / "site-packages"
        packages.mkdir(parents=True)
        (packages / f"only_in_{name}.py").touch()
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# none\n")
    assert make_small(launcher, requirements, "import only_in_a, only_in_b", bases=[tmp_path / "a", tmp_path / "b"]).is_dir()


def test_environment_that_does_not_load_is_refused(launcher, cache, tmp_path):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# none\n")
    with pytest.raises(launcher.Problem, match="the small environment could not be set up: .*Details: .*log"):
        make_small(launcher, requirements, "import a_package_that_is_not_there")
    assert not [p for p in cache.iterdir() if p.is_dir()]


def test_missing_venv_module_is_named(launcher, cache, tmp_path, monkeypatch):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# none\n")
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(launcher.Problem, match="venv module is missing. Install it: apt-get install python3-venv"):
        make_small(launcher, requirements)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Failed to establish a new connection: [Errno -3] Temporary failure in name resolution", "can't be reached"),
        ("ERROR: HTTP error 403 Client Error: Forbidden for url", "refuses"),
        ("ERROR: No matching distribution found for torch==2.9.1", "lacks a package"),
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", "certificate"),
        ("Unknown host central.example.org: Name or service not known", "can't be reached"),
        ("npm error code ENOTFOUND", "can't be reached"),
        ("something else", "pip failed. Details"),
    ],
)
def test_reasons_are_read_from_the_log(launcher, tmp_path, line, expected):
    log = tmp_path / "log"
    log.write_text(f"Collecting x\n{line}\n")
    told = launcher.reason(log, "pip")
    assert expected in told and str(log) in told and "\n" not in told


def test_user_s_python_settings_stay_outside(launcher, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("PIP_PROXY", "kept")
    environment = launcher.clean_environment()
    assert "PYTHONPATH" not in environment and environment["PYTHONNOUSERSITE"] == "1" and environment["PIP_PROXY"] == "kept"


# ---- Java and Nextflow


def java(path: Path, version: str) -> None:
    program(path, "java", f"#!/bin/sh\necho 'openjdk version \"{version}\" 2024-01-01' >&2\n")


def test_missing_java_is_named(launcher, path):
    with pytest.raises(launcher.Problem, match="^Java is missing, .*apt-get install openjdk"):
        launcher.java()


@pytest.mark.parametrize(("version", "number"), [("1.8.0_392", 8), ("11.0.22", 11)])
def test_old_java_is_named(launcher, path, version, number):
    java(path, version)
    with pytest.raises(launcher.Problem, match=f"is Java {number}, and Nextflow needs 17 or newer"):
        launcher.java()


@pytest.mark.parametrize("version", ["17.0.1", "21-ea", "25"])
def test_new_java_is_taken(launcher, path, version):
    java(path, version)
    assert launcher.java() == str(path / "java")


def test_missing_maven_is_named(launcher, path, cache):
    java(path, "17.0.1")
    with pytest.raises(launcher.Problem, match="Neither nextflow .* nor Maven .*apt-get install maven"):
        launcher.nextflow(dict(os.environ))
    assert not [p for p in cache.iterdir() if p.is_dir()]


def test_failing_maven_is_explained(launcher, path, cache):
    java(path, "17.0.1")
    program(path, "mvn", "#!/bin/sh\necho 'Could not transfer artifact: Unknown host'\nexit 1\n")
    with pytest.raises(launcher.Problem, match="Nextflow could not be fetched: the package registry can't be reached.*Maven's proxy"):
        launcher.nextflow(dict(os.environ))


def test_fetched_nextflow_starts_java_with_the_jars(launcher, path, cache, tmp_path):
    """Maven and Java are played by scripts: what they are called with counts."""
    program(path, "mvn", '#!/bin/sh\nfor a; do case "$a" in -DoutputDirectory=*) echo > "${a#*=}/a.jar";; esac; done\n')
    program(path, "java", '#!/bin/sh\nif [ "$1" = -version ]; then echo \'version "17.0.1"\'; else echo "$@"; echo "$NXF_OFFLINE"; fi\n')
    environment = dict(os.environ)
    assert launcher.nextflow(environment).endswith("from Maven Central)")
    done = subprocess.run(["nextflow", "run", "a b"], env=environment, capture_output=True, text=True, check=True)
    assert "nextflow.cli.Launcher run a b" in done.stdout and "/lib/*" in done.stdout and done.stdout.endswith("true\n")
    (path / "mvn").unlink()
    launcher.nextflow(dict(os.environ))  # found, not fetched


def test_a_bundle_s_jars_and_wheels_are_taken(launcher, path, cache, tmp_path, monkeypatch):
    """Without Maven, and pip asks no registry; with another Python than the bundle's nothing is begun."""
    java(path, "17.0.1")
    assert launcher.from_bundle() == []
    monkeypatch.setattr(launcher, "BUNDLE", tmp_path / "bundle")
    for name in ("jars", "wheels"):
        (tmp_path / "bundle" / name).mkdir(parents=True)
    (tmp_path / "bundle" / "jars" / "a.jar").write_text("jar")
    environment = dict(os.environ)
    assert launcher.nextflow(environment).endswith("from the bundle)")
    assert (Path(environment["PATH"].partition(os.pathsep)[0]) / "lib" / "a.jar").read_text() == "jar"

    facts = {"python": f"{sys.version_info[0]}.{sys.version_info[1]}", "machine": os.uname().machine}
    (tmp_path / "bundle" / "bundle.json").write_text(json.dumps(facts))
    assert launcher.from_bundle() == ["--no-index", "--find-links", str(tmp_path / "bundle" / "wheels")]
    (tmp_path / "bundle" / "bundle.json").write_text(json.dumps({**facts, "python": "3.99"}))
    with pytest.raises(launcher.Problem, match="This bundle is for Python 3.99 .* Put python3.99 as python3 first in the PATH"):
        launcher.from_bundle()


def test_images_and_bundle_are_programs_of_their_own(tmp_path):
    """Their arguments and exit codes pass through."""
    assert spadit("images").returncode == 2 and "COMMAND" in spadit("images").stderr
    assert spadit("images", "--help").returncode == 0 and "licences.csv" in spadit("images", "build", "--help").stdout
    done = spadit("images", "--engine", "docker", "list", PATH=str(tmp_path))
    assert done.returncode == 1 and "docker is not in the PATH" in done.stderr
    assert "--images" in spadit("bundle", "--help").stdout


@pytest.mark.parametrize(
    ("version", "used"), [("24.10.0", True), ("25.10.2", True), ("26.04.0-edge", True), ("24.04.4", False), ("9.9.9", False)]
)
def test_nextflow_on_the_path_is_used_when_new_enough(launcher, path, cache, tmp_path, version, used, capsys):
    java(path, "17.0.1")
    program(path, "nextflow", FAKE_NEXTFLOW.format(version=version, out=tmp_path / "out", code=0))
    if used:
        assert launcher.nextflow(dict(os.environ)) == f"Nextflow {version} ({path / 'nextflow'})"
    else:
        with pytest.raises(launcher.Problem, match="Maven"):
            launcher.nextflow(dict(os.environ))
        assert f"Nextflow {version} in the PATH is older than 24.10" in capsys.readouterr().err


def test_nextflow_that_does_not_start_is_tried_once(launcher, path, cache, tmp_path):
    """Such as the launcher that downloads Nextflow, on a machine where it can't."""
    program(path, "nextflow", f'#!/bin/sh\necho tried >> "{tmp_path / "tries"}"\nexit 1\n')
    assert launcher.nextflow_on_path() is None
    assert launcher.nextflow_on_path() is None
    assert (tmp_path / "tries").read_text() == "tried\n"


# ---- runs


def test_arguments_and_exit_code_pass_through(path, cache, tmp_path):
    program(path, "nextflow", FAKE_NEXTFLOW.format(version="25.04.0", out=tmp_path / "out", code=37))
    done = spadit("run", "-profile", "docker", "--input", "a b.csv", "-resume")
    assert done.returncode == 37
    assert (tmp_path / "out").read_text() == f"run {ROOT} -profile docker --input a b.csv -resume\n"
    assert "Using Nextflow 25.04.0" in done.stderr
    assert not list(cache.glob("env-*")), "containers need no Python environment"


def test_demo_adds_its_profile_and_names_the_report(path, cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = tmp_path / "spadit-demo" / "multiqc" / "multiqc_report.html"
    report.parent.mkdir(parents=True)
    report.touch()
    program(path, "nextflow", FAKE_NEXTFLOW.format(version="25.04.0", out=tmp_path / "out", code=0))
    done = spadit("demo", "-profile", "docker", "-resume")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_text() == f"run {ROOT} -profile demo,docker -resume --outdir {tmp_path / 'spadit-demo'}\n"
    assert str(report) in done.stdout


def test_demo_without_a_report_is_a_failure(path, cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program(path, "nextflow", FAKE_NEXTFLOW.format(version="25.04.0", out=tmp_path / "out", code=0))
    done = spadit("demo", "-profile", "docker")
    assert done.returncode == 1 and "left no report" in done.stderr


@pytest.mark.fault
def test_signals_reach_nextflow(path, cache, tmp_path):
    script = (
        '#!/bin/sh\nif [ "$1" = -version ]; then echo "version 25.04.0"; exit 0; fi\n'
        f'trap \'echo stopped > "{tmp_path / "out"}"; exit 143\' TERM\necho > "{tmp_path / "started"}"\n'
        "while :; do sleep 0.1; done\n"
    )
    program(path, "nextflow", script)
    child = subprocess.Popen([sys.executable, ROOT / "spadit", "run", "-profile", "docker"], stderr=subprocess.DEVNULL)
    for _ in range(200):
        if (tmp_path / "started").exists():
            break
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=20) == 143
    assert (tmp_path / "out").read_text() == "stopped\n"
