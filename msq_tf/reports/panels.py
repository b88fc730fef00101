"""The panels of a precision report's figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

from matplotlib import colormaps
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter
from matplotlib.ticker import MaxNLocator

from msq_tf.reports.labels import PAPER
from msq_tf.reports.labels import Label
from msq_tf.reports.names import shortened
from msq_tf.reports.training_log import spelled

if TYPE_CHECKING:
    from msq_tf.reports.layer_precision import LayerPrecision
    from msq_tf.reports.precision_report import PrecisionReport

# With more layers than this everything is set smaller, and the other panels
# stand beside the bits.
FEW = 24
# Narrower stretches, as shares of the width, have no room for a digit.
_LEAST_LABELLED = 0.02
# Width of a column of markers, where the columns are 1 apart.
_SPREAD = 0.14
# Most characters of a name beside the bits.
_NAME = 44


def draw_bits(report: PrecisionReport, axes: Any) -> None:
    """Bits over training as a heat map.

    A row is a layer, in the order of the network; a column is a stretch of
    training between two changes.
    """
    layers = report.layers
    last = max(epoch for layer in layers for epoch, _ in layer.history)
    end = max(report.epochs, last * 1.15) or 1.0
    small = 8.0 if len(layers) <= FEW else 6.5
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
    names = [layer.path for layer in layers]
    if max(map(len, names)) > _NAME:
        names = [name[_common_folder(names) :] for name in names]
    axes.set_yticks(
        range(len(layers)),
        shortened(names, [_NAME] * len(names)),
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


def draw_sensitivity(report: PrecisionReport, axes: Any) -> list[Label]:
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
    places = _places(layers, widths)
    for layer in sorted(layers, key=lambda layer: -layer.size):
        x = places[layer.path]
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
            s=26 + 220 * layer.size / largest,
            color=_shade(layer.bits) if positive else "white",
            edgecolor="white" if positive else "0.3",
            marker="o" if positive else "v",
            linewidth=0.7,
            alpha=0.9,
            zorder=2,
        )
        column = widths.index(layer.bits)
        labels.append(
            Label(
                axes,
                x,
                y,
                layer.path[strip:],
                left=column + _SPREAD / 2 + 0.07,
                right=column + 1 - _SPREAD / 2 - 0.01,
            )
        )
    axes.set_xlim(-0.3, len(widths) - _SPREAD / 2)
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


def draw_accuracy(report: PrecisionReport, axes: Any) -> list[Label]:
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
    # Beside the line, which leaves the first point upwards or downwards.
    aside = -9 if values[min(1, len(values) - 1)] > values[0] else 9
    for point, lift in {points[0]: aside, points[-1]: 0}.items():
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
    metric = spelled(report.metric or "")
    axes.set_ylabel(metric)
    axes.set_title(f"{metric.capitalize()} against bytes", fontsize=10)
    _lighten(axes)
    return []


def _lighten(axes: Any) -> None:
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _places(
    layers: Sequence[LayerPrecision], widths: Sequence[int]
) -> dict[str, float]:
    """Where each layer stands on the axis of bits.

    A column for each width that occurs leaves room for names. In it the
    layers stand side by side, so that their errors do not hide each other.
    """
    places = {}
    for column, bits in enumerate(widths):
        group = [layer for layer in layers if layer.bits == bits]
        group.sort(key=lambda layer: layer.sensitivity)
        step = min(_SPREAD / max(len(group) - 1, 1), _SPREAD / 4)
        for i, layer in enumerate(group):
            places[layer.path] = column + (i - (len(group) - 1) / 2) * step
    return places


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
