"""RoundClamp for all weights of a training step, in few operations.

`uniform` defines the computation for one weight; this module computes it for
all weights of a model at once. The scales of all weights are one vector. Values
come without codes and LSBs, which nobody reads. All penalties are in one
branch, which runs only while a penalty acts. So the graph has few nodes for
each weight, and keeps only weights and values for the gradient.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from msq_tf.quantizers import mse_scale
from msq_tf.quantizers import uniform

# Elements of all weights from which LSBs are computed one weight after the
# other. Else TensorFlow begins with all of them, and what is computed on the
# way takes a few copies of all weights; but what penalty and pull have in
# common is computed once.
ORDERED = 1 << 23


class _Pull(NamedTuple):
    """What the pull of one weight needs to know.

    Attributes:
        stride: float32 scalar `2**k`.
        ratio: float32 scalar `step_n / step_(n-k)`.
        step: `step_n`, which broadcasts against the weight.
        area: `step_n * step_(n-k)`, likewise.
    """

    stride: tf.Tensor
    ratio: tf.Tensor
    step: tf.Tensor
    area: tf.Tensor


class ScaleLayout:
    """The places of each weight's scales in the vector of all scales.

    Args:
        shapes: Shape of each weight.
        channel_axes: Axes over which each has scales, non-negative; `None`
            for one scale.
        shared: How many weights of each share a scale, see
            `mse_scale.moments`; 0 for those that are there.

    Attributes:
        shapes: Shape of the scales of each weight, which broadcasts against
            it.
        counts: How many scales each weight has.
        reduced: For each weight the axes that share a scale.
        size: Elements of all weights.
    """

    def __init__(
        self,
        shapes: Sequence[Sequence[int]],
        channel_axes: Sequence[Sequence[int] | None],
        shared: Sequence[int] | None = None,
    ):
        self._shared = shared or [0] * len(shapes)
        self.size = sum(int(np.prod(shape)) for shape in shapes)
        kept = [set(axes or ()) for axes in channel_axes]
        self.reduced = [
            [axis for axis in range(len(shape)) if axis not in keep]
            for shape, keep in zip(shapes, kept, strict=True)
        ]
        self.shapes = [
            [size if axis in keep else 1 for axis, size in enumerate(shape)]
            for shape, keep in zip(shapes, kept, strict=True)
        ]
        self.counts = [int(np.prod(shape)) for shape in self.shapes]
        self._owners = np.repeat(np.arange(len(kept)), self.counts)

    def max_scales(self, weights: Sequence[tf.Tensor]) -> tf.Tensor:
        """`uniform.max_scale` of every weight.

        Args:
            weights: float32 tensors.

        Returns:
            float32 vector, no gradient.
        """
        largest = tf.stop_gradient(
            self.join(
                [
                    tf.reduce_max(tf.abs(w), axes)
                    for w, axes in zip(weights, self.reduced, strict=True)
                ]
            )
        )
        # Not what is infinite: that has to show.
        largest = tf.where(
            largest < float("inf"),
            tf.minimum(largest, uniform.LARGEST_SCALE),
            largest,
        )
        live = largest > uniform.LEAST_SCALE
        alive = tf.cast(live, tf.float32)
        means = self._sums(
            tf.math.divide_no_nan(
                largest * alive, self.spread(self._sums(alive))
            )
        )
        fill = tf.where(means > 0.0, means, 1.0)
        return tf.where(live, largest, self.spread(fill))

    def scales(
        self,
        weights: Sequence[tf.Tensor],
        bits: tf.Tensor,
        quantizer: str,
        kind: str,
    ) -> tf.Tensor:
        """Scales that follow from weights and widths.

        Args:
            weights: float32 tensors.
            bits: int32 tensor of shape (weights,), stored bits.
            quantizer: `"round_clamp"` or `"dorefa"`.
            kind: `"max"` for `uniform.max_scale` of every weight, else
                `mse_scale.mse_scale`.

        Returns:
            float32 vector, no gradient.
        """
        largest = self.max_scales(weights)
        if kind == uniform.MAX:
            return largest
        # Behind a branch: at first all weights are wide, and some stay so.
        return tf.stop_gradient(
            tf.cond(
                mse_scale.any_narrow(bits),
                lambda: self._mse_scales(weights, largest, bits, quantizer),
                lambda: largest,
            )
        )

    def _mse_scales(
        self,
        weights: Sequence[tf.Tensor],
        largest: tf.Tensor,
        bits: tf.Tensor,
        quantizer: str,
    ) -> tf.Tensor:
        moments: list[tuple[tf.Tensor, tf.Tensor]] = []
        for w, own, axes, count in zip(
            weights,
            self.split(largest),
            self.reduced,
            self._shared,
            strict=True,
        ):
            with self.after([pair[1] for pair in moments]):
                moments.append(mse_scale.moments(w, own, axes, count))
        first, second = map(self.join, zip(*moments, strict=True))
        widths = self.spread(bits)
        clip = mse_scale.clips(first, second, widths)
        return mse_scale.scale(largest, clip, widths, quantizer)

    def after(self, found: Sequence[tf.Tensor]) -> Any:
        """The scope of what waits for its predecessor where weights are many.

        Args:
            found: What was computed of the weights before.
        """
        large = self.size >= ORDERED
        return tf.control_dependencies(found[-1:] if large else [])

    def _sums(self, scales: tf.Tensor) -> tf.Tensor:
        # XLA has no sorted one.
        return tf.math.unsorted_segment_sum(
            scales, self._owners, len(self.counts)
        )

    def spread(self, per_weight: tf.Tensor) -> tf.Tensor:
        """A number of each weight as a vector in the scales' shape."""
        return tf.gather(per_weight, self._owners)

    def join(self, scales: Sequence[tf.Tensor]) -> tf.Tensor:
        """The vector of all scales from those of each weight."""
        return tf.concat([tf.reshape(scale, [-1]) for scale in scales], 0)

    def split(self, scales: tf.Tensor) -> list[tf.Tensor]:
        """The scales of each weight, which broadcast against it."""
        parts = tf.split(scales, self.counts)
        return [
            tf.reshape(part, shape)
            for part, shape in zip(parts, self.shapes, strict=True)
        ]


