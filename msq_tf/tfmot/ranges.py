"""calibrate: ranges of activations start at those of data.

TFMOT's start at -6 to 6 and move by a thousandth at each step, so that they
fit after thousands of steps only. Until then most of a grid of 8 bits lies
where no activation is.
"""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

# All of TFMOT's quantizers end there; not public.
from tensorflow_model_optimization.python.core.quantization.keras import (
    quant_ops,
)

from msq_tf.calibration import SeenRanges
from msq_tf.calibration import run_batches
from msq_tf.tfmot.imports import tfmot
from msq_tf.tfmot.model_state import fixed_batch_size
from msq_tf.tfmot.model_state import kept
from msq_tf.tfmot.model_state import state_variables
from msq_tf.tfmot.strip import check_model
from msq_tf.tfmot.strip import is_input_quantizer

# By `ref()` of the range's variable.
_SEEN: contextvars.ContextVar[SeenRanges | None] = contextvars.ContextVar(
    "msq_tf_seen_ranges", default=None
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
        ValueError: If `model` is no model of tf_keras, there are no samples,
            or an activation is not finite.

    Example:
    ```python
    qat_model = msq.quantize_model(model)
    msq.calibrate(qat_model, x_train[:512])
    ```
    """
    check_model(model)
    ranges = {entry["min_var"].ref(): entry for entry in _ranges(model)}
    seen = SeenRanges({ref: e["min_var"].name for ref, e in ranges.items()})
    token = _SEEN.set(seen)
    try:
        with kept(state_variables(model)):
            run_batches(
                lambda batch: model(batch, training=False),
                x,
                batch_size,
                fixed_batch_size(model),
            )
    finally:
        _SEEN.reset(token)
    for ref, (low, high) in seen.found().items():
        if low < high:
            ranges[ref]["min_var"].assign(low)
            ranges[ref]["max_var"].assign(high)


def _ranges(model: Any) -> Iterator[dict[str, Any]]:
    """`min_var` and `max_var` of every quantizer of activations."""
    for layer in model._flatten_layers(include_self=False):
        found: list[Any] = []
        if is_input_quantizer(layer):
            found = [getattr(layer, "quantizer_vars", None)]
        elif isinstance(layer, tfmot.QuantizeWrapper):
            for activation in layer._quantize_activations:
                found.append(getattr(activation, "_pre_activation_vars", None))
                found.append(getattr(activation, "_post_activation_vars", None))
            found.append(getattr(layer, "_output_quantizer_vars", None))
        for entry in found:
            if entry and "min_var" in entry:
                yield entry


_plain = quant_ops._FakeQuantWithMinMaxVars


def _fake_quant(inputs: Any, min_var: Any, *others: Any, **named: Any) -> Any:
    seen = _SEEN.get()
    ref = min_var.ref() if isinstance(min_var, tf.Variable) else None
    if seen is None or ref not in seen:
        return _plain(inputs, min_var, *others, **named)
    seen.see(ref, inputs)
    return inputs


quant_ops._FakeQuantWithMinMaxVars = _fake_quant
