"""Plain text tables."""

from __future__ import annotations

import io
from collections.abc import Sequence

import rich.box
import rich.console
import rich.table


def render(*tables: rich.table.Table) -> str:
    """Renders tables as plain text."""
    console = rich.console.Console(
        file=io.StringIO(), width=100, color_system=None, force_terminal=False
    )
    for table in tables:
        console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def table(
    title: str,
    left: Sequence[str],
    right: Sequence[str] = (),
    last: Sequence[str] = (),
) -> rich.table.Table:
    """An empty table with left-, right- and again left-aligned columns."""
    result = rich.table.Table(
        title=title, box=rich.box.SIMPLE_HEAD, title_justify="left"
    )
    for name in left:
        result.add_column(name, overflow="fold")
    for name in right:
        result.add_column(name, justify="right", overflow="fold")
    for name in last:
        result.add_column(name, overflow="fold")
    return result
