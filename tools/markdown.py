"""Tables in Markdown, and what stands above them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def table(
    columns: Iterable[str], rows: Iterable[Iterable[str]], left: int = 1
) -> list[str]:
    """Lines of a table.

    Args:
        columns: Heads of the columns.
        rows: Cells as text.
        left: How many columns are aligned to the left, the first ones; the
            others are numbers, to the right.
    """
    heads = list(columns)
    marks = ["---"] * left + ["---:"] * (len(heads) - left)
    return [f"| {' | '.join(cells)} |" for cells in (heads, marks, *rows)]


def ran(environment: dict[str, Any], *facts: str) -> str:
    """The command that gave some figures, when and on how many cores.

    Args:
        environment: What `benchmarks.harness.record.environment` gave.
        facts: What else to know of it, behind the command.
    """
    return ", ".join(
        (
            f"`{environment['command']}`",
            *facts,
            environment["date"],
            f"{environment['cores']} cores",
        )
    )
