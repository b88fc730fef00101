"""Float weights of a model, recognized in a file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from msq_tf.core.quantized_weight import SkippedWeight
from tflite_export.matching import scales as fitting
from tflite_export.matching.file_constants import Constant
from tflite_export.matching.file_constants import sample_places
from tflite_export.matching.layouts import arrangements
from tflite_export.matching.layouts import slices


def from_code(value: np.ndarray, reason: str) -> SkippedWeight:
    """An array of the model that is in none of its variables."""
    return SkippedWeight(
        path="(constant)",
        layer="",
        attribute="",
        size=value.size,
        reason=reason,
        quantizable=False,
        value=value,
    )


def equal_float(constant: Constant, floats: Sequence[SkippedWeight]) -> bool:
    """Whether a tensor is a float weight as it is."""
    shape = constant.value.shape
    return any(
        np.array_equal(arrangement.apply(weight.value, shape), constant.value)
        for weight in floats
        for arrangement in arrangements(
            weight.layout, weight.value.shape, weight.channel_axes, shape
        )
    )


def float_for(
    constant: Constant, floats: Sequence[SkippedWeight]
) -> SkippedWeight | None:
    """The float weight that a tensor holds, whole, scaled or in part."""
    shape = constant.value.shape
    for weight in floats:
        for arrangement in arrangements(
            weight.layout, weight.value.shape, weight.channel_axes, shape
        ):
            laid_out = arrangement.apply(weight.value, shape)
            # A factor for each element would explain any vector.
            if (
                np.array_equal(laid_out, constant.value)
                if weight.value.ndim < 2
                else fitting.fit(constant.value, laid_out, None) is not None
            ):
                return weight
    places = sample_places(constant.value.size)
    values = constant.value.reshape(-1)[places]
    for weight in floats:
        for arrangement in slices(weight.value.shape, shape):
            # A part that was scaled could be anything.
            if np.array_equal(
                arrangement.sample(weight.value, places), values
            ) and np.array_equal(
                arrangement.apply(weight.value, shape), constant.value
            ):
                return weight
    return None
