"""Resident memory of a method's training step, in this process alone.

    python -m benchmarks.training_cost.memory_run NETWORK METHOD RESULT

A process never gives all memory back, so each pair has one of its own. Tracing
a graph takes more memory than running it; the peak of the steps is read after
that, once what was free had been given back. Linux only.
"""

from __future__ import annotations

import sys

from benchmarks.harness import child
from benchmarks.harness import memory
from benchmarks.harness import networks
from benchmarks.training_cost import methods

_TRACED_STEPS = 2
_STEPS = 4


def main(arguments: list[str]) -> int:
    """Steps the method; writes its peaks and what was held before, MiB."""
    name, method, result = arguments
    network = networks.ALL[name]
    start = memory.resident()
    model = methods.build(method, network.build())
    x, y = network.batch()
    for _ in range(_TRACED_STEPS):
        model.train_on_batch(x, y)
    whole = memory.peak()
    memory.trim()
    if not memory.reset_peak():
        raise OSError("The kernel does not let the peak be set back.")
    for _ in range(_STEPS):
        model.train_on_batch(x, y)
    peaks = {
        "start_mib": round(start, 1),
        "traced_mib": round(whole, 1),
        "step_mib": round(memory.peak(), 1),
    }
    child.write(result, peaks)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
