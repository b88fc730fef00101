"""A training step of CSQ: bit planes and their choice, by a temperature.

Xiao et al., CSQ: Growing Mixed-Precision Quantization Scheme with Bi-level
Continuous Sparsification, DAC 2023, from the published description:

    W = s * sum_i sigma(T M_i) e_i (sigma(T P_i) - sigma(T N_i))

Left out are quirks of its code, that bit weights are trained and that copies of
the planes for rewinding are parameters; and its last epochs, in which steps are
in place of sigmoids.
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

# Logits of bits that are one and zero at the start: near enough to the
# threshold that a bit can change, far enough that the weights are the float
# ones but for a common factor, which goes into the scale.
_START = 2.0


class CSQModel(PlaneModel):
    """A model in training by CSQ.

    Args:
        base: A built float Keras model.
        target: Magnitude bits to aim at, on average over layers.
        strength: Lambda of the budget.

    Attributes:
        masks: Trainable logits M of the choice of bits.
        temperature: T, a non-trainable scalar.
    """

    def __init__(
        self, base: keras.Model, target: float = 3.0, strength: float = 0.01
    ):
        super().__init__(base, f"csq_{base.name}")
        self.target = target
        self.strength = strength
        self.masks = [
            self.add_weight(
                name=f"mask_{i}",
                shape=(MAX_PLANES,),
                initializer="zeros",
                trainable=True,
            )
            for i in range(len(self.kernels))
        ]
        self.temperature = self.add_weight(
            name="temperature", shape=(), initializer="ones", trainable=False
        )

    def _start(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        codes, scale = first_codes(w)
        positive, negative = to_planes(codes, MAX_PLANES)
        # Twice for the masks, which start at one half.
        gain = 2.0 * float(np.tanh(_START / 2.0)) ** -1
        return (
            _START * (2.0 * positive - 1.0),
            _START * (2.0 * negative - 1.0),
            scale * gain,
        )

    def _gate(self, logits: Any) -> tf.Tensor:
        return tf.sigmoid(tf.convert_to_tensor(self.temperature) * logits)

    def values(self) -> list[tf.Tensor]:
        e = tf.constant(bit_weights(MAX_PLANES))
        return [
            tf.linalg.matvec(
                self._gate(positive) - self._gate(negative),
                e * self._gate(mask),
            )
            * tf.convert_to_tensor(scale)
            for positive, negative, mask, scale in zip(
                self.positive,
                self.negative,
                self.masks,
                self.scales,
                strict=True,
            )
        ]

    def penalty(self) -> tf.Tensor:
        """Bits above the budget cost, bits below it are rewarded.

        `lambda (rho - target / n) sum of masks`, with rho the share of bits
        in use, taken for a constant, counted over layers alike.
        """
        masks = tf.stack([self._gate(mask) for mask in self.masks])
        used = tf.reduce_mean(tf.cast(masks >= 0.5, tf.float32))
        above = tf.stop_gradient(used - self.target / MAX_PLANES)
        return self.strength * above * tf.reduce_sum(masks)
