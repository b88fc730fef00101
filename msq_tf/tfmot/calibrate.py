"""Ranges of activations: calibrated on data, and seen while a model runs.

`calibrate` starts them at the ranges of data. Otherwise TFMOT's ranges start at
-6 to 6 and move by a thousandth at each step, so they fit only after thousands
of steps. Until then most of an 8-bit grid lies where there are no activations.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from msq_tf.core.calibration import SeenRanges
from msq_tf.core.calibration import run_batches
from msq_tf.quantizers.range_average import SiteRange
from msq_tf.tfmot import columns
from msq_tf.tfmot.compat import fake_quant
from msq_tf.tfmot.compat import private
from msq_tf.tfmot.compat.fake_quant import Tap
from msq_tf.tfmot.compat.imports import tfmot
from msq_tf.tfmot.model_state import fixed_batch_size
from msq_tf.tfmot.model_state import kept
from msq_tf.tfmot.model_state import state_variables
from msq_tf.tfmot.strip import check_model
from msq_tf.tfmot.strip import is_input_quantizer


def calibrate(model: Any, x: Any, batch_size: int = 128) -> None:
    """Sets the ranges of all activations to those on given inputs.

    Call it before `fit`, which trains them on. Nothing else in the model
    changes, not even statistics of batch normalization.

    Args:
        model: A model that `quantize_apply` returned.
        x: Inputs: an array, or a list or dict of arrays, a few hundred samples;
            or a `tf.data.Dataset` of batches as for `fit`.
        batch_size: Samples per batch.

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
    with fake_quant.seeing(seen), kept(state_variables(model)):
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
    return fake_quant.watched(places, tap)


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
    for layer in private.inner_layers(model):
        found: list[tuple[Any, Any]] = []
        if is_input_quantizer(layer):
            variables = getattr(layer, "quantizer_vars", None)
            found = [(layer.quantizer, variables)]
        elif isinstance(layer, tfmot.QuantizeWrapper):
            for activation in private.quantized_activations(layer):
                for variables in private.activation_vars(activation):
                    found.append((activation.quantizer, variables))
            last = private.output_quantizers(layer)[:1] or [None]
            found.append((last[0], private.output_quantizer_vars(layer)))
        for quantizer, entry in found:
            if entry and "min_var" in entry:
                yield quantizer, entry
