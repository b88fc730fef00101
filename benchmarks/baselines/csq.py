"""CSQ: bit planes and the choice of bits, both smoothed by a temperature.

Xiao et al., CSQ: Growing Mixed-Precision Quantization Scheme with Bi-level
Continuous Sparsification, DAC 2023, from the published description:

    W = s * sum_i sigma(T M_i) e_i (sigma(T P_i) - sigma(T N_i))

Left out are quirks of its code: that bit weights are trained, that copies of
the planes for rewinding are parameters.
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
        hard: 1 where bits and their choice are steps, else 0; non-trainable.
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
        self.hard = self.add_weight(
            name="hard", shape=(), initializer="zeros", trainable=False
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
        logits = tf.convert_to_tensor(logits)
        soft = tf.sigmoid(tf.convert_to_tensor(self.temperature) * logits)
        step = tf.cast(logits > 0.0, tf.float32)
        return tf.where(tf.convert_to_tensor(self.hard) > 0.0, step, soft)

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

    @property
    def planes(self) -> dict[str, int]:
        """Bits from the highest to the lowest in use, of every kernel.

        What lies between must be stored, also where a mask leaves a gap.
        """
        counts = []
        for mask in self.masks:
            used = np.flatnonzero(mask.numpy() > 0.0)
            counts.append(int(used[-1] - used[0] + 1) if used.size else 0)
        return dict(zip(self.paths, counts, strict=True))

    def harden(self) -> None:
        """From here on bits are bits: the weights are exactly quantized."""
        self.hard.assign(1.0)


class Anneal(keras.callbacks.Callback):
    """Raises the temperature epoch by epoch, and hardens at the end.

    `T = last ** (epoch / harden_at)`.

    Args:
        harden_at: The epoch from which bits are exact.
        last: Temperature at that epoch.
    """

    def __init__(self, harden_at: int, last: float = 200.0):
        super().__init__()
        self.harden_at = harden_at
        self.last = last

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        share = min(epoch / self.harden_at, 1.0)
        self.model.temperature.assign(self.last**share)
        if epoch >= self.harden_at:
            self.model.harden()
