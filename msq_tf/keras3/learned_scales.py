"""Learned scales of weights, the ablation partner of `max|w|` (LSQ).

Codes, values and LSBs are those of `uniform.quantize`, which this module
calls; what differs is where the scale comes from and the gradient. With
`x = w / step` and `limit` the largest code (Esser et al., Learned Step Size
Quantization, arXiv 1902.08153, equations 1 to 3 and 5):

    d value / d w    = 1 where |x| < limit, 0 elsewhere
    d value / d step = round(x) - x where |x| < limit, sign(x) limit elsewhere
    gradient of step = g sum(upstream d value / d step), g = 1 / sqrt(N limit)

over the N weights that share a step.

The trained variable is the scale, not the step: in MSQ the scale is what all
widths of a weight share, `step = scale / levels`, so that a layer that loses
a bit keeps its range. It is handed the gradient of the step as it stands.

That keeps the balance that LSQ's g is made for (its section 2.2): the change
of a scale, relative to its size, over the relative change of its weights
should be near one at equal learning rates. For Gaussian weights and gradients
it is 0.04 to 2.4 from 2 to 8 bits, for 9 to 20000 weights a scale. A step of
its own would be moved `levels` times as much: 0.3 to 3 up to four bits, which
LSQ is for, but 19 at 8 bits with 576 weights a scale and 300 with 9, where
it overshoots zero within a few steps. By the chain rule it would be
`1 / levels` times as much: at 8 bits a scale would stand still.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from msq_tf.core.weight_set import WeightQuantizers
from msq_tf.keras3.overlay import read_float32
from msq_tf.quantizers import uniform
from msq_tf.quantizers.uniform import Quantized

# A learned scale counts as at least this share of `max|w|`. Below it hardly a
# weight is inside of the range, and at zero or less there are no codes at all.
LEAST_SHARE = 2.0**-7

# Shares of the largest useful scale that are tried at the start, and how many
# halve it: down to 1/32, four times above `LEAST_SHARE`.
_PER_OCTAVE = 8
_OCTAVES = 5


def quantize(
    w: tf.Tensor,
    scale: tf.Tensor,
    bits: Any,
    lsb: Any = 0,
    quantizer: str = uniform.ROUND_CLAMP,
) -> Quantized:
    """`uniform.quantize` with LSQ's gradients.

    Args:
        w: float32 weight, any shape.
        scale: float32 positive scale of the weight's rank, with extent 1 on
            the axes that share a scale.
        bits: Integer scalar tensor, stored bits n with the sign, 2 to 8.
        lsb: Integer scalar tensor, the number k of low bits that the
            result's `lsb` describes, 0 to `bits - 2`.
        quantizer: `"round_clamp"` or `"dorefa"`.

    Returns:
        A `Quantized` tuple, equal to that of `uniform.quantize` bit for
        bit. The value has the gradients of the module docstring; the LSBs
        have none with respect to the scale.
    """
    limit = uniform.code_limit(bits)
    shared = w.shape.num_elements() / scale.shape.num_elements()

    @tf.custom_gradient
    def learned(w: tf.Tensor, scale: tf.Tensor) -> Any:
        result = uniform.quantize(w, scale, bits, lsb, quantizer)

        def gradient(d_value: Any, d_codes: Any, d_lsb: Any) -> Any:
            del d_codes  # integers: no gradient
            step = uniform.step_size(scale, bits, quantizer)
            x = w / step
            inside = tf.abs(x) < limit
            slope = tf.where(inside, tf.round(x) - x, tf.sign(x) * limit)
            summed = _sum_to(d_value * slope, scale)
            passed = tf.where(inside, d_value, tf.zeros_like(d_value))
            return (
                passed + d_lsb / step,
                summed / tf.sqrt(shared * limit),
            )

        return tuple(result), gradient

    return Quantized(*learned(w, scale))


def values(
    weights: Sequence[tf.Tensor],
    scales: Sequence[tf.Tensor],
    bits: tf.Tensor,
    quantizer: str = uniform.ROUND_CLAMP,
) -> list[tf.Tensor]:
    """The value of `quantize` of every weight.

    Args:
        weights: float32 tensors.
        scales: Their scales.
        bits: int32 tensor of shape (weights,), stored bits.
        quantizer: `"round_clamp"` or `"dorefa"`.
    """
    return [
        quantize(w, scale, width, 0, quantizer).value
        for w, scale, width in zip(
            weights, scales, tf.unstack(bits), strict=True
        )
    ]


def _sum_to(x: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Sums over the axes on which `like` has extent 1."""
    axes = [axis for axis, size in enumerate(like.shape) if size == 1]
    return tf.reduce_sum(x, axis=axes, keepdims=True)


