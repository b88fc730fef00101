"""Plain text tables."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable
from collections.abc import Sequence

import rich.box
import rich.console
import rich.table


def render(*tables: rich.table.Table) -> str:
    """Renders tables as plain text."""
    # Names come from files: brackets and colons in them are no markup.
    console = rich.console.Console(
        file=io.StringIO(),
        width=100,
        color_system=None,
        force_terminal=False,
        markup=False,
        emoji=False,
    )
    for table in tables:
        console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(printable(line) for line in text.split("\n"))


def printable(text: str) -> str:
    """Text whose control characters are spelled out, in hexadecimal.

    Names in a file are anyone's choice; printed as they are they could move a
    terminal's cursor, rename its window or hide what follows.
    """
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape").decode()
        for character in text
    )


def short(text: str, most: int = 200) -> str:
    """Text of a file as far as anyone reads it.

    Args:
        text: Possibly long: names take megabytes in a file made for that.
        most: Characters that stay.
    """
    if len(text) <= most:
        return text
    return f"{text[:most]}... and {len(text) - most:,} more characters"


def add_rows(
    result: rich.table.Table,
    rows: Iterable[Sequence[str]],
    count: int,
    most: int = 1000,
) -> None:
    """Adds the first rows to a table, and how many more there are.

    Args:
        result: The table.
        rows: Texts of the cells; long ones are shortened.
        count: How many rows there are.
        most: How many are added. Laying out one takes a millisecond.
    """
    for row in itertools.islice(rows, most):
        result.add_row(*map(short, row))
    if count > most:
        result.add_row(f"and {count - most:,} more")


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
