"""Proof that a float tensor is known codes times a factor per channel.

Batch normalization that follows a layer is folded into its weights by the
converter, so a tensor in the file is `codes * r` with one signed factor `r`
per channel (or one in all). `fit` finds the factors and checks every element.
"""

from __future__ import annotations

import dataclasses

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
        rows, known = _rows(tensor, axis), _rows(codes, axis)
        error = relative(rows, known * _least_squares(rows, known)[:, None])
        if error < best[0]:
            best = (error, axis)
    return best


def fit_axis(
    tensor: np.ndarray,
    codes: np.ndarray,
    step: np.ndarray | None,
    axis: int | None,
) -> Fit | None:
    """`fit` with factors along one given axis, or one factor for `None`."""
    rows, known = _rows(tensor, axis), _rows(codes, axis)
    alive = known.any(axis=1)
    muted = alive & ~rows.any(axis=1)
    heard = ~muted
    if not np.array_equal(rows[heard] == 0, known[heard] == 0):
        return None
    factor = _trained_factor(tensor, codes, step, axis)
    exact = factor is not None and not muted.any()
    if factor is None:
        factor = _least_squares(rows, known).astype(np.float32)
    product = known * factor.astype(np.float64)[:, None]
    if not close(rows, product):
        return None
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
        residual=relative(rows, product),
        dead=int((~alive).sum()),
        muted=int(muted.sum()),
    )


def _trained_factor(
    tensor: np.ndarray,
    codes: np.ndarray,
    step: np.ndarray | None,
    axis: int | None,
) -> np.ndarray | None:
    if step is None:
        return None
    steps = _rows(step, axis, np.float32)
    if (steps != steps[:, :1]).any():
        return None
    product = codes.astype(np.float32) * step
    return steps[:, 0].copy() if np.array_equal(product, tensor) else None


def _least_squares(rows: np.ndarray, known: np.ndarray) -> np.ndarray:
    power = (known * known).sum(axis=1)
    return (rows * known).sum(axis=1) / np.where(power == 0, 1, power)


def _rows(
    array: np.ndarray, axis: int | None, dtype: type = np.float64
) -> np.ndarray:
    wide: np.ndarray = array.astype(dtype)
    if axis is None:
        return wide.reshape(1, -1)
    return np.moveaxis(wide, axis, 0).reshape(array.shape[axis], -1)


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


def _sane_step(step: np.ndarray | None) -> np.float32:
    return np.float32(1.0) if step is None else np.float32(np.median(step))
