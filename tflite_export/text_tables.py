"""Plain text tables."""

from __future__ import annotations

import io
import itertools
import re
import shutil
import textwrap
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import rich.box
import rich.console
import rich.measure
import rich.table
import rich.text
from rich.cells import cell_len

# Width in characters: that of the terminal, if there is one, between these.
_WIDTHS = 80, 100


def render(*tables: rich.table.Table) -> str:
    """Renders tables as plain text."""
    # Names come from files: brackets and colons in them are no markup.
    console = rich.console.Console(
        file=io.StringIO(),
        width=_width(),
        color_system=None,
        force_terminal=False,
        markup=False,
        emoji=False,
    )
    for table in tables:
        console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(printable(line) for line in text.split("\n"))


def paragraph(text: str) -> str:
    """A sentence in lines as wide as tables, the further ones indented.

    Names and paths stay whole.
    """
    return textwrap.fill(
        printable(text),
        _width(),
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _width() -> int:
    narrow, wide = _WIDTHS
    columns = shutil.get_terminal_size((wide, 0)).columns
    return min(max(columns, narrow), wide)


class _Table(rich.table.Table):
    """A table whose first columns hold names."""

    names = 0

    def add_row(self, *cells: Any, **options: Any) -> None:
        heads = [
            _Name(cell) if isinstance(cell, str) else cell
            for cell in cells[: self.names]
        ]
        super().add_row(*heads, *cells[self.names :], **options)


class _Name:
    """A name, broken into lines behind its slashes and the like.

    As `msq_tf.reports.names.Name`, with which TensorFlow would be loaded:
    seconds that whoever inspects a file can spare.
    """

    def __init__(self, text: str):
        self._text = printable(text)
        self._parts = re.findall(r"[^/_\s;=]*[/_\s;=]+|[^/_\s;=]+", self._text)

    def __str__(self) -> str:
        return self._text

    def __rich_console__(
        self,
        console: rich.console.Console,
        options: rich.console.ConsoleOptions,
    ) -> Iterator[rich.text.Text]:
        lines = [""]
        for part in self._parts:
            wide = cell_len(lines[-1] + part.rstrip()) > options.max_width
            if lines[-1] and wide:
                lines.append("")
            lines[-1] += part
        yield rich.text.Text("\n".join(lines), overflow="fold")

    def __rich_measure__(
        self,
        console: rich.console.Console,
        options: rich.console.ConsoleOptions,
    ) -> rich.measure.Measurement:
        least = max(map(cell_len, self._parts), default=0)
        return rich.measure.Measurement(least, cell_len(self._text))


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

    Names take megabytes in a file made for that.
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
    """Adds the first rows to a table, and how many more of `count` there are.

    Long cells are shortened. Laying out a row takes a millisecond.
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
    """An empty table with left-, right- and again left-aligned columns.

    Cells of the first are names, which are broken at their joints.
    """
    result = _Table(
        title=title,
        title_justify="left",
        box=rich.box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    result.names = len(left)
    for name in left:
        result.add_column(name, overflow="fold")
    for name in right:
        result.add_column(name, justify="right", overflow="fold")
    for name in last:
        result.add_column(name, overflow="fold")
    return result
