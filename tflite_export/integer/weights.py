"""Integer weights and biases of one operator after the other."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from tflite_export.errors import ExportError
from tflite_export.fit import MUTED_SCALE
from tflite_export.fit import RELATIVE_TOLERANCE
from tflite_export.match import Match
from tflite_export.targets import Target

# An int32 bias beyond this leaves the accumulator no room.
_BIAS_LIMIT = 2**30
_INT8_TOP = 127


@dataclasses.dataclass(frozen=True)
class Use:
    """One operator that reads a weight.

    Attributes:
        op: Name of the operator.
        input_scale: Scale of its activations.
        output_scale: Scale of its output.
        input_top: Largest magnitude of an input, in units.
        bias: Its float bias, `None` for none.
    """

    op: str
    input_scale: float
    output_scale: float
    input_top: int
    bias: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class IntegerWeight:
    """A weight as it goes into the file.

    Attributes:
        codes: Integers in the tensor's shape.
        scale: One scale or one per channel.
        axis: Axis of the scales, `None` for one scale.
        container: Weight type.
        silenced: Channels whose codes were set to zero.
    """

    codes: np.ndarray
    scale: np.ndarray
    axis: int | None
    container: str
    silenced: tuple[int, ...]

    @property
    def granularity(self) -> str:
        """`"per_tensor"` or `"per_channel"`."""
        return "per_tensor" if self.axis is None else "per_channel"

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

    Args:
        match: The weight.
        uses: What reads it.
        axis: Axis along which these operators take scales.
        target: Where it shall run.

    Returns:
        The smallest form that the target's table allows.

    Raises:
        ExportError: If there is none.
    """
    codes, scale = match.codes, match.fit.scale.copy()
    per_channel = match.fit.axis is not None and (scale != scale[0]).any()
    if per_channel and match.fit.axis != axis:
        raise ExportError(
            f"Layer '{match.weight.path}': its scales differ along axis "
            f"{match.fit.axis} of {codes.shape}, and {uses[0].op} takes scales "
            f"along axis {axis}"
        )
    if not per_channel:
        scale = scale[:1]
    silenced: tuple[int, ...] = ()
    if per_channel:
        codes, scale, silenced = _silence(match, codes, scale, axis, uses)
        per_channel = bool((scale != scale[0]).any())
    container, granularity = _container(
        match,
        [use.op for use in uses],
        per_channel,
        codes.shape[axis],
        target,
    )
    if granularity == "per_tensor":
        return IntegerWeight(codes, scale[:1], None, container, silenced)
    scale = np.broadcast_to(scale, codes.shape[axis]).astype(np.float32)
    return IntegerWeight(codes, scale, axis, container, silenced)


def _container(
    match: Match,
    ops: Sequence[str],
    per_channel: bool,
    channels: int,
    target: Target,
) -> tuple[str, str]:
    inputs = match.constant.value.shape[-1]
    # One scale may be written as many equal ones where a kernel wants that.
    choices = ["per_channel"] if per_channel else ["per_tensor", "per_channel"]
    forms = list(
        itertools.product(target.containers_for(match.weight.bits), choices)
    )
    if channels == 1:
        # A kernel takes one scale for one of the whole tensor, whatever was
        # meant, and XNNPACK then fails on INT4 (TensorFlow 2.21).
        forms.sort(key=lambda form: form[1] != "per_tensor")
    for container, granularity in forms:
        if all(target.allows(op, container, granularity, inputs) for op in ops):
            return container, granularity
    kinds = ", ".join(target.containers_for(match.weight.bits))
    remedy = "Leave the layer out of quantize_model (filters=)"
    if per_channel and _rounded(ops, target) == "per_tensor":
        remedy = "Train the layer with LayerConfig(granularity=PerTensor())"
    raise ExportError(
        f"Layer '{match.weight.path}': target '{target.name}' has no evidence "
        f"that {' and '.join(sorted(set(ops)))} runs with {choices[0]} "
        f"{kinds} weights ({target.mode}). {remedy}, or choose another target"
    )


