"""The table of docs/distribution.md, from what `benchmarks devices` found."""

from __future__ import annotations

from typing import Any

from tools import markdown

_STEPS = ("1", "10", "20", "50", "120", "280")
_NAMES = {
    "two": "two devices",
    "nudged": "one, each weight one unit in the last place higher",
}


def table(content: dict[str, Any]) -> str:
    """How far weights part from the run on one device, by steps.

    Args:
        content: What `benchmarks/results/devices.json` holds.
    """
    results, environment = content["results"], content["environment"]
    rows = [
        (
            floats,
            label,
            *(f"{runs[run]['apart'][step]:.0e}" for step in _STEPS),
            f"{runs[run]['compression']:.2f}x",
            f"the first {runs[run]['first_changes_in_common']} of "
            f"{runs[run]['changes']}",
        )
        for floats, runs in results.items()
        for run, label in _NAMES.items()
    ]
    columns = (
        "floats",
        "against one device",
        *(f"step {step}" for step in _STEPS),
        "size",
        "changes of bits in common",
    )
    lines = [
        *markdown.table(columns, rows, left=2),
        "",
        "2,560 images of fashion_mnist_mini, every second row and column, "
        "batches of 64, SGD, seed 0, parts of one CPU, one run each, "
        f"{environment['date']}.",
        "",
    ]
    return "\n".join(lines)
