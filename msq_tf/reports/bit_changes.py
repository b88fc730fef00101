"""The changes that a search made as text: log lines, a table, Markdown."""

from __future__ import annotations

import dataclasses
import logging
import math
import shutil
from collections.abc import Sequence
from typing import Any

import rich.box
import rich.console
import rich.markup
import rich.table
import rich.text

from msq_tf.core.bit_history import BitChange
from msq_tf.reports import terminal
from msq_tf.reports.html_tables import as_html
from msq_tf.reports.names import Name
from msq_tf.rules.records import Candidate

# Width in characters of tables that `str` gives: that of the terminal, if
# there is one, between these.
_WIDTHS = 80, 110
_COLUMNS = (
    "step",
    "epoch",
    "weight",
    "bits",
    "cost",
    "LSB≠0",
    "sensitivity",
    "next in line",
)
# Columns of text; the others hold numbers.
_TEXT = ("weight", "next in line")
# How tables look; as narrow as they can be read.
LAYOUT: dict[str, Any] = {
    "box": rich.box.SIMPLE_HEAD,
    "collapse_padding": True,
    "pad_edge": False,
}
# What is not plain in the heads of tables, said below them.
WORDS = (
    "sensitivity: the predicted loss of the next width, ± its standard error; "
    "LSB≠0: the share of weights whose bits that go next are not all zero"
)
_COST = "cost: the predicted increase of the loss; "
_UNKNOWN = "-"

_logger = logging.getLogger("msq_tf")


@dataclasses.dataclass(frozen=True)
class Decisions:
    """Changes of widths as tables: what was known, and the reasons.

    `str()` prints them.

    The columns are those of `BitChange`: `cost` is the predicted increase
    of the loss, `LSB≠0` the share of elements whose dropped bits were not all
    zero; `-` stands for what was not known.

    Attributes:
        changes: The changes, in order of time.
    """

    changes: tuple[BitChange, ...]

    def __rich__(self) -> Any:
        return rich.console.Group(*self._parts())

    def _parts(self) -> list[Any]:
        if not self.changes:
            return ["No change of bits yet."]
        table = rich.table.Table(title="Decisions", **LAYOUT)
        for name in _COLUMNS:
            if name in _TEXT:
                table.add_column(name, overflow="fold")
            else:
                table.add_column(name, justify="right", no_wrap=True)
        for change in self.changes:
            cells = zip(_COLUMNS, _cells(change), strict=True)
            table.add_row(
                *(Name(cell) if head in _TEXT else cell for head, cell in cells)
            )
        return [table, _COST + WORDS, *self._reasons()]

    def _reasons(self) -> list[Any]:
        if not any(change.reason for change in self.changes):
            return []
        table = rich.table.Table(title="Reasons", **LAYOUT)
        table.add_column("step", justify="right", no_wrap=True)
        table.add_column("weight", overflow="fold")
        table.add_column("bits", justify="right", no_wrap=True)
        table.add_column("why", overflow="fold")
        for change in self.changes:
            table.add_row(
                str(change.step),
                Name(change.path),
                _move(change),
                rich.markup.escape(change.reason or _UNKNOWN),
            )
        return [table]

    def __str__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        """The same as a table of a notebook."""
        return as_html(self._parts(), markup=True)

    def markdown(self) -> str:
        """The table in Markdown, as TensorBoard's text panel shows it."""
        head = (*_COLUMNS, "why")
        rows = [head, tuple("---" for _ in head)]
        rows += [
            # A bar in a name would end its cell.
            tuple(
                cell.replace("|", "\\|")
                for cell in (*_cells(change), change.reason or _UNKNOWN)
            )
            for change in self.changes
        ]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def as_text(renderable: Any) -> str:
    """The text that a rich console prints, without colours."""
    narrow, wide = _WIDTHS
    columns = shutil.get_terminal_size((wide, 0)).columns
    console = rich.console.Console(
        width=min(max(columns, narrow), wide), color_system=None
    )
    with console.capture() as capture:
        console.print(renderable)
    return terminal.fitting(capture.get(), console.encoding)


def log_text(lines: str) -> None:
    """Writes what a search says to the logger `msq_tf`, a record a line."""
    for line in lines.splitlines():
        _logger.info("%s", line)


def log(changes: Sequence[BitChange]) -> None:
    """Writes a record for each change just made to the logger `msq_tf`.

    The level is INFO, which Python does not show unless it is asked to. The
    record carries the `BitChange` as its attribute `bit_change`.
    """
    for change in changes:
        _logger.info("%s", describe(change), extra={"bit_change": change})


def describe(change: BitChange) -> str:
    """A change, and what was known when it was made, in one line."""
    share = change.lsb_nonzero
    return (
        f"step {change.step} (epoch {change.epoch:.2f}): {change.path} "
        f"{change.old} → {change.new} bits; predicted cost "
        f"{_or_unknown(change.cost, '{:+.2e}')}, nonzero LSBs "
        f"{_or_unknown(share, '{:.1%}')}, sensitivity "
        f"{with_error(change.sensitivity, change.sensitivity_error)}; "
        f"next in line: {as_words(change.next_in_line)}"
        + (f"; why: {change.reason}" if change.reason else "")
    )


def with_error(value: float, error: float) -> str:
    """A figure and its standard error, which may not be known."""
    if not math.isfinite(value):
        return _UNKNOWN
    if not value:
        return "0"
    return f"{value:.1e}" + (f" ± {error:.0e}" if math.isfinite(error) else "")


def _cells(change: BitChange) -> tuple[str, ...]:
    return (
        str(change.step),
        f"{change.epoch:.2f}",
        change.path,
        _move(change),
        _or_unknown(change.cost, "{:+.1e}"),
        _or_unknown(change.lsb_nonzero, "{:.2f}"),
        with_error(change.sensitivity, change.sensitivity_error),
        as_words(change.next_in_line),
    )


def _move(change: BitChange) -> str:
    return f"{change.old} → {change.new}"


def as_words(candidate: Candidate | None) -> str:
    """A change that may come, with its cost where that is known."""
    if candidate is None:
        return "nothing"
    move = f"{candidate.path} → {candidate.bits}"
    if math.isfinite(candidate.cost):
        move += f" ({candidate.cost:+.1e})"
    return move


def _or_unknown(value: float, form: str) -> str:
    return form.format(value) if math.isfinite(value) else _UNKNOWN
