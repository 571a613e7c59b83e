"""Readers: what a platform wrote in, an AnnData in the pipeline's own form out.

Every reader is a function ``read_<platform>(path, role, batch) -> AnnData`` in a module ``<platform>.py`` that gives

- ``layers['counts']``: raw counts, CSR float32, spots or cells in the file's order; ``X`` is None,
- ``obsm['spatial']`` for slides: spots × 2, float64, in the file's units,
- ``uns['spadit']``: id, role, platform, source (file name), sha256, counts_from, warnings (list of sentences), and files (what was read of
  a folder).

Beside it stands ``recognise(path) -> str | None``: why a file or folder looks like this platform's, told from its content or from the names
of the files in it. A new reader is one module here and one line in :data:`READERS` (and its name in ``assets/schema_input.json``).
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from spadit.errors import InputError
from spadit.files import finished

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

log = logging.getLogger(__name__)

TECHNOLOGIES = {
    "visium_hd": "Visium HD",
    "visium": "Visium",
    "xenium": "Xenium",
    "merscope": "MERSCOPE",
    "cosmx": "CosMx",
    "stereoseq": "Stereo-seq",
    "slideseq": "Slide-seq",
}
"""Platforms that are a technology, as its maker writes it; the others are file formats, which say nothing about it."""
BINNED = ("visium_hd", "stereoseq")
"""Platforms whose reader takes the size of the squares, too."""


def _reader(platform: str) -> Callable[..., AnnData]:
    """The reader of a platform; its module is loaded when it is called."""

    def read(path: Path, role: str, batch: str | None, **options: str) -> AnnData:
        return getattr(importlib.import_module(f"spadit.io.{platform}"), f"read_{platform}")(path, role, batch, **options)

    return read


READERS: dict[str, Callable[..., AnnData]] = {
    platform: _reader(platform)
    for platform in (
        "h5ad",
        "spatialdata",
        "visium_hd",
        "visium",
        "xenium",
        "merscope",
        "cosmx",
        "stereoseq",
        "slideseq",
        "loom",
        "tenx",
        "tables",
    )
}
"""In the order in which they are asked whether they recognise a file or folder: the more special first."""


def read(path: str | Path, role: str, platform: str = "auto", batch: str | None = None, bin_size: str | int | None = None) -> AnnData:
    """Read a slide or a reference of any supported platform.

    Parameters
    ----------
    path
        The file or folder.
    role
        'slide' (coordinates are required) or 'reference'.
    platform
        A key of :data:`READERS`, or 'auto': see :func:`detect`.
    batch
        Column of ``obs`` that names a reference's batches (donor, run …); becomes ``obs['batch']``.
    bin_size
        Side of the squares, for platforms of :data:`BINNED`; their usual one when None or empty.

    Raises
    ------
    InputError
        When the file isn't there, isn't of a supported platform or doesn't hold usable counts.
    """
    path = Path(path)
    if role not in ("slide", "reference"):
        raise InputError(f"Role '{role}' is unknown.", "Use 'slide' or 'reference'.")
    platform = platform or "auto"
    if platform != "auto" and platform not in READERS:
        raise InputError(f"{path.name}: platform '{platform}' is not supported.", f"Supported are: auto, {', '.join(READERS)}.")
    require_file(path)
    if platform == "auto":
        platform, reason = detect(path)
        log.info("%s is read as %s: %s", path.name, platform, reason)
    else:
        _refuse_others(path, platform)
    options = {}
    if bin_size:
        if platform not in BINNED:
            raise InputError(
                f"{path.name}: a bin size is given ({bin_size}), but {platform} has none.", "Leave the column 'bin_size' empty."
            )
        options["bin_size"] = str(bin_size)
    adata = READERS[platform](path, role, batch or None, **options)
    adata.uns["spadit"] = {**adata.uns["spadit"], "source": path.name, "sha256": digest(path, adata.uns["spadit"].get("files", []))}
    return adata


def require_file(path: Path) -> None:
    """Refuse what isn't there, can't be opened, or would never end (a pipe, a device)."""
    try:
        there, odd = path.exists(), path.exists() and not path.is_file() and not path.is_dir()
        if there and not odd and path.is_file():
            open(path, "rb").close()
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        if isinstance(error, OSError) and error.errno in (errno.EIO, errno.ESTALE):
            raise  # the disk or the network, not the file: worth another try
        raise InputError(
            f"{path.name} can't be opened: {getattr(error, 'strerror', None) or error}.", "Check path and permissions."
        ) from error
    if not there:
        raise InputError(f"{path.name}: there is no such file.", "Check the path in the samplesheet.")
    if odd:
        raise InputError(f"{path.name} is a pipe or a device, not a file.", "Give a file.")


def detect(path: str | Path) -> tuple[str, str]:
    """Which platform wrote a file or folder, and why it seems so.

    A file is told from its content, never from its name; a folder from the files in it.

    Raises
    ------
    InputError
        When no reader recognises it; the message says what it looks like instead.
    """
    path = Path(path)
    if not path.is_dir():
        _refuse_others(path)
    for platform in READERS:
        reason = importlib.import_module(f"spadit.io.{platform}").recognise(path)
        if reason:
            return platform, reason
    supported = f"This revision reads: {', '.join(READERS)}; see docs/usage.md for the files of each, or name one in the column 'platform'."
    if path.is_dir():
        names = sorted(f.name + ("/" if f.is_dir() else "") for f in path.iterdir())
        held = f"it holds {', '.join(names[:8])}{' …' if len(names) > 8 else ''}" if names else "it is empty"
        raise InputError(f"{path.name} is a directory that no reader recognises: {held}.", supported)
    from spadit.io.bundle import HDF5_SIGNATURE, start_of

    if start_of(path, 8) == HDF5_SIGNATURE:
        raise InputError(f"{path.name} is HDF5 but not an h5ad file (it has no 'obs' and 'var'), nor of another known layout.", supported)
    raise InputError(f"{path.name} is not an HDF5 file and not a table of text.", supported)


def _refuse_others(path: Path, platform: str = "auto") -> None:
    """An error that says what the file looks like, when it can't be read at all."""
    from spadit.io.bundle import HDF5_SIGNATURE, start_of

    folder = "a directory, not a file"
    if path.is_dir():
        if platform in ("h5ad", "loom"):
            raise InputError(f"{path.name} is {folder}.", f"Name the file, or leave the platform '{platform}' away.")
        return
    if platform in ("spatialdata", "visium", "visium_hd", "xenium", "merscope", "cosmx", "slideseq"):
        raise InputError(f"{path.name} is a file, but {platform} is read from a folder.", "Name the whole folder that the software wrote.")
    start = start_of(path)
    if not start:
        raise InputError(f"{path.name} is empty (0 bytes).", "Copy or download it again.")
    for signature, meaning in (
        (b"PK\x03\x04", "is a zip archive: unpack it first"),
        (b"version https://git-lfs", "is a Git LFS pointer, not the data: run 'git lfs pull' first"),
        (b"<", "is a web page or XML, probably a failed download"),
    ):
        if start.lstrip().startswith(signature):
            raise InputError(f"{path.name} {meaning}.", f"This revision reads: {', '.join(READERS)}.")
    if platform in ("h5ad", "loom", "stereoseq") and not start.startswith(HDF5_SIGNATURE):
        looks = "is a gzip archive: unpack it first" if start.startswith(b"\x1f\x8b") else "is not an HDF5 file"
        raise InputError(f"{path.name} {looks}.", f"This revision reads: {', '.join(READERS)}.")


