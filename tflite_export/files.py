"""Reading files of a known end, and writing none that is half done."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Reads a whole file.

    Args:
        path: A regular file. Devices and pipes, which may never end, are
            refused.

    Raises:
        ValueError: If it can't be read.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ValueError(
                    "Expected the path of a file. Received: something else, "
                    f"path='{path}'"
                )
            return file.read()
    except OSError as error:
        raise ValueError(
            f"The file can't be read ({error.strerror}). Received: "
            f"path='{path}'"
        ) from error


def _without_waiting(path: str, flags: int) -> int:
    # Opening a pipe would wait for a writer.
    return os.open(path, flags | os.O_NONBLOCK)


@contextlib.contextmanager
def staged(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file that becomes `path` when the block succeeds.

    It lies in the same directory, so that the final step is one rename. When
    the block raises, the temporary file is removed and `path` is untouched.

    Args:
        path: Where the file shall be in the end.

    Yields:
        Path of the temporary file, which exists and is empty.

    Raises:
        ValueError: If the directory doesn't exist or can't be written.
    """
    final = Path(path)
    if final.is_dir():
        raise ValueError(
            f"Expected the path of a file. Received: a directory, path='{path}'"
        )
    temporary = final.with_name(f".{final.name}.{secrets.token_hex(4)}.tmp")
    try:
        # Not tempfile: the final file shall have the user's usual mode.
        with open(temporary, "xb"):
            pass
    except OSError as error:
        raise ValueError(
            f"The output directory can't be written ({error.strerror}). "
            "Expected an existing directory with write permission. "
            f"Received: path='{path}'"
        ) from error
    try:
        yield temporary
        os.replace(temporary, final)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
