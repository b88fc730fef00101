"""A training step of BSQ: bit planes under a group lasso.

Yang et al., BSQ: Exploring Bit-Level Sparsity for Mixed-Precision Neural
Network Quantization, ICLR 2021, from the published description. A quirk of its
code is left out: that the clip to [0, 2] hits parameters that are no planes.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.baselines.planes import MAX_PLANES
from benchmarks.baselines.planes import PlaneModel
from benchmarks.baselines.planes import bit_weights
from benchmarks.baselines.planes import first_codes
from benchmarks.baselines.planes import to_planes

# Planes may grow above one: that is how a weight asks for one more bit.
_LARGEST = 2.0
_EPSILON = 1e-8


class BSQModel(PlaneModel):
    """A model in training by BSQ.

    Args:
        base: A built float Keras model.
        alpha: Strength of the group lasso.
    """

    def __init__(self, base: keras.Model, alpha: float = 5e-3):
        super().__init__(base, f"bsq_{base.name}")
        self.alpha = alpha
        self.bit_weights = [
            self.add_weight(
                name=f"bit_weights_{i}", shape=(MAX_PLANES,), trainable=False
            )
            for i in range(len(self.kernels))
        ]
        for variable in (*self.positive, *self.negative):
            variable.constraint = _clip
        for weights in self.bit_weights:
            weights.assign(bit_weights(MAX_PLANES))

    def _start(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        codes, scale = first_codes(w)
        return *to_planes(codes, MAX_PLANES), scale

    def values(self) -> list[tf.Tensor]:
        values = []
        for positive, negative, scale, weights in zip(
            self.positive,
            self.negative,
            self.scales,
            self.bit_weights,
            strict=True,
        ):
            e = tf.convert_to_tensor(weights)
            difference = tf.convert_to_tensor(positive) - negative
            real = tf.linalg.matvec(difference, e)
            # The smallest bit weight is one over the levels.
            least = tf.reduce_min(tf.where(e > 0.0, e, 1.0))
            rounded = tf.round(tf.clip_by_value(real, -1.0, 1.0) / least)
            # The gradient of clamp and round together is the identity.
            straight = real + tf.stop_gradient(rounded * least - real)
            values.append(straight * tf.convert_to_tensor(scale))
        return values

    def penalty(self) -> tf.Tensor:
        """Group lasso of the planes, weighted by each layer's memory."""
        total = tf.constant(0.0)
        for size, positive, negative, weights in zip(
            self.sizes,
            self.positive,
            self.negative,
            self.bit_weights,
            strict=True,
        ):
            used = tf.cast(tf.convert_to_tensor(weights) > 0.0, tf.float32)
            squares = tf.square(positive) + tf.square(negative)
            axes = list(range(len(positive.shape) - 1))
            norms = tf.sqrt(tf.reduce_sum(squares, axes) + _EPSILON)
            planes = tf.reduce_sum(used)
            total += size * planes * tf.reduce_sum(used * norms)
        return self.alpha * total / sum(self.sizes)


def _clip(x: Any) -> Any:
    return tf.clip_by_value(x, 0.0, _LARGEST)
