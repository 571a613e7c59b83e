"""Makes one archive with all that a machine without network needs; ``./spadit bundle`` runs it. Needs Python's standard library and git."""

from __future__ import annotations

import argparse
import io
import json
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import images
from images import GB, ROOT, Problem, ended, say

LOCKS = ("containers/peers/build.txt", "containers/core/requirements.txt", "containers/peers/requirements.txt")
WHEELS_SIZE = 4.6 * GB


def code_files() -> tuple[list[str], str]:
    """The files that git knows, and the revision. Raises Problem outside a clone."""

    def git(*arguments: str) -> str:
        try:
            return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            raise Problem(f"{ROOT} is no git clone, or git is missing. A bundle is made in a clone: git clone …") from None

    if git("status", "--porcelain"):
        say("This clone differs from its last commit: changes of files that git knows go into the bundle, other files don't.")
    return [name for name in git("ls-files", "-z").split("\0") if name and (ROOT / name).is_file()], git("rev-parse", "HEAD").strip()


def fetch_wheels(folder: Path, work: Path) -> None:
    """Download what the lock files name for this Python and machine, each checked against its hash."""
    say(f"Fetching the packages for Python {platform.python_version()} on {platform.machine()}: about {WHEELS_SIZE / GB:.1f} GB")
    log = work / "pip.log"

    def pip(*arguments: object) -> None:
        command = [work / "venv/bin/python", "-m", "pip", *arguments, "--disable-pip-version-check", "--progress-bar", "off"]
        with open(log, "a", encoding="utf-8") as stream:
            done = subprocess.run(list(map(str, command)), stdout=stream, stderr=subprocess.STDOUT, timeout=3600)
        if done.returncode:
            raise Problem(f"Packages could not be fetched: {images.reason(log.read_text(encoding='utf-8'))}")

    try:
        subprocess.run([sys.executable, "-m", "venv", work / "venv"], check=True, capture_output=True)
    except subprocess.CalledProcessError:
        raise Problem("Python's venv module is missing. Install it: apt-get install python3-venv") from None
    strict = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--no-cache-dir"]
    # docrep comes as a source archive only: what builds it has to be there to read its metadata
    pip("install", *strict, "-r", ROOT / LOCKS[0])
    for lock in LOCKS:
        source = ["--no-binary", "docrep", "--no-build-isolation"] if lock == LOCKS[2] else []
        pip("download", *strict, *source, "-d", folder, "-r", ROOT / lock)


def add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    """Add a file without the name and the clock of who made the bundle."""
    entry = archive.gettarinfo(str(path), name)
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.mode & 0o100 else 0o644
    if entry.isreg():
        with open(path, "rb") as stream:
            archive.addfile(entry, stream)
    else:
        archive.addfile(entry)


def bundle(jars: Path, target: Path, command: str | None) -> None:
    """Write the archive.

    Parameters
    ----------
    jars
        Folder with Nextflow's jars.
    command
        Container engine whose images go into the bundle; None for Python packages.
    """
    files, revision = code_files()
    if not list(jars.glob("*.jar")):
        raise Problem(f"{jars} holds no jars of Nextflow. Delete it and start again")
    target.parent.mkdir(parents=True, exist_ok=True)
    if command:
        saved = [image for image in images.LARGEST if images.facts(command, images.tag(image))]
        images.present(command, "core")
        needed = 2 * sum(images.present(command, image)["Size"] for image in saved)
    else:
        needed = 2.2 * WHEELS_SIZE
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise Problem(
            f"The bundle needs {needed / GB:.1f} GB while it is made, and {free / GB:.1f} GB are free in {target.parent}. Use --to"
        )
    top = f"spadit-{images.version()}"
    facts = {
        "version": images.version(),
        "revision": revision,
        "holds": "images" if command else "wheels",
        "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "machine": platform.machine(),
    }
    partial = target.with_name(target.name + ".partial")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".spadit-bundle-") as work:
        parts = Path(work) / "parts"
        parts.mkdir()
        if command:
            for image in saved:
                images.save(command, image, parts)
        else:
            fetch_wheels(parts, Path(work))
        try:
            say(f"Writing {target}")
            with tarfile.open(partial, "w") as archive:
                for name in sorted(files):
                    add(archive, ROOT / name, f"{top}/{name}")
                for path in sorted(jars.glob("*.jar")):
                    add(archive, path, f"{top}/bundle/jars/{path.name}")
                for path in sorted(parts.iterdir()):
                    add(archive, path, f"{top}/bundle/{facts['holds']}/{path.name}")
                    path.unlink()
                text = json.dumps(facts, indent=1).encode()
                entry = tarfile.TarInfo(f"{top}/bundle/bundle.json")
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text))
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    target.with_name(target.name + ".sha256").write_text(f"{images.digest(target)}  {target.name}\n", encoding="utf-8")
    start = "./spadit images load && ./spadit demo -profile podman" if command else "./spadit demo"
    say(f"{target}: {target.stat().st_size / GB:.2f} GB. Copy it and its .sha256 to the machine without network, then:")
    print(f"sha256sum -c {target.name}.sha256 && tar -xf {target.name} && cd {top} && {start}")


def main(arguments: list[str]) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="./spadit bundle", description="One archive for a machine without network: code, Nextflow, packages."
    )
    parser.add_argument("--images", action="store_true", help="the images that are built, instead of Python packages")
    parser.add_argument("--engine", choices=images.ENGINES, help="default: podman when it is there, else docker")
    parser.add_argument(
        "--to", type=Path, default=Path(f"spadit-{images.version()}-bundle.tar"), metavar="FILE", help="default: ./%(default)s"
    )
    parser.add_argument("--jars", type=Path, required=True, help=argparse.SUPPRESS)  # ./spadit fetches them
    asked = parser.parse_args(arguments)
    return ended(lambda: bundle(asked.jars, asked.to.absolute(), images.engine(asked.engine) if asked.images else None))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
