"""HDF5 files that somebody else wrote: what could reach out of them or swell is refused before anything of it is read."""

from __future__ import annotations

import contextlib
import errno
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from spadit.errors import InputError

SMALL = 1 << 26
"""Bytes that any array may take up in memory, however little of it is stored."""
INFLATION = 1100
"""Times that an array may be larger in memory than in the file: gzip comes to 1032 at most, counts seldom to 100."""
MOST_MEMBERS = 200_000
"""Groups and arrays of a file."""
AGAIN = "Copy or download it again."
INSIDE = "Write the file again with its content inside."


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[h5py.File]:
    """A file opened for reading, after :func:`check_file`. What h5py raises for damaged files within the block becomes an InputError.

    Raises
    ------
    InputError
        When it isn't there, isn't HDF5, is cut short or damaged, or :func:`check_file` refuses it.
    """
    name = Path(path).name
    try:
        with h5py.File(path, "r") as file:
            check_file(file, name)
            yield file
    except (InputError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise InputError(f"{name}: there is no such file.", "Check the path in the samplesheet.") from error
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EIO, errno.ESTALE):
            raise  # the disk or the network, not the file: worth another try
        cut = "is cut short (truncated)" if "truncated" in str(error) else "can't be read as HDF5"
        raise InputError(f"{name} {cut}: {error}.", AGAIN) from error


def check_file(file: h5py.File, name: str) -> None:
    """Look at every group and array of a file, without reading values.

    Refused are links and arrays that point outside the file (they could pull in any file of the machine), symbolic links, arrays that are
    far larger in memory than what is stored of them, and files with more members than any table has.

    Raises
    ------
    InputError
    """
    seen: set[Any] = set()
    stack: list[h5py.Group] = [file]
    while stack:
        group = stack.pop()
        info = h5py.h5o.get_info(group.id)
        if (info.fileno, info.addr) in seen:
            continue
        seen.add((info.fileno, info.addr))
        for key in group:
            where = f"{(group.name or '').rstrip('/')}/{key}"
            link = group.get(key, getlink=True)
            if isinstance(link, (h5py.ExternalLink, h5py.SoftLink)):
                kind = "a link to another file" if isinstance(link, h5py.ExternalLink) else "a symbolic link"
                raise InputError(f"{name}: '{where}' is {kind}, which is not followed.", INSIDE)
            member = group.get(key)
            if isinstance(member, h5py.Group):
                stack.append(member)
                if len(stack) + len(seen) > MOST_MEMBERS:
                    raise InputError(f"{name} holds more than {MOST_MEMBERS:,} groups and arrays: no such file has.", AGAIN)
            elif isinstance(member, h5py.Dataset):
                info = h5py.h5o.get_info(member.id)
                seen.add((info.fileno, info.addr))
                if len(seen) > MOST_MEMBERS:
                    raise InputError(f"{name} holds more than {MOST_MEMBERS:,} groups and arrays: no such file has.", AGAIN)
                if member.is_virtual or member.external:
                    raise InputError(
                        f"{name}: '{where}' keeps its values in another file.", "Write the file again with its content inside."
                    )
                _refuse_inflation(member, name, where)


def _refuse_inflation(array: h5py.Dataset, name: str, where: str) -> None:
    size = math.prod(array.shape or ()) * max(1, array.dtype.itemsize)
    chunk = math.prod(array.chunks) * max(1, array.dtype.itemsize) if array.chunks else 0
    stored = array.id.get_storage_size()
    if (size > SMALL and size > INFLATION * stored) or (chunk > SMALL and chunk > max(size, INFLATION * stored)):
        shape = " × ".join(map(str, array.shape or ())) or "one value"
        raise InputError(
            f"{name}: '{where}' ({shape}) would take up {max(size, chunk) / 1e9:,.2f} GB in memory, but only {stored:,} bytes are stored.",
            "The file is damaged or was made to exhaust the memory: copy or write it again.",
        )
