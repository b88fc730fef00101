r"""`python -m train` that is killed, or kills itself at a given point.

    python -m benchmarks.reliability.kills_child PROGRESS POINT --flag=value ...

`PROGRESS` is a file outside of the run's folder: the steps taken are counted
there, so that they are known of a process that is gone. `POINT` is JSON, see
`arm`. Only this process is changed: the command that goes on with the run is
the plain one.
"""

from __future__ import annotations

import builtins
import io
import itertools
import json
import mmap
import os
import re
import signal
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Phase of training, epochs that were done when it began here, steps of an
# epoch, steps taken since, steps taken when the last checkpoint was there.
_LAYOUT = struct.Struct("5q")
PHASES = ("", "float", "msq")
# Steps of a process after which it is lost in the middle of training: its
# first epoch was saved.
LATE = 12


# What is counted of a process that has not begun to train.
NOTHING = {"phase": "", "done": 0, "steps": 0, "taken": 0, "saved": 0}


class Progress:
    """Counters in a file that outlives the process.

    Args:
        path: The file.
        new: Whether to make it.
    """

    def __init__(self, path: str | os.PathLike[str], new: bool = False):
        if new:
            Path(path).write_bytes(bytes(_LAYOUT.size))
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), _LAYOUT.size)

    def read(self) -> dict[str, Any]:
        """`phase`, `done`, `steps`, `taken` and `saved`, see above."""
        phase, *numbers = _LAYOUT.unpack(self._map[:])
        names = ("done", "steps", "taken", "saved")
        return {
            "phase": PHASES[phase],
            **dict(zip(names, numbers, strict=True)),
        }

    def begin(self, phase: str, done: int, steps: int) -> None:
        """A phase of training begins, or goes on after some epochs."""
        self._map[:] = _LAYOUT.pack(PHASES.index(phase), done, steps, 0, 0)

    def step(self) -> None:
        """One more step was taken."""
        phase, done, steps, taken, saved = _LAYOUT.unpack(self._map[:])
        self._map[:] = _LAYOUT.pack(phase, done, steps, taken + 1, saved)

    def save(self) -> None:
        """All steps so far are in a checkpoint."""
        phase, done, steps, taken, _ = _LAYOUT.unpack(self._map[:])
        self._map[:] = _LAYOUT.pack(phase, done, steps, taken, taken)


class Doomed(io.FileIO):
    """A file that ends the process at the given number of bytes.

    Args:
        path: Where it is.
        left: Bytes that are still written.
    """

    def __init__(self, path: Any, left: int):
        super().__init__(path, "wb")
        self._left = left

    def write(self, data: Any) -> int:
        """Writes, and ends the process where it has to."""
        if self._left < memoryview(data).nbytes:
            super().write(memoryview(data).cast("B")[: self._left])
            kill()
        written = super().write(data) or 0
        self._left -= written
        return written


def kill() -> None:
    """Ends this process, now."""
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: dict[str, Any], progress: Progress) -> None:
    """Prepares the end.

    Args:
        point: `kind`, and what it needs: `"moment"`, the parent kills;
            `"decision"`, `steps` steps after the change of bits number
            `number`, or before the checkpoint if that comes first;
            `"checkpoint"` or `"tflite"`, inside the write of the file `name`
            when `bytes` of it are written; `"between"`, before or after
            (`when`) `name` gets its name; `"raise"` or `"hang"`, an error or
            an endless wait in the middle of training; `"gone"`, when the
            workers have met and TensorFlow is not there yet.
        progress: Where steps are counted.
    """
    _count(progress)
    kinds: dict[str, Callable[..., None]] = {
        "moment": lambda: None,
        "decision": _after_decision,
        "checkpoint": _in_write,
        "tflite": _in_write,
        "between": _at_rename,
        "raise": _raise,
        "hang": _hang,
        "gone": _after_meeting,
    }
    what = dict(point)
    kinds[what.pop("kind")](**what)