def held_scales(
    layout: ScaleLayout,
    now: tf.Tensor,
    bits: tf.Tensor,
    scales: tf.Tensor,
    widths: tf.Tensor,
) -> tf.Tensor:
    """Held scales where they are of the widths, and those of now elsewhere.

    Args:
        layout: Where the scales of each weight are.
        now: float32 vector from `ScaleLayout.scales`.
        bits: int32 tensor of shape (weights,), stored bits.
        scales: float32 vector, the scales that are held.
        widths: int32 tensor of shape (weights,), the bits that they are of.

    Returns:
        float32 vector, no gradient.
    """
    held = mse_scale.narrow(bits) & (bits == widths)
    return tf.where(layout.spread(held), mse_scale.near(scales, now), now)


def steps(
    layout: ScaleLayout, scales: tf.Tensor, bits: tf.Tensor, quantizer: str
) -> list[tf.Tensor]:
    """`uniform.step_size` of every weight, which broadcasts against it.

    Args:
        layout: Where the scales of each weight are.
        scales: float32 positive vector. No gradient.
        bits: int32 tensor of shape (weights,), stored bits.
        quantizer: `"round_clamp"` or `"dorefa"`.
    """
    levels = uniform.steps_per_scale(bits - 1, quantizer)
    return layout.split(scales / layout.spread(levels))


def codes(
    weights: Sequence[tf.Tensor], steps: Sequence[tf.Tensor], bits: tf.Tensor
) -> Iterator[tf.Tensor]:
    """Codes of every weight, one weight after the other.

    Values in training, reports and files are these times the steps.

    Args:
        weights: float32 tensors.
        steps: Of each weight, from `steps`.
        bits: int32 tensor of shape (weights,), stored bits.

    Yields:
        float32 tensors of integers, no gradient.
    """
    limit = uniform.code_limit(bits)
    ends = zip(tf.unstack(-limit), tf.unstack(limit), strict=True)
    for w, step, (low, high) in zip(weights, steps, ends, strict=True):
        yield uniform.codes(w, step, low, high)


