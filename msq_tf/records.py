"""From Keras variables to the records that reports and files are made of."""

from __future__ import annotations

import numpy as np

from msq_tf import round_clamp
from msq_tf.discovery import FoundWeight
from msq_tf.overlay import read_float32
from msq_tf.plan import WeightPlan
from msq_tf.weights import QuantizedWeight
from msq_tf.weights import SkippedWeight


def quantized_record(
    entry: WeightPlan,
    weight: FoundWeight,
    bits: int,
    channel_axes: tuple[int, ...],
    scale_axes: tuple[int, ...] | None,
    quantizer: str,
) -> QuantizedWeight:
    """The codes of one weight, from the function that training uses.

    Raises:
        ValueError: If the latent weight is not finite.
    """
    w = read_float32(weight.variable)
    scale = round_clamp.max_scale(w, scale_axes)
    codes = round_clamp.quantize(w, scale, bits, 0, quantizer).codes.numpy()
    if not np.isfinite(codes).all():
        raise ValueError(
            f"Weight '{entry.path}' is not finite. Expected numbers only. "
            f"Received: {int(np.isnan(w.numpy()).sum())} NaN values; did the "
            "training diverge?"
        )
    return QuantizedWeight(
        path=entry.path,
        layer=entry.layer,
        attribute=entry.attribute,
        layout=weight.spec.layout,
        channel_axes=channel_axes,
        codes=codes.astype(np.int8),
        step=round_clamp.step_size(scale, bits, quantizer).numpy(),
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
