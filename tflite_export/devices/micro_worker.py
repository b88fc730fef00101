"""Runs a file in the TFLite Micro interpreter: a process of its own.

The interpreter ends the whole process when its arena is too small, and prints
what it allocated where only a parent can read it. This file is started by its
path and must not import the package, which would load TensorFlow.
"""

from __future__ import annotations

import sys

import numpy as np


def main(model: str, inputs: str, outputs: str, arena: str) -> None:
    """Runs samples one batch after the other.

    Args:
        model: Path of the TFLite file.
        inputs: Path of an .npz: `count` is the number of outputs, the other
            arrays hold all batches of one input each, sorted by name.
        outputs: Path of the .npz to write, one array per output.
        arena: Size of the arena in bytes.
    """
    from tflite_micro.python.tflite_micro import runtime

    interpreter = runtime.Interpreter.from_file(model, arena_size=int(arena))
    with np.load(inputs) as loaded:
        count = int(loaded["count"])
        arrays = [
            loaded[name] for name in sorted(set(loaded.files) - {"count"})
        ]
    results: list[list[np.ndarray]] = [[] for _ in range(count)]
    for batch in zip(*arrays, strict=True):
        for position, array in enumerate(batch):
            interpreter.set_input(array, position)
        interpreter.invoke()
        for position, slot in enumerate(results):
            # The interpreter hands out a view of its arena.
            slot.append(np.array(interpreter.get_output(position)))
    interpreter.print_allocations()
    np.savez(outputs, *[np.stack(slot) for slot in results])


if __name__ == "__main__":
    main(*sys.argv[1:])
