"""Reads regular files as a whole, and keeps many bytes out of memory."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import stat
import tempfile
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import numpy as np

# Bytes from which `spooled` maps a file.
_SPOOLED = 1 << 25
# Bytes of a file or of weights for which `give_back` does something.
_WORTH = 1 << 22


def check_path(path: Any) -> None:
    """Raises a ValueError for what is no path."""
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise ValueError(
            "`path` must be the path of a file, as text or as a pathlib.Path. "
            f"Received: path={path!r}"
        )


def read_bytes(
    path: str | os.PathLike[str],
    check: Callable[[bytes, int], None] | None = None,
) -> bytes:
    """Reads a whole file.

    Devices and pipes, which may never end, are refused. `check` looks at the
    first eight bytes and the size before the rest is read, and raises a
    ValueError if it wants none of it.

    Raises:
        ValueError: If it can't be read, or does not fit into memory.
    """
    check_path(path)
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ValueError(
                    "Expected the path of a file. Received: something else, "
                    f"path='{path}'"
                )
            if check is not None:
                _check_head(path, check, file.read(8), found.st_size)
                file.seek(0)
            # A file with holes is as large as it likes.
            if found.st_size > physical_memory():
                raise MemoryError
            return file.read()
    except MemoryError:
        raise ValueError(
            "The file does not fit into memory. Received: "
            f"{found.st_size:,} bytes, path='{path}'"
        ) from None
    except OSError as error:
        raise ValueError(
            f"The file can't be read ({error.strerror}). Expected a file that "
            f"may be read. Received: path='{path}'"
        ) from error


def _check_head(
    path: str | os.PathLike[str],
    check: Callable[[bytes, int], None],
    head: bytes,
    size: int,
) -> None:
    try:
        check(head, size)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def physical_memory() -> int:
    """Bytes of memory that the machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def spooled(
    pieces: Sequence[bytes | memoryview],
    folder: str | os.PathLike[str],
    least: int = _SPOOLED,
) -> bytes | mmap.mmap:
    """Puts many bytes into a file without a name, and maps it.

    They read as before, and take memory only while they are looked at: see
    `let_go`. Fewer bytes than `least` stay in memory, and so does what has no
    room in the folder.
    """
    if sum(map(len, pieces)) >= max(least, 1):
        with contextlib.suppress(OSError):
            with tempfile.TemporaryFile(dir=folder) as file:
                for piece in pieces:
                    file.write(piece)
                    let_go(piece)
                file.flush()
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return b"".join(pieces)


def let_go(data: Any) -> None:
    """Gives back the memory of what `spooled` returned; it comes back.

    Of an array, too, that looks into it. What is neither stays.
    """
    while isinstance(data, np.ndarray | memoryview):
        data = data.base if isinstance(data, np.ndarray) else data.obj
    if isinstance(data, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        data.madvise(mmap.MADV_DONTNEED)


def give_back(size: int = _WORTH) -> None:
    """Gives free memory back to the system, before much more is asked for.

    glibc keeps what arrays of up to 32 MiB had, in pieces between what is still
    in use: of a large model as much as all weights. Other C libraries keep
    less.

    Args:
        size: Bytes of the file or the weights that it is for. For few nothing
            is done.
    """
    if size >= _WORTH:
        with contextlib.suppress(AttributeError, OSError, TypeError):
            ctypes.CDLL(None).malloc_trim(0)


def _without_waiting(path: str, flags: int) -> int:
    # Opening a pipe would wait for a writer.
    return os.open(path, flags | os.O_NONBLOCK)
