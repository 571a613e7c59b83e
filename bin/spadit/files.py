"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spadit.errors import InputError

LARGEST_JSON = 500_000_000
"""Bytes of a JSON file between steps: those of a model name every spot and cell."""


@contextlib.contextmanager
def finished(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that is renamed to it when the block ends well, and removed when it doesn't.

    A reader never sees half a file, also after a power cut: what was written is on the disk before it gets its name. The block may make
    a file or a directory of it.
    """
    path = Path(path)
    # the suffix is kept: some writers choose the format by it
    folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    temporary = folder / path.name
    try:
        yield temporary
        to_disk(temporary)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        os.replace(temporary, path)
        to_disk(path.parent, below=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_unfinished(path: str | Path) -> bool:
    """Remove what a process that crashed within :func:`finished` left beside ``path``; says whether there was something."""
    path = Path(path)
    left = [folder for folder in path.parent.iterdir() if folder.name.startswith(f".{path.name}.")] if path.parent.is_dir() else []
    for folder in left:
        shutil.rmtree(folder, ignore_errors=True)
    return bool(left)


def to_disk(path: Path, below: bool = True) -> None:
    """Have the system write a file, or a folder and all ``below`` it, to the disk now (fsync)."""
    for part in (path, *path.rglob("*")) if below and path.is_dir() else (path,):
        if part.is_symlink():
            continue
        descriptor = os.open(part, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # some file systems can't do it for folders
                raise
        finally:
            os.close(descriptor)


def read_whole(path: str | Path, what: str, largest: int, remedy: str = "Check the path.") -> bytes:
    """The content of a small file that somebody gave.

    Parameters
    ----------
    what
        What it should be, for messages: 'the samplesheet'.
    largest
        Bytes. A larger file isn't read.

    Raises
    ------
    InputError
        When it isn't there, isn't a regular file (a pipe would never end), is larger, or can't be read.
    """
    path = Path(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
            raise InputError(f"{path.name}: {what} is {kind}, not a file.", remedy)
        if status.st_size > largest:
            raise InputError(f"{path.name} is larger than {largest / 1e6:g} MB: it can't be {what}.", remedy)
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        if isinstance(error, OSError) and error.errno in (errno.EIO, errno.ESTALE):
            raise  # the disk or the network, not the file: worth another try
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path.name}: {what} can't be read: {reason}.", remedy) from error


def read_json(path: str | Path, what: str, largest: int = LARGEST_JSON, remedy: str = "Check the file.") -> Any:
    """A JSON file that somebody gave or that may have been damaged. Raises InputError as :func:`read_whole`, and when it isn't JSON."""
    try:
        return json.loads(read_whole(path, what, largest, remedy).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        reason = "its lists are nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"{Path(path).name} can't be read as JSON: {reason}.", remedy) from error


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    with finished(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
