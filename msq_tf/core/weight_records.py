"""From Keras variables to the records of reports and files."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from msq_tf.core.model_weight import ModelWeight
from msq_tf.core.quantized_weight import QuantizedWeight
from msq_tf.core.quantized_weight import SkippedWeight


def quantized_record(
    weight: ModelWeight, bits: int, codes: tf.Tensor, step: tf.Tensor
) -> QuantizedWeight:
    """The record of one weight, of the codes that training uses.

    Raises:
        ValueError: If the latent weight or its scale is not finite.
    """
    for what, numbers in (
        ("Weight", weight.variable),
        ("The scale of weight", step),
    ):
        bad = count_not_finite(numbers)
        if bad:
            raise ValueError(
                f"{what} '{weight.path}' is not finite. Expected "
                f"numbers only. Received: {bad} of {np.size(numbers)} values "
                "are NaN or infinite; did the training diverge?"
            )
    return QuantizedWeight(
        path=weight.path,
        layer=weight.plan.layer,
        attribute=weight.plan.attribute,
        layout=weight.spec.layout,
        channel_axes=weight.channel_axes,
        codes=codes.numpy().astype(np.int8),
        step=step.numpy(),
        bits=bits,
    )


def count_not_finite(numbers: Any) -> int:
    """How many numbers of a variable or tensor are NaN or infinite.

    Where none is, nothing is copied: as an array a variable is a copy.
    """
    tensor = tf.convert_to_tensor(numbers)
    if tf.reduce_all(tf.math.is_finite(tensor)):
        return 0
    array = np.asarray(tensor)
    return int(array.size - np.isfinite(array).sum())


def skipped_record(weight: ModelWeight, value: tf.Tensor) -> SkippedWeight:
    """One weight that stays in float, of the value that layers read."""
    value = np.asarray(value, np.float32)
    return SkippedWeight(
        path=weight.path,
        layer=weight.plan.layer,
        attribute=weight.plan.attribute,
        size=value.size,
        reason=weight.plan.skip_reason,
        quantizable=weight.plan.quantizable,
        value=value,
        layout=weight.spec.layout,
        channel_axes=weight.channel_axes,
    )
