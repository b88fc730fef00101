"""Fake quantization of all chosen weights of a model, at given bits."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from msq_tf import bit_widths
from msq_tf.core.config import check_bits
from msq_tf.core.held_scales import HeldScales
from msq_tf.core.model_weight import ModelWeight
from msq_tf.core.quantized_weight import QuantizedWeight
from msq_tf.core.quantized_weight import SkippedWeight
from msq_tf.core.weight_records import quantized_record
from msq_tf.core.weight_records import skipped_record
from msq_tf.quantizers import batched
from msq_tf.quantizers import mse_scale
from msq_tf.quantizers import uniform

# Times that the largest latent weights come closer to what has given values.
_ROUNDS = 7

# What each latent weight is multiplied with, `None` for 1.
Masks = Sequence[np.ndarray | None]


class WeightQuantizers:
    """From latent weights and bits to values, penalties and codes.

    Args:
        weights: The weights of a model, in traversal order.
        quantizer: `"round_clamp"` or `"dorefa"`.
        read: Function of a latent variable that returns its stored value, a
            float32 tensor.
        scale: One of `uniform.STATISTICS`; see `use_scales` for others.
        held: The scales that `"held"` holds.

    Attributes:
        quantizer: As given.
        quantized: The weights that are quantized, in traversal order.
        skipped: Those that stay in float.
        paths: Keys of the quantized weights.
        sizes: Number of elements of each.
        kernels: The latent variable of each.
        float_size: Elements of quantizable weights that stay in float.
    """

    def __init__(
        self,
        weights: Iterable[ModelWeight],
        quantizer: str,
        read: Callable[[Any], tf.Tensor],
        scale: str = uniform.MAX,
        held: HeldScales | None = None,
    ):
        self.quantizer = quantizer
        self._scale = scale
        self._held = held
        self._read = read
        weights = tuple(weights)
        self.quantized = tuple(w for w in weights if w.quantized)
        self.skipped = tuple(w for w in weights if not w.quantized)
        self.paths = tuple(weight.path for weight in self.quantized)
        self.sizes = tuple(weight.size for weight in self.quantized)
        self.kernels = [weight.variable for weight in self.quantized]
        self.float_size = sum(
            weight.size for weight in self.skipped if weight.plan.quantizable
        )
        self._layout = batched.ScaleLayout(
            [kernel.shape for kernel in self.kernels],
            [weight.scale_axes for weight in self.quantized],
            [weight.plan.scale_count for weight in self.quantized],
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
        """Some of the quantized weights, without trained scales.

        Args:
            indices: Their places in `paths`.
        """
        return WeightQuantizers(
            [self.quantized[i] for i in indices],
            self.quantizer,
            self._read,
            self._scale,
            self._held and self._held.part(indices),
        )

    def hold(
        self, bits: Sequence[int] | np.ndarray, anew: bool = False
    ) -> None:
        """Takes the scales of small squared error of today's weights.

        Does nothing unless `scale` is `"held"`.

        Args:
            bits: Stored bits of each weight.
            anew: Whether to take those of all weights, not only of those whose
                bits are not the ones that their scales are held for.
        """
        if self._held is None:
            return
        widths = np.asarray(bits, np.int32)
        moved = self._held.widths().numpy() != widths
        if anew:
            moved[:] = True
        if not moved.any():
            return
        now = self._layout.scales(
            self.latent(), tf.constant(widths), self.quantizer, self._scale
        )
        replaced = self._layout.spread(tf.constant(moved))
        self._held.assign(
            tf.where(replaced, now, self._held.scales()).numpy(), widths
        )

    def keep_values(
        self, was: Sequence[int], now: np.ndarray, moved: Sequence[bool]
    ) -> None:
        """Moves latent weights that got more bits to the values they had.

        At few bits, training leaves latent weights anywhere between two
        values, and more bits would take that for the weight. Half a step of
        the new bits is the most by which a value changes.

        Args:
            was: The stored bits that each weight was trained at.
            now: Its stored bits.
            moved: Whether training moves it. Other weights are what they were
                before training, and their low bits count.
        """
        grown = np.flatnonzero((now > np.asarray(was)) & np.asarray(moved))
        if not len(grown):
            return
        values = self.values(np.asarray(was, np.int32))
        kept = {int(i): values[i].numpy() for i in grown}
        latent = dict(kept)
        tops = {
            i: _is_largest(value, self.quantized[i].scale_axes)
            for i, value in kept.items()
        }
        self._assign(latent)
        # A scale is the largest magnitude, and no code of `round_clamp`
        # reaches it.
        for _ in range(_ROUNDS):
            found = self.values(now)
            for i, top in tops.items():
                latent[i] = latent[i] + top * (kept[i] - found[i].numpy())
            self._assign(latent)

    def _assign(self, latent: dict[int, np.ndarray]) -> None:
        """Gives some latent variables, by their places, other values."""
        for i, value in latent.items():
            kernel = self.kernels[i]
            kernel.assign(tf.cast(value, kernel.dtype).numpy())

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
        if self._held is not None:
            found = batched.held_scales(
                self._layout,
                found,
                bits,
                self._held.scales(),
                self._held.widths(),
            )
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
        start = [weight.plan.start_bits for weight in self.quantized]
        held = None if self._held is None else self._held.widths().numpy()
        own = None
        if held is not None:
            # Where a width is not held yet, any does.
            own = self.scales(np.maximum(held, bit_widths.MIN_BITS))
        elif self._used is not None:
            own = self.scales(start)

        def scale(index: int, bits: int) -> tf.Tensor:
            if own is not None and (held is None or held[index] == bits):
                return own[index]
            weight = self.quantized[index]
            return mse_scale.scale_by(
                self._scale,
                weights[index],
                bits,
                weight.scale_axes,
                self.quantizer,
                weight.plan.scale_count,
            )

        return scale

    def steps(self, bits: Any) -> list[tf.Tensor]:
        """Current step of each quantized weight, no gradient.

        Args:
            bits: int32 variable or tensor of shape (weights,).
        """
        bits = tf.convert_to_tensor(bits)
        scales, _ = self._scales(self.latent(), bits)
        return batched.steps(self._layout, scales, bits, self.quantizer)

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
        widths = [int(width) for width in bits]
        for weight, width in zip(self.quantized, widths, strict=True):
            check_bits(f"bits[{weight.path!r}]", width)
        now = tf.constant(widths, tf.int32)
        weights = self.latent(masks)
        scales, _ = self._scales(weights, now)
        steps = batched.steps(self._layout, scales, now, self.quantizer)
        codes = batched.codes(weights, steps, now)
        return [
            quantized_record(*parts)
            for parts in zip(self.quantized, widths, codes, steps, strict=True)
        ]

    def skipped_records(self) -> list[SkippedWeight]:
        """The weights of two or more dimensions that stay in float."""
        return [
            skipped_record(weight, self._read(weight.variable))
            for weight in self.skipped
        ]


def _is_largest(value: np.ndarray, axes: tuple[int, ...] | None) -> np.ndarray:
    """Whether elements are the largest of those with the same scale."""
    others = tuple(set(range(value.ndim)) - set(axes or ()))
    size = np.abs(value)
    return size >= size.max(axis=others, keepdims=True)
