"""The table of what helps where accuracy fell, from its results."""

from __future__ import annotations

from typing import Any

from benchmarks import remedies
from tools import markdown


def section(content: dict[str, Any]) -> str:
    """What each remedy was worth.

    Args:
        content: What `benchmarks/results/remedies.json` holds.
    """
    ran = markdown.ran(
        content["environment"],
        "ResNet-8 on fashion_mnist_mini",
        f"means of {len(remedies.SEEDS)} seeds, accuracy on 2,000 test images",
    )
    rows = remedies.rows(content["results"])
    lines = [f"{ran}:", "", *markdown.table(remedies.COLUMNS, rows)]
    return "\n".join([*lines, ""])
