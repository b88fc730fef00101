"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


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
