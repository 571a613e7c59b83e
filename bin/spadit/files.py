"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


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


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    with finished(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
