"""SampledResize: images resized as files of older converters do it."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from msq_tf.core import saved
from msq_tf.core.config import check_choice

_KERNELS = {
    "bilinear": tf.raw_ops.ResizeBilinear,
    "nearest": tf.raw_ops.ResizeNearestNeighbor,
}


@keras.saving.register_keras_serializable(package="msq_tf")
class SampledResize(keras.layers.Layer):
    """Resizes images without sampling at the centers of pixels.

    `keras.layers.Resizing` samples at centers. `from_tflite` makes this layer
    of an operator that does not. Inputs are floats of shape (batch, rows,
    columns, channels).

    Args:
        height: Rows of the outputs.
        width: Columns of the outputs.
        interpolation: `"bilinear"` or `"nearest"`.
        samples: `"origin"`: the first pixels lie on each other. `"corners"`:
            the last ones, too.
        **kwargs: As of any layer.

    Raises:
        ValueError: If an argument is none of these.
    """

    def __init__(
        self,
        height: int,
        width: int,
        interpolation: str = "bilinear",
        samples: str = "origin",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        saved.check_integer("height", height, 1)
        saved.check_integer("width", width, 1)
        check_choice("interpolation", interpolation, tuple(_KERNELS))
        check_choice("samples", samples, ("origin", "corners"))
        self.height = height
        self.width = width
        self.interpolation = interpolation
        self.samples = samples
        self.built = True

    def call(self, inputs: Any) -> Any:
        """Resizes a batch, which keeps its type."""
        resized = _KERNELS[self.interpolation](
            images=inputs,
            size=tf.constant([self.height, self.width]),
            align_corners=self.samples == "corners",
            half_pixel_centers=False,
        )
        return tf.cast(resized, inputs.dtype)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """The shape of the outputs."""
        return input_shape[0], self.height, self.width, input_shape[-1]

    def get_config(self) -> dict[str, Any]:
        """Returns what the constructor takes."""
        return {
            **super().get_config(),
            "height": self.height,
            "width": self.width,
            "interpolation": self.interpolation,
            "samples": self.samples,
        }