def load(path: str | Path, role: str = "") -> AnnData:
    """Read a file that an earlier step of this pipeline wrote.

    Raises
    ------
    InputError
        When it isn't one (no ``layers['counts']`` or no ``uns['spadit']``), or has another role.
    """
    import anndata as ad

    from spadit.io.hdf5 import opened

    try:
        with opened(path):  # also a file of an earlier step may have been exchanged or damaged
            pass
        adata = ad.read_h5ad(path)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # what a damaged file raises can be anything
        if isinstance(error, OSError) and error.errno in (errno.EIO, errno.ESTALE):
            raise
        raise InputError(f"{path} can't be read as h5ad: {error}.", "Run the step that made it again.") from error
    if "counts" not in adata.layers or not isinstance(adata.uns.get("spadit"), dict):
        raise InputError(f"{path} was not written by this pipeline.", "Read the original file with spadit_read.py first.")
    if role and adata.uns["spadit"].get("role") != role:
        raise InputError(f"{path} holds a {adata.uns['spadit'].get('role')}, but a {role} is expected.", "Swap the two files.")
    return adata


def load_var(path: str | Path) -> pd.DataFrame:
    """The gene table alone of a file that an earlier step wrote: the counts are not looked at."""
    import h5py
    from anndata.io import read_elem

    try:
        with h5py.File(path, "r") as file:
            return read_elem(file["var"])
    except Exception as error:  # what a damaged file raises can be anything
        raise InputError(f"{path} can't be read as h5ad: {error}.") from error


def load_shape(path: str | Path) -> tuple[int, int]:
    """Spots or cells, and genes, of a file that an earlier step wrote: the counts are not looked at."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return tuple(len(file[axis][file[axis].attrs["_index"]]) for axis in ("obs", "var"))
    except Exception as error:  # what a damaged file raises can be anything
        raise InputError(f"{path} can't be read as h5ad: {error}.") from error


def warnings_of(adata: AnnData) -> list[str]:
    """The warnings that earlier steps left in ``uns['spadit']``."""
    return [str(w) for w in adata.uns.get("spadit", {}).get("warnings", [])]


def write_h5ad(adata: AnnData, path: str | Path) -> None:
    """Write an h5ad file whole or not at all: a reader never sees half of it."""
    with finished(path) as temporary:
        adata.write_h5ad(temporary, compression="gzip", compression_opts=1)


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def digest(path: Path, files: list[str]) -> str:
    """SHA-256 of a file; of a folder, of the list of the given files in it with the SHA-256 of each (as ``sha256sum`` prints it)."""
    if not path.is_dir():
        return sha256(path)
    lines = "".join(f"{sha256(path / name)}  {name}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()
