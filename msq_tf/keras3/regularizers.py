"""The L1 regularizer on least significant bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from msq_tf import bit_widths
from msq_tf.arguments import check_integer
from msq_tf.arguments import check_number
from msq_tf.quantizers import uniform


@keras.saving.register_keras_serializable(package="msq_tf")
class LSBRegularizer(keras.regularizers.Regularizer):
    """Penalizes the low bits of a weight, so that they become zero.

    The penalty is `strength * sum |B_k(w)| * step_n * step_(n-k)`. `B_k` is the
    signed distance, in codes, from `w` to the nearest weight with low k bits of
    zero (MSQ, LSB regularization). The gradient points to that weight:

        d penalty / d w = strength * sign(B_k) * step_(n-k)

    The unit of `strength` is ours: one gradient-descent step with learning rate
    `lr` moves each element with nonzero low bits by `lr * strength` bins of the
    coarser precision. An element is at most half such a bin away from its goal.

    `MSQModel` applies the same penalty, with its own scales, to the layers that
    lose bits next. This class is for a layer in your own training loop; its
    scales are `max|w|`.

    Args:
        strength: Non-negative float, lambda.
        bits: Stored bits n of the weight, the sign included, 3 to 8.
        lsb: Number k of low bits to clear, at least 1, at most `bits - 2`.
        channel_axes: Axes of the weight with a scale per entry; `None` for
            one scale per tensor. Defaults to `(-1,)`, the output channels of
            dense and convolution kernels.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
    ```python
    layer = keras.layers.Dense(
        10, kernel_regularizer=msq_tf.LSBRegularizer(0.1, bits=8, lsb=1)
    )
    ```
    """

    def __init__(
        self,
        strength: float,
        bits: int = 8,
        lsb: int = 1,
        channel_axes: Sequence[int] | None = (-1,),
    ):
        check_number("strength", strength, 0)
        # Some bit has to be left to clear, and 2 for the weight.
        check_integer("bits", bits, 3, bit_widths.MAX_BITS)
        check_integer("lsb", lsb, 1, bits - bit_widths.MIN_BITS)
        self.strength = float(strength)
        self.bits = int(bits)
        self.lsb = int(lsb)
        self.channel_axes = (
            None if channel_axes is None else tuple(channel_axes)
        )

    def __call__(self, x: Any) -> tf.Tensor:
        w = tf.cast(tf.convert_to_tensor(x), tf.float32)
        scale = uniform.max_scale(w, self.channel_axes)
        quantized = uniform.quantize(w, scale, self.bits, self.lsb)
        return self.strength * uniform.lsb_penalty(
            quantized.lsb, scale, self.bits, self.lsb
        )

    def get_config(self) -> dict[str, Any]:
        return {
            "strength": self.strength,
            "bits": self.bits,
            "lsb": self.lsb,
            "channel_axes": self.channel_axes,
        }
