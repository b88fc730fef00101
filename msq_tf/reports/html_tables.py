"""Tables and lines of text as HTML, for notebooks."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

import rich.table
import rich.text

from msq_tf.reports.names import Name


def as_html(parts: Iterable[rich.table.Table | str], markup: bool) -> str:
    """One piece of HTML that a notebook shows, without styles but alignment.

    Names are anyone's choice, so everything is escaped. Cells of tables are
    rich's `markup`, or else stand for themselves.
    """
    return "".join(
        _table(part, markup)
        if isinstance(part, rich.table.Table)
        else f"<p>{_lines(part)}</p>"
        for part in parts
    )


def _table(table: rich.table.Table, markup: bool) -> str:
    columns = table.columns
    head = "".join(
        f"<th{_align(column)}>{_text(column.header, markup)}</th>"
        for column in columns
    )
    rows = zip(*(list(column.cells) for column in columns), strict=True)
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{_align(column)}>{_text(cell, markup)}</td>"
            for column, cell in zip(columns, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    caption = ""
    if table.title is not None:
        caption = f"<caption>{_text(table.title, False)}</caption>"
    return (
        f"<table>{caption}<thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def _align(column: Any) -> str:
    side = "right" if column.justify == "right" else "left"
    return f' style="text-align: {side}"'


def _text(cell: Any, markup: bool) -> str:
    text = str(cell)
    # A name stands for itself in any table.
    if markup and not isinstance(cell, Name):
        text = rich.text.Text.from_markup(text, emoji=False).plain
    return _lines(text)


def _lines(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")
