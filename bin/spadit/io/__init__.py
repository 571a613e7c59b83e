"""Readers: a file of some platform in, an AnnData in the pipeline's own form out.

Every reader is a function ``read(path, role, batch) -> AnnData`` that gives

- ``layers['counts']``: raw counts, CSR float32, spots or cells in the file's order; ``X`` is None,
- ``obsm['spatial']`` for slides: spots × 2, float64, in the file's units,
- ``uns['spadit']``: id, role, platform, source (file name), sha256, counts_from, warnings (list of sentences).

A new reader is one module here and one line in :data:`READERS` (and its name in ``assets/schema_input.json``).
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from spadit.errors import InputError
from spadit.files import finished

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def _read_h5ad(path: Path, role: str, batch: str | None) -> AnnData:
    from spadit.io.h5ad import read_h5ad

    return read_h5ad(path, role, batch)


READERS: dict[str, Callable[[Path, str, str | None], AnnData]] = {"h5ad": _read_h5ad}


def read(path: str | Path, role: str, platform: str = "auto", batch: str | None = None) -> AnnData:
    """Read a slide or a reference of any supported platform.

    Parameters
    ----------
    path
        The file.
    role
        'slide' (coordinates are required) or 'reference'.
    platform
        A key of :data:`READERS`, or 'auto': told from the file's content, never from its name.
    batch
        Column of ``obs`` that names a reference's batches (donor, run …); becomes ``obs['batch']``.

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
    _require_file(path)
    adata = READERS["h5ad" if platform == "auto" else platform](_known_content(path), role, batch or None)
    adata.uns["spadit"] = {**adata.uns["spadit"], "source": path.name, "sha256": sha256(path)}
    return adata


def _require_file(path: Path) -> None:
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


def _known_content(path: Path) -> Path:
    """The path, when its content is HDF5; else an error that says what the file looks like instead."""
    supported = f"This revision reads: {', '.join(READERS)}."
    if path.is_dir():
        raise InputError(f"{path.name} is a directory, not a file.", supported)
    with open(path, "rb") as stream:
        start = stream.read(64)
    if not start:
        raise InputError(f"{path.name} is empty (0 bytes).", "Copy or download it again.")
    if start.startswith(HDF5_SIGNATURE):
        return path
    looks = "is not an HDF5 file"
    for signature, meaning in (
        (b"\x1f\x8b", "is a gzip archive: unpack it first"),
        (b"PK\x03\x04", "is a zip archive: unpack it first"),
        (b"version https://git-lfs", "is a Git LFS pointer, not the data: run 'git lfs pull' first"),
        (b"<", "is a web page or XML, probably a failed download"),
    ):
        if start.lstrip().startswith(signature):
            looks = meaning
    raise InputError(f"{path.name} {looks}.", supported)


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
