"""Files that appear whole or not at all, whenever the process is killed."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator

# Before the name of a file that is being written.
PARTIAL = "partial-"


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Gives a path to write to, which becomes `path` when the block ends.

    The path has the suffix of `path`, because Keras goes by it. It reaches
    the disk before it gets its name, so that a machine that loses power
    leaves the old file or the new one. When the block raises, a file of that
    name stays as it was.

    Args:
        path: The file to write. Folders above it are made.

    Yields:
        A path in the same folder.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{PARTIAL}{path.name}")
    try:
        yield partial
        _flush(partial)
        os.replace(partial, path)
        _flush(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _flush(path: pathlib.Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
