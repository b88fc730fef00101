"""From Keras variables to the records that reports and files are made of."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from msq_tf.core.quantized_weight import QuantizedWeight
from msq_tf.core.quantized_weight import SkippedWeight
from msq_tf.core.weight_plan import WeightPlan
from msq_tf.core.weight_spec import FoundWeight


def quantized_record(
    entry: WeightPlan,
    weight: FoundWeight,
    bits: int,
    channel_axes: tuple[int, ...],
    codes: tf.Tensor,
    step: tf.Tensor,
) -> QuantizedWeight:
    """The record of one weight, of the codes that training uses.

    Raises:
        ValueError: If the latent weight or its scale is not finite.
    """
    value = np.asarray(weight.variable, np.float32)
    for what, numbers in (
        ("Weight", value),
        ("The scale of weight", step.numpy()),
    ):
        bad = int(np.size(numbers) - np.isfinite(numbers).sum())
        if bad:
            raise ValueError(
                f"{what} '{entry.path}' is not finite. Expected "
                f"numbers only. Received: {bad} of {np.size(numbers)} values "
                "are NaN or infinite; did the training diverge?"
            )
    return QuantizedWeight(
        path=entry.path,
        layer=entry.layer,
        attribute=entry.attribute,
        layout=weight.spec.layout,
        channel_axes=channel_axes,
        codes=codes.numpy().astype(np.int8),
        step=step.numpy(),
        bits=bits,
    )


def skipped_record(entry: WeightPlan, weight: FoundWeight) -> SkippedWeight:
    """One weight that stays in float."""
    value = np.asarray(weight.variable, np.float32)
    return SkippedWeight(
        path=entry.path,
        layer=entry.layer,
        attribute=entry.attribute,
        size=value.size,
        reason=entry.skip_reason,
        quantizable=entry.quantizable,
        value=value,
        layout=weight.spec.layout,
        channel_axes=weight.spec.axes(weight.layer, value.ndim),
    )
