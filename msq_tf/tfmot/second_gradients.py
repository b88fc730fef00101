"""Second derivatives through TFMOT's fake quantization of activations.

To TensorFlow the gradient of `FakeQuantWithMinMaxVars` is a constant: what is
behind it counts nothing in a second derivative, without a word, and Hessian
traces of all layers but the last come out as zero. Here the same values have
a gradient that can be differentiated again,

    dy/dx = 1 where low <= x <= high, else 0

which is what TensorFlow's first gradient is. Ranges get none: statistics are
taken at fixed ranges.
"""

from __future__ import annotations

import contextlib
import contextvars
from typing import Any

import tensorflow as tf

# All of TFMOT's quantizers end there; not public.
from tensorflow_model_optimization.python.core.quantization.keras import (
    quant_ops,
)

from msq_tf.core.scoped import scoped

_OPEN: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "msq_tf_second_gradients", default=False
)


def differentiable_twice() -> contextlib.AbstractContextManager[None]:
    """While open, what TFMOT quantizes has second derivatives."""
    return scoped(_OPEN, True)


_plain = quant_ops._FakeQuantWithMinMaxVars


def _fake_quant(
    inputs: Any,
    min_var: Any,
    max_var: Any,
    per_channel: bool,
    num_bits: int,
    narrow_range: bool,
) -> tf.Tensor:
    options = (per_channel, num_bits, narrow_range)
    if not _OPEN.get():
        return _plain(inputs, min_var, max_var, *options)
    x = tf.stop_gradient(inputs)
    low, high = tf.stop_gradient(min_var), tf.stop_gradient(max_var)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = _plain(x, low, high, *options)
    # Of the grid, not of `low` to `high`: zero is one of its points.
    inside = tf.stop_gradient(tape.gradient(value, x))
    through = inputs * inside
    return through + tf.stop_gradient(value - through)


quant_ops._FakeQuantWithMinMaxVars = _fake_quant
