"""A lock on a folder, which ends with the process that has it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import socket
from collections.abc import Iterator

from msq_tf import atomic_files

LOCK = "run.lock"
# What a file system without locks says.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def held(folder: pathlib.Path) -> Iterator[None]:
    """Holds the lock of a folder that exists.

    The system gives it back when the process ends, however it ends. Where the
    file system has no locks nothing is held.

    Raises:
        NotWrittenError: If the file of the lock cannot be written.
        ValueError: If another process has the lock.
    """
    path = folder / LOCK
    with atomic_files.writing(path):
        descriptor = _opened(path)
    try:
        # Only for others to read: a full disk does not matter.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            owner = {"pid": os.getpid(), "host": socket.gethostname()}
            os.write(descriptor, json.dumps(owner).encode())
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _opened(path: pathlib.Path) -> int:
    while True:
        descriptor = os.open(
            path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _owner(descriptor)
            os.close(descriptor)
            raise ValueError(
                "Another process works in the output folder. Expected that it "
                "has ended, or another folder. Received: "
                f"output_dir={path.parent}, held by {owner}"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
        # Whoever had it may have removed the file in between.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)


def _owner(descriptor: int) -> str:
    try:
        owner = json.loads(os.pread(descriptor, 1000, 0))
        return f"process {int(owner['pid'])} on {str(owner['host'])!r}"
    except (OSError, ValueError, TypeError, KeyError):
        return "a process that has not given its name yet"
