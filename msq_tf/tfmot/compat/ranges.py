"""Ranges of activations, which move while a model of TFMOT trains.

TFMOT's moving averages and its extremes of all values accept any number: one
NaN, such as in a step that a loss scale skips, would stay in a range for good.
Here they move as those of `msq_tf.keras3.activations`, and an extreme moves by
no more than the width of the range.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

# Not public.
from tensorflow_model_optimization.python.core.quantization.keras import (
    quant_ops,
)

from msq_tf.quantizers.range_average import LEAST_RANGE
from msq_tf.quantizers.range_average import Extremes
from msq_tf.quantizers.range_average import averaged
from msq_tf.quantizers.range_average import extremes
from msq_tf.tfmot.compat.private import without_autocast

_plain_average = quant_ops.MovingAvgQuantize
_plain_extremes = quant_ops.AllValuesQuantize


def _in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    """Reads and writes ranges as the float32 variables that they are."""

    @functools.wraps(function)
    def computed(*inputs: Any, **named: Any) -> Any:
        with without_autocast():
            return function(*inputs, **named)

    return computed


@_in_float32
def moving_average(
    inputs: Any,
    min_var: Any,
    max_var: Any,
    per_channel: bool = False,
    ema_decay: float = 0.999,
    is_training: bool = True,
    symmetric: bool = False,
    num_bits: int = 8,
    **others: Any,
) -> Any:
    """Quantizes with a range that follows the batches' ends."""
    own = is_training and not (per_channel or symmetric)
    if own:
        old = Extremes(tf.identity(min_var), tf.identity(max_var))
        batch = _with_zero(inputs)
        reach = 1.0 / (1.0 - ema_decay)
        known = tf.constant(True)
        new = averaged(old, batch, known, ema_decay, reach, num_bits).ends
        _assign(min_var, new.low)
        _assign(max_var, new.high)
    return _plain_average(
        inputs,
        min_var,
        max_var,
        per_channel=per_channel,
        ema_decay=ema_decay,
        is_training=is_training and not own,
        symmetric=symmetric,
        num_bits=num_bits,
        **others,
    )


@_in_float32
def all_values(
    inputs: Any,
    min_var: Any,
    max_var: Any,
    is_training: bool = True,
    symmetric: bool = False,
    **others: Any,
) -> Any:
    """Quantizes with a range that holds all values so far."""
    own = is_training and not symmetric
    if own:
        low, high = _with_zero(inputs)
        finite = tf.math.is_finite(low) & tf.math.is_finite(high)
        # They never shrink: one outlier would be there to stay. They begin
        # with nothing, which takes all of the first batch.
        width = max_var - min_var
        width = tf.where(width < LEAST_RANGE, float("inf"), width)
        low = tf.maximum(low, min_var - width)
        high = tf.minimum(high, max_var + width)
        for variable, wider in (
            (min_var, tf.minimum(min_var, low)),
            (max_var, tf.maximum(max_var, high)),
        ):
            _assign(variable, tf.where(finite, wider, variable))
    return _plain_extremes(
        inputs,
        min_var,
        max_var,
        is_training=is_training and not own,
        symmetric=symmetric,
        **others,
    )


def _with_zero(inputs: Any) -> Extremes:
    low, high = extremes(tf.cast(inputs, tf.float32))
    return Extremes(tf.minimum(low, 0.0), tf.maximum(high, 0.0))


def _assign(variable: Any, value: tf.Tensor) -> None:
    """Sets a range; over replicas it is their mean, as TFMOT has it."""
    tf.__internal__.train.assign_moving_average(
        variable, value, 0.0, zero_debias=False
    )
