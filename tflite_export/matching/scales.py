"""Proof that a float tensor is known codes times a factor per channel.

Batch normalization that follows a layer is folded into its weights by the
converter, so a tensor in the file is `codes * r` with one signed factor `r`
per channel (or one in all). `fit` finds the factors and checks every element.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# Folding multiplies in float32, a few roundings of half an ulp each. One step
# of the widest grid changes a weight by 1/127, four orders of magnitude more,
# so that a wrong code can't hide in this tolerance.
RELATIVE_TOLERANCE = 8 * 2.0**-23
# Below this, float32 has no more relative precision to speak of.
_ABSOLUTE_TOLERANCE = 2.0**-120
# Scale of a channel whose folded factor is zero: codes stay readable, no
# output moves, and runtimes that want a normal positive scale accept it.
MUTED_SCALE = np.float32(2.0**-100)
# Elements that are in memory in float64, several times; all of a large table
# would take more than the rest of its export.
_AT_ONCE = 1 << 20


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """A tensor explained as `codes * signs * scale`.

    Attributes:
        axis: Axis of the tensor along which the factors differ, `None` for
            one factor.
        scale: float32 vector, positive; one entry per channel or one.
        signs: int8 vector of +1 and -1, as long as `scale`.
        exact: Whether the trained steps reproduce the tensor bit for bit.
        residual: Largest error relative to the largest weight.
        dead: Channels whose codes are all zero.
        muted: Channels whose codes are not zero but whose factor is.
        columns: Factors along the last axis that are no part of the stored
            weight, see `input_scales`; `None` for none.
    """

    axis: int | None
    scale: np.ndarray
    signs: np.ndarray
    exact: bool
    residual: float
    dead: int
    muted: int
    columns: np.ndarray | None = None

    def along(self, values: np.ndarray, rank: int) -> np.ndarray:
        """Reshapes a vector of this fit to broadcast over the tensor."""
        if self.axis is None:
            return values.reshape((1,) * rank)
        shape = [1] * rank
        shape[self.axis] = -1
        return values.reshape(shape)


def fit(
    tensor: np.ndarray, codes: np.ndarray, step: np.ndarray | None
) -> Fit | None:
    """Explains a tensor by codes with the fewest factors, or returns `None`.

    Args:
        tensor: float32 array from the file.
        codes: Codes laid out in the tensor's shape: integers, or the values
            of a float weight.
        step: Trained step broadcast to the tensor's shape, if there is one.
    """
    if not zeros_agree(tensor, codes):
        return None
    for axis in (None, *_long_axes(tensor.shape)):
        found = fit_axis(tensor, codes, step, axis)
        if found is not None:
            return found
    return None


def residual(tensor: np.ndarray, codes: np.ndarray) -> tuple[float, int | None]:
    """Smallest error that factors along one axis leave, and that axis.

    The largest, relative to the largest weight.
    """
    best: tuple[float, int | None] = (np.inf, None)
    for axis in (None, *_long_axes(tensor.shape)):
        _, _, factor = _least_squares(tensor, codes, axis)
        error = top = 0.0
        for part in _parts(tensor.shape, axis):
            rows, known = _rows(tensor, part), _rows(codes, part)
            product = known * factor[part.channels][:, None]
            error = max(error, _largest(rows - product))
            top = max(top, _largest(rows))
        if error / (top or 1.0) < best[0]:
            best = (error / (top or 1.0), axis)
    return best


def fit_axis(
    tensor: np.ndarray,
    codes: np.ndarray,
    step: np.ndarray | None,
    axis: int | None,
) -> Fit | None:
    """`fit` with factors along one given axis, or one factor for `None`."""
    alive, heard, fitted = _least_squares(tensor, codes, axis)
    muted = alive & ~heard
    trained = _trained_factor(tensor, codes, step, axis)
    exact = trained is not None and not muted.any()
    factor = fitted.astype(np.float32) if trained is None else trained
    error = top = 0.0
    for part in _parts(tensor.shape, axis):
        rows, known = _rows(tensor, part), _rows(codes, part)
        zero = known == 0
        zero[muted[part.channels]] = True
        product = known * factor[part.channels].astype(np.float64)[:, None]
        if not np.array_equal(rows == 0, zero) or not close(rows, product):
            return None
        error = max(error, _largest(rows - product))
        top = max(top, _largest(rows))
    scale = np.abs(factor)
    scale[muted] = MUTED_SCALE
    used = alive & ~muted
    if used.any():
        scale[~alive] = np.median(scale[used])
    elif not muted.any():
        scale[:] = _sane_step(step)
    if not (np.isfinite(scale).all() and (scale >= MUTED_SCALE).all()):
        return None
    return Fit(
        axis=axis,
        scale=scale,
        signs=np.where(factor < 0, -1, 1).astype(np.int8),
        exact=exact,
        residual=error / (top or 1.0),
        dead=int((~alive).sum()),
        muted=int(muted.sum()),
    )


def _trained_factor(
    tensor: np.ndarray,
    codes: np.ndarray,
    step: np.ndarray | None,
    axis: int | None,
) -> np.ndarray | None:
    """The trained steps, if there is one a channel and the tensor is theirs."""
    if step is None:
        return None
    found = np.zeros(1 if axis is None else tensor.shape[axis], np.float32)
    for number, part in enumerate(_parts(tensor.shape, axis)):
        steps = _rows(step, part, np.float32)
        if axis is not None or number == 0:
            found[part.channels] = steps[:, 0]
        if (steps != found[part.channels][:, None]).any():
            return None
        product = _rows(codes, part, np.float32) * steps
        if not np.array_equal(product, _rows(tensor, part, np.float32)):
            return None
    return found


def _least_squares(
    tensor: np.ndarray, codes: np.ndarray, axis: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each channel, whether codes and elements are not all zero; its factor.

    The factor is a float64, zero where the codes are.
    """
    count = 1 if axis is None else tensor.shape[axis]
    alive, heard = np.zeros(count, bool), np.zeros(count, bool)
    power, shared = np.zeros(count), np.zeros(count)
    for part in _parts(tensor.shape, axis):
        rows, known = _rows(tensor, part), _rows(codes, part)
        alive[part.channels] |= known.any(axis=1)
        heard[part.channels] |= rows.any(axis=1)
        power[part.channels] += (known * known).sum(axis=1)
        shared[part.channels] += (rows * known).sum(axis=1)
    return alive, heard, shared / np.where(power == 0, 1, power)


