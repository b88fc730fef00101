"""BSQ's second stage: training at the widths that its search found.

Its planes go. What stays of a kernel is one float tensor `W`, where the planes
left it, and the scale s; both are trained, and the network computes with

    s * round(clip(W, -1, 1) * (2**n - 1)) / (2**n - 1)

with a straight-through gradient (Yang et al., ICLR 2021, section 3.3).
"""

from __future__ import annotations

import keras
import tensorflow as tf

from benchmarks.baselines.bsq import BSQModel
from benchmarks.baselines.kernels import ComputedKernels


class FixedWidthModel(ComputedKernels):
    """A network at fixed widths of its kernels.

    Args:
        searched: A BSQ model after its last adjustment. Its network is taken
            over; its planes are not trained any more.

    Attributes:
        base: The network. Its kernels hold `W` and are trained.
    """

    def __init__(self, searched: BSQModel):
        super().__init__(name=f"{searched.name}_fixed")
        self.base = searched.base
        self.kernels = list(searched.kernels)
        self._bits = dict(searched.bits)
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

    @property
    def bits(self) -> dict[str, int]:
        return dict(self._bits)

    def values(self) -> list[tf.Tensor]:
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
