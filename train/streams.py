"""Standard streams that may fail without ending the run.

A closed terminal, a pipe that nobody reads any more, a full disk behind `>` or
a locale without UTF-8 ends no training. The run's folder has everything that
could not be printed.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any

_OUTPUTS = ("stdout", "stderr")


class _Lasting(io.FileIO):
    """A file to which writing never fails."""

    def write(self, data: Any) -> int:
        """Writes, or else lets the rest go."""
        with contextlib.suppress(OSError):
            return super().write(data) or 0
        return memoryview(data).nbytes


def outlast() -> None:
    """Makes standard output and error such that printing never fails.

    To be called at the start: those that are closed lead nowhere from then
    on, and no file that is opened later gets their numbers.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free: this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for number, name in enumerate(_OUTPUTS, 1):
        before = getattr(sys, name)
        if before is not None:
            with contextlib.suppress(OSError):
                before.flush()
        stream = io.TextIOWrapper(
            io.BufferedWriter(_Lasting(number, "wb", closefd=False)),
            encoding=getattr(before, "encoding", None) or "utf-8",
            errors="replace",
            line_buffering=True,
            write_through=True,
        )
        setattr(sys, name, stream)
