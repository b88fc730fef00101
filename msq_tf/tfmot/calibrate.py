"""Ranges of activations: calibrated on data, and seen while a model runs.

`calibrate` has them start at those of data. TFMOT's start at -6 to 6 and move
by a thousandth at each step, so that they fit after thousands of steps only.
Until then most of a grid of 8 bits lies where no activation is.

Neither TFMOT's moving averages nor its extremes of all values look at what
they take: one NaN, as of a step that a loss scale skips, would be in a range
for good. Here they move as those of `msq_tf.keras3.activations` do, and an
extreme by no more than the range is wide.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

# All of TFMOT's quantizers end there; not public.
from tensorflow_model_optimization.python.core.quantization.keras import (
    quant_ops,
)

# Not public; how `mixed_float16` reads variables.
from tf_keras.src.mixed_precision import autocast_variable

from msq_tf.core.calibration import SeenRanges
from msq_tf.core.calibration import run_batches
from msq_tf.core.scoped import scoped
from msq_tf.keras3.activation_sites import SITE_NAME
from msq_tf.quantizers.range_average import LEAST_RANGE
from msq_tf.quantizers.range_average import Extremes
from msq_tf.quantizers.range_average import SiteRange
from msq_tf.quantizers.range_average import averaged
from msq_tf.quantizers.range_average import extremes
from msq_tf.tfmot import columns
from msq_tf.tfmot.compat.imports import tfmot
from msq_tf.tfmot.model_state import fixed_batch_size
from msq_tf.tfmot.model_state import kept
from msq_tf.tfmot.model_state import state_variables
from msq_tf.tfmot.strip import check_model
from msq_tf.tfmot.strip import is_input_quantizer

# Function of the position of a site and of what the model computes there, that
# returns what it goes on with.
Tap = Callable[[int, tf.Tensor], tf.Tensor]

# By `ref()` of the range's variable.
_SEEN: contextvars.ContextVar[SeenRanges | None] = contextvars.ContextVar(
    "msq_tf_seen_ranges", default=None
)

# Position of each range by `ref()` of its variable, and who sees what is
# computed there.
_WATCHED: contextvars.ContextVar[tuple[dict[Any, int], Tap | None] | None] = (
    contextvars.ContextVar("msq_tf_watched_ranges", default=None)
)


def calibrate(model: Any, x: Any, batch_size: int = 128) -> None:
    """Sets the ranges of all activations to what inputs give.

    Call it before `fit`, which goes on from there. Nothing else of the model
    changes, no statistics of batch normalization either.

    Args:
        model: What `quantize_apply` returned.
        x: Inputs: an array, or a list or dict of arrays, a few hundred
            samples; or a `tf.data.Dataset` of batches as `fit` takes them.
        batch_size: Samples that are run at once.

    Raises:
        ValueError: If `model` is no model of tf_keras or has no ranges of
            activations, there are no samples, or an activation is not finite.

    Example:
    ```python
    qat_model = msq.quantize_model(model)
    msq.calibrate(qat_model, x_train[:512])
    ```
    """
    check_model(model)
    ranges = {entry["min_var"].ref(): entry for _, entry in _ranges(model)}
    if not ranges:
        raise ValueError(
            "There are no ranges to set. Expected a model of `quantize_apply` "
            "with `activation_bits=8`. Received: model "
            f"'{model.name}'"
        )
    seen = SeenRanges({ref: e["min_var"].name for ref, e in ranges.items()})
    with scoped(_SEEN, seen), kept(state_variables(model)):
        run_batches(
            lambda batch: model(batch, training=False),
            x,
            batch_size,
            fixed_batch_size(model),
            functools.partial(columns.look_at, model),
        )
    for ref, (low, high) in seen.found().items():
        if low < high:
            ranges[ref]["min_var"].assign(low)
            ranges[ref]["max_var"].assign(high)


def watched(
    model: Any, tap: Tap | None
) -> contextlib.AbstractContextManager[None]:
    """A scope in which the quantizers of activations are sites with names."""
    places = {
        entry["min_var"].ref(): position
        for position, (_, entry) in enumerate(_ranges(model))
    }
    return scoped(_WATCHED, (places, tap))


def site_ranges(model: Any) -> list[SiteRange]:
    """The range of each site of `watched`, by its position."""
    return [
        SiteRange(
            float(entry["min_var"].numpy()),
            float(entry["max_var"].numpy()),
            bool(getattr(quantizer, "narrow_range", False)),
        )
        for quantizer, entry in _ranges(model)
    ]


def _ranges(model: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Every quantizer of activations with its `min_var` and `max_var`."""
    for layer in model._flatten_layers(include_self=False):
        found: list[tuple[Any, Any]] = []
        if is_input_quantizer(layer):
            variables = getattr(layer, "quantizer_vars", None)
            found = [(layer.quantizer, variables)]
        elif isinstance(layer, tfmot.QuantizeWrapper):
            for activation in layer._quantize_activations:
                for name in ("_pre_activation_vars", "_post_activation_vars"):
                    variables = getattr(activation, name, None)
                    found.append((activation.quantizer, variables))
            variables = getattr(layer, "_output_quantizer_vars", None)
            last = layer._output_quantizers[:1] or [None]
            found.append((last[0], variables))
        for quantizer, entry in found:
            if entry and "min_var" in entry:
                yield quantizer, entry


_plain = quant_ops._FakeQuantWithMinMaxVars


def _fake_quant(inputs: Any, min_var: Any, *others: Any, **named: Any) -> Any:
    ref = min_var.ref() if isinstance(min_var, tf.Variable) else None
    seen = _SEEN.get()
    if seen is not None and ref in seen:
        seen.see(ref, inputs)
        return inputs
    places, tap = _WATCHED.get() or ({}, None)
    # Ranges and their grid are float32, whatever the layers compute in.
    x = tf.cast(inputs, tf.float32)
    with autocast_variable.enable_auto_cast_variables(None):
        if ref not in places:
            value = _plain(x, min_var, *others, **named)
            return tf.cast(value, inputs.dtype)
        with tf.name_scope(f"{SITE_NAME}{places[ref]}_"):
            value = _plain(x, min_var, *others, **named)
    if tap is not None:
        value = tap(places[ref], value)
    return tf.cast(value, inputs.dtype)


_plain_average = quant_ops.MovingAvgQuantize
_plain_extremes = quant_ops.AllValuesQuantize


def _in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    """Reads and writes ranges as the float32 variables that they are."""

    @functools.wraps(function)
    def computed(*inputs: Any, **named: Any) -> Any:
        with autocast_variable.enable_auto_cast_variables(None):
            return function(*inputs, **named)

    return computed


@_in_float32
def _moving_average(
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
def _all_values(
    inputs: Any,
    min_var: Any,
    max_var: Any,
    is_training: bool = True,
    symmetric: bool = False,
    **others: Any,
) -> Any:
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


quant_ops._FakeQuantWithMinMaxVars = _fake_quant
quant_ops.MovingAvgQuantize = _moving_average
quant_ops.AllValuesQuantize = _all_values
