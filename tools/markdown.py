"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable


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
