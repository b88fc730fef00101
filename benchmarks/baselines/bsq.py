"""BSQ: bit planes under a group lasso, re-quantized and adjusted.

Yang et al., BSQ: Exploring Bit-Level Sparsity for Mixed-Precision Neural
Network Quantization, ICLR 2021, from the published description. Left out are
quirks of its code: that the clip to [0, 2] hits parameters that are no planes,
and that a growing bias changes the wrong counter (biases are no planes here).
"""

from __future__ import annotations

from typing import Any
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from benchmarks.baselines.planes import MAX_PLANES
from benchmarks.baselines.planes import PlaneModel
from benchmarks.baselines.planes import bit_weights
from benchmarks.baselines.planes import first_codes
from benchmarks.baselines.planes import forget_momentum
from benchmarks.baselines.planes import to_planes

# Planes may grow above one: that is how a weight asks for one more bit.
_LARGEST = 2.0
_EPSILON = 1e-8


class Adjusted(NamedTuple):
    """A weight after re-quantization and precision adjustment.

    Attributes:
        codes: int64 codes in the weight's shape.
        scale: Its scale.
        planes: Its magnitude bits.
    """

    codes: np.ndarray
    scale: float
    planes: int

    @property
    def values(self) -> np.ndarray:
        """float64 weight that these stand for."""
        if not self.planes:
            return np.zeros(self.codes.shape)
        return self.scale * self.codes / (2.0**self.planes - 1.0)


def requantize(
    positive: np.ndarray, negative: np.ndarray, scale: float, planes: int
) -> Adjusted:
    """Rounds planes to codes; a weight that outgrew its bits gets one more.

    Args:
        positive: P, of shape (..., MAX_PLANES).
        negative: N, likewise.
        scale: s.
        planes: Magnitude bits n.
    """
    if not planes:
        return Adjusted(np.zeros(positive.shape[:-1], np.int64), scale, 0)
    levels = 2.0**planes - 1.0
    difference = positive.astype(np.float64) - negative
    real = (difference * bit_weights(planes).astype(np.float64)).sum(-1)
    codes = np.sign(real) * np.round(np.abs(real) * levels)
    if np.abs(codes).max(initial=0.0) > levels:
        if planes == MAX_PLANES:
            codes = np.clip(codes, -levels, levels)
        else:
            # The step stays what it was: the value does, too.
            planes += 1
            scale *= (2.0**planes - 1.0) / levels
    return Adjusted(codes.astype(np.int64), scale, planes)


def adjust(weight: Adjusted) -> Adjusted:
    """Drops planes that are zero everywhere; no weight changes its value.

    From the most significant bit down, then from the least significant up.
    """
    codes, scale, planes = weight
    if not codes.any():
        return Adjusted(codes, scale, 0)
    step = scale / (2.0**planes - 1.0)
    planes = int(np.abs(codes).max()).bit_length()
    while planes > 1 and not (codes & 1).any():
        # Exact: every code is even.
        codes, planes, step = codes // 2, planes - 1, step * 2.0
    return Adjusted(codes, step * (2.0**planes - 1.0), planes)


class BSQModel(PlaneModel):
    """A model in training by BSQ.

    Args:
        base: A built float Keras model.
        alpha: Strength of the group lasso.
    """

    def __init__(self, base: keras.Model, alpha: float = 5e-3):
        super().__init__(base, f"bsq_{base.name}")
        self.alpha = alpha
        self.counts = [MAX_PLANES for _ in self.kernels]
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

    @property
    def planes(self) -> dict[str, int]:
        return dict(zip(self.paths, self.counts, strict=True))

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

    def adjust_precision(self) -> None:
        """Re-quantizes and adjusts every weight; momentum is lost."""
        for i in range(len(self.kernels)):
            weight = adjust(
                requantize(
                    self.positive[i].numpy(),
                    self.negative[i].numpy(),
                    float(self.scales[i].numpy()),
                    self.counts[i],
                )
            )
            positive, negative = to_planes(weight.codes, weight.planes)
            self.positive[i].assign(positive)
            self.negative[i].assign(negative)
            self.scales[i].assign(weight.scale)
            self.bit_weights[i].assign(bit_weights(weight.planes))
            self.counts[i] = weight.planes
        if getattr(self, "optimizer", None) is not None:
            forget_momentum(self.optimizer)


class AdjustPrecision(keras.callbacks.Callback):
    """Adjusts the precision every few epochs, and at the end.

    Args:
        every: Epochs between adjustments.
    """

    def __init__(self, every: int):
        super().__init__()
        self.every = every

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch % self.every == 0:
            self.model.adjust_precision()

    def on_train_end(self, logs: Any = None) -> None:
        self.model.adjust_precision()


def _clip(x: Any) -> Any:
    return tf.clip_by_value(x, 0.0, _LARGEST)
