"""The figure of a precision report: bits, sensitivity, accuracy."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from msq_tf import atomic_files
from msq_tf.arguments import check_path
from msq_tf.reports import panels as panels_lib
from msq_tf.reports.labels import Label
from msq_tf.reports.labels import place_labels

if TYPE_CHECKING:
    from msq_tf.reports.precision_report import PrecisionReport

# Inches.
_WIDTH = 12.0
_PANEL = 4.6


def save(
    report: PrecisionReport, path: str | Path, panels: Sequence[str]
) -> None:
    """Draws panels of a report into an image file, see `PrecisionReport.plot`.

    Raises:
        ValueError: If a panel is unknown, there is nothing to draw, or no
            folder for the file.
    """
    check_path("path", path)
    _write(draw(report, panels), path)


def save_points(
    path: str | os.PathLike[str],
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    axes: tuple[str, str],
) -> None:
    """Draws named points, joined by a line, into an image file.

    Args:
        path: Where to write; the suffix chooses the format.
        points: Their places.
        names: What stands beside each.
        axes: What is to the right, and what is upwards.

    Raises:
        ValueError: If there is no such format, or no folder for the file.
    """
    figure = Figure(figsize=(_WIDTH / 2, _PANEL), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.add_subplot()
    panel.plot(*zip(*points, strict=True), marker="o")
    panel.margins(0.15)  # room for the last name
    for point, name in zip(points, names, strict=True):
        panel.annotate(name, point, textcoords="offset points", xytext=(4, -12))
    panel.set_xlabel(axes[0])
    panel.set_ylabel(axes[1])
    panel.grid(alpha=0.3)
    _write(figure, path)


def _write(figure: Figure, path: str | os.PathLike[str]) -> None:
    known = sorted(figure.canvas.get_supported_filetypes())
    if Path(path).suffix.removeprefix(".").lower() not in ("", *known):
        raise ValueError(
            "No picture has such a suffix. Expected one of "
            f"{', '.join(known)}. Received: path={os.fspath(path)!r}"
        )
    with atomic_files.writing(path):
        figure.savefig(path, dpi=120)


def pixels(
    report: PrecisionReport, panels: Sequence[str], dpi: float = 90
) -> np.ndarray:
    """Draws a report into memory: uint8 of shape (height, width, 3)."""
    figure = draw(report, panels, dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def draw(
    report: PrecisionReport, panels: Sequence[str], dpi: float = 120
) -> Figure:
    """A figure of the panels that there is something to show in.

    Raises:
        ValueError: If a panel is unknown, or there is nothing to draw.
    """
    shows = {
        "bits": bool(report.layers),
        "sensitivity": any(layer.sensitivity > 0 for layer in report.layers),
        # Against bytes that stay the same there is nothing to see.
        "accuracy": any(math.isfinite(p.value) for p in report.points)
        and len({p.packed_bytes for p in report.points}) > 1,
    }
    if isinstance(panels, str) or any(panel not in shows for panel in panels):
        raise ValueError(
            "There is no such panel. Expected a list of some of "
            f"{list(shows)}. Received: panels={panels!r}"
        )
    chosen = [name for name in shows if name in panels and shows[name]]
    if not chosen:
        raise ValueError(
            "There is nothing to draw. Expected a panel that has data among "
            f"{[name for name in shows if shows[name]]} (sensitivity needs a "
            "search with Hessian traces, accuracy `precision_report(qmodel, "
            "history)` and bytes that change). Received: "
            f"panels={list(panels)}"
        )
    drawers = {
        "sensitivity": panels_lib.draw_sensitivity,
        "accuracy": panels_lib.draw_accuracy,
    }
    others = [name for name in chosen if name != "bits"]
    figure, bits, rest = _layout(len(report.layers), chosen, others, dpi)
    if bits is not None:
        panels_lib.draw_bits(report, bits)
    labels: list[Label] = []
    for name, axes in zip(others, rest, strict=True):
        labels += drawers[name](report, axes)
    # Labels avoid each other on the paper, so it is laid out before.
    figure.draw_without_rendering()
    few = len(report.layers) <= panels_lib.FEW
    place_labels(figure, labels, 7.5 if few else 6.5)
    return figure


def _layout(
    layers: int, chosen: Sequence[str], others: Sequence[str], dpi: float
) -> tuple[Figure, Any, list[Any]]:
    """A figure, the axes of the bits (or None) and those of the others."""
    few = layers <= panels_lib.FEW
    tall = 1.3 + (0.3 if few else 0.2) * layers
    options: dict[str, Any] = {"layout": "constrained", "dpi": dpi}
    if not others:
        figure = Figure(figsize=(9.0, tall), **options)
        return figure, figure.subplots(), []
    if "bits" not in chosen:
        width = _WIDTH if len(others) > 1 else 0.6 * _WIDTH
        figure = Figure(figsize=(width, _PANEL), **options)
        return figure, None, _axes(figure, 1, len(others))
    # Panes of their own: long names would else push all panels aside.
    panes: Any
    if few:
        figure = Figure(figsize=(_WIDTH, tall + _PANEL), **options)
        panes = figure.subfigures(2, 1, height_ratios=[tall, _PANEL])
        shape = 1, len(others)
    else:
        tall = max(tall, _PANEL * len(others))
        figure = Figure(figsize=(1.3 * _WIDTH, tall), **options)
        panes = figure.subfigures(1, 2)
        shape = len(others), 1
    return figure, panes[0].subplots(), _axes(panes[1], *shape)


def _axes(figure: Any, rows: int, columns: int) -> list[Any]:
    return list(figure.subplots(rows, columns, squeeze=False).flat)
