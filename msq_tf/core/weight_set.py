"""Fake quantization of all chosen weights of a model, at given bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from msq_tf.core.config import PerChannel
from msq_tf.core.config import check_bits
from msq_tf.core.quantized_weight import QuantizedWeight
from msq_tf.core.quantized_weight import SkippedWeight
from msq_tf.core.weight_plan import WeightPlan
from msq_tf.core.weight_records import quantized_record
from msq_tf.core.weight_records import skipped_record
from msq_tf.core.weight_spec import FoundWeight
from msq_tf.quantizers import batched
from msq_tf.quantizers import mse_scale
from msq_tf.quantizers import uniform
from msq_tf.rules.storage import kind_of

# What each latent weight is multiplied with, `None` for 1.
Masks = Sequence[np.ndarray | None]


class WeightQuantizers:
    """From latent weights and bits to values, penalties and codes.

    Args:
        weights: What was decided for each weight of a model, and where the
            weight is, in traversal order.
        quantizer: `"round_clamp"` or `"dorefa"`.
        read: Function of a latent variable that returns its stored value, a
            float32 tensor.
        scale_axes: Axes over which each quantized weight has scales; `None`
            for those of its plan entry.
        scale: `"max"` or `"mse"`; see `use_scales` for others.

    Attributes:
        quantizer: As given.
        paths: Keys of the quantized weights, in traversal order.
        sizes: Number of elements of each.
        start_bits: Stored bits of each at the start.
        outlines: `(plan entry, kind, output channels)` of each; the kind is
            one of `storage.KINDS`.
        kernels: The latent variables of each.
        scale_axes: Axes over which each has scales; `None` for one scale.
        float_size: Elements of quantizable weights that stay in float.
    """

    def __init__(
        self,
        weights: Iterable[tuple[WeightPlan, FoundWeight]],
        quantizer: str,
        read: Callable[[Any], tf.Tensor],
        scale_axes: Sequence[tuple[int, ...] | None] | None = None,
        scale: str = uniform.MAX,
    ):
        self.quantizer = quantizer
        self._scale = scale
        self._read = read
        pairs = list(weights)
        self._quantized = [pair for pair in pairs if not pair[0].skip_reason]
        self._skipped = [pair for pair in pairs if pair[0].skip_reason]
        self.kernels = [weight.variable for _, weight in self._quantized]
        self._axes = [
            weight.spec.axes(weight.layer, len(weight.variable.shape))
            for _, weight in self._quantized
        ]
        self.scale_axes = scale_axes or [
            axes if entry.granularity == PerChannel() else None
            for (entry, _), axes in zip(
                self._quantized, self._axes, strict=True
            )
        ]
        self.paths = tuple(entry.path for entry, _ in self._quantized)
        self.sizes = tuple(map(_size, self.kernels))
        self.start_bits = tuple(
            entry.start_bits for entry, _ in self._quantized
        )
        self.outlines = tuple(
            (
                entry,
                kind_of(
                    weight.layer, weight.spec.layout, weight.variable.shape
                ),
                math.prod(weight.variable.shape[axis] for axis in axes),
            )
            for (entry, weight), axes in zip(
                self._quantized, self._axes, strict=True
            )
        )
        self.float_size = sum(
            _size(weight.variable)
            for entry, weight in self._skipped
            if entry.quantizable
        )
        self._layout = batched.ScaleLayout(
            [kernel.shape for kernel in self.kernels],
            self.scale_axes,
            [entry.scale_count for entry, _ in self._quantized],
        )
        self._used: Callable[[list[tf.Tensor]], list[tf.Tensor]] | None = None
        self._learned_values: Callable[..., list[tf.Tensor]]

    def use_scales(
        self,
        used: Callable[[list[tf.Tensor]], list[tf.Tensor]],
        values: Callable[..., list[tf.Tensor]],
    ) -> None:
        """Takes scales that do not follow from the weights and widths.

        Args:
            used: Function of the `max|w|` of every weight that returns their
                scales, in the same shapes.
            values: Function of weights, scales, bits and the quantizer that
                returns values with the gradients that go with such scales.
        """
        self._used = used
        self._learned_values = values

    @property
    def has_own_scales(self) -> bool:
        """Whether scales do not follow from the weights and widths."""
        return self._used is not None

    def subset(self, indices: Sequence[int]) -> WeightQuantizers:
        """Some of the quantized weights, without scales of their own.

        Args:
            indices: Their places in `paths`.
        """
        return WeightQuantizers(
            [self._quantized[i] for i in indices],
            self.quantizer,
            self._read,
            [self.scale_axes[i] for i in indices],
            self._scale,
        )

    def pulls(
        self, bits: Any, lsb: Any, strength: Any
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """The gradients of the penalty, and what it amounts to.

        Args:
            bits: int32 variable or tensor of shape (weights,).
            lsb: The same, the number of low bits to penalize.
            strength: float32 scalar, the factor of the penalty.

        Returns:
            float32 tensors in the kernels' shapes, and a float32 scalar.
        """
        weights, bits = self.latent(), tf.convert_to_tensor(bits)
        scales, _ = self._scales(weights, bits)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            _, penalty = batched.penalized(
                self._layout,
                weights,
                scales,
                bits,
                tf.convert_to_tensor(lsb),
                self.quantizer,
            )
            penalty *= strength
        return tape.gradient(penalty, weights), penalty

    def latent(self, masks: Masks | None = None) -> list[tf.Tensor]:
        """float32 tensors: the weights that training moves.

        Args:
            masks: What to multiply each of them with, `None` for 1. What is
                gone from a network counts as 0.
        """
        weights = [self._read(kernel) for kernel in self.kernels]
        if masks is None:
            return weights
        return [
            w if mask is None else w * mask
            for w, mask in zip(weights, masks, strict=True)
        ]

    def scales(self, bits: Any, masks: Masks | None = None) -> list[tf.Tensor]:
        """Current scale of each quantized weight, no gradient.

        Args:
            bits: int32 variable or tensor of shape (weights,).
            masks: As in `latent`.
        """
        found, _ = self._scales(self.latent(masks), tf.convert_to_tensor(bits))
        return self._layout.split(found)

    def _scales(
        self, weights: list[tf.Tensor], bits: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """The vector of all scales, and those that have a gradient."""
        found = self._layout.scales(weights, bits, self.quantizer, self._scale)
        if self._used is None:
            return found, []
        learned = self._used(self._layout.split(found))
        return tf.stop_gradient(self._layout.join(learned)), learned

    def at_widths(self) -> Callable[[int, int], tf.Tensor]:
        """Scales that the weights, as they are now, have at any width.

        Returns:
            Function of a weight's place in `paths` and of stored bits that
            returns its scale, no gradient.
        """
        weights = self.latent()
        own = None if self._used is None else self.scales(self.start_bits)

        def scale(index: int, bits: int) -> tf.Tensor:
            if own is not None:
                return own[index]
            w, axes = weights[index], self.scale_axes[index]
            count = self._quantized[index][0].scale_count
            return mse_scale.scale_by(
                self._scale, w, bits, axes, self.quantizer, count
            )

        return scale

    def steps(self, bits: Any) -> list[tf.Tensor]:
        """Current step of each quantized weight, no gradient.

        Args:
            bits: int32 variable or tensor of shape (weights,).
        """
        widths = tf.unstack(tf.convert_to_tensor(bits), len(self.kernels))
        return [
            uniform.step_size(scale, width, self.quantizer)
            for scale, width in zip(self.scales(bits), widths, strict=True)
        ]

    def values(self, bits: Any) -> list[tf.Tensor]:
        """Each kernel as `codes * step`, float32.

        Args:
            bits: int32 variable or tensor of shape (weights,).
        """
        return self.values_and_penalty(bits, None)[0]

    def values_and_penalty(
        self, bits: Any, lsb: Any
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Values of all kernels, and the L1 penalty on their low bits.

        Args:
            bits: int32 variable or tensor of shape (weights,).
            lsb: The same, the number of low bits to penalize; `None` for no
                penalty, which saves its cost.

        Returns:
            float32 tensors in the kernels' shapes, and a float32 scalar, see
            `fused.penalized`.
        """
        bits = tf.convert_to_tensor(bits)
        weights, penalty = self.latent(), tf.constant(0.0, tf.float32)
        scales, learned = self._scales(weights, bits)
        if lsb is not None:
            weights, penalty = batched.penalized(
                self._layout,
                weights,
                scales,
                bits,
                tf.convert_to_tensor(lsb),
                self.quantizer,
            )
        if learned:
            values = self._learned_values(
                weights, learned, bits, self.quantizer
            )
        else:
            values = batched.values(
                self._layout, weights, scales, bits, self.quantizer
            )
        return values, penalty

    def records(
        self, bits: np.ndarray, masks: Masks | None = None
    ) -> list[QuantizedWeight]:
        """Codes, steps and bits of every quantized weight.

        Args:
            bits: int array of shape (weights,).
            masks: As in `latent`.

        Raises:
            ValueError: If a width is out of range, or a latent weight or its
                scale is not finite.
        """
        records = []
        for i, ((entry, weight), w, scale) in enumerate(
            zip(
                self._quantized,
                self.latent(masks),
                self.scales(bits, masks),
                strict=True,
            )
        ):
            width = int(bits[i])
            check_bits(f"bits[{entry.path!r}]", width)
            codes = uniform.quantize(w, scale, width, 0, self.quantizer).codes
            step = uniform.step_size(scale, width, self.quantizer)
            records.append(
                quantized_record(
                    entry, weight, width, self._axes[i], codes, step
                )
            )
        return records

    def skipped_records(self) -> list[SkippedWeight]:
        """The weights of two or more dimensions that stay in float."""
        return [skipped_record(*pair) for pair in self._skipped]


def _size(variable: Any) -> int:
    return int(np.prod(variable.shape))
