"""Names beside markers of a figure, moved until they can be read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from msq_tf.reports.names import shorten
from msq_tf.reports.names import shortened

# Keeps what lies under a text from crossing it out.
PAPER = {"color": "white", "alpha": 0.8, "pad": 0.4, "linewidth": 0.0}
# Distance of two lines as a multiple of the font's size.
_LINE = 1.25


class Label(NamedTuple):
    """A name for a marker at (x, y) of its axes' data.

    The text begins at `left` and has to end at `right`.
    """

    axes: Any
    x: float
    y: float
    text: str
    left: float
    right: float


def place_labels(
    figure: Figure, labels: Sequence[Label], points: float
) -> None:
    """Writes labels in columns, each as near to its marker as there is room.

    Labels that begin at the same place form a column. Where it is too short
    for all, those of the highest markers are written. The figure is laid out
    before; `points` is the size of the font.
    """
    pixel = figure.dpi / 72
    columns = defaultdict(list)
    for label in _told_apart(labels, points, pixel):
        columns[label.axes, label.left].append(label)
    for (axes, left), column in columns.items():
        box = axes.get_window_extent()
        gap = points * _LINE * pixel
        most = int(box.height / gap) - 1
        column = sorted(column, key=lambda label: -label.y)[:most]
        spots = axes.transData.transform(
            [(label.left, label.y) for label in column]
        )
        heights = spread(
            spots[::-1, 1], gap, box.y0 + gap / 2, box.y1 - gap / 2
        )
        inverse = axes.transData.inverted()
        for label, height in zip(column, heights[::-1], strict=True):
            y = inverse.transform((0.0, height))[1]
            axes.annotate(
                label.text,
                (label.x, label.y),
                xytext=(left, y),
                fontsize=points,
                va="center",
                bbox=PAPER,
                arrowprops={
                    "arrowstyle": "-",
                    "color": "0.75",
                    "linewidth": 0.5,
                    "shrinkA": 0.0,
                    "shrinkB": 0.0,
                    "relpos": (0.0, 0.5),
                },
                # Above the grid, below the markers.
                zorder=0.9,
                # Or the axes would be laid out anew around it.
                in_layout=False,
            )


def _told_apart(
    labels: Sequence[Label], points: float, pixel: float
) -> list[Label]:
    """The labels with names that have room, no two alike."""
    widths = []
    for label in labels:
        ends = label.axes.transData.transform(
            [(label.left, label.y), (label.right, label.y)]
        )
        room = (ends[1, 0] - ends[0, 0]) / pixel
        widths.append(_fitting(label.text, room, points))
    short = shortened([label.text for label in labels], widths)
    return [
        label._replace(text=text)
        for label, text in zip(labels, short, strict=True)
    ]


def _fitting(text: str, room: float, points: float) -> int:
    """How many characters of a name are at most `room` points wide."""
    for width in range(len(text), 3, -1):
        short = shorten(text, width)
        if TextPath((0, 0), short, size=points).get_extents().width <= room:
            return width
    return 3


def spread(
    wanted: Sequence[float] | np.ndarray, gap: float, low: float, high: float
) -> np.ndarray:
    """Moves places on a line, in ascending order, until they are `gap` apart.

    The first is at `low` or above, the last at `high` or below; `low` goes
    first where there is not room for both.
    """
    count = len(wanted)
    offsets = gap * np.arange(count)
    # With the gaps taken out, apart means in order. The mean of the least
    # places above and the greatest below in order is in order itself, and
    # neither end is preferred.
    free = np.asarray(wanted, np.float64) - offsets
    above = np.maximum.accumulate(free)
    below = np.minimum.accumulate(free[::-1])[::-1]
    middle = (above + below) / 2
    top = max(high - gap * (count - 1), low)
    return np.clip(middle, low, top) + offsets
