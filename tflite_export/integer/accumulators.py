"""Scales and biases that an operator's accumulator has room for.

A kernel adds products of codes and a bias, all in units of the product of the
scales of input and weight, and multiplies the sum by a factor to get units of
the output. Three things can go wrong:

- *The bias needs more units than the accumulator has*, where the scale of a
  channel is tiny beside it: a gamma next to zero, a dead input.
- *The factor is so small that fixed point takes it for zero*, which 64-bit
  accumulators allow.
- *The factor is so large* (256 units of the output for one of the
  accumulator) that XNNPACK refuses it and fixed point overflows: an output
  that was dead in training.

The codes do not change in any of these cases. In the first two, the channel
gets the smallest scale that fits, and its bias in units of that scale. The
contribution of the codes was next to nothing and still is; this module computes
by how many units of the output it changes, for the worst of all inputs. In the
third case, every sum but zero is at an end of the output's range, and stays
there with the largest factor that kernels take. Likewise, if a bias alone puts
the output beyond an end for every input, a smaller bias that does so, too,
replaces it. Both are exact.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tflite_export.matching.scales import MUTED_SCALE

# Below 2**-32 fixed-point kernels multiply by zero.
_LEAST_FACTOR = 2.0**-31
# What a channel may contribute where the kernel multiplies by zero.
_NOTHING = 0.25
# Scales of biases keep away from float32's denormal numbers.
_LEAST_PRODUCT = 2.0**-120
# Units of the output that fixed point has numbers for.
_MOST_UNITS = 2.0**29
# Scales are rounded to float32, products of them again.
_SLACK = 1 + 2.0**-20


@dataclasses.dataclass(frozen=True)
class Use:
    """One operator that reads a weight.

    Attributes:
        op: Name of the operator.
        input_scale: Scale of its activations.
        output_scale: Scale of its output.
        inputs: Least and largest input, in units from its zero.
        output_span: Units from one end of the output's range to the other.
        bias: Its float bias, `None` for none.
    """

    op: str
    input_scale: float
    output_scale: float
    inputs: tuple[int, int]
    output_span: int
    bias: np.ndarray | None

    def factor(self, scale: np.ndarray) -> np.ndarray:
        """Units of the output that one of the accumulator stands for."""
        product: np.ndarray = (
            np.asarray(scale, np.float64) * self.input_scale / self.output_scale
        )
        return product

    def reach(self, rows: np.ndarray) -> np.ndarray:
        """Largest sum of products of each channel, a row of codes, in units."""
        up = np.maximum(rows, 0).sum(axis=1, dtype=np.int64)
        down = up - rows.sum(axis=1, dtype=np.int64)
        low, high = self.inputs
        found: np.ndarray = np.maximum(
            up * high - down * low, down * high - up * low
        )
        return found


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Scales and codes that the channels of one weight get.

    Attributes:
        scale: Scales for the file, float64, one a channel.
        steps: Scales whose product with that of the input is a unit of the
            bias. They differ from `scale` where a factor was too large.
        change: By how many units of the output each channel moves at most,
            over all inputs.
        quiet: By how many it moves if its codes are zeros.
        room: Largest magnitude of a sum that the accumulator holds.
    """

    scale: np.ndarray
    steps: np.ndarray
    change: np.ndarray
    quiet: np.ndarray
    room: int


