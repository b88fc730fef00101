"""The figure of a precision report: bits, sensitivity, accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter
from matplotlib.ticker import MaxNLocator

from msq_tf.decisions import shorten
from msq_tf.labels import PAPER
from msq_tf.labels import Label
from msq_tf.labels import place_labels

if TYPE_CHECKING:
    from msq_tf.report import LayerPrecision
    from msq_tf.report import PrecisionReport

# Narrower stretches, as shares of the width, have no room for a digit.
_LEAST_LABELLED = 0.02
# With more layers than this the other panels stand beside the bits.
_MOST_ABOVE = 24
# Most characters of a name beside the bits.
_NAME = 44
# Inches.
_WIDTH = 12.0
_PANEL = 4.6


def save(
    report: PrecisionReport, path: str | Path, panels: Sequence[str]
) -> None:
    """Draws a report into an image file.

    Args:
        report: A `PrecisionReport`.
        path: Image file to write; the suffix chooses the format.
        panels: Names of panels, see `PrecisionReport.plot`.

    Raises:
        ValueError: If a panel is unknown, or there is nothing to draw.
    """
    draw(report, panels).savefig(path, dpi=120)


def pixels(
    report: PrecisionReport, panels: Sequence[str], dpi: float = 90
) -> np.ndarray:
    """Draws a report into memory.

    Args:
        report: A `PrecisionReport`.
        panels: Names of panels, see `PrecisionReport.plot`.
        dpi: Pixels an inch.

    Returns:
        uint8 array of shape (height, width, 3).

    Raises:
        ValueError: If a panel is unknown, or there is nothing to draw.
    """
    figure = draw(report, panels, dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def draw(
    report: PrecisionReport, panels: Sequence[str], dpi: float = 120
) -> Figure:
    """A figure of the panels that there is something to show in.

    Args:
        report: A `PrecisionReport`.
        panels: Names of panels, see `PrecisionReport.plot`.
        dpi: Pixels an inch.

    Raises:
        ValueError: If a panel is unknown, or there is nothing to draw.
    """
    shows = {
        "bits": bool(report.layers),
        "sensitivity": any(layer.sensitivity > 0 for layer in report.layers),
        "accuracy": any(math.isfinite(p.value) for p in report.points),
    }
    unknown = [panel for panel in panels if panel not in shows]
    if unknown:
        raise ValueError(
            f"There is no such panel. Expected some of {list(shows)}. "
            f"Received: panels={list(panels)}"
        )
    chosen = [name for name in shows if name in panels and shows[name]]
    if not chosen:
        raise ValueError(
            "There is nothing to draw. Expected a panel that has data among "
            f"{[name for name in shows if shows[name]]} (sensitivity needs a "
            "search with Hessian traces, accuracy `precision_report(qmodel, "
            f"history)`). Received: panels={list(panels)}"
        )
    drawers = {"sensitivity": _draw_sensitivity, "accuracy": _draw_accuracy}
    others = [name for name in chosen if name != "bits"]
    figure, bits, rest = _layout(len(report.layers), chosen, others, dpi)
    if bits is not None:
        _draw_bits(report, bits)
    labels: list[Label] = []
    for name, axes in zip(others, rest, strict=True):
        labels += drawers[name](report, axes)
    # Labels avoid each other on the paper, so it is laid out before.
    figure.draw_without_rendering()
    few = len(report.layers) <= _MOST_ABOVE
    place_labels(figure, labels, 7.5 if few else 6.5)
    return figure


def _layout(
    layers: int, chosen: Sequence[str], others: Sequence[str], dpi: float
) -> tuple[Figure, Any, list[Any]]:
    """A figure, the axes of the bits (or None) and those of the others."""
    few = layers <= _MOST_ABOVE
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


def _draw_bits(report: PrecisionReport, axes: Any) -> None:
    """Bits over training as a heat map.

    A row is a layer, in the order of the network; a column is a stretch of
    training between two changes.
    """
    layers = report.layers
    last = max(epoch for layer in layers for epoch, _ in layer.history)
    end = max(report.epochs, last * 1.15) or 1.0
    small = 8.0 if len(layers) <= _MOST_ABOVE else 6.5
    for row, layer in enumerate(layers):
        times = [epoch for epoch, _ in layer.history] + [end]
        for (start, bits), stop in zip(layer.history, times[1:], strict=True):
            if stop <= start:
                continue
            axes.barh(
                row,
                stop - start,
                left=start,
                height=0.86,
                color=_shade(bits),
                edgecolor="white",
                linewidth=0.8,
            )
            if stop - start < _LEAST_LABELLED * end:
                continue
            axes.text(
                (start + stop) / 2,
                row,
                str(bits),
                ha="center",
                va="center",
                fontsize=small,
                color="white" if bits > 4 else "black",
            )
    axes.set_yticks(
        range(len(layers)),
        [shorten(layer.path, _NAME) for layer in layers],
        fontsize=small + 0.5,
    )
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.set_xlim(0.0, end)
    if report.epochs:
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        axes.set_xticks([])
        axes.set_xlabel("no search yet")
    axes.set_title(
        f"Stored bits of every layer: {report.average_bits:.2f} on average, "
        f"{report.compression:.2f}x smaller than float32",
        fontsize=10,
    )
    widths = sorted(
        {bits for layer in layers for _, bits in layer.history}, reverse=True
    )
    axes.legend(
        handles=[Patch(color=_shade(bits), label=str(bits)) for bits in widths],
        title="bits",
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        fontsize=8,
        title_fontsize=8,
        handlelength=1.0,
    )
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(left=False)


def _draw_sensitivity(report: PrecisionReport, axes: Any) -> list[Label]:
    """Sensitivity against bits: a marker for each layer, with its error."""
    layers = report.layers
    known = [layer for layer in layers if layer.sensitivity > 0]
    widths = sorted({layer.bits for layer in layers})
    largest = max(layer.size for layer in layers)
    values = [layer.sensitivity for layer in known]
    floor = min(values) / 3
    axes.set_yscale("log")
    axes.set_ylim(floor / 1.5, max(map(_upper, known)) * 2)
    labels = []
    strip = _common_folder([layer.path for layer in layers])
    for layer in sorted(layers, key=lambda layer: -layer.size):
        # The bits are few: a column for each that occurs leaves room for
        # names.
        x = widths.index(layer.bits)
        positive = layer.sensitivity > 0
        y = layer.sensitivity if positive else floor
        if positive and math.isfinite(layer.sensitivity_error):
            axes.errorbar(
                x,
                y,
                # Down to the edge at most: a log axis has no zero.
                [
                    [min(layer.sensitivity_error, y - floor / 10)],
                    [layer.sensitivity_error],
                ],
                color="0.45",
                linewidth=1.0,
                capsize=2.0,
                zorder=3,
            )
        axes.scatter(
            x,
            y,
            s=26 + 300 * layer.size / largest,
            color=_shade(layer.bits) if positive else "white",
            edgecolor="white" if positive else "0.3",
            marker="o" if positive else "v",
            linewidth=0.7,
            alpha=0.9,
            zorder=2,
        )
        labels.append(Label(axes, x, y, layer.path[strip:], x + 0.13, x + 0.92))
    axes.set_xlim(-0.3, len(widths) - 0.05)
    axes.set_xticks(range(len(widths)), list(map(str, widths)))
    axes.set_xlabel("stored bits")
    axes.set_ylabel("sensitivity $\\Omega$ at the next width")
    axes.set_title("Sensitivity against bits", fontsize=10)
    _lighten(axes)
    notes = [_marker("o", "0.5", f"area: elements, most {largest:,}")]
    if any(math.isfinite(layer.sensitivity_error) for layer in known):
        bar = Line2D([], [], color="0.45", label="standard error")
        notes.append(bar)
    if len(known) < len(layers):
        notes.append(_marker("v", "white", "no positive trace"))
    axes.legend(
        handles=notes,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.12),
        ncols=len(notes),
        frameon=False,
        fontsize=7.5,
    )
    return labels


def _draw_accuracy(report: PrecisionReport, axes: Any) -> list[Label]:
    """The metric of the history against the bytes, epoch by epoch."""
    points = [p for p in report.points if math.isfinite(p.value)]
    sizes = [point.packed_bytes for point in points]
    values = [point.value for point in points]
    axes.plot(sizes, values, color="0.7", linewidth=1.0, zorder=1)
    dots = axes.scatter(
        sizes,
        values,
        c=[point.epoch for point in points],
        cmap="plasma_r",
        s=34,
        edgecolor="white",
        linewidth=0.5,
        zorder=2,
    )
    if len(points) > 1:
        bar = axes.figure.colorbar(
            dots,
            ax=axes,
            pad=0.02,
            aspect=30,
            ticks=MaxNLocator(6, integer=True),
        )
        bar.set_label("epoch", fontsize=8)
        bar.ax.tick_params(labelsize=7.5)
        bar.outline.set_visible(False)
    middle = (min(sizes) + max(sizes)) / 2
    for point, lift in {points[0]: 9, points[-1]: 0}.items():
        # Towards the middle, where there is room for it.
        right = point.packed_bytes <= middle
        axes.annotate(
            f"epoch {point.epoch:g}: {point.value:.3f}",
            (point.packed_bytes, point.value),
            xytext=(9 if right else -9, lift),
            textcoords="offset points",
            fontsize=8,
            ha="left" if right else "right",
            va="center",
            bbox=PAPER,
        )
    axes.margins(0.16)
    axes.xaxis.set_major_formatter(EngFormatter(unit="B"))
    axes.set_xlabel("bytes of the packed codes")
    axes.set_ylabel(report.metric)
    axes.set_title(f"{report.metric} against bytes", fontsize=10)
    _lighten(axes)
    return []


def _lighten(axes: Any) -> None:
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _upper(layer: LayerPrecision) -> float:
    error = layer.sensitivity_error
    return layer.sensitivity + (error if math.isfinite(error) else 0.0)


def _common_folder(paths: Sequence[str]) -> int:
    """Characters of the folders that all paths begin with."""
    folders = [path.split("/")[:-1] for path in paths]
    count = 0
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        count += len(parts[0]) + 1
    return count


def _marker(shape: str, color: str, label: str) -> Line2D:
    return Line2D(
        [],
        [],
        linestyle="",
        marker=shape,
        markerfacecolor=color,
        markeredgecolor="0.3",
        markersize=7,
        label=label,
    )


def _shade(bits: int) -> tuple[float, float, float, float]:
    return colormaps["viridis_r"](0.08 + 0.84 * (bits - 2) / 6)