class _Part(NamedTuple):
    """Elements of a tensor that are looked at together.

    Attributes:
        taken: Where they are.
        axis: The axis of the factors, `None` for one factor.
        channels: The factors that they have.
    """

    taken: tuple[slice, ...]
    axis: int | None
    channels: slice


def _parts(shape: tuple[int, ...], axis: int | None) -> Iterator[_Part]:
    """A tensor in parts of about `_AT_ONCE` elements, in order."""
    if not shape:
        yield _Part((), axis, slice(0, 1))
        return
    along = int(np.argmax(shape)) if axis is None else axis
    length = shape[along]
    size = max(1, _AT_ONCE * length // max(math.prod(shape), 1))
    for start in range(0, length, size):
        taken = slice(start, start + size)
        index = (*(slice(None),) * along, taken)
        yield _Part(index, axis, slice(0, 1) if axis is None else taken)


def _rows(
    array: np.ndarray, part: _Part, dtype: type = np.float64
) -> np.ndarray:
    """The elements of a part, a row for each factor."""
    taken = array[part.taken]
    if part.axis is None:
        return taken.astype(dtype).reshape(1, -1)
    taken = np.moveaxis(taken, part.axis, 0)
    return taken.astype(dtype, order="C").reshape(len(taken), -1)


def _long_axes(shape: tuple[int, ...]) -> list[int]:
    return [axis for axis, length in enumerate(shape) if length > 1]


def zeros_agree(tensor: np.ndarray, codes: np.ndarray) -> bool:
    """Whether elements are zero where codes are: `fit` wants it of all."""
    # A zero code is a zero weight; the converse fails in muted channels only,
    # which the fit along an axis sorts out.
    return not (tensor[codes == 0] != 0).any()


def close(rows: np.ndarray, product: np.ndarray) -> bool:
    """Whether every element agrees up to a few float32 roundings."""
    limit = RELATIVE_TOLERANCE * np.abs(rows) + _ABSOLUTE_TOLERANCE
    return bool((np.abs(rows - product) <= limit).all())


def relative(rows: np.ndarray, product: np.ndarray) -> float:
    """Largest error relative to the largest element."""
    top = np.abs(rows).max(initial=0.0)
    return float(np.abs(rows - product).max(initial=0.0) / (top or 1.0))


def _largest(values: np.ndarray) -> float:
    """The largest absolute value."""
    return float(np.abs(values).max(initial=0.0))


def _sane_step(step: np.ndarray | None) -> np.float32:
    return np.float32(1.0) if step is None else np.float32(np.median(step))
