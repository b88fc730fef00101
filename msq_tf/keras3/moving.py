"""Layers and operations that only move numbers, and so keep their grid.

Some take averages, which a kernel rounds to the grid of what it reads.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from msq_tf.keras3.flow import Call
from msq_tf.keras3.flow import resizes
from msq_tf.keras3.sampled_resize import SampledResize

_MOVING: tuple[type, ...] = (
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Permute,
    keras.layers.RepeatVector,
    keras.layers.Identity,
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.ActivityRegularization,
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.ZeroPadding1D,
    keras.layers.ZeroPadding2D,
    keras.layers.Cropping1D,
    keras.layers.Cropping2D,
    keras.layers.UpSampling1D,
    keras.layers.UpSampling2D,
    SampledResize,
)
_AVERAGING = (keras.layers.AveragePooling1D, keras.layers.AveragePooling2D)
# Names of Keras's operations that move numbers; `Pad` does where it adds what
# any grid holds, `Resize` where a kernel does it.
_MOVING_NAMES = {
    "AveragePool",
    "ExpandDims",
    "Flip",
    "GetItem",
    "MaxPool",
    "Moveaxis",
    "Pad",
    "Ravel",
    "Repeat",
    "Reshape",
    "Resize",
    "Roll",
    "Squeeze",
    "Swapaxes",
    "Tile",
    "Transpose",
}
# A number beyond it is infinite in float32.
_LARGEST = float(np.finfo(np.float32).max)


def is_moving(call: Call) -> bool:
    """Whether a call gives numbers that it read, on the same scale."""
    if len(call.tensors) != 1:
        return False
    if isinstance(call.layer, _MOVING):
        return True
    kind = type(call.layer)
    if isinstance(call.layer, keras.layers.Resizing):
        return resizes(call.layer)
    if kind.__name__ not in _MOVING_NAMES or not kind.__module__.startswith(
        "keras."
    ):
        return False
    if kind.__name__ == "Resize":
        return resizes(call.layer)
    if kind.__name__ != "Pad":
        return True
    # A grid holds zero, and its lowest code stands for all that is below.
    added = [x for x in call.inputs if isinstance(x, int | float)]
    return all(x == 0 or x <= -_LARGEST for x in added)


def averages(layer: Any) -> bool:
    """Whether numbers that move are averaged, so that a kernel rounds."""
    return (
        isinstance(layer, _AVERAGING)
        or type(layer).__name__ == "AveragePool"
        or getattr(layer, "interpolation", "nearest") != "nearest"
    )
