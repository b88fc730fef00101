"""Long names of weights: cut so that they differ, broken at their joints."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterator
from collections.abc import Sequence

import rich.cells
import rich.console
import rich.measure
import rich.text

# What ends a part of a name.
_PARTS = re.compile(r"[^/_\s]*[/_\s]+|[^/_\s]+")


def shorten(name: str, width: int) -> str:
    """A name cut in its middle: the ends of paths tell layers apart."""
    return _cut(name, width, _head(width))


def shortened(names: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Names cut in their middles to their widths, no two alike.

    Where `shorten` would make two alike, they are cut at another place, and
    numbered where that does not help.
    """
    short = list(map(shorten, names, widths))
    groups = collections.defaultdict(list)
    for index, text in enumerate(short):
        groups[text].append(index)
    for group in groups.values():
        if len({names[index] for index in group}) > 1:
            _tell_apart(names, widths, short, group)
    return short


def _tell_apart(
    names: Sequence[str],
    widths: Sequence[int],
    short: list[str],
    group: Sequence[int],
) -> None:
    """Cuts the names of a group anew, in `short`."""
    different = len({names[index] for index in group})
    others = {text for i, text in enumerate(short) if i not in group}
    width = min(widths[index] for index in group)
    usual = _head(width)
    for head in sorted(range(width), key=lambda head: abs(head - usual)):
        cut = [_cut(names[index], widths[index], head) for index in group]
        if len(set(cut)) == different and not others & set(cut):
            break
    else:
        numbers = {name: i for i, name in enumerate(dict.fromkeys(names), 1)}
        cut = []
        for index in group:
            mark = f"#{numbers[names[index]]}"
            room = max(widths[index] - len(mark), 0)
            cut.append(shorten(names[index], room) + mark)
    for index, text in zip(group, cut, strict=True):
        short[index] = text


def _head(width: int) -> int:
    # More of the tail: the end of a path says which weight it is.
    return max(width - 1, 0) * 2 // 5


def _cut(name: str, width: int, head: int) -> str:
    if len(name) <= width:
        return name
    tail = max(width - 1 - head, 0)
    return name[:head] + "…" + (name[-tail:] if tail else "")


class Name:
    """A name in a table, broken into lines behind its slashes and the like."""

    def __init__(self, text: str):
        self._text = text

    def __str__(self) -> str:
        return self._text

    def __rich_console__(
        self,
        console: rich.console.Console,
        options: rich.console.ConsoleOptions,
    ) -> Iterator[rich.text.Text]:
        lines = broken(self._text, options.max_width)
        yield rich.text.Text("\n".join(lines), overflow="fold")

    def __rich_measure__(
        self,
        console: rich.console.Console,
        options: rich.console.ConsoleOptions,
    ) -> rich.measure.Measurement:
        parts = map(rich.cells.cell_len, _PARTS.findall(self._text))
        whole = rich.cells.cell_len(self._text)
        return rich.measure.Measurement(max(parts, default=0), whole)


def broken(name: str, width: int) -> list[str]:
    """A name in lines of at most `width` cells, as far as its parts allow."""
    lines = [""]
    for part in _PARTS.findall(name):
        wide = rich.cells.cell_len(lines[-1] + part.rstrip()) > width
        if lines[-1] and wide:
            lines.append("")
        lines[-1] += part
    return lines
