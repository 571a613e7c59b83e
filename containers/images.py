"""Builds, tests, saves and loads the images; ``./spadit images`` runs it. Needs Python's standard library and podman or docker."""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
GB = 1e9
ENGINES = ("podman", "docker")
# each image, and the size that it must stay below: a package that comes in unseen is noticed
LARGEST = {"core": 9.5 * GB, "peers": 10 * GB, "gpu": 10.5 * GB}
# what an image is tested with: no network, no rights, nothing to write to but /tmp, and not as root
LOCKED_UP = [
    "--network",
    "none",
    "--cap-drop",
    "all",
    "--security-opt",
    "no-new-privileges",
    "--read-only",
    "--tmpfs",
    "/tmp",
    "--user",
    "1000:1000",
]
BASE = "docker.io/library/debian:bookworm-slim"


class Problem(Exception):
    """What is wrong and its remedy, each in one sentence."""


def say(message: str) -> None:
    """Tell the user what is going on; standard output is for answers."""
    print(f"spadit: {message}", file=sys.stderr, flush=True)


def version() -> str:
    """The pipeline's version, which is the images' tag."""
    return re.search(r'__version__ = "(.+)"', (ROOT / "bin/spadit/__init__.py").read_text(encoding="utf-8"))[1]


def tag(image: str) -> str:
    """The name that conf/base.config gives an image."""
    return f"spadit/{image}:{version()}"


def file_name(image: str) -> str:
    """What the files of an image begin with."""
    return f"spadit-{image}-{version()}"


def engine(wanted: str | None) -> str:
    """The container engine that was asked for, else the first one there is."""
    for name in [wanted] if wanted else ENGINES:
        if shutil.which(name):
            return name
    raise Problem(f"{wanted or 'No container engine'} is {'not in the PATH' if wanted else 'there'}. Install one: apt-get install podman")


REASONS = [  # what the engine says, what that means, what to do
    (r"No space left on device|Disk quota exceeded", "the disk is full", "Free some space: 30 GB are needed to build."),
    (
        r"(docker\.io|registry-1).*(dial tcp|lookup|timeout|refused|forbidden|denied)|pinging container registry|initializing source docker://",
        f"{BASE}, which the image begins with, can't be fetched",
        "Load it from a machine that has it, or make it from Debian's packages: containers/base.sh",
    ),
    (r"DO NOT MATCH THE HASHES", "a package isn't the one this revision was tested with", "Ask who runs your package mirror."),
    (r"CERTIFICATE_VERIFY_FAILED|x509:", "a certificate isn't trusted", "Set SSL_CERT_FILE to your site's certificates."),
    (
        r"name resolution|Name or service not known|onnection (refused|reset)|Network is unreachable|timed out|Could not resolve",
        "a package registry can't be reached",
        "Check the network, and pip's and apt's proxy or mirror settings.",
    ),
    (
        r"cgroup|rlimit|ulimit|[Oo]peration not permitted|netavark|newuidmap",
        "the engine can't start containers on this machine",
        "Settings for restricted machines: containers/podman-conf.sh FILE; export CONTAINERS_CONF=FILE",
    ),
    (
        r"Cannot connect to the Docker daemon|permission denied.*docker",
        "docker's daemon can't be reached",
        "Start it, or use --engine podman.",
    ),
]


def reason(text: str) -> str:
    """Why an engine failed and the remedy, read from what it printed."""
    for pattern, what, remedy in REASONS:
        if re.search(pattern, text):
            return f"{what}. {remedy}"
    return "\n".join(text.strip().splitlines()[-5:]) or "it printed nothing"


def output_of(command: list, minutes: float = 10, text: str | None = None) -> str:
    """Run a command and return its standard output. Raises Problem when it fails."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60 * minutes)
    except subprocess.TimeoutExpired:
        raise Problem(f"'{shlex.join(map(str, command[:3]))} …' did not end within {minutes:.0f} minutes. Is the machine busy?") from None
    if done.returncode:
        raise Problem(f"'{shlex.join(map(str, command[:3]))} …' failed: {reason(done.stderr + done.stdout)}")
    return done.stdout


def facts(command: str, name: str) -> dict | None:
    """What the engine knows of an image; None when it isn't there."""
    done = subprocess.run([command, "image", "inspect", name], capture_output=True, text=True, timeout=120)
    if done.returncode == 0:
        return json.loads(done.stdout)[0]
    if re.search(r"[Nn]o such image|image not known|not found|failed to find", done.stderr):
        return None
    raise Problem(f"{command} can't look for {name}: {reason(done.stderr)}")


