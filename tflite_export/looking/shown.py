"""Samples as a page shows them: pictures, curves, tokens, numbers."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from msq_tf.page.records import Shown

# Longest side of a picture in the page, in pixels.
_SIDE = 96
# Curves of one input, points of one, tokens, and numbers, that are shown.
_CURVES, _POINTS, _TOKENS, _NUMBERS = 6, 256, 200, 40
# An axis from this length is a signal.
_SIGNAL = 16


def shown(
    name: str,
    data: np.ndarray,
    number: int,
    words: Sequence[str] | None = None,
) -> Shown:
    """One sample of an input.

    Args:
        name: Name of the input.
        data: The input, samples along the first axis.
        number: Which sample.
        words: Words of the tokens by their id, where they are known.
    """
    sample = np.asarray(data[number])
    shape = tuple(map(int, sample.shape))
    if sample.ndim == 3 and shape[-1] in (1, 3, 4) and min(shape[:2]) > 3:
        return _picture(name, sample, shape, _limits(data))
    if sample.ndim == 2 and min(shape) > 7 and sample.dtype.kind in "fu":
        if max(shape) <= 4 * min(shape):
            return _picture(name, sample[..., None], shape, _limits(data))
    if sample.dtype.kind in "iub" and sample.ndim <= 1:
        return _tokens(name, sample.ravel(), shape, words)
    if sample.ndim in (1, 2) and shape[0] >= _SIGNAL:
        return _curves(name, sample.reshape(shape[0], -1), shape)
    flat = sample.ravel()
    return Shown(
        name=name,
        form="numbers",
        shape=shape,
        data=[_number(value) for value in flat[:_NUMBERS]],
        note=_rest(flat.size, _NUMBERS),
    )


def _limits(data: np.ndarray) -> tuple[float, float]:
    """Values of black and white: those of the range that images come in."""
    if data.dtype.kind in "iu":
        return 0.0, 255.0
    finite = data[np.isfinite(data)]
    low = float(finite.min()) if finite.size else 0.0
    high = float(finite.max()) if finite.size else 1.0
    for ends in ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)):
        if ends[0] <= low and high <= ends[1]:
            return ends
    return low, high


def _picture(
    name: str,
    sample: np.ndarray,
    shape: tuple[int, ...],
    limits: tuple[float, float],
) -> Shown:
    step = -(-max(sample.shape[:2]) // _SIDE)
    small = sample[::step, ::step].astype(np.float64)
    low, high = limits
    small = np.nan_to_num((small - low) / max(high - low, 1e-12), nan=0.0)
    pixels = np.clip(np.round(255 * small), 0, 255).astype(np.uint8)
    if pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, axis=-1)
    if pixels.shape[-1] == 3:
        opaque = np.full((*pixels.shape[:2], 1), 255, np.uint8)
        pixels = np.concatenate([pixels, opaque], axis=-1)
    return Shown(
        name=name,
        form="picture",
        shape=shape,
        data=base64.b64encode(pixels.tobytes()).decode("ascii"),
        width=pixels.shape[1],
        height=pixels.shape[0],
        note=f"one pixel of {step}" if step > 1 else "",
    )


def _curves(name: str, sample: np.ndarray, shape: tuple[int, ...]) -> Shown:
    step = -(-len(sample) // _POINTS)
    count = sample.shape[1]
    return Shown(
        name=name,
        form="curves",
        shape=shape,
        data=[
            [_number(value) for value in sample[::step, k]]
            for k in range(min(count, _CURVES))
        ],
        note=", ".join(
            [f"one point of {step}"] * (step > 1)
            + [f"{count - _CURVES} more channels"] * (count > _CURVES)
        ),
    )


def _tokens(
    name: str,
    sample: np.ndarray,
    shape: tuple[int, ...],
    words: Sequence[str] | None,
) -> Shown:
    listed = [int(value) for value in sample[:_TOKENS]]
    known = len(words) if words is not None else 0
    told = [
        str(words[k])[:40] if words is not None and 0 <= k < known else str(k)
        for k in listed
    ]
    return Shown(
        name=name,
        form="tokens",
        shape=shape,
        data=told,
        note=_rest(sample.size, _TOKENS),
    )


def _rest(size: int, listed: int) -> str:
    return f"and {size - listed:,} more" if size > listed else ""


def _number(value: Any) -> float | None:
    """Five digits: more are not seen, and take room."""
    value = float(value)
    return float(f"{value:.5g}") if np.isfinite(value) else None
