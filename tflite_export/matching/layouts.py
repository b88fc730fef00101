"""Layouts of a Keras weight's elements in a TFLite tensor.

The converter permutes, expands and reshapes weights. An `Arrangement` is one
such way; `arrangements` lists those that a layout allows. Nothing here looks
at values: `match.py` proves which arrangement is the right one.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator

import numpy as np

from msq_tf.weight_layout import Layout

# The last axis has the channels of several gates.
_GATED = (Layout.RECURRENT, Layout.CONV_RECURRENT)


@dataclasses.dataclass(frozen=True)
class Arrangement:
    """A way to lay a weight out in a tensor.

    Attributes:
        permutation: Order of the weight's axes in the tensor, before the
            reshape to the tensor's shape.
        start: First index along the weight's last axis (recurrent weights are
            cut into gates), 0 for the whole weight.
        stop: End index along the weight's last axis, `None` for the whole.
    """

    permutation: tuple[int, ...]
    start: int = 0
    stop: int | None = None

    def apply(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Lays `array`, in the weight's own shape, out in `shape`."""
        return self._permuted(array).reshape(shape)

    def sample(self, array: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Some elements of `apply(...)`, by their places in it laid out flat.

        Takes no copy of the array.
        """
        permuted = self._permuted(array)
        return permuted[np.unravel_index(places, permuted.shape)]

    def _permuted(self, array: np.ndarray) -> np.ndarray:
        return array[..., self.start : self.stop].transpose(self.permutation)


def arrangements(
    layout: Layout,
    weight_shape: tuple[int, ...],
    channel_axes: tuple[int, ...],
    tensor_shape: tuple[int, ...],
) -> Iterator[Arrangement]:
    """Ways in which a weight may be laid out in a tensor.

    Those whose element count fits, the likeliest first, each once. The channel
    axes are those of the weight that index output channels.
    """
    size, wanted = math.prod(weight_shape), math.prod(tensor_shape)
    orders = _orders(layout, weight_shape, channel_axes)
    if size == wanted:
        for order in orders:
            yield Arrangement(order)
    elif layout in _GATED and size and size > wanted:
        yield from _gate_slices(weight_shape, wanted, orders)


def slices(
    weight_shape: tuple[int, ...], tensor_shape: tuple[int, ...]
) -> Iterator[Arrangement]:
    """Ways in which a slice of a weight's last axis may be laid out.

    A convolutional LSTM that stays in float cuts its filters into those of its
    gates.
    """
    if len(weight_shape) < 2 or 0 in weight_shape:
        return
    last = len(weight_shape) - 1
    orders = _orders(Layout.OTHER, weight_shape, (last,))
    wanted = math.prod(tensor_shape)
    if wanted < math.prod(weight_shape):
        yield from _gate_slices(weight_shape, wanted, orders)


def _orders(
    layout: Layout, shape: tuple[int, ...], channel_axes: tuple[int, ...]
) -> list[tuple[int, ...]]:
    axes = tuple(range(len(shape)))
    rest = tuple(a for a in axes if a not in channel_axes)
    orders = []
    if layout in (Layout.CONV, Layout.CONV_TRANSPOSE, Layout.CONV_RECURRENT):
        # OHWI for CONV_2D and TRANSPOSE_CONV; the 3-D kernels stay as they
        # are.
        orders = [(*channel_axes, *rest), axes]
    elif layout is Layout.DEPTHWISE:
        # 1HW(IM); a convolution with as many groups as channels is OHWI.
        orders = [axes, (*axes[-2:], *axes[:-2])]
    elif layout in (Layout.DENSE, Layout.RECURRENT, Layout.EMBEDDING):
        orders = [axes[::-1], axes]
    else:
        orders = [(*channel_axes, *rest), (*rest, *channel_axes), axes]
        orders += itertools.permutations(axes)
    if layout is Layout.EMBEDDING:
        orders.reverse()
    return list(dict.fromkeys(_canonical(order, shape) for order in orders))


def _canonical(
    order: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[int, ...]:
    # Axes of length 1 may stand anywhere: put them first so that equal
    # layouts compare equal.
    long = [a for a in order if shape[a] != 1]
    return (*sorted(set(order) - set(long)), *long)


def _gate_slices(
    shape: tuple[int, ...], wanted: int, orders: list[tuple[int, ...]]
) -> Iterator[Arrangement]:
    gates, rows = shape[-1], math.prod(shape[:-1])
    if wanted == 0 or wanted % rows:
        return
    width = wanted // rows
    for start in range(0, gates - width + 1, math.gcd(width, gates)):
        for order in orders:
            yield Arrangement(order, start, start + width)