def present(command: str, image: str) -> dict:
    """What the engine knows of an image. Raises Problem when it isn't there."""
    found = facts(command, tag(image))
    if found is None:
        raise Problem(
            f"{command} has no image {tag(image)}. Build it: ./spadit images build {image}, or load it: ./spadit images load FILE"
        )
    return found


def digest(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    value = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 22):
            value.update(block)
    return value.hexdigest()


# ---- build -----------------------------------------------------------------------------------------------------------


def build(command: str, image: str, folder: Path, options: list[str]) -> None:
    """Build an image and write its bill of materials and its licences to ``folder``."""
    if image != "core":
        present(command, "core")
    log = folder / f"{file_name(image)}.build.log"
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True) if shutil.which("git") else None
    if head and head.returncode == 0:
        options = ["--build-arg", f"REVISION={head.stdout.strip()}", *options]
    if command == "podman":
        call = [HERE / "build.sh", image, *options]
    else:
        call = [command, "build", "-t", tag(image), *options, HERE / image]
    say(f"Building {tag(image)} with {command}; with nothing there yet the core takes about 10 minutes. Log: {log}")
    start = time.monotonic()
    with open(log, "w", encoding="utf-8") as stream:
        child = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        try:
            for line in child.stdout:
                stream.write(line)
                if re.match(r"STEP |#\d+ \[|Collecting |Installing collected|Successfully installed", line):
                    say(f"{time.monotonic() - start:4.0f} s  {line.strip()[:100]}")
            code = child.wait()
        except BaseException:
            child.terminate()
            child.wait()
            raise
    if code:
        raise Problem(f"{tag(image)} could not be built: {reason(log.read_text(encoding='utf-8'))} Details: {log}")
    list_contents(command, image, folder)
    say(f"{tag(image)} is built: {present(command, image)['Size'] / GB:.1f} GB. Test it: ./spadit images test {image}")


def list_contents(command: str, image: str, folder: Path) -> None:
    """Write what an image holds: a bill of materials (CycloneDX, JSON) and a table of licences (CSV)."""
    known = present(command, image)
    run = [command, "run", "--rm", "-i", *LOCKED_UP, tag(image), "python3", "-"]
    contents = json.loads(output_of(run, text=(HERE / "contents.py").read_text(encoding="utf-8")))
    bom = bill_of_materials(contents, image, known["Id"], known["Created"])
    path = folder / f"{file_name(image)}.sbom.json"
    path.write_text(json.dumps(bom, indent=1) + "\n", encoding="utf-8")
    table = folder / f"{file_name(image)}.licences.csv"
    with open(table, "w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(["kind", "package", "version", "licence", "page"])
        rows.writerows([kind, e["name"], e["version"], e["licence"], e["page"]] for kind in ("python", "debian") for e in contents[kind])
    say(f"What it holds: {path}, {table}")


def bill_of_materials(contents: dict, image: str, image_id: str, created: str) -> dict:
    """What contents.py printed as a CycloneDX 1.5 document."""
    components = []
    for kind, scheme in (("python", "pypi"), ("debian", "deb/debian")):
        for entry in contents[kind]:
            name = re.sub(r"[-_.]+", "-", entry["name"]).lower() if kind == "python" else entry["name"]
            purl = f"pkg:{scheme}/{name}@{entry['version'].replace('+', '%2B').replace(':', '%3A')}"
            purl += f"?arch={entry['machine']}" if "machine" in entry else ""
            components.append(
                {
                    "type": "library",
                    "bom-ref": purl,
                    "name": entry["name"],
                    "version": entry["version"],
                    "purl": purl,
                    "licenses": [{"license": {"name": entry["licence"]}}],
                    **({"externalReferences": [{"type": "website", "url": entry["page"]}]} if entry["page"] else {}),
                }
            )
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, image_id)}",
        "version": 1,
        "metadata": {
            "timestamp": re.sub(r"\.\d+", "", created),
            "component": {
                "type": "container",
                "bom-ref": tag(image),
                "name": f"spadit/{image}",
                "version": version(),
                "description": contents["system"],
                "hashes": [{"alg": "SHA-256", "content": image_id.removeprefix("sha256:")}],
            },
        },
        "components": components,
    }


