"""Fourier transforms of whole axes as products with matrices.

TFLite has no complex numbers but in one transform of its own. The transform of
an axis of known length is a product with its cosines and sines.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

# A matrix of more elements is larger than most models.
_LARGEST = 1 << 22
_Parts = tuple[tf.Tensor, tf.Tensor | None]


class _Complex:
    """A complex tensor by its parts, which is made where its parts won't do.

    An imaginary part of zeros is `None`.
    """

    def __init__(self, parts: _Parts, made: Callable[[], tf.Tensor]):
        self.parts = parts
        self._made = made

    def __tf_tensor__(self, dtype: Any = None, name: Any = None) -> tf.Tensor:
        return self._made()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made(), name)


@contextlib.contextmanager
def by_matrices() -> Iterator[None]:
    """A scope to trace layers in."""
    complex_, real, imag = tf.dtypes.complex, tf.math.real, tf.math.imag
    fft, fft2d = tf.signal.fft, tf.signal.fft2d

    def made(re: Any, im: Any, name: str | None = None) -> Any:
        original = lambda: complex_(re, im, name)  # noqa: E731
        if not _known(re) or not _known(im):
            return original()
        zeros = im.op.type == "ZerosLike"
        return _Complex((re, None if zeros else im), original)

    def part(original: Callable[..., Any], place: int) -> Callable[..., Any]:
        def of(x: Any, name: str | None = None) -> tf.Tensor:
            if not isinstance(x, _Complex):
                return original(x, name)
            found = x.parts[place]
            return tf.zeros_like(x.parts[0]) if found is None else found

        return of

    def transform(
        original: Callable[..., Any], axes: int
    ) -> Callable[..., Any]:
        def of(x: Any, name: str | None = None) -> Any:
            if not isinstance(x, _Complex):
                return original(x, name)
            lengths = x.parts[0].shape[-axes:]
            if len(lengths) < axes or not all(map(_fits, lengths)):
                return original(tf.convert_to_tensor(x), name)
            parts = _last(x.parts)
            if axes == 2:
                parts = _turned(_last(_turned(parts)))
            return _Complex(parts, lambda: complex_(*_whole(parts)))

        return of

    tf.dtypes.complex, tf.complex = made, made
    tf.math.real, tf.math.imag = part(real, 0), part(imag, 1)
    tf.signal.fft, tf.signal.fft2d = transform(fft, 1), transform(fft2d, 2)
    try:
        yield
    finally:
        tf.dtypes.complex, tf.complex = complex_, complex_
        tf.math.real, tf.math.imag = real, imag
        tf.signal.fft, tf.signal.fft2d = fft, fft2d


def _known(x: Any) -> bool:
    return (
        isinstance(x, tf.Tensor)
        and hasattr(x, "op")
        and x.dtype == tf.float32
        and x.shape.rank is not None
    )


def _fits(length: int | None) -> bool:
    return length is not None and length * length <= _LARGEST


def _last(parts: _Parts) -> _Parts:
    """The transform of the last axis."""
    re, im = parts
    length = re.shape[-1]
    # Of whole turns only the rest counts, and float64 has it exactly.
    turns = np.outer(range(length), range(length)) % length / length
    cosines = np.cos(2 * np.pi * turns).astype(np.float32)
    sines = np.sin(2 * np.pi * turns).astype(np.float32)
    if im is None:
        return _product(re, cosines), _product(re, -sines)
    return (
        _product(re, cosines) + _product(im, sines),
        _product(im, cosines) - _product(re, sines),
    )


def _product(x: tf.Tensor, matrix: np.ndarray) -> tf.Tensor:
    return tf.tensordot(x, tf.constant(matrix), [[-1], [0]])


def _turned(parts: _Parts) -> _Parts:
    re, im = parts
    turn = tf.linalg.matrix_transpose
    return turn(re), None if im is None else turn(im)


def _whole(parts: _Parts) -> tuple[tf.Tensor, tf.Tensor]:
    re, im = parts
    return re, tf.zeros_like(re) if im is None else im