def _count(progress: Progress) -> None:
    from train.folder import checkpoints
    from train.progress import EpochProgress

    begin, replace = EpochProgress.__init__, os.replace

    def begin_counted(
        self: Any, console: Any, title: str, epochs: int, steps: int, done: int
    ) -> None:
        begin(self, console, title, epochs, steps, done)
        progress.begin(title, done, steps)

    def replace_counted(source: Any, target: Any) -> None:
        replace(source, target)
        if str(target).endswith(".weights.h5"):
            progress.save()

    EpochProgress.__init__ = begin_counted  # type: ignore[method-assign]
    # The first of the callbacks: a step counts before anything is decided.
    checkpoints.EpochSeeds.on_train_batch_end = lambda self, batch, logs=None: (
        progress.step()
    )
    os.replace = replace_counted


def _after_decision(number: int, steps: int) -> None:
    from msq_tf import atomic_files
    from msq_tf.core.search_state import SearchState
    from train.folder import checkpoints

    change, replacing = SearchState.change, atomic_files.replacing
    step = checkpoints.EpochSeeds.on_train_batch_end
    changes = itertools.count(1)
    left: list[int] = []

    def change_and_die(self: Any, *args: Any) -> None:
        change(self, *args)
        if next(changes) == number:
            left.append(steps)
            if not steps:
                kill()

    def step_and_die(self: Any, batch: int, logs: Any = None) -> None:
        step(self, batch, logs)
        if left:
            left[0] -= 1
            if not left[0]:
                kill()

    def die_or_write(path: Any) -> Any:
        if left:
            kill()
        return replacing(path)

    SearchState.change = change_and_die  # type: ignore[method-assign]
    checkpoints.EpochSeeds.on_train_batch_end = step_and_die
    atomic_files.replacing = die_or_write


def _in_write(name: str, bytes: int) -> None:
    # What is written under another name until it is whole.
    folder, _, last = name.rpartition("/")
    ours = re.compile(
        rf".*{re.escape(folder)}/(?:partial-\w+-{re.escape(last)}"
        rf"|\.{re.escape(last)}\.\w+\.tmp)"
    )
    usual = io.open

    def open_doomed(file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        if mode == "wb" and ours.fullmatch(str(file)):
            return io.BufferedWriter(Doomed(file, bytes))
        return usual(file, mode, *args, **more)

    # `pathlib` has it from the one, libraries from the other.
    io.open = builtins.open = open_doomed


def _at_rename(name: str, when: str) -> None:
    replace = os.replace

    def replace_and_die(source: Any, target: Any) -> None:
        found = str(target).endswith(name)
        if found and when == "before":
            kill()
        replace(source, target)
        if found:
            kill()

    os.replace = replace_and_die


def _raise() -> None:
    def fail() -> None:
        raise RuntimeError("on purpose")

    _in_training(fail)


def _hang() -> None:
    # The rest of the process goes on: its heartbeats, too.
    _in_training(threading.Event().wait)


def _in_training(act: Callable[[], Any]) -> None:
    """Does it once `LATE` steps were taken."""
    from train.folder import checkpoints

    step = checkpoints.EpochSeeds.on_train_batch_end
    steps = itertools.count(1)

    def step_and_act(self: Any, batch: int, logs: Any = None) -> None:
        step(self, batch, logs)
        if next(steps) == LATE:
            act()

    checkpoints.EpochSeeds.on_train_batch_end = step_and_act


def _after_meeting() -> None:
    from train.distribution import rendezvous

    meet = rendezvous.meet

    def meet_and_die(*args: Any) -> None:
        meet(*args)
        kill()

    rendezvous.meet = meet_and_die


if __name__ == "__main__":
    place, text = sys.argv[1:3]
    del sys.argv[1:3]
    from absl import app
    from absl import flags

    from train import __main__ as command
    from train import flags as train_flags

    arm(json.loads(text), Progress(place, new=True))
    flags.adopt_module_key_flags(train_flags)
    app.run(command.main)