def fit(
    rows: np.ndarray,
    scale: np.ndarray,
    muted: np.ndarray,
    uses: Sequence[Use],
    room: int,
    level: bool = False,
) -> Fitted:
    """Finds the scales nearest to the trained ones that fit.

    Args:
        rows: Codes, one row a channel.
        scale: Trained scales, one a channel.
        muted: Channels whose weights are zero, whatever their codes.
        uses: What reads the weight.
        room: Largest magnitude of a sum that the accumulator holds.
        level: Whether all channels get the same scale.
    """
    scale = scale.astype(np.float64)
    honest = np.where(muted, 0.0, scale)
    needed, most = scale.copy(), np.full(len(scale), np.inf)
    for use in uses:
        needed = np.maximum(needed, _needed(rows, scale, use, room))
        most = np.minimum(most, _most(use))
    if level:
        needed[:] = needed.max()
    # What one use needs for its bias is more than what another may have.
    lowered = (scale > most) & (needed <= scale)
    fitted = np.where(lowered, most, needed)
    change, quiet = np.zeros(len(scale)), np.zeros(len(scale))
    for use in uses:
        reach = use.reach(rows)
        moved = np.where(needed > scale, use.factor(needed - honest), 0.0)
        moved = np.where(_stuck(reach, needed, use), 0.0, moved * reach)
        change = np.maximum(change, moved)
        quiet = np.maximum(quiet, use.factor(honest) * reach)
    steps = np.where(lowered, scale, fitted)
    return Fitted(fitted, steps, change, quiet, room)


def _most(use: Use) -> float:
    """The largest scale: one unit takes the output from end to end."""
    return (use.output_span + 0.75) * use.output_scale / use.input_scale


def _needed(
    rows: np.ndarray, scale: np.ndarray, use: Use, room: int
) -> np.ndarray:
    """The least scales of a use that fit, at least the trained ones."""
    least = max(float(MUTED_SCALE), _LEAST_PRODUCT / use.input_scale)
    needed = np.maximum(scale, least)
    if use.bias is None:
        return needed
    reach = use.reach(rows)
    left = _left(reach, room)
    units = _bias_units(use)
    heard = units + reach * use.factor(needed) >= _NOTHING
    least = _LEAST_FACTOR * use.output_scale / use.input_scale
    needed = np.maximum(needed, np.where(heard, least, 0.0))
    tight = units > left * use.factor(needed)
    # Beyond the end of the output a bias needs no more than to stay there.
    spare = left - reach - 2
    beyond = (use.output_span + 1) / np.maximum(spare, 1.0)
    beyond = np.maximum(beyond, use.factor(needed))
    limit = (use.output_span + 1 + reach * beyond) * _SLACK**2
    stuck = (spare > 0) & (units > limit)
    factor = np.where(stuck, beyond, units / left) * _SLACK
    raised = factor * use.output_scale / use.input_scale
    return np.where(tight, np.maximum(needed, raised), needed)


def _left(reach: np.ndarray, room: int) -> np.ndarray:
    """What an accumulator has left for the bias."""
    # No real input comes near the largest sum of a very long row.
    left: np.ndarray = np.maximum(room - reach, room // 2).astype(np.float64)
    return left


def _bias_units(use: Use) -> np.ndarray:
    """Magnitudes of the biases in units of the output."""
    bias = np.zeros(1) if use.bias is None else use.bias
    return np.abs(bias.astype(np.float64)) / use.output_scale


def _stuck(reach: np.ndarray, scale: np.ndarray, use: Use) -> np.ndarray:
    """Channels whose bias puts the output beyond an end, for all inputs."""
    limit = use.output_span + 1 + reach * use.factor(scale)
    stuck: np.ndarray = _bias_units(use) > limit
    return stuck


def bias(rows: np.ndarray, fitted: Fitted, use: Use) -> np.ndarray:
    """The bias of a use, no larger than the accumulator has room for.

    Smaller ones than the use's have the same effect.
    """
    if use.bias is None:
        return np.zeros(len(rows))
    value = use.bias.astype(np.float64)
    reach = use.reach(rows)
    unit = use.input_scale * fitted.steps
    lowered = fitted.scale < fitted.steps
    # Fixed point overflows not only in sums, but in what it makes of them.
    most = np.minimum(
        _left(reach, fitted.room) * unit, _MOST_UNITS * use.output_scale
    )
    over = np.abs(value) > most
    # Enough for an end of the output on any input.
    enough = reach + np.ceil((use.output_span + 1) / use.factor(fitted.scale))
    smaller = lowered | (over & _stuck(reach, fitted.scale, use))
    top = np.where(smaller, (enough + 1) * unit, np.inf)
    clipped: np.ndarray = np.clip(value, -top, top)
    return clipped
