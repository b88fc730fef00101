"""Inputs with columns that one grid can't hold.

A model normalizes a table of ages, prices and rates column by column. An
integer tensor has one grid for all columns, as wide as the widest. A column
that is small beside that, or varies little beside its own mean, would vanish
before the normalization. Training does not round such an input. On targets with
float operators, a file normalizes it in float and rounds the result.

An input that nothing normalizes is rounded, in training, too. The first `fit`
on arrays warns of columns that are lost. A data set is not read for this alone;
a search or `calibrate`, which read it anyway, warn of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from msq_tf.keras3.flow import Trace
from msq_tf.rules import target_limits

# Standard deviations on both sides of a mean that a range holds.
_REACH = 4.0
# Units that a standard deviation needs: rounding is 14% of it then.
_LEAST_UNITS = 2.0
# Rows of data that are looked at; fewer than the least say nothing.
_ROWS = 1024
_LEAST_ROWS = 16
# Of the rest of a column, which lies between these percentiles.
_MOST = (1.0, 99.0)
# Units that it should span. Two bits are left of it then.
_LEAST_SPAN = 4.0
# Share of a column's variance that codes have to tell, as those do that are
# spread evenly over so many units. A flag of two values needs fewer.
_LEAST_TOLD = 15.0 / 16.0
# More columns are pixels or features, of one scale by nature.
_MOST_COLUMNS = 64
# Columns that a message names.
_NAMED = 8


def narrow(tensor: Any, found: Trace, bits: int) -> list[int]:
    """Columns of an input that vary by less than a grid of all resolves.

    None where something reads the input that does not normalize it.
    """
    readers = [call.layer for call in found.readers(tensor)]
    return lost_by(readers, keras.layers, bits)


def lost_by(readers: Iterable[Any], kinds: Any, bits: int) -> list[int]:
    """The same of an input that these layers read; `kinds` as in `lost_in`."""
    lost: set[int] = set()
    for layer in readers:
        here = lost_in(layer, kinds, bits)
        if here is None:
            return []
        lost.update(here)
    return sorted(lost)


def lost_in(layer: Any, kinds: Any, bits: int) -> list[int] | None:
    """Columns of what a layer normalizes that a grid does not resolve.

    `None` of a layer that does not normalize. `kinds` is the `layers` of the
    Keras that it is of.
    """
    moments = _moments(layer, kinds)
    return None if moments is None else _below(moments, bits)


class _Moments(NamedTuple):
    """Mean and deviation of columns, and which of them are always zero."""

    mean: np.ndarray
    deviation: np.ndarray
    idle: np.ndarray


def _moments(layer: Any, kinds: Any) -> _Moments | None:
    """What a layer takes for the moments of its input; else `None`."""
    if isinstance(layer, kinds.Normalization) and not layer.invert:
        mean, variance = _array(layer.mean), _array(layer.variance)
        deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
        idle = (mean == 0) & (variance == 0)
    elif isinstance(layer, kinds.BatchNormalization):
        mean = _array(layer.moving_mean)
        variance = _array(layer.moving_variance)
        deviation = np.sqrt(variance + layer.epsilon)
        idle = (mean == 0) & (variance == 0)
    elif isinstance(layer, kinds.Rescaling):
        scale, offset = np.broadcast_arrays(
            _array(layer.scale), _array(layer.offset)
        )
        idle = scale == 0
        deviation = 1.0 / np.where(idle, 1.0, np.abs(scale))
        mean = -offset * deviation * np.sign(scale)
    else:
        return None
    arrays = np.broadcast_arrays(mean, deviation, idle)
    return _Moments(*(array.ravel() for array in arrays))


def _array(values: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(values), np.float64)


def _below(found: _Moments, bits: int) -> list[int]:
    mean, deviation, idle = found
    counts = np.isfinite(mean) & np.isfinite(deviation) & ~idle
    if not counts.any():
        return []
    low = min(0.0, (mean - _REACH * deviation)[counts].min())
    high = max(0.0, (mean + _REACH * deviation)[counts].max())
    unit = (high - low) / (2.0**bits - 1.0)
    if bits == 16:
        unit = max(-low, high) / (2.0**15 - 1.0)
    lost = counts & (deviation < _LEAST_UNITS * unit)
    return np.flatnonzero(lost).tolist()


def warn_of_devices(
    narrow: Sequence[int],
    position: int,
    bits: int,
    targets: Sequence[str],
    stacklevel: int,
) -> None:
    """Warns of an input whose columns no grid holds, if a device needs one.

    Args:
        narrow: Columns that `narrow` found.
        position: Number of the input.
        bits: Bits of activations.
        targets: Names of export targets.
        stacklevel: As of `warnings.warn`, of the caller.
    """
    devices = [
        name
        for name in targets
        if not target_limits.TARGETS[name].float_regions
    ]
    if narrow and devices:
        warnings.warn(
            f"Columns {list(narrow)} of input {position} vary by less than one "
            "grid for all of its columns resolves, and "
            f"{' and '.join(map(repr, devices))} can't normalize in float. "
            "Expected inputs that are normalized before the model: "
            "quantize the layers behind the normalization. Received: "
            f"activation_bits={bits}, targets={tuple(targets)!r}",
            UserWarning,
            stacklevel=stacklevel + 1,
        )


def warn_of_data(arrays: Mapping[int, Any], bits: int, stacklevel: int) -> bool:
    """Warns of columns of given inputs that one grid loses.

    Args:
        arrays: Inputs that are rounded on the way in, by their number.
        bits: Bits of their codes.
        stacklevel: As of `warnings.warn`, of the caller.

    Returns:
        Whether there are any.
    """
    told = False
    for position, array in arrays.items():
        lost, spans = _lost_of(array, bits)
        if not lost:
            continue
        told = True
        more = f" and {len(lost) - _NAMED} more" * (len(lost) > _NAMED)
        warnings.warn(
            f"Columns {lost[:_NAMED]}{more} of input {position} are next to "
            f"nothing beside the others: all share one grid of {bits} bits, "
            f"and these span fewer than {_LEAST_SPAN:g} of its steps. Expected "
            "columns of like size: normalize the data before the model, or "
            "begin the model with an adapted Normalization layer, which files "
            "for CPUs compute in float and devices cannot (`targets=` of a "
            "configuration or scheme tells before training). Received: "
            f"columns that span {spans[lost].min():.3g} to {spans.max():.3g}",
            UserWarning,
            stacklevel=stacklevel + 1,
        )
    return told


def _lost_of(array: Any, bits: int) -> tuple[list[int], np.ndarray]:
    """Columns of a table, or of series, that one grid loses; and all spans."""
    nothing: tuple[list[int], np.ndarray] = [], np.zeros(0)
    if hasattr(array, "to_numpy"):  # a table of pandas
        array = array.to_numpy()
    elif isinstance(array, tf.Tensor) and hasattr(array, "numpy"):
        array = array.numpy()
    if not isinstance(array, np.ndarray) or isinstance(array, np.memmap):
        return nothing
    if (
        array.ndim not in (2, 3)
        or array.dtype.kind not in "iuf"
        or not 1 < array.shape[-1] <= _MOST_COLUMNS
        or len(array) < _LEAST_ROWS
    ):
        return nothing
    rows = array[:: -(-len(array) // _ROWS)].reshape(-1, array.shape[-1])
    if array.dtype.kind == "f" and not np.isfinite(rows).all():
        return nothing  # `fit` tells of these
    rows = rows.astype(np.float64)
    low, high = np.percentile(rows, _MOST, axis=0)
    spans = high - low
    unit = (max(0.0, high.max()) - min(0.0, low.min())) / (2.0**bits - 1.0)
    # A column that is always the same has nothing to lose.
    small = (spans > 0.0) & (spans < _LEAST_SPAN * unit)
    lost = [i for i in np.flatnonzero(small) if _loses(rows[:, i], unit)]
    return [int(i) for i in lost], spans


def _loses(column: np.ndarray, unit: float) -> bool:
    """Whether the codes of a column no longer tell what it was."""
    # What is mostly one value is as large as the rest of it.
    usual = np.median(column)
    rest = column[column != usual]
    low, high = np.percentile(np.append(rest, usual), _MOST)
    if high - low >= _LEAST_SPAN * unit:
        return False
    if high - low < unit:
        return True
    values = np.clip(column, low, high)
    codes = np.round(values / unit)
    if not np.ptp(codes):
        return True
    return bool(np.corrcoef(values, codes)[0, 1] ** 2 < _LEAST_TOLD)
