"""Kills this process at a given point, as a power cut or a scheduler would."""

from __future__ import annotations

import itertools
import os
import pathlib
import signal

from msq_tf.core.search_state import SearchState


class Killed(BaseException):
    """Stands for the end of the process, where one may go on in it."""


def arm(point: str) -> None:
    """Prepares the end.

    Args:
        point: `"rename NAME"` is before the rename that makes a file of that
            name (the end of its path) appear; `"write NAME"` is in the
            middle of writing it; `"decision"` is after a change of bits. A
            number behind it counts the times in this process.
    """
    words = point.split()
    count = int(words.pop()) if words[-1].isdigit() else 1
    if words == ["decision"]:
        _after_change(count)
    else:
        kind, name = words
        _at_rename(name, count, torn={"rename": False, "write": True}[kind])


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _at_rename(name: str, count: int, torn: bool) -> None:
    replace = os.replace
    times = itertools.count(1)

    def replace_or_die(source, target):
        if str(target).endswith(name) and next(times) == count:
            if torn:
                whole = pathlib.Path(source).read_bytes()
                pathlib.Path(source).write_bytes(whole[: len(whole) // 2])
            _kill()
        replace(source, target)

    os.replace = replace_or_die


def _after_change(count: int) -> None:
    change = SearchState.change
    times = itertools.count(1)

    def change_and_die(self, *args):
        change(self, *args)
        if next(times) == count:
            _kill()

    SearchState.change = change_and_die
