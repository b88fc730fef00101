"""Whether several devices train what one does, but for rounding.

A ResNet-8 is trained from scratch and searched on one and on two parts of a
CPU, in float32 and in float64, and once more on one with every weight a unit in
the last place higher: what a last bit does to the same training.
"""

from __future__ import annotations

from typing import Any

from benchmarks.harness import child
from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import table
from benchmarks.reliability import replicas_run

DTYPES = ("float32", "float64")
_SHOWN = ("1", "10", "20", "50", "120", "280")
_NAMES = {
    "two": "two devices",
    "nudged": "one, each weight one unit in the last place higher",
}


def measure() -> dict[str, Any]:
    """Trains in a process for each width of a float.

    Returns:
        By width and run, see `replicas_run.RUNS`: bits, compression, how many
        of the first changes of bits are those of one device, and the largest
        distance of a weight from it after some steps. JSON values.
    """
    return {
        dtype: child.measured(replicas_run.__name__, dtype, shown=True)
        for dtype in DTYPES
    }


def markdown(content: dict[str, Any]) -> str:
    """How far weights part from the run on one device, by steps."""
    rows = [
        (
            floats,
            label,
            *(f"{runs[run]['apart'][step]:.0e}" for step in _SHOWN),
            f"{runs[run]['compression']:.2f}x",
            f"the first {runs[run]['first_changes_in_common']} of "
            f"{runs[run]['changes']}",
        )
        for floats, runs in content["results"].items()
        for run, label in _NAMES.items()
    ]
    columns = (
        "floats",
        "against one device",
        *(f"step {step}" for step in _SHOWN),
        "size",
        "changes of bits in common",
    )
    return page(
        table(columns, rows, left=2),
        "2,560 images of fashion_mnist_mini, every second row and column, "
        "batches of 64, SGD, seed 0, parts of one CPU, one run each, "
        f"{content['environment']['date']}.",
    )
