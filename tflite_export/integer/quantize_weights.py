"""Integer weights and biases of one operator after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tflite_export.errors import ExportError
from tflite_export.integer import accumulators
from tflite_export.integer.accumulators import Fitted
from tflite_export.integer.accumulators import Use
from tflite_export.matching.match import Match
from tflite_export.matching.records import ChannelChanges
from tflite_export.matching.scales import MUTED_SCALE
from tflite_export.matching.scales import RELATIVE_TOLERANCE
from tflite_export.targets import Target

_INT8_TOP = 127
# By how many units of the output a channel may move at most so that its codes
# can be kept: where a wider container is left to try, and at the end.
_UNSEEN = 0.125
_VISIBLE = {"int8": 2.0, "int16": 16.0}


@dataclasses.dataclass(frozen=True)
class IntegerWeight:
    """A weight as it goes into the file.

    Attributes:
        codes: Integers in the tensor's shape.
        scale: One scale or one per channel.
        axis: Axis of the scales, `None` for one scale.
        container: Weight type.
        channels: What became of its channels.
        fitted: What the channels have room for, `None` of a table.
    """

    codes: np.ndarray
    scale: np.ndarray
    axis: int | None
    container: str
    channels: ChannelChanges = ChannelChanges()
    fitted: Fitted | None = None

    @property
    def granularity(self) -> str:
        """`"per_tensor"` or `"per_channel"`."""
        return "per_tensor" if self.axis is None else "per_channel"

    @property
    def steps(self) -> np.ndarray:
        """Factor of the scale in a unit of the bias, as long as `scale`."""
        if self.fitted is None:
            return self.scale
        return self.fitted.steps[: self.scale.size].astype(np.float32)

    def differs_from(self, value: np.ndarray) -> bool:
        """Whether it holds other numbers, float32 roundings aside."""
        shape = [1] * value.ndim
        shape[self.axis or 0] = -1
        held = self.codes * self.scale.reshape(shape)
        return not np.allclose(held, value, rtol=RELATIVE_TOLERANCE, atol=0)


def trained_weight(
    match: Match, uses: Sequence[Use], axis: int, target: Target
) -> IntegerWeight:
    """Chooses the container of a trained weight.

    The smallest form that the target's table allows and whose accumulators
    have room. The operators that read it take scales along `axis`.

    Raises:
        ExportError: If there is none.
    """
    codes, scale = match.codes, match.fit.scale
    per_channel = match.fit.axis is not None and (scale != scale[0]).any()
    if per_channel and match.fit.axis != axis:
        raise ExportError(
            f"Layer '{match.weight.path}': {uses[0].op} takes scales along "
            "another axis than it was trained with. Expected scales along "
            f"axis {axis}, or one, as of LayerConfig(granularity=PerTensor()). "
            f"Received: scales along axis {match.fit.axis} of {codes.shape}"
        )
    count = codes.shape[axis]
    scale = np.broadcast_to(scale if per_channel else scale[:1], count)
    rows = channel_rows(codes, axis)
    found: IntegerWeight | None = None
    for container in target.containers_for(match.stored_bits):
        ops = [use.op for use in uses]
        fitted = _fitted(rows, scale, uses, container, target)
        form = _form(match, ops, container, fitted, target)
        if form is None and not per_channel:
            # The operators take one scale for all channels and no more.
            fitted = _fitted(rows, scale, uses, container, target, level=True)
            form = _form(match, ops, container, fitted, target)
        if form is None:
            continue
        change = float(fitted.change.max(initial=0.0))
        if found is None or change < found.channels.units:
            found = _written(codes, scale, axis, container, form, fitted)
        if found.channels.units <= _UNSEEN:
            break
    if found is None:
        raise _no_form(match, uses, bool(per_channel), target)
    return _silenced(found, match, uses, target)


def channel_rows(codes: np.ndarray, axis: int) -> np.ndarray:
    """Codes as int64, one row a channel."""
    wide = np.moveaxis(codes.astype(np.int64), axis, 0)
    return wide.reshape(codes.shape[axis], -1)


def _fitted(
    rows: np.ndarray,
    scale: np.ndarray,
    uses: Sequence[Use],
    container: str,
    target: Target,
    level: bool = False,
) -> Fitted:
    bits = min(target.accumulator_bits(use.op, container) for use in uses)
    room = (1 << (bits - 1)) - 1
    muted = scale <= MUTED_SCALE
    return accumulators.fit(rows, scale, muted, uses, room, level)


def _written(
    codes: np.ndarray,
    scale: np.ndarray,
    axis: int,
    container: str,
    granularity: str,
    fitted: Fitted,
) -> IntegerWeight:
    whole = granularity == "per_tensor"
    return IntegerWeight(
        codes=codes,
        scale=fitted.scale[: 1 if whole else None].astype(np.float32),
        axis=None if whole else axis,
        container=container,
        channels=ChannelChanges(
            axis,
            rescaled=tuple(map(int, np.flatnonzero(fitted.scale != scale))),
            units=float(fitted.change.max(initial=0.0)),
        ),
        fitted=fitted,
    )


def _silenced(
    found: IntegerWeight, match: Match, uses: Sequence[Use], target: Target
) -> IntegerWeight:
    """Sets the codes to zero of channels that no scale fits.

    What they contribute can't be seen at the output, whatever the input.
    """
    most = _VISIBLE[target.mode]
    fitted, channels = found.fitted, found.channels
    if fitted is None or channels.units <= most:
        return found
    over = fitted.change > most
    loud = over & (fitted.quiet > most)
    if loud.any():
        channel = int(np.flatnonzero(loud)[0])
        ops = " and ".join(sorted({use.op for use in uses}))
        raise ExportError(
            f"Layer '{match.weight.path}', channel {channel}: beside its bias "
            f"its scale is too small for the accumulator of {ops}. Expected "
            f"weights that reach at most {most:g} units of the output, or a "
            "bias that is smaller beside them. Received: "
            f"{fitted.quiet[channel]:.2g} units, or "
            f"{fitted.change[channel]:.2g} with the least scale that fits. "
            "Check the gamma and the moving variance of its batch "
            "normalization"
        )
    quiet = found.codes.copy()
    np.moveaxis(quiet, channels.axis, 0)[over] = 0
    silenced = tuple(map(int, np.flatnonzero(over)))
    change = np.where(over, fitted.quiet, fitted.change)
    return dataclasses.replace(
        found,
        codes=quiet,
        channels=ChannelChanges(
            channels.axis,
            silenced,
            tuple(k for k in channels.rescaled if k not in silenced),
            float(change.max()),
        ),
    )


def _form(
    match: Match,
    ops: Sequence[str],
    container: str,
    fitted: Fitted,
    target: Target,
) -> str | None:
    """The granularity in which operators take a container."""
    inputs = match.constant.value.shape[-1]
    choices = ["per_tensor", "per_channel"]
    if (fitted.scale != fitted.scale[0]).any():
        choices = ["per_channel"]
    elif container != "INT8" and len(fitted.scale) == 1:
        # A kernel takes one scale for one of the whole tensor, whatever was
        # meant, and XNNPACK then fails on INT4 (TensorFlow 2.21).
        choices = ["per_tensor"]
    for granularity in choices:
        if all(target.allows(op, container, granularity, inputs) for op in ops):
            return granularity
    return None


def _no_form(
    match: Match, uses: Sequence[Use], per_channel: bool, target: Target
) -> ExportError:
    ops = [use.op for use in uses]
    kinds = ", ".join(target.containers_for(match.stored_bits))
    remedy = "Leave the layer out of quantize_model (filters=)"
    if per_channel and _rounded(ops, target) == "per_tensor":
        remedy = "Train the layer with LayerConfig(granularity=PerTensor())"
    granularity = "per_channel" if per_channel else "per_tensor"
    return ExportError(
        f"Layer '{match.weight.path}': target '{target.name}' has no evidence "
        f"that {' and '.join(sorted(set(ops)))} runs with {granularity} "
        f"{kinds} weights ({target.mode}). {remedy}, or choose another target"
    )


def float_weight(
    value: np.ndarray, uses: Sequence[Use], axis: int, target: Target
) -> IntegerWeight | None:
    """Rounds a weight that MSQ left in float to 8 bits.

    `None` where the target's table has no INT8 for it. The operators that read
    it take scales along `axis`.
    """
    granularity = _rounded([use.op for use in uses], target)
    if granularity is None:
        return None
    whole = granularity == "per_tensor"
    rest = tuple(k for k in range(value.ndim) if whole or k != axis)
    top = np.atleast_1d(np.abs(value).max(axis=rest))
    known = top[top > 0]
    top = np.where(top > 0, top, np.median(known) if known.size else 1.0)
    scale = np.broadcast_to(top / _INT8_TOP, value.shape[axis])
    for _ in range(2):
        # The second time on the scales that leave room for the bias.
        shape = [1] * value.ndim
        shape[axis] = -1
        scale = scale.astype(np.float32)
        codes = np.round(value / scale.reshape(shape))
        codes = np.clip(codes, -_INT8_TOP, _INT8_TOP).astype(np.int8)
        rows = channel_rows(codes, axis)
        fitted = _fitted(rows, scale, uses, "INT8", target, whole)
        scale = np.maximum(scale, fitted.scale)
    return _written(codes, scale, axis, "INT8", granularity, fitted)


def _rounded(ops: Sequence[str], target: Target) -> str | None:
    """The finest granularity of INT8 weights that all operators take."""
    for granularity in ("per_channel", "per_tensor"):
        if all(target.allows(op, "INT8", granularity) for op in ops):
            return granularity
    return None


def fitting_bias(weight: IntegerWeight, use: Use) -> np.ndarray:
    """The bias of a use as the accumulator has room for it."""
    if weight.fitted is None:
        raise ValueError(
            f"{use.op} reads a table, which has no bias. Expected a weight. "
            "Received: a table"
        )
    rows = channel_rows(weight.codes, weight.channels.axis)
    return accumulators.bias(rows, weight.fitted, use)


def integer_bias(
    bias: np.ndarray, scale: np.ndarray, wide: bool, path: str
) -> np.ndarray:
    """Rounds a bias to the grid of an accumulator, of 64 bits if it is wide.

    `scale` is the product of those of input and weight.

    Raises:
        ExportError: If it does not fit.
    """
    units = np.round(bias.astype(np.float64) / scale.astype(np.float64))
    limit = 2.0**46 if wide else 2.0**31 - 1
    if not (np.abs(units) <= limit).all():
        raise ExportError(
            f"Layer '{path}': its weights are too small beside its bias. "
            f"Expected a bias of at most {limit:.2g} units of the "
            f"accumulator. Received: {np.abs(units).max():.2g}"
        )
    return units.astype(np.int64 if wide else np.int32)
