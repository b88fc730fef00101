"""Memory and time of a whole search's statistics, in this process alone.

    python -m benchmarks.training_cost.statistics_run NETWORK RESULT

Some training steps are measured, then every decision of a run of ten epochs
is taken as `fit` would have it taken, without the steps in between. Peaks are
read once what was free had been given back. Linux only.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import tensorflow as tf

import msq_tf
from benchmarks.harness import child
from benchmarks.harness import memory
from benchmarks.harness import networks
from benchmarks.training_cost import methods

EPOCHS = 10
STEPS = 100  # of an epoch
_TRACED_STEPS = 2
_STEPS = 5


def main(arguments: list[str]) -> int:
    """Steps the network and searches; writes seconds and MiB."""
    name, result = arguments
    child.write(result, measure(networks.ALL[name]))
    return 0


def measure(network: Any, steps: int = STEPS) -> dict[str, Any]:
    """What steps and decisions of a network take.

    Args:
        network: What to train: something to `build`, and its `batch`.
        steps: Steps of an epoch.

    Returns:
        Seconds of a step and of all decisions of a run; MiB at the peak of
        the first steps, which trace, and of later ones, and of the decisions,
        of those that trace graphs and of those that do not.
    """
    start = memory.resident()
    _reset()
    qmodel = methods.build(methods.SEARCHING, network.build())
    x, y = network.batch()
    for _ in range(_TRACED_STEPS):
        qmodel.train_on_batch(x, y)
    training_mib = memory.peak()
    _reset()
    seconds = []
    for _ in range(_STEPS):
        begun = time.perf_counter()
        qmodel.train_on_batch(x, y)
        seconds.append(time.perf_counter() - begun)
    step_mib = memory.peak()
    _reset()
    data = tf.data.Dataset.from_tensors((x, y)).repeat(steps)
    decisions = _decide_all(qmodel, data, steps)
    # The first one traces; a later one with traces has all graphs.
    first, *later = decisions
    return {
        "start_mib": round(start, 1),
        "training_mib": round(training_mib, 1),
        "step_mib": round(step_mib, 1),
        "first_mib": round(first["mib"], 1),
        "later_mib": round(max(entry["mib"] for entry in later), 1),
        "step_seconds": statistics.median(seconds),
        "first_seconds": first["seconds"],
        "statistics_seconds": sum(entry["seconds"] for entry in decisions),
        "steps": EPOCHS * steps,
        "decisions": len(decisions),
    }


def _decide_all(
    qmodel: msq_tf.MSQModel, data: Any, steps: int
) -> list[dict[str, float]]:
    """Seconds and peak of every decision of a run."""
    search = msq_tf.MSQCallback(
        msq_tf.BudgetRule(target_compression=8.0), data=data, verbose=0
    )
    search.set_model(qmodel)
    search.set_params({"epochs": EPOCHS, "steps": steps, "verbose": 0})
    search.on_train_begin()
    found = []
    for epoch in range(EPOCHS):
        search.on_epoch_begin(epoch)
        for batch in range(steps):
            before = qmodel.search.rule_state.decisions
            begun = time.perf_counter()
            search.on_train_batch_end(batch)
            if qmodel.search.rule_state.decisions > before:
                seconds = time.perf_counter() - begun
                found.append({"seconds": seconds, "mib": memory.peak()})
                _reset()
        search.on_epoch_end(epoch)
    search.on_train_end()
    return found


def _reset() -> None:
    memory.trim()
    if not memory.reset_peak():
        raise OSError("The kernel does not let the peak be set back.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
