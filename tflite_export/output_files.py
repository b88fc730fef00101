"""Writes exported files that are whole or not there.

As `msq_tf.atomic_files`, and what a killed export left is removed by the next.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from msq_tf.atomic_files import take_place
from tflite_export.files import check_path

# Ends of the names of Keras's own files.
_KERAS = (".keras", ".h5", ".hdf5")


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
            take_place(temporary, final)
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
