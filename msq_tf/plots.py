"""Figures of a precision report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib import colormaps
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from msq_tf.report import PrecisionReport

# Narrower stretches, as shares of the width, have no room for a digit.
_LEAST_LABELLED = 0.02


def plot_bits(report: PrecisionReport, path: str | Path) -> None:
    """Draws each layer's stored bits over training as a heat map.

    A row is a layer, in the order of the network; a column is a stretch of
    training between two changes.

    Args:
        report: A `PrecisionReport`.
        path: Image file to write.
    """
    layers = report.layers
    last = max(epoch for layer in layers for epoch, _ in layer.history)
    end = max(report.epochs, last * 1.15) or 1.0
    figure = Figure(
        figsize=(8.0, 1.2 + 0.34 * len(layers)), layout="constrained"
    )
    axes = figure.add_subplot()
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
                fontsize=8,
                color="white" if bits > 4 else "black",
            )
    axes.set_yticks(range(len(layers)), [layer.path for layer in layers])
    axes.invert_yaxis()
    axes.set_xlim(0.0, end)
    axes.set_xlabel("epoch")
    axes.set_title(
        f"Stored bits of every layer: {report.average_bits:.2f} on average, "
        f"{report.compression:.2f}x smaller than float32",
        fontsize=10,
    )
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(left=False)
    figure.savefig(path, dpi=120)


def _shade(bits: int) -> tuple[float, float, float, float]:
    return colormaps["viridis_r"](0.08 + 0.84 * (bits - 2) / 6)
