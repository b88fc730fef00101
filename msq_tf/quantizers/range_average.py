"""The next range of a moving average, which no single batch can spoil.

A loss scale skips a step that overflowed, and the values of that step must not
stay in a range. So numbers that are not finite never enter it. The effect of a
finite outlier is limited: one batch moves an end by no more than the width of
the range. If a range is so wide that a whole batch has the code of zero, as
after an outlier in the first batch, it shrinks to a quarter.
"""

from __future__ import annotations

from typing import Any
from typing import NamedTuple

import tensorflow as tf

# Below this TFLite's converter takes a range for none.
LEAST_RANGE = 2.0**-50
# What stays of a range in which a whole batch is zero.
_SHRUNK = 0.25


class Extremes(NamedTuple):
    """Two float32 scalars, the low end and the high end."""

    low: tf.Tensor
    high: tf.Tensor


class SiteRange(NamedTuple):
    """The trained range of one site, as numbers.

    Attributes:
        low: Smallest value, at most 0.
        high: Largest value, at least 0.
        narrow: Whether the lowest code is not used.
    """

    low: float
    high: float
    narrow: bool


class Average(NamedTuple):
    """The state to go on with.

    Attributes:
        ends: The new range.
        known: Whether it is one: the old was, or the batch has one.
    """

    ends: Extremes
    known: tf.Tensor


def extremes(x: tf.Tensor) -> Extremes:
    """Smallest and largest number, no gradient.

    Infinite ones are left out, with which a model masks or pads: the code at
    the end of the range stands for them. NaN stays, for which a batch is not
    listened to.
    """
    x = tf.stop_gradient(x)
    x = tf.where(tf.abs(x) >= x.dtype.max, tf.zeros_like(x), x)
    return Extremes(tf.reduce_min(x), tf.reduce_max(x))


def averaged(
    old: Extremes,
    batch: Extremes,
    known: tf.Tensor,
    keep: Any,
    reach: Any,
    bits: int,
) -> Average:
    """Moves a range by what a batch has.

    Args:
        old: The range so far.
        batch: The extremes of a batch.
        known: bool scalar, whether there is a range so far.
        keep: Share of the old range that stays, a number; 1 moves nothing but
            what is useless.
        reach: Most that an end of the batch counts for, in widths of the old
            range.
        bits: Bits of the codes.

    Returns:
        The new range. It is the old one bit for bit where the batch holds NaN
        or nothing but zeros.
    """
    number = _finite(batch)
    width = tf.maximum(old.high, 0.0) - tf.minimum(old.low, 0.0)
    # Zeros say nothing about a range, whether they come first, as of a ReLU
    # that wakes up later, or last, as of one that died.
    known &= _finite(old) & ((old.low != 0.0) | (old.high != 0.0))
    silent = (batch.low == 0.0) & (batch.high == 0.0)
    largest = tf.maximum(tf.abs(batch.low), tf.abs(batch.high))
    # In 16 bits a quiet batch still has codes.
    useless = largest * 2.0 ** (max(bits, 8) + 1) < width
    share = tf.where(useless, tf.minimum(keep, _SHRUNK), keep)
    still = known & (silent | ~number)
    farthest = tf.where(width < LEAST_RANGE, largest, reach * width)
    ends = []
    for before, now in zip(old, batch, strict=True):
        bound = tf.clip_by_value(now, -farthest, farthest)
        moved = share * before + (1.0 - share) * bound
        fresh = tf.where(number, now, tf.zeros_like(now))
        ends.append(tf.where(still, before, tf.where(known, moved, fresh)))
    return Average(Extremes(*ends), known | number)


def _finite(ends: Extremes) -> tf.Tensor:
    return tf.math.is_finite(ends.low) & tf.math.is_finite(ends.high)