# ---- test ------------------------------------------------------------------------------------------------------------


def test(command: str, image: str) -> dict:
    """Start an image with no network and no rights and let it check itself. Returns what it found. Raises Problem when it isn't well."""
    known = present(command, image)
    size, largest = known["Size"], LARGEST[image]
    say(f"Testing {tag(image)}, {size / GB:.1f} GB: importing every package, without network and rights")
    if size > largest:
        raise Problem(
            f"{tag(image)} takes {size / GB:.2f} GB, more than {largest / GB:.1f} GB. See what came in: the .sbom.json of its build"
        )
    if known["Config"].get("User") in (None, "", "root", "0"):
        raise Problem(f"{tag(image)} runs as root. Its Dockerfile has to end with another USER")
    done = subprocess.run(
        [command, "run", "--rm", *LOCKED_UP, tag(image), "python3", "/opt/spadit/check.py"], capture_output=True, text=True, timeout=900
    )
    try:
        found = json.loads(done.stdout)
    except ValueError:
        raise Problem(f"{tag(image)} can't check itself: {reason(done.stderr + done.stdout)}") from None
    wrong = list(found["wrong"])
    if found["uid"] == 0:
        wrong.append("it runs as root")
    for name in ["requirements.txt"] + (["peers/requirements.txt"] if image == "peers" else []):
        here = HERE / ("core/requirements.txt" if name == "requirements.txt" else name)
        if found["requirements"].get(name) != digest(here):
            wrong.append(f"it was not made from {here.relative_to(ROOT)} of this revision: build it again")
    if wrong:
        raise Problem(f"{tag(image)} is not as it should be:\n  " + "\n  ".join(wrong))
    found["size"] = size
    checked = f"{len(found['versions'])} packages, {found['modules']} modules in {found['seconds']} s"
    say(f"{tag(image)} is well: Python {found['python']}, {checked}")
    return found


# ---- save, load, list ------------------------------------------------------------------------------------------------


def save(command: str, image: str, folder: Path) -> Path:
    """Write an image to an archive that docker, podman, apptainer and charliecloud read, and its sha256 beside it."""
    size = present(command, image)["Size"]
    path = folder / f"{file_name(image)}.tar"
    partial = path.with_suffix(".partial")
    free = shutil.disk_usage(folder).free
    if free < size:
        raise Problem(
            f"{path} needs {size / GB:.1f} GB, and {free / GB:.1f} GB are free in {folder}. Name a folder on a larger disk with --to"
        )
    say(f"Saving {tag(image)} to {path}: {size / GB:.1f} GB, one to three minutes")
    partial.unlink(missing_ok=True)  # podman adds to an archive that is there
    try:
        output_of(
            [command, "save", *(["--format", "docker-archive"] if command == "podman" else []), "-o", partial, tag(image)], minutes=30
        )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    path.with_name(path.name + ".sha256").write_text(f"{digest(path)}  {path.name}\n", encoding="utf-8")
    say(f"{path} and its .sha256 are written. On the other machine: ./spadit images load {path.name}")
    return path


