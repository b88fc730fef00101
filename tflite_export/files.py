"""Reading files of a known end, and writing none that is half done."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Bytes from which `spooled` maps a file.
_SPOOLED = 1 << 25
# Ends of the names of Keras's own files.
_KERAS = (".keras", ".h5", ".hdf5")


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


def _without_waiting(path: str, flags: int) -> int:
    # Opening a pipe would wait for a writer.
    return os.open(path, flags | os.O_NONBLOCK)


@contextlib.contextmanager
def staged(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file that becomes `path` when the block succeeds.

    It lies in the same directory, so that the final step is one rename, and is
    empty: `fill` it. When the block raises, the temporary file is removed and
    `path` is untouched. What a killed process left of the same path is
    removed, too.

    Raises:
        ValueError: If the directory doesn't exist or can't be written, or the
            name is that of a model of Keras, which may be there.
    """
    check_path(path)
    final = Path(path)
    if final.suffix.lower() in _KERAS:
        raise ValueError(
            "The path is that of a Keras model, which the file would take the "
            f"place of. Expected a name that ends in .tflite. Received: path="
            f"'{path}'"
        )
    if final.is_dir():
        raise ValueError(
            f"Expected the path of a file. Received: a directory, path='{path}'"
        )
    try:
        _sweep(final)
        temporary, descriptor = _created(final)
    except OSError as error:
        raise ValueError(
            f"The output directory can't be written ({error.strerror}). "
            "Expected an existing directory with write permission. "
            f"Received: path='{path}'"
        ) from error
    try:
        yield temporary
        with _writing(final):
            os.replace(temporary, final)
    except BaseException:
        # What can't be removed either shall not hide what went wrong.
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    finally:
        os.close(descriptor)


def fill(temporary: Path, data: bytes, path: str | os.PathLike[str]) -> None:
    """Writes all of a temporary file of `staged`, down to the disk.

    Raises:
        ValueError: If the disk is full or can't be written.
    """
    with _writing(path), open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _writing(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"The file can't be written ({error.strerror}). Expected room and "
            "write permission; a file of that name is as it was. Received: "
            f"path='{path}'"
        ) from error


def _created(final: Path) -> tuple[Path, int]:
    """A new temporary file, and the descriptor that keeps its lock."""
    while True:
        temporary = final.with_name(f".{final.name}.{secrets.token_hex(4)}.tmp")
        # Not tempfile: the final file shall have the user's usual mode.
        descriptor = os.open(
            temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666
        )
        # Without locks, as on some network drives, nobody sweeps either.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if temporary.exists():
            return temporary, descriptor
        # Another process took it for a dead one's before it was locked.
        os.close(descriptor)


def _sweep(final: Path) -> None:
    """Removes the temporary files of processes that were killed.

    A living process has a lock on its own, which ends with it.
    """
    ours = re.compile(rf"\.{re.escape(final.name)}\.[0-9a-f]{{8}}\.tmp")
    for path in final.parent.iterdir():
        if not ours.fullmatch(path.name):
            continue
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(descriptor)
