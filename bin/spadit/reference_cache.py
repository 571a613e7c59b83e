"""References that were read and checked before, kept in a folder for later runs.

An entry is a folder, named by a checksum of all that its content follows from: the original's bytes, how it was read, the thresholds of
quality control, and this package's version. It holds ``reference.h5ad``, ``qc.json`` and ``entry.json`` (what it was made from, and the
checksums of both). It appears whole or not at all; one that doesn't match its checksums any more is made anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
from pathlib import Path

from spadit import __version__, io
from spadit.contracts import QualityControl
from spadit.files import finished, write_text

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
FILES = ("reference.h5ad", "qc.json")


def prepare_reference(
    path: str | Path,
    output: str | Path,
    facts: str | Path,
    id: str,
    cache: str | Path | None = None,
    platform: str = "auto",
    batch: str | None = None,
    **thresholds: float,
) -> bool:
    """Read a reference and keep what passes quality control, or take both from the cache.

    Parameters
    ----------
    path
        The original, as :func:`spadit.io.read` takes it.
    output, facts
        Files to write: the reference after quality control (h5ad), and its facts (JSON).
    id
        Name of the reference in this run.
    cache
        Folder of the entries; made when it isn't there. None: no cache.
    platform, batch
        See :func:`spadit.io.read`.
    **thresholds
        See :func:`spadit.qc.quality_control`.

    Returns
    -------
    bool
        Whether it came from the cache.

    Raises
    ------
    InputError
        When the original can't be used. A cache that can't be read or written is only warned of.
    """
    path = Path(path)
    if cache is None:
        _make(path, Path(output), Path(facts), id, platform, batch, thresholds)
        return False
    io.require_file(path)
    made_from = {
        "content": content_sha256(path),
        "platform": platform or "auto",
        "batch": batch or "",
        "thresholds": {name: float(value) for name, value in sorted(thresholds.items())},
        "version": __version__,
        "format": FORMAT_VERSION,
    }
    entry = Path(cache) / hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
    if _take(entry, Path(output), Path(facts), id, path.name):
        log.info("%s: taken from the reference cache (%s).", id, entry.name[:12])
        return True
    _make(path, Path(output), Path(facts), id, platform, batch, thresholds)
    try:
        Path(cache).mkdir(parents=True, exist_ok=True)
        with finished(entry) as folder:
            folder.mkdir()
            for name, source in zip(FILES, (output, facts), strict=True):
                shutil.copyfile(source, folder / name)
            sums = {name: io.sha256(folder / name) for name in FILES}
            write_text(folder / "entry.json", json.dumps({"made_from": made_from, "sha256": sums}, indent=1) + "\n")
    except OSError as error:  # a full disk, no permission, or another run that was faster
        log.warning("%s: the reference was not kept in the cache %s: %s.", id, cache, error)
    return False


def content_sha256(path: str | Path) -> str:
    """SHA-256 of a file, or of a folder's files with their names."""
    path = Path(path)
    if not path.is_dir():
        return io.sha256(path)
    digest = hashlib.sha256()
    for part in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{part.relative_to(path).as_posix()}\0{io.sha256(part)}\n".encode())
    return digest.hexdigest()


def _make(path: Path, output: Path, facts: Path, id: str, platform: str, batch: str | None, thresholds: dict) -> None:
    from spadit.qc import quality_control

    adata = io.read(path, "reference", platform, batch)
    adata.uns["spadit"]["id"] = id
    adata, found = quality_control(adata, "reference", id, **thresholds)
    io.write_h5ad(adata, output)
    found.to_json(facts)


def _take(entry: Path, output: Path, facts: Path, id: str, source: str) -> bool:
    """Copy an entry's files if they are what they were, with this run's names of reference and file in them."""
    import h5py
    from anndata.io import write_elem

    if not entry.exists():
        return False
    try:
        sums = json.loads((entry / "entry.json").read_text(encoding="utf-8"))["sha256"]
        with finished(output) as copy:
            shutil.copyfile(entry / FILES[0], copy)
            found = QualityControl.from_json(entry / FILES[1])
            if {FILES[0]: io.sha256(copy), FILES[1]: io.sha256(entry / FILES[1])} != sums:
                raise ValueError("its content does not match its checksums")
            with h5py.File(copy, "r+") as file:
                for name, value in (("id", id), ("source", source)):
                    group = file["uns/spadit"]
                    if name in group:
                        del group[name]
                    write_elem(group, name, value)
        dataclasses.replace(found, id=id).to_json(facts)
    except Exception as error:  # whatever is wrong with it, the original is there to make it anew
        log.warning("%s: the entry %s of the reference cache is damaged (%s): it is made anew.", id, entry.name[:12], error)
        return False
    return True