def load(command: str, path: Path) -> str:
    """Load an archive after its sha256 was checked. Returns the image's name."""
    beside = path.with_name(path.name + ".sha256")
    if not path.is_file():
        raise Problem(f"{path} is not there. ./spadit images save writes such archives")
    if not beside.is_file():
        raise Problem(
            f"{beside} is not there, so nobody knows whether the archive is whole. Copy it, too: ./spadit images save writes both"
        )
    noted = beside.read_text(encoding="utf-8").split()
    if len(noted) < 1 or digest(path) != noted[0]:
        raise Problem(f"{path} is not the archive that {beside.name} was written for: its sha256 is another. Copy both again")
    say(f"Loading {path}: its sha256 is right")
    printed = output_of([command, "load", "-i", path], minutes=30)
    names = re.findall(r"Loaded image(?:\(s\))?: (?:localhost/)?(\S+)", printed)
    if not names:
        raise Problem(f"{command} did not say which image it found in {path}: {printed.strip()}")
    for name in names:
        if facts(command, name) is None:  # podman's archives name the host, which docker takes for a part of the name
            output_of([command, "tag", f"localhost/{name}", name])
        say(f"{name} is there")
    if not any(name in map(tag, LARGEST) for name in names):
        say(f"This revision uses {tag('core')}, not {', '.join(names)}: it will not find it")
    return names[0]


def table(command: str) -> list[tuple[str, ...]]:
    """One row for each image: name, whether it is there, size, revision it was built from."""
    rows = [("image", "size", "built", "revision")]
    for image in LARGEST:
        found = facts(command, tag(image))
        if found is None:
            rows.append((tag(image), "not there", "", ""))
        else:
            labels = found["Config"].get("Labels") or {}
            rows.append(
                (
                    tag(image),
                    f"{found['Size'] / GB:.1f} GB",
                    found["Created"][:10],
                    labels.get("org.opencontainers.image.revision", "")[:12],
                )
            )
    return rows


def ended(work: Callable[[], None]) -> int:
    """Do a command's work and return its exit code; what went wrong is said in a sentence."""
    try:
        work()
    except Problem as problem:
        say(str(problem))
        return 1
    except OSError as error:
        say(f"{error}. Is the folder there, and may you write to it?")
        return 1
    except KeyboardInterrupt:
        say("Interrupted.")
        return 130
    return 0


def main(arguments: list[str]) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="./spadit images", description="Build, test, save and load the images that tasks run in.")
    parser.add_argument("--engine", choices=ENGINES, help="default: podman when it is there, else docker")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in (
        ("build", "build, and list what the image holds (.sbom.json, .licences.csv); what follows -- goes to podman build"),
        ("test", "import every package in the image, without network and rights; prints the versions as JSON"),
        ("save", "write an archive and its sha256"),
        ("load", "load archives whose sha256 is right"),
        ("list", "say which images are there"),
    ):
        one = commands.add_parser(name, help=text, description=text)
        if name in ("build", "test", "save"):
            one.add_argument("images", nargs="*", metavar="IMAGE", help=f"{', '.join(LARGEST)}; default: core")
        if name in ("build", "save"):
            one.add_argument("--to", type=Path, default=Path("spadit-images"), metavar="FOLDER", help="default: ./spadit-images")
        if name == "load":
            one.add_argument("files", nargs="*", type=Path, metavar="FILE", help="default: those of the bundle that this revision came in")
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    asked, options = parser.parse_args(arguments[:cut]), arguments[cut + 1 :]
    images = getattr(asked, "images", None) or ["core"]
    for image in images:
        if image not in LARGEST:
            parser.error(f"'{image}' is no image. Images: {', '.join(LARGEST)}")
    if options and asked.command != "build":
        parser.error("only build passes options on")

    def work() -> None:
        command = engine(asked.engine)
        if hasattr(asked, "to"):
            asked.to.mkdir(parents=True, exist_ok=True)
        if asked.command == "build":
            for image in images:
                build(command, image, asked.to, options)
        elif asked.command == "test":
            print(json.dumps({tag(image): test(command, image) for image in images}, indent=1))
        elif asked.command == "save":
            for image in images:
                save(command, image, asked.to)
        elif asked.command == "load":
            files = asked.files or sorted((ROOT / "bundle" / "images").glob("*.tar"))
            if not files:
                raise Problem(
                    "No archive is named, and this revision didn't come in a bundle with images. Name one: ./spadit images load FILE"
                )
            for path in files:
                load(command, path)
        else:
            for row in table(command):
                print(f"{row[0]:24} {row[1]:>10}  {row[2]:10}  {row[3]}".rstrip())

    return ended(work)


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C.UTF-8")
    sys.exit(main(sys.argv[1:]))
