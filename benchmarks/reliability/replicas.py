"""Whether several devices train what one does, but for rounding.

A ResNet-8 is trained from scratch and searched on one and on two parts of a
CPU, in float32 and in float64, and once more on one with every weight a unit in
the last place higher: what a last bit does to the same training.
"""

from __future__ import annotations

from typing import Any

import rich.table

from benchmarks.harness import child
from benchmarks.harness import tables
from benchmarks.reliability import replicas_run

DTYPES = ("float32", "float64")
_SHOWN = ("1", "10", "50", "120", "280")


def measure() -> dict[str, Any]:
    """Trains in a process for each width of a float.

    Returns:
        By width and run, see `devices_run.RUNS`: bits, compression, how many
        of the first changes of bits are those of one device, and the largest
        distance of a weight from it after some steps. JSON values.
    """
    return {
        dtype: child.measured(replicas_run.__name__, dtype, shown=True)
        for dtype in DTYPES
    }


def table(results: dict[str, Any]) -> rich.table.Table:
    """Distances from the run on one device."""
    return tables.filled(
        "How far weights part from one device's",
        (
            "floats",
            "run",
            *(f"step {step}" for step in _SHOWN),
            "size",
            "changes in common",
        ),
        (
            (
                dtype,
                name,
                *(f"{run['apart'][step]:.1e}" for step in _SHOWN),
                f"{run['compression']:.2f}x",
                f"{run['first_changes_in_common']} of {run['changes']}",
            )
            for dtype, runs in results.items()
            for name, run in runs.items()
        ),
        left=2,
    )
