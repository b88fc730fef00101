"""Files that appear whole or not at all, whenever the process is killed."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import re
import secrets
from collections.abc import Iterator
from typing import Any

# Before the name of a file that is being written. Earlier versions put no
# number behind it.
PARTIAL = re.compile(r"partial-(?:[0-9a-f]{8}-)?")
# What to do about a failure, by its number.
_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class NotWrittenError(OSError):
    """A file could not be written; one of that name is as it was.

    `errno` and `filename` say why and which.
    """

    def __str__(self) -> str:
        return str(self.strerror)


class NoFolderError(NotWrittenError, ValueError):
    """There is no such folder to write a file to: the argument is wrong."""


def check_folder(path: Any) -> None:
    """Raises a NoFolderError unless there is a folder for a file.

    The address of another file system passes, and so does what is no path,
    such as an open file.
    """
    if not isinstance(path, str | os.PathLike):
        return
    name = os.fspath(path)
    folder = pathlib.Path(name).parent
    if "://" in name or folder.is_dir():
        return
    number = errno.ENOTDIR if folder.exists() else errno.ENOENT
    raise NoFolderError(
        number,
        f"There is no such folder to write to ({os.strerror(number)}). "
        f"Expected an existing one. Received: folder={folder}, path={name}",
        name,
    )


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raises a NotWrittenError instead of any `OSError` of the block.

    Libraries raise what the system says without the name, or with the name of
    a temporary file. Where there is no folder it is a `NoFolderError`.
    """
    check_folder(path)
    with _in_words(path):
        yield


@contextlib.contextmanager
def _in_words(path: str | os.PathLike[str]) -> Iterator[None]:
    """`writing`, whether there is a folder yet or not."""
    try:
        yield
    except NotWrittenError:
        raise
    except OSError as error:
        number = error.errno or errno.EIO
        # The text of a library may be a page long.
        reason = os.strerror(number) if error.errno else str(error)
        expected = "room" if number in _ROOM else "write access"
        raise NotWrittenError(
            number,
            f"A file could not be written ({reason}). Expected {expected} "
            "there; what was written before is whole. Received: "
            f"path={os.fspath(path)}",
            os.fspath(path),
        ) from error


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Gives a path to write to, which becomes `path` when the block ends.

    It is in the same folder, which is made, and ends like `path`, because
    Keras goes by the suffix. Its name is its own: of two processes that write
    one file at a time, each writes a whole one and the last to end stays. What
    a killed process leaves is in nobody's way, see `left_over`. The file
    reaches the disk before it gets its name, so that a machine that loses
    power leaves the old file or the new one. When the block raises, a file of
    that name stays as it was.

    Raises:
        NotWrittenError: If the disk is full or may not be written.
    """
    path = pathlib.Path(path)
    token = secrets.token_hex(4)
    partial = path.with_name(f"partial-{token}-{path.name}")
    with _in_words(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            take_place(partial, path)
        finally:
            # What cannot be removed either shall not hide what went wrong.
            with contextlib.suppress(OSError):
                partial.unlink()


def take_place(partial: pathlib.Path, path: pathlib.Path) -> None:
    """Gives a file that was written the name of another, in the same folder.

    Raises:
        OSError: If it does not reach the disk or may not have the name; a file
            of that name is as it was.
    """
    _flush(partial)
    os.replace(partial, path)
    # It is there. Some folders can't be read, or not flushed.
    with contextlib.suppress(OSError):
        _flush(path.parent)


def left_over(folder: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Files in a folder, not below it, that `replacing` has not ended.

    Those of killed processes, if no other one writes there.
    """
    return [
        path
        for path in pathlib.Path(folder).iterdir()
        if PARTIAL.match(path.name)
    ]


def _flush(path: pathlib.Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