def _silence(
    match: Match,
    codes: np.ndarray,
    scale: np.ndarray,
    axis: int,
    uses: Sequence[Use],
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Sets channels to zero whose scale leaves no room for the bias.

    Their folded factor is zero or so small that nothing they do reaches half
    a unit of the output, whatever the input.
    """
    silent = scale <= MUTED_SCALE
    for use in uses:
        if use.bias is None:
            continue
        units = np.abs(use.bias) / (use.input_scale * scale)
        silent |= units >= _BIAS_LIMIT
    if not silent.any():
        return codes, scale, ()
    rows = np.moveaxis(np.abs(codes.astype(np.int64)), axis, 0)
    reach = rows.reshape(len(scale), -1).sum(axis=1) * scale
    for use in uses:
        units = reach * use.input_scale * use.input_top / use.output_scale
        loud = silent & (units >= 0.5)
        if loud.any():
            channel = int(np.flatnonzero(loud)[0])
            raise ExportError(
                f"Layer '{match.weight.path}', channel {channel}: its scale "
                f"{scale[channel]:.2g} is too small beside its bias for an "
                f"integer accumulator, and its weights reach "
                f"{units[channel]:.2g} units of the output. Check the gamma "
                "and the moving variance of its batch normalization"
            )
    quiet = codes.copy()
    np.moveaxis(quiet, axis, 0)[silent] = 0
    heard = scale[~silent]
    calm = scale.copy()
    calm[silent] = _sane(np.median(heard) if heard.size else 0.0, uses)
    return quiet, calm, tuple(int(k) for k in np.flatnonzero(silent))


def _sane(scale: float, uses: Sequence[Use]) -> np.float32:
    """A scale at which every bias fits."""
    for use in uses:
        if use.bias is not None:
            top = float(np.abs(use.bias).max(initial=0.0))
            scale = max(scale, 2 * top / (use.input_scale * _BIAS_LIMIT))
    return np.float32(scale or 1.0)


def float_weight(
    value: np.ndarray, ops: Sequence[str], axis: int, target: Target
) -> IntegerWeight | None:
    """Rounds a weight that MSQ left in float to 8 bits.

    Args:
        value: The weight.
        ops: What reads it.
        axis: Axis along which these operators take scales.
        target: Where it shall run.

    Returns:
        The weight, `None` where the target's table has no INT8 for it.
    """
    granularity = _rounded(ops, target)
    if granularity is None:
        return None
    per_channel = granularity == "per_channel"
    rest = tuple(k for k in range(value.ndim) if not per_channel or k != axis)
    top = np.atleast_1d(np.abs(value).max(axis=rest))
    known = top[top > 0]
    top = np.where(top > 0, top, np.median(known) if known.size else 1.0)
    scale = (top / _INT8_TOP).astype(np.float32)
    shape = [1] * value.ndim
    shape[axis] = -1
    codes = np.round(value / scale.reshape(shape))
    codes = np.clip(codes, -_INT8_TOP, _INT8_TOP).astype(np.int8)
    return IntegerWeight(
        codes, scale, axis if per_channel else None, "INT8", ()
    )


def _rounded(ops: Sequence[str], target: Target) -> str | None:
    """The finest granularity of INT8 weights that all operators take."""
    for granularity in ("per_channel", "per_tensor"):
        if all(target.allows(op, "INT8", granularity) for op in ops):
            return granularity
    return None


def integer_bias(
    bias: np.ndarray, scale: np.ndarray, wide: bool, path: str
) -> np.ndarray:
    """Rounds a bias to the accumulator's grid.

    Args:
        bias: The float bias.
        scale: Product of the scales of input and weight.
        wide: Whether the accumulator has 64 bits.
        path: Name of the layer, for messages.

    Raises:
        ExportError: If it does not fit.
    """
    units = np.round(bias.astype(np.float64) / scale.astype(np.float64))
    limit = 2.0**39 if wide else float(_BIAS_LIMIT)
    if np.abs(units).max(initial=0) > limit:
        raise ExportError(
            f"Layer '{path}': its bias is {np.abs(units).max():.2g} units of "
            f"the accumulator, expected at most {limit:.2g}. Its weights are "
            "too small beside its bias"
        )
    return units.astype(np.int64 if wide else np.int32)
