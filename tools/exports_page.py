"""The table of what exports take, from its results."""

from __future__ import annotations

from typing import Any

from benchmarks.files import export_cost
from tools import markdown


def section(content: dict[str, Any]) -> str:
    """Exports beside TensorFlow's converter.

    Args:
        content: What `benchmarks/results/export_cost.json` holds.
    """
    ran = markdown.ran(
        content["environment"],
        f"{export_cost.SAMPLES} samples",
        "bits 2 to 8 cycling over the weights, a process a row",
    )
    lines = [
        f"{ran}. *above* is the peak above what was resident before:",
        "",
        *markdown.table(
            export_cost.COLUMNS, export_cost.rows(content["results"]), left=2
        ),
    ]
    return "\n".join([*lines, ""])
