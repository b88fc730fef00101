"""RoundClamp: codes, values and least significant bits of a weight.

The paper's primitive works on `x` in [0, 1] (MSQ, section 3, RoundClamp):

    c_n(x) = min(round(2**n * x), 2**n - 1),      value c_n / 2**n

The decision boundaries at n - 1 bits fall on the centres of the odd n-bit bins.
So when the least significant bit (LSB) goes, half of every odd bin rounds down
and half rounds up. DoReFa, the baseline, `round((2**n - 1) * x)`, lacks this
property: its LSB has a positive mean, and an L1 penalty on it shrinks every
weight.

For signed weights (ours: sign and magnitude, as in BSQ and CSQ) n stored bits
are one sign and m = n - 1 magnitude bits. With `s = max|w|` and a step
`s / 2**m` (RoundClamp) or `s / (2**m - 1)` (DoReFa):

    x = w / step
    codes = clip(round(x), -(2**m - 1), 2**m - 1),  value = codes * step
    B_k = round(x) - 2**k * round(x * step / coarse_step)

`B_k` expresses the low k bits as a signed distance, in codes, to the nearest
weight with low k bits of zero. It is computed on unclamped codes: the saturated
top bin has an odd code, so on clamped codes a penalty would shrink it for ever.

Every function here is a pure function of tensors. Bits are tensors too, so a
change of precision never retraces a graph. `tf.round` rounds halves to even,
which makes everything odd-symmetric.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import tensorflow as tf

ROUND_CLAMP = "round_clamp"
DOREFA = "dorefa"
QUANTIZERS = (ROUND_CLAMP, DOREFA)
# Where scales come from that follow from weights and widths.
MAX = "max"
MSE = "mse"
HELD = "held"
STATISTICS = (MAX, MSE, HELD)

# Up to this a channel counts as dead: its step at 8 bits would be at most
# 2**-100, which is what the exporter writes for a channel that says nothing.
LEAST_SCALE = 2.0**-93
# Above this the largest code times its step could round to infinity.
LARGEST_SCALE = 2.0**127


class Quantized(NamedTuple):
    """The results of one rounding pass.

    Attributes:
        value: float32, the weight's shape: `codes * step`. Its gradient with
            respect to the weight is the identity (straight through).
        codes: float32 holding integers in `[-(2**(n-1)-1), 2**(n-1)-1]`. No
            gradient.
        lsb: float32 holding integers, `B_k` of the module docstring. Its
            gradient is that of `w / step`: the rounding of the coarser
            branch is held constant, since straight-through on both branches
            would cancel to zero.
    """

    value: tf.Tensor
    codes: tf.Tensor
    lsb: tf.Tensor


def power_of_two(exponent: Any) -> tf.Tensor:
    """`2**exponent` in float32, exact for integer tensors in [0, 30].

    `tf.pow` may go through logarithms, and an inexact power of two would
    break the identity of codes between a graph and an exported file.
    """
    exponent = tf.cast(exponent, tf.int32)
    one = tf.ones_like(exponent)
    return tf.cast(tf.bitwise.left_shift(one, exponent), tf.float32)


def code_limit(bits: Any) -> tf.Tensor:
    """Largest code at `bits` stored bits, `2**(bits - 1) - 1`, in float32."""
    return power_of_two(tf.cast(bits, tf.int32) - 1) - 1.0


def round_clamp(x: Any, bits: Any) -> tf.Tensor:
    """RoundClamp on [0, 1]: the paper's primitive, straight through.

    Args:
        x: float32 tensor with values in [0, 1].
        bits: Integer scalar (or tensor that broadcasts), magnitude bits n.

    Returns:
        float32 tensor `min(round(2**n x), 2**n - 1) / 2**n`. The gradient is
        the identity.

    Examples:
        >>> round_clamp([0.0, 0.3, 1.0], bits=2).numpy()
        array([0.  , 0.25, 0.75], dtype=float32)
    """
    levels = power_of_two(bits)
    return _unit_quantize(
        tf.convert_to_tensor(x, tf.float32), levels, levels - 1.0
    )


def dorefa(x: Any, bits: Any) -> tf.Tensor:
    """DoReFa's quantizer on [0, 1]: the baseline, straight through.

    Args:
        x: float32 tensor with values in [0, 1].
        bits: Integer scalar (or tensor that broadcasts), magnitude bits n.

    Returns:
        float32 tensor `round((2**n - 1) x) / (2**n - 1)`. The gradient is
        the identity.

    References:
        - Zhou et al., DoReFa-Net, arXiv 1606.06160, equation 5.
    """
    levels = power_of_two(bits) - 1.0
    return _unit_quantize(tf.convert_to_tensor(x, tf.float32), levels, levels)


@tf.custom_gradient
def _unit_quantize(x: tf.Tensor, levels: tf.Tensor, limit: tf.Tensor) -> Any:
    value = tf.minimum(tf.round(x * levels), limit) / levels
    return value, lambda upstream: (upstream, None, None)


def codes(
    w: tf.Tensor, step: tf.Tensor, low: tf.Tensor, high: tf.Tensor
) -> tf.Tensor:
    """Codes of a signed weight: what training, reports and files all hold.

    Args:
        w: float32 weight.
        step: float32 positive step that broadcasts against `w`.
        low: float32 scalar, the smallest code, `-code_limit(bits)`.
        high: float32 scalar, the largest code, `code_limit(bits)`.

    Returns:
        float32 tensor of integers in `[low, high]`. Ties go to the even one.
    """
    return tf.clip_by_value(tf.round(w / step), low, high)


def lsb_on_unit(
    x: Any, bits: Any, lsb: Any, quantizer: str = ROUND_CLAMP
) -> tf.Tensor:
    """`B_k` of `x` in [0, 1] at n magnitude bits (paper, LSB extraction).

    Args:
        x: float32 tensor with values in [0, 1].
        bits: Integer scalar, magnitude bits n.
        lsb: Integer scalar, the number k of low bits, below `bits`.
        quantizer: `"round_clamp"` or `"dorefa"`.

    Returns:
        float32 tensor of integers: `q_n - 2**k q_(n-k)` on unclamped codes.
    """
    bits = tf.cast(bits, tf.int32)
    lsb = tf.cast(lsb, tf.int32)
    x = tf.convert_to_tensor(x, tf.float32)
    fine = tf.round(x * steps_per_scale(bits, quantizer))
    coarse = tf.round(x * steps_per_scale(bits - lsb, quantizer))
    return fine - power_of_two(lsb) * coarse


def steps_per_scale(magnitude_bits: Any, quantizer: str) -> tf.Tensor:
    """How many steps make up a scale at given magnitude bits, in float32."""
    levels = power_of_two(magnitude_bits)
    return levels if quantizer == ROUND_CLAMP else levels - 1.0


def max_scale(
    w: tf.Tensor, channel_axes: Sequence[int] | None = None
) -> tf.Tensor:
    """`max|w|` per channel or per tensor, without gradient; never zero.

    Args:
        w: float32 weight.
        channel_axes: Axes that keep an entry each in the scale; `None` for
            one scale for the whole tensor.

    Returns:
        float32 tensor of rank `w.ndim` with extent 1 on the other axes. A dead
        channel (all zeros, or up to 2**-93) takes the mean scale of the live
        ones, or 1 if there is none: an integer runtime divides by scales, and a
        scale of 0 or 1e-12 overflows its biases. A scale is at most 2**127, and
        not finite if the weight is not.
    """
    rank = w.shape.rank
    keep = {axis % rank for axis in channel_axes or ()}
    axes = [axis for axis in range(rank) if axis not in keep]
    scale = tf.reduce_max(tf.abs(w), axis=axes, keepdims=True)
    # Not what is infinite: that has to show.
    scale = tf.where(
        scale < float("inf"), tf.minimum(scale, LARGEST_SCALE), scale
    )
    live = scale > LEAST_SCALE
    alive = tf.cast(live, tf.float32)
    # divide_no_nan gives 0 where every channel is dead. Divided before they
    # are added, scales do not add up to infinity.
    mean = tf.reduce_sum(
        tf.math.divide_no_nan(scale * alive, tf.reduce_sum(alive))
    )
    fill = tf.where(mean > 0.0, mean, 1.0)
    return tf.stop_gradient(tf.where(live, scale, fill))


def step_size(
    scale: tf.Tensor, bits: Any, quantizer: str = ROUND_CLAMP
) -> tf.Tensor:
    """Distance between neighbouring values at `bits` stored bits.

    Args:
        scale: float32 positive scale, in units of the weight.
        bits: Integer scalar, stored bits with the sign.
        quantizer: `"round_clamp"` or `"dorefa"`.

    Returns:
        float32 tensor in the scale's shape.
    """
    return scale / steps_per_scale(tf.cast(bits, tf.int32) - 1, quantizer)


def quantize(
    w: tf.Tensor,
    scale: tf.Tensor,
    bits: Any,
    lsb: Any = 0,
    quantizer: str = ROUND_CLAMP,
) -> Quantized:
    """Quantizes a signed weight: value, codes and LSB in one rounding pass.

    Args:
        w: float32 weight, any shape.
        scale: float32 positive scale that broadcasts against `w`, normally
            `max_scale(w, channel_axes)`; no gradient. `learned_scales` has
            the same codes and values with a gradient for the scale.
        bits: Integer scalar tensor, stored bits n with the sign, 2 to 8.
        lsb: Integer scalar tensor, the number k of low bits that `lsb`
            describes, 0 (nothing) to `bits - 2`.
        quantizer: `"round_clamp"` or `"dorefa"`.

    Returns:
        A `Quantized` tuple.

    Examples:
        >>> w = tf.constant([-0.9, 0.1, 0.5, 1.0])
        >>> quantize(w, tf.constant(1.0), bits=3, lsb=1).codes.numpy()
        array([-3.,  0.,  2.,  3.], dtype=float32)
    """
    bits = tf.cast(bits, tf.int32)
    lsb = tf.cast(lsb, tf.int32)
    step = step_size(scale, bits, quantizer)
    limit = code_limit(bits)
    stride = power_of_two(lsb)
    fine = steps_per_scale(bits - 1, quantizer)
    ratio = steps_per_scale(bits - 1 - lsb, quantizer) / fine
    return Quantized(*_quantize(w, step, limit, stride, ratio))


@tf.custom_gradient
def _quantize(
    w: tf.Tensor,
    step: tf.Tensor,
    limit: tf.Tensor,
    stride: tf.Tensor,
    ratio: tf.Tensor,
) -> Any:
    x = w / step
    integers = codes(w, step, -limit, limit)
    lsb = tf.round(x) - stride * tf.round(x * ratio)

    def gradient(d_value: Any, d_codes: Any, d_lsb: Any) -> Any:
        del d_codes  # integers: no gradient
        return d_value + d_lsb / step, None, None, None, None

    return (integers * step, integers, lsb), gradient


def lsb_penalty(
    lsb: tf.Tensor,
    scale: tf.Tensor,
    bits: Any,
    k: Any,
    quantizer: str = ROUND_CLAMP,
) -> tf.Tensor:
    """L1 penalty on LSBs, in units of the coarser bin.

    The gradient of `R = sum |B_k| * step_n * step_(n-k)` is
    `sign(B_k) * step_(n-k)`. So a gradient step with learning rate `lr` and
    strength `lambda` moves every element by the fraction `lr * lambda` of a bin
    of the *coarser* precision, at every precision, scale and layer size.

    Args:
        lsb: float32 `B_k` from `quantize`.
        scale: float32 positive scale of the weight.
        bits: Integer scalar, stored bits n.
        k: Integer scalar, the same `lsb` count that was given to `quantize`;
            with 0 the penalty is zero.
        quantizer: `"round_clamp"` or `"dorefa"`.

    Returns:
        float32 scalar.
    """
    bits = tf.cast(bits, tf.int32)
    fine = step_size(scale, bits, quantizer)
    coarse = step_size(scale, bits - tf.cast(k, tf.int32), quantizer)
    return tf.reduce_sum(tf.abs(lsb) * tf.stop_gradient(fine * coarse))