def values(
    layout: ScaleLayout,
    weights: Sequence[tf.Tensor],
    scales: tf.Tensor,
    bits: tf.Tensor,
    quantizer: str,
) -> list[tf.Tensor]:
    """`uniform.quantize(...).value` of every weight.

    Args:
        layout: Where the scales of each weight are.
        weights: float32 tensors.
        scales: float32 positive vector. No gradient.
        bits: int32 tensor of shape (weights,), stored bits.
        quantizer: `"round_clamp"` or `"dorefa"`.

    Returns:
        float32 tensors in the weights' shapes, the same to the bit, with the
        identity as gradient.
    """
    own = steps(layout, scales, bits, quantizer)

    @tf.custom_gradient
    def apply(*given: tf.Tensor) -> Any:
        found = zip(codes(given, own, bits), own, strict=True)
        results = [integers * step for integers, step in found]
        return results, lambda *upstream: upstream

    return apply(*weights)


def penalized(
    layout: ScaleLayout,
    weights: Sequence[tf.Tensor],
    scales: tf.Tensor,
    bits: tf.Tensor,
    lsb: tf.Tensor,
    quantizer: str,
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """The weights as they are, and the penalty on their low bits.

    Penalty and gradient are the sum of `uniform.lsb_penalty` over the
    weights. Compute values from the tensors that come back: their gradient
    and the pull then arrive as one.

    Args:
        layout: Where the scales of each weight are.
        weights: float32 tensors.
        scales: float32 positive vector. No gradient.
        bits: int32 tensor of shape (weights,), stored bits n.
        lsb: The same, the number k of low bits to penalize, 0 to `n - 2`.
        quantizer: `"round_clamp"` or `"dorefa"`.

    Returns:
        float32 tensors equal to `weights`, and a float32 scalar. They have no
        second derivative: Hessians are taken at given values.
    """
    pulled = tf.reduce_any(lsb > 0)

    def pulls() -> Iterable[_Pull]:
        fine = uniform.steps_per_scale(bits - 1, quantizer)
        coarse = uniform.steps_per_scale(bits - 1 - lsb, quantizer)
        step = scales / layout.spread(fine)
        area = step * (scales / layout.spread(coarse))
        return map(
            _Pull,
            tf.unstack(uniform.power_of_two(lsb)),
            tf.unstack(coarse / fine),
            layout.split(step),
            layout.split(area),
        )

    def low_bits(w: tf.Tensor, of: _Pull) -> tf.Tensor:
        """`B_k` on unclamped codes."""
        x = w / of.step
        return tf.round(x) - of.stride * tf.round(x * of.ratio)

    @tf.custom_gradient
    def apply(*given: tf.Tensor) -> Any:
        def total() -> tf.Tensor:
            found: list[tf.Tensor] = []
            for w, of, axes in zip(given, pulls(), layout.reduced, strict=True):
                with layout.after(found):
                    low = tf.reduce_sum(
                        tf.abs(low_bits(w, of)), axes, keepdims=True
                    )
                    found.append(tf.reduce_sum(low * of.area))
            return tf.add_n(found)

        def gradient(*upstream: Any) -> Any:
            *d_weights, d = map(tf.convert_to_tensor, upstream)

            def pull() -> list[tf.Tensor]:
                # As autodiff takes `lsb_penalty`, the same to the bit: it
                # divides `d * area * sign`.
                found: list[tf.Tensor] = []
                for w, d_w, of in zip(given, d_weights, pulls(), strict=True):
                    with layout.after(found):
                        slope = d * of.area / of.step
                        found.append(d_w + slope * tf.sign(low_bits(w, of)))
                return found

            return tf.cond(pulled, pull, lambda: d_weights)

        penalty = tf.cond(pulled, total, lambda: tf.constant(0.0, tf.float32))
        return (*given, penalty), gradient

    *same, penalty = apply(*weights)
    return same, penalty