@tf.custom_gradient
def at_least(scale: tf.Tensor, least: tf.Tensor) -> Any:
    """The larger of the two; a scale that is too small can only grow.

    Args:
        scale: float32 trained scale, any sign.
        least: float32 positive tensor in the same shape. No gradient.

    Returns:
        float32 tensor, at least `least`. Where that is what counts, the
        gradient passes if descending it makes `scale` larger; otherwise an
        overshoot would be there to stay, or grow without anyone's notice.
    """

    def gradient(upstream: tf.Tensor) -> Any:
        passes = (scale > least) | (upstream < 0.0)
        return tf.where(passes, upstream, tf.zeros_like(upstream)), None

    return tf.maximum(scale, least), gradient


def fitted_scale(
    w: tf.Tensor,
    channel_axes: Sequence[int] | None,
    bits: int,
    quantizer: str = uniform.ROUND_CLAMP,
) -> tf.Tensor:
    """The scale with the least squared error of the values: where to start.

    LSQ starts from a step of `2 mean|w| / sqrt(limit)`, made for one low
    width. At 8 bits a scale of 128 such steps is some 18 standard deviations
    of a Gaussian weight, and the widths that follow, which share the scale,
    would round nearly all to zero. The least squared error is right at the
    width of the start, 3 to 4 standard deviations at 8 bits, and changes by a
    third down to 2.4 at two bits: near enough to be learned on the way.

    Args:
        w: float32 weight.
        channel_axes: As in `uniform.max_scale`.
        bits: Stored bits at the start.
        quantizer: `"round_clamp"` or `"dorefa"`.

    Returns:
        float32 tensor in the shape of `uniform.max_scale`, the best of
        some forty shares of it, itself included. A dead channel keeps
        `max_scale`'s.
    """
    largest = uniform.max_scale(w, channel_axes)
    # At this scale the largest weight has the largest code; more is waste.
    levels = uniform.steps_per_scale(bits - 1, quantizer)
    top = float(levels / uniform.code_limit(bits))
    # max|w| first: of equal errors the first counts.
    shares = [1.0] + [
        top * 2.0 ** (-i / _PER_OCTAVE)
        for i in range(_OCTAVES * _PER_OCTAVE + 1)
    ]
    best, least = largest, tf.fill(tf.shape(largest), float("inf"))
    for share in shares:
        scale = largest * share
        value = uniform.quantize(w, scale, bits, 0, quantizer).value
        error = _sum_to((value - w) ** 2, scale)
        best = tf.where(error < least, scale, best)
        least = tf.minimum(error, least)
    return best


def learn_scales(weights: WeightQuantizers) -> LearnedScales:
    """Trained scales for weights, fitted to them as they stand.

    Args:
        weights: Takes these scales from here on.
    """
    fitted = [
        fitted_scale(
            w, weight.scale_axes, weight.plan.start_bits, weights.quantizer
        )
        for w, weight in zip(weights.latent(), weights.quantized, strict=True)
    ]
    learned = LearnedScales(
        [scale.shape for scale in fitted], name="learned_scales"
    )
    for variable, scale in zip(learned.scale, fitted, strict=True):
        variable.assign(scale)
    learned.follow([kernel.trainable for kernel in weights.kernels])
    weights.use_scales(learned.used, values)
    return learned


@keras.saving.register_keras_serializable(package="msq_tf")
class LearnedScales(keras.layers.Layer):
    """The trained scales of all quantized weights of a model.

    Trainable variables, so that every optimizer moves them and `.keras`,
    `.weights.h5` and `BackupAndRestore` carry them.

    Args:
        shapes: Shape of each weight's scale: the weight's rank, extent 1 off
            the channel axes.
        name: Name of the layer.

    Attributes:
        scale: float32 variables, one a weight, in the unit of the weight.
    """

    def __init__(
        self, shapes: Sequence[Sequence[int]], name: str | None = None
    ):
        super().__init__(name=name, dtype="float32")
        self.shapes = [[int(size) for size in shape] for shape in shapes]
        self.scale = [
            self.add_weight(
                name=f"scale_{i}",
                shape=tuple(shape),
                initializer="ones",
                trainable=True,
                autocast=False,
            )
            for i, shape in enumerate(self.shapes)
        ]
        self.built = True

    def call(self) -> None:
        """Holds state only."""

    def used(self, largest: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The scales to compute with.

        Args:
            largest: float32 `max|w|` of each weight, in its scale's shape.

        Returns:
            float32 tensors, at least `LEAST_SHARE` of `largest`.
        """
        return [
            at_least(read_float32(variable), LEAST_SHARE * top)
            for variable, top in zip(self.scale, largest, strict=True)
        ]

    def follow(self, moves: Sequence[bool]) -> None:
        """Freezes the scales of frozen weights, and no others.

        Args:
            moves: Of each weight, whether training moves it.
        """
        for scale, moved in zip(self.scale, moves, strict=True):
            scale.trainable = moved

    def get_config(self) -> dict[str, Any]:
        return {"shapes": self.shapes, "name": self.name}
