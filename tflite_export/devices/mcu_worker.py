"""Runs a file in the TFLite Micro interpreter, as a separate process.

The interpreter ends the whole process when its arena is too small, and prints
what it allocated where only a parent can read it. This file is started by its
path and must not import the package, which would load TensorFlow.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

_ALIGNMENT = 16


def run(model: str, inputs: str, outputs: str, arena: str) -> None:
    """Runs samples one batch after the other.

    Args:
        model: Path of the TFLite file.
        inputs: Path of an .npz: `count` is the number of outputs, the other
            arrays hold all batches of one input each, sorted by name.
        outputs: Path of the .npz to write, one array per output.
        arena: Size of the arena in bytes.
    """
    count, arrays = _load(inputs)
    interpreter = _interpreter(model, int(arena))
    results: list[list[np.ndarray]] = [[] for _ in range(count)]
    for batch in zip(*arrays, strict=True):
        _invoke(interpreter, batch)
        for position, slot in enumerate(results):
            # The interpreter hands out a view of its arena.
            slot.append(np.array(interpreter.get_output(position)))
    interpreter.print_allocations()
    np.savez(outputs, *[np.stack(slot) for slot in results])


def arena(model: str, inputs: str, least: str, most: str) -> None:
    """Prints the size of the smallest arena that runs the first batch.

    Each size is tried in a fork of this process, which a too small arena
    ends. None below `least` bytes does, and `most` does.
    """
    _, arrays = _load(inputs)
    batch = [array[0] for array in arrays]
    # Imported once, for all forks.
    import tflite_micro.python.tflite_micro.runtime  # noqa: F401

    def does(units: int) -> bool:
        return _survives(
            lambda: _invoke(_interpreter(model, _ALIGNMENT * units), batch)
        )

    low = -(-int(least) // _ALIGNMENT)
    last = -(-int(most) // _ALIGNMENT)
    step = 1
    while not does(low + step - 1):
        if low + step - 1 > last:
            sys.exit(f"no arena of up to {most} bytes is enough")
        step *= 2
    # The size lies above low + step / 2 - 1 and at most at low + step - 1.
    low, high = low + step // 2, low + step - 1
    while low < high:
        middle = (low + high) // 2
        if does(middle):
            high = middle
        else:
            low = middle + 1
    print(_ALIGNMENT * high)


def _load(inputs: str) -> tuple[int, list[np.ndarray]]:
    with np.load(inputs) as loaded:
        names = sorted(set(loaded.files) - {"count"})
        return int(loaded["count"]), [loaded[name] for name in names]


def _interpreter(model: str, size: int) -> Any:
    from tflite_micro.python.tflite_micro import runtime

    return runtime.Interpreter.from_file(model, arena_size=size)


def _invoke(interpreter: Any, batch: Any) -> None:
    for position, array in enumerate(batch):
        interpreter.set_input(array, position)
    interpreter.invoke()


def _survives(work: Callable[[], None]) -> bool:
    """Whether a fork of this process ends well after some work."""
    child = os.fork()
    if child == 0:
        # The interpreter says on both why it gives up.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    {"run": run, "arena": arena}[sys.argv[1]](*sys.argv[2:])
