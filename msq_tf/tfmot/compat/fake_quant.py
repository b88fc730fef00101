"""Fake quantization of activations, as TFMOT's quantizers call it.

All of them end in one function of TFMOT. What takes its place computes the same
values and, while a scope is open, does more: it notes what a range would have
to hold (`seeing`), names the places of ranges (`watched`), and has second
derivatives (`differentiable_twice`).

To TensorFlow the gradient of `FakeQuantWithMinMaxVars` is a constant: what is
behind it counts nothing in a second derivative, without a word, and Hessian
traces of all layers but the last come out as zero. In the last scope the same
values have a gradient that can be differentiated again,

    dy/dx = 1 where low <= x <= high, else 0

which is what TensorFlow's first gradient is. Ranges get none: statistics are
taken at fixed ranges.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

# Not public.
from tensorflow_model_optimization.python.core.quantization.keras import (
    quant_ops,
)

from msq_tf.core.calibration import SeenRanges
from msq_tf.core.scoped import scoped
from msq_tf.keras3.activation_sites import SITE_NAME
from msq_tf.tfmot.compat.private import without_autocast

# Function of the position of a site and of what the model computes there, that
# returns what it goes on with.
Tap = Callable[[int, tf.Tensor], tf.Tensor]

# By `ref()` of the range's variable.
_SEEN: contextvars.ContextVar[SeenRanges | None] = contextvars.ContextVar(
    "msq_tf_seen_ranges", default=None
)
# Position of each range by `ref()` of its variable, and who sees what is
# computed there.
_WATCHED: contextvars.ContextVar[
    tuple[Mapping[Any, int], Tap | None] | None
] = contextvars.ContextVar("msq_tf_watched_ranges", default=None)
_TWICE: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "msq_tf_second_gradients", default=False
)

_plain = quant_ops._FakeQuantWithMinMaxVars


def seeing(seen: SeenRanges) -> contextlib.AbstractContextManager[None]:
    """While open, activations are noted in `seen` and stay as they are."""
    return scoped(_SEEN, seen)


def watched(
    places: Mapping[Any, int], tap: Tap | None
) -> contextlib.AbstractContextManager[None]:
    """While open, ranges are sites with names, whose values `tap` takes.

    `places` has the position of each range by the `ref()` of its `min_var`.
    """
    return scoped(_WATCHED, (places, tap))


def differentiable_twice() -> contextlib.AbstractContextManager[None]:
    """While open, what TFMOT quantizes has second derivatives."""
    return scoped(_TWICE, True)


def fake_quantize(
    inputs: Any,
    min_var: Any,
    max_var: Any,
    per_channel: bool,
    num_bits: int,
    narrow_range: bool,
) -> tf.Tensor:
    """Rounds activations to the grid of a range; see the module."""
    options = (per_channel, num_bits, narrow_range)
    ref = min_var.ref() if isinstance(min_var, tf.Variable) else None
    seen = _SEEN.get()
    if seen is not None and ref in seen:
        seen.see(ref, inputs)
        return inputs
    places, tap = _WATCHED.get() or ({}, None)
    rounded = _rounded_with_gradient if _TWICE.get() else _plain
    # Ranges and their grid are float32, whatever the layers compute in.
    x = tf.cast(inputs, tf.float32)
    with without_autocast():
        if ref not in places:
            value = rounded(x, min_var, max_var, *options)
            return tf.cast(value, inputs.dtype)
        with tf.name_scope(f"{SITE_NAME}{places[ref]}_"):
            value = rounded(x, min_var, max_var, *options)
    if tap is not None:
        value = tap(places[ref], value)
    return tf.cast(value, inputs.dtype)


def _rounded_with_gradient(
    inputs: Any, min_var: Any, max_var: Any, *options: Any
) -> tf.Tensor:
    x = tf.stop_gradient(inputs)
    low, high = tf.stop_gradient(min_var), tf.stop_gradient(max_var)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = _plain(x, low, high, *options)
    # Of the grid, not of `low` to `high`: zero is one of its points.
    inside = tf.stop_gradient(tape.gradient(value, x))
    through = inputs * inside
    return through + tf.stop_gradient(value - through)
