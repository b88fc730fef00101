"""Scales of small squared error: a statistic of the weights and of the width.

With `max|w|`, one large weight sets the scale of a whole channel, and most
weights round to zero at two bits. The fewer the bits, the smaller the clip of
least squared error. It depends on the shape of the distribution, and two
moments describe that well enough (Choi et al., Accurate and Efficient 2-bit
Quantized Neural Networks, MLSys 2019, section 2.2, "SAWB"):

    clip = c1 sqrt(mean w**2) - c2 mean|w|
    c3 sqrt(mean w**2) <= clip <= max|w|

We fitted `c1` and `c2` at 2, 3 and 4 bits to symmetric grids, on Gaussian,
Laplace, uniform, logistic and triangular weights. The lower bound is for
weights that are more alike than uniform ones. From five bits on a scale is
`max|w|`. There the clip hardly matters, and widths with one scale have nested
grids, so a bit of zeros can go without a change of any code below the largest.

Weights of zero have no error at any scale, so they do not count. A pruned
weight tensor has the scale of its remaining elements.

The sums are exact, as they are sums of integers in float64. So a scale is the
same to the bit for any order of summands, in a training step, a report and an
export. The integers are fine enough that a scale follows its weights as
smoothly as float32 does: a last bit of a weight moves a scale by a last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from msq_tf.quantizers import uniform

# c1, c2 and c3 by stored bits.
COEFFICIENTS = {
    2: (2.468, 1.549, 1.0),
    3: (6.521, 5.762, 1.486),
    4: (12.047, 12.061, 1.645),
}
# A clip is at least this share of max|w|: a few large weights among many that
# are nearly zero shall not all be clipped to nothing.
LEAST_SHARE = 2.0**-4
# A weight counts as zero below this share of max|w|.
ZERO_SHARE = 2.0**-13
# How far the scale of small squared error may move away, as a factor, before a
# held one follows it. Powers of two divide without rounding.
SLACK = 2.0
# Clips are whole numbers of this share of max|w|, so that no compiler fuses a
# product into a sum.
_FINENESS = 2.0**30
# Elements whose moments are taken at once. A table of tokens has many times as
# many; most kernels have fewer.
_PART = 1 << 21


def clips(first: tf.Tensor, second: tf.Tensor, bits: Any) -> tf.Tensor:
    """Clips by the moments of their distributions.

    Args:
        first: float64 tensor, see `moments`.
        second: The same.
        bits: int32 tensor that broadcasts against them, stored bits.

    Returns:
        float64 tensor, in shares of the largest weight; 0 where the scale is
        `max|w|`.
    """
    found = tf.zeros_like(first)
    root = tf.sqrt(second)
    for width, (c1, c2, c3) in COEFFICIENTS.items():
        clip = tf.round(c1 * root * _FINENESS) - tf.round(
            c2 * first * _FINENESS
        )
        least = tf.maximum(
            tf.round(c3 * root * _FINENESS) / _FINENESS, LEAST_SHARE
        )
        clip = tf.minimum(tf.maximum(clip / _FINENESS, least), 1.0)
        found = tf.where(bits == width, clip, found)
    # A dead channel has no distribution.
    return tf.where(second > 0.0, found, 0.0)


def moments(
    w: tf.Tensor, largest: tf.Tensor, axes: Sequence[int], count: int = 0
) -> tuple[tf.Tensor, tf.Tensor]:
    """First two moments of what is not zero, in shares of the largest.

    Args:
        w: float32 weight.
        largest: Its `uniform.max_scale`.
        axes: Axes that share a scale.
        count: How many weights share one, where zeros were taken out of them;
            0 for those that are there. The moments are then the same, to the
            bit, as with the zeros.

    Returns:
        Two float64 tensors in the shape of `largest`.
    """
    here = w.shape.num_elements() // largest.shape.num_elements()
    units = _units(max(count, here))
    sums: list[tf.Tensor] = []
    for start, stop, axis in _cuts(w.shape, axes):
        # One part at a time: in float64 they are several times the weight.
        with tf.control_dependencies(sums):
            part = w if axis is None else _between(w, start, stop, axis)
            more = _sums(part, largest, axes, units)
        if sums:
            more = [a + b for a, b in zip(sums, more, strict=True)]
        sums = more
    live, first, second = sums
    live = tf.maximum(live, 1.0)
    return first / units / live, second / units**2 / live


def _sums(
    w: tf.Tensor, largest: tf.Tensor, axes: Sequence[int], units: float
) -> list[tf.Tensor]:
    """How many weights count, the sum of them and that of their squares."""
    share = tf.abs(w) / largest
    counted = tf.cast(share > ZERO_SHARE, tf.float64)
    # Whole numbers, of which every sum is exact.
    x = tf.cast(tf.round(share * units), tf.float64) * counted
    return [
        tf.reduce_sum(summed, axes, keepdims=True)
        for summed in (counted, x, x * x)
    ]


def _cuts(
    shape: Sequence[int], axes: Sequence[int]
) -> list[tuple[int, int, int | None]]:
    """First and last place of each part of a weight, and along which axis."""
    size = math.prod(shape)
    axis = max(axes, key=lambda i: shape[i], default=None)
    if axis is None or size < 2 * _PART:
        return [(0, 0, None)]
    length = shape[axis]
    most = max(1, _PART * length // size)
    return [
        (start, min(start + most, length), axis)
        for start in range(0, length, most)
    ]


def _between(w: tf.Tensor, start: int, stop: int, axis: int) -> tf.Tensor:
    places = [slice(None)] * len(w.shape)
    places[axis] = slice(start, stop)
    return w[tuple(places)]


def _units(count: int) -> float:
    """Units of max|w| in which a number of weights is counted.

    The sum of their squares is less than 2**53. Rounding leaves, of the mean
    of `count` weights, an error of `0.5 / units / sqrt(count)` or so, which is
    less than that of float32.
    """
    return 2.0 ** min(23, (52 - max(count - 1, 1).bit_length()) // 2)


def narrow(bits: tf.Tensor) -> tf.Tensor:
    """Whether the scale of each width follows from moments, bools."""
    return bits <= max(COEFFICIENTS)


def any_narrow(bits: tf.Tensor) -> tf.Tensor:
    """Whether the scale of any width follows from moments, a bool scalar."""
    return tf.reduce_any(narrow(bits))


def near(held: tf.Tensor, now: tf.Tensor) -> tf.Tensor:
    """A held scale, or what is nearest to it and `SLACK` from today's.

    Args:
        held: float32 tensor, scales that were taken before.
        now: The same, those of the weights as they are.

    Returns:
        float32 tensor, no gradient.
    """
    return tf.stop_gradient(tf.clip_by_value(held, now / SLACK, now * SLACK))


def scale(
    largest: tf.Tensor, clip: tf.Tensor, bits: tf.Tensor, quantizer: str
) -> tf.Tensor:
    """The scale whose largest code is at a clip.

    Args:
        largest: float32 `max|w|`.
        clip: float64 tensor in its shape, see `clips`.
        bits: int32 tensor that broadcasts against it.
        quantizer: `"round_clamp"` or `"dorefa"`.

    Returns:
        float32 tensor; not finite where `largest` is not.
    """
    levels = tf.cast(uniform.steps_per_scale(bits - 1, quantizer), tf.float64)
    limit = tf.cast(uniform.code_limit(bits), tf.float64)
    # One rounding to float32, which no order of these operations changes; a
    # chain of float32 products is put into another order in a graph.
    factor = tf.cast(clip * levels / limit, tf.float32)
    inside = (clip > 0.0) & (largest < float("inf"))
    return tf.where(
        inside, tf.minimum(largest * factor, uniform.LARGEST_SCALE), largest
    )


def mse_scale(
    w: tf.Tensor,
    bits: Any,
    channel_axes: Sequence[int] | None = None,
    quantizer: str = uniform.ROUND_CLAMP,
    count: int = 0,
) -> tf.Tensor:
    """A scale whose clip has a small squared error at a width.

    Args:
        w: float32 weight.
        bits: Integer scalar, stored bits with the sign, 2 to 8.
        channel_axes: As in `uniform.max_scale`.
        quantizer: `"round_clamp"` or `"dorefa"`.
        count: As in `moments`.

    Returns:
        float32 tensor in the shape of `uniform.max_scale`, without gradient.
        The largest code times `uniform.step_size` is the clip.

    Examples:
        >>> w = tf.constant([-0.9, 0.1, 0.5, 1.0, 0.2, -0.3])
        >>> mse_scale(w, bits=8).numpy()
        array([1.], dtype=float32)
        >>> mse_scale(w, bits=2).numpy().round(2)
        array([1.44], dtype=float32)
    """
    bits = tf.cast(bits, tf.int32)
    largest = uniform.max_scale(w, channel_axes)
    axes = [i for i, n in enumerate(largest.shape) if n == 1]
    clip = clips(*moments(w, largest, axes, count), bits)
    return tf.stop_gradient(scale(largest, clip, bits, quantizer))


def scale_by(
    kind: str,
    w: tf.Tensor,
    bits: Any,
    channel_axes: Sequence[int] | None,
    quantizer: str,
    count: int = 0,
) -> tf.Tensor:
    """`uniform.max_scale` for `"max"`, else `mse_scale`."""
    if kind == uniform.MAX:
        return uniform.max_scale(w, channel_axes)
    return mse_scale(w, bits, channel_axes, quantizer, count)
