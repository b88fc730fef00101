"""BSQ's second stage: training at the widths that its search found.

Its planes go. What stays of a kernel is one float tensor `W`, where the planes
left it, and the scale s; both are trained, and the network computes with

    s * round(clip(W, -1, 1) * (2**n - 1)) / (2**n - 1)

with a straight-through gradient (Yang et al., ICLR 2021, section 3.3).
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.baselines.bsq import BSQModel
from msq_tf.overlay import Overlay


class FixedWidthModel(keras.Model):
    """A network at fixed widths of its kernels.

    Args:
        searched: A BSQ model after its last adjustment. Its network is taken
            over; its planes are not trained any more.

    Attributes:
        base: The network. Its kernels hold `W` and are trained.
        bits: Stored bits of every kernel, the sign included.
        sizes: Elements of every kernel.
    """

    def __init__(self, searched: BSQModel):
        super().__init__(name=f"{searched.name}_fixed")
        self.base = searched.base
        self.kernels = list(searched.kernels)
        self.bits = dict(searched.bits)
        self.sizes = list(searched.sizes)
        self.levels = [2.0**n - 1.0 for n in searched.planes.values()]
        self.scales = []
        values = searched.values()
        for i, (kernel, value, scale) in enumerate(
            zip(self.kernels, values, searched.scales, strict=True)
        ):
            s = float(scale.numpy())
            kernel.assign(value.numpy() / s)
            kernel.trainable = True
            self.scales.append(
                self.add_weight(
                    name=f"scale_{i}",
                    shape=(),
                    initializer=keras.initializers.Constant(s),
                    trainable=True,
                )
            )
        self.built = True

    def values(self) -> list[tf.Tensor]:
        """float32 tensors: the kernels that the network computes with."""
        values = []
        for kernel, scale, levels in zip(
            self.kernels, self.scales, self.levels, strict=True
        ):
            w = tf.convert_to_tensor(kernel)
            if not levels:
                values.append(tf.zeros_like(w))
                continue
            rounded = tf.round(tf.clip_by_value(w, -1.0, 1.0) * levels) / levels
            straight = w + tf.stop_gradient(rounded - w)
            values.append(straight * tf.convert_to_tensor(scale))
        return values

    @property
    def average_bits(self) -> float:
        """Stored bits per element of a kernel."""
        stored = zip(self.sizes, self.bits.values(), strict=True)
        return float(np.sum([n * bits for n, bits in stored])) / sum(self.sizes)

    @property
    def compression(self) -> float:
        """32 over `average_bits`."""
        return 32.0 / self.average_bits

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        pairs = zip(self.kernels, self.values(), strict=True)
        with Overlay(pairs) as scope:
            outputs = self.base(inputs, training=training)
        for loss in scope.losses:
            self.add_loss(loss)
        return outputs
