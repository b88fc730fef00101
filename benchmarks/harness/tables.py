"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable

import rich.table


def filled(
    title: str,
    columns: Iterable[str],
    rows: Iterable[Iterable[str]] = (),
    left: int = 1,
) -> rich.table.Table:
    """A table with rows, to which more can be added.

    Args:
        title: What stands above it.
        columns: Heads of the columns.
        rows: Cells as text.
        left: How many columns are aligned to the left, the first ones; the
            others are numbers, to the right.
    """
    view = rich.table.Table(title=title)
    for number, column in enumerate(columns):
        view.add_column(column, justify="left" if number < left else "right")
    for row in rows:
        view.add_row(*row)
    return view
