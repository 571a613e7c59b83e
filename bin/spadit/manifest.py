"""Is what a run published still what it was? Checks an output folder against ``pipeline_info/manifest.json``, which the run leaves last.

Needs Python's standard library only: ``./spadit verify`` runs it without an environment.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from spadit.errors import InputError

MANIFEST = "pipeline_info/manifest.json"
UNLISTED = ("pipeline_info/execution_", "pipeline_info/pipeline_dag_", "pipeline_info/running.json", MANIFEST)
"""Starts of names of files that no manifest lists: itself, and what Nextflow writes after it."""


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    value = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            value.update(block)
    return value.hexdigest()


def read_manifest(outdir: str | Path) -> dict:
    """The manifest of an output folder.

    Raises
    ------
    InputError
        When there is none, or it isn't one.
    """
    path = Path(outdir) / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        running = path.with_name("running.json").exists()
        raise InputError(
            f"There is no manifest in {outdir}{': the run that wrote to it has not ended, or was killed' if running else ''}.",
            "Give the --outdir of a run that has ended; one that was killed is finished by starting it again with -resume.",
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read as JSON: {error}.") from error
    if not isinstance(content, dict) or content.get("kind") != "manifest" or content.get("version") != 1:
        raise InputError(f"{path} is not a manifest of this revision's kind.")
    names = [*content["files"], *content["folders"]]
    if any(PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts for name in names):
        raise InputError(f"{path} names files outside its folder.", "It was changed by hand: don't trust this folder.")
    return content


def verify(outdir: str | Path, manifest: dict | None = None) -> dict[str, list[str]]:
    """Compare an output folder with its manifest.

    Returns
    -------
    dict
        'missing', 'changed' and 'unlisted': names of files, relative to the folder, sorted. All empty when it is as the run left it.
    """
    outdir = Path(outdir)
    manifest = manifest or read_manifest(outdir)
    missing, changed = [], []
    for name, facts in manifest["files"].items():
        path = outdir / name
        if not path.is_file():
            missing.append(name)
        elif path.stat().st_size != facts["size"] or sha256(path) != facts["sha256"]:
            changed.append(name)
    found = [path.relative_to(outdir).as_posix() for folder in manifest["folders"] for path in _files_below(outdir / folder)]
    unlisted = [name for name in found if name not in manifest["files"] and not name.startswith(UNLISTED)]
    return {"missing": sorted(missing), "changed": sorted(changed), "unlisted": sorted(unlisted)}


def _files_below(folder: Path) -> list[Path]:
    """All files, also behind links to folders, as with publish_dir_mode symlink."""
    if not folder.is_dir():
        return []
    return [file for path in sorted(folder.iterdir()) for file in (_files_below(path) if path.is_dir() else [path])]


def main(arguments: Sequence[str]) -> int:
    """``spadit verify <outdir>``: print what is wrong; 0 when nothing is, 1 when something is, 2 when it can't be told."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: ./spadit verify <outdir>", file=sys.stderr)
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    try:
        manifest = read_manifest(arguments[0])
    except InputError as error:
        print(f"spadit: {error}", file=sys.stderr)
        return 2
    wrong = verify(arguments[0], manifest)
    for what, names in wrong.items():
        for name in names:
            print(f"{what:9} {name}")
    if not manifest.get("success"):
        print("spadit: This run ended with an error; the manifest lists what it had published until then.", file=sys.stderr)
    n = sum(map(len, wrong.values()))
    if n:
        print(f"spadit: {n} of {len(manifest['files'])} files are not as the run left them.", file=sys.stderr)
        return 1
    print(f"{len(manifest['files'])} files are as the run left them.")
    return 0
