"""Images taken apart, and resized with wide filters.

TFLite has no operator for either. Patches that do not overlap are the pixels in
another order. Filters that are the same in each row and each column are two
matrices; what TensorFlow makes of an identity matrix is the filter.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

_KERAS = "keras.src.ops.image"
# Keras's function for images, by the names it has had.
_NAMES = ("_extract_patches_2d", "_extract_patches")
# Filters that TFLite has.
_OPERATORS = ("bilinear", "nearest")


def replacements() -> list[tuple[Any, str, Callable[..., Any]]]:
    """Lists modules, names in them, and what to find there while tracing."""
    found: list[tuple[Any, str, Callable[..., Any]]] = [
        (tf.image, "resize", _resize(tf.image.resize)),
        (
            tf.image,
            "extract_patches",
            _extract_patches(tf.image.extract_patches),
        ),
    ]
    keras = sys.modules.get(_KERAS)
    name = next((n for n in _NAMES if hasattr(keras, n)), None)
    if name is not None:
        found.append((keras, name, _keras_patches(getattr(keras, name))))
    return found


def _keras_patches(original: Callable[..., Any]) -> Callable[..., Any]:
    def patches(
        images: Any,
        size: Any,
        strides: Any = None,
        dilation_rate: Any = 1,
        padding: str = "valid",
        data_format: str | None = None,
    ) -> Any:
        given = (size, strides, dilation_rate, padding, data_format)
        if data_format == "channels_first" or np.any(
            np.not_equal(dilation_rate, 1)
        ):
            return original(images, *given)
        sizes, steps = _pair(size), _pair(strides or size)
        apart = _apart(images, sizes, steps, padding)
        return original(images, *given) if apart is None else apart

    return patches


def _extract_patches(original: Callable[..., Any]) -> Callable[..., Any]:
    def extract_patches(
        images: Any,
        sizes: Sequence[int],
        strides: Sequence[int],
        rates: Sequence[int],
        padding: str,
        name: str | None = None,
    ) -> Any:
        if all(rate == 1 for rate in rates):
            images = tf.convert_to_tensor(images)
            size, step = list(sizes[1:3]), list(strides[1:3])
            with tf.name_scope(name or "extract_patches"):
                apart = _apart(images, size, step, padding.lower())
                if apart is not None:
                    return apart
                return _by_convolution(images, size, step, padding)
        return original(images, sizes, strides, rates, padding, name)

    return extract_patches


def _pair(value: Any) -> list[int]:
    sizes = [int(size) for size in np.ravel(value)]
    return sizes * 2 if len(sizes) == 1 else sizes


def _apart(
    images: Any, sizes: Sequence[int], steps: Sequence[int], padding: str
) -> tf.Tensor | None:
    """Patches side by side; `None` where they overlap or leave pixels out."""
    images = tf.convert_to_tensor(images)
    if images.shape.rank != 4 or list(sizes) != list(steps):
        return None
    height, width, channels = images.shape[1:]
    if None in (height, width, channels):
        return None
    (high, wide), rows = sizes, height // sizes[0]
    columns = width // wide
    if height % high or width % wide:
        if padding != "valid" or not rows or not columns:
            return None
        images = images[:, : rows * high, : columns * wide]
    # With four axes, as more are too many for some runtimes.
    x = tf.reshape(images, (-1, high, columns, wide * channels))
    x = tf.transpose(x, (0, 2, 1, 3))
    return tf.reshape(x, (-1, rows, columns, high * wide * channels))


def _by_convolution(
    images: tf.Tensor, sizes: Sequence[int], steps: Sequence[int], padding: str
) -> tf.Tensor:
    channels = images.shape[-1]
    count = sizes[0] * sizes[1] * channels
    kernel = np.eye(count, dtype=images.dtype.as_numpy_dtype)
    kernel = kernel.reshape(*sizes, channels, count)
    return tf.nn.conv2d(images, kernel, list(steps), padding)


def _resize(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def resize(
        images: Any,
        size: Any,
        method: Any = "bilinear",
        preserve_aspect_ratio: bool = False,
        antialias: bool = False,
        name: str | None = None,
    ) -> Any:
        images = tf.convert_to_tensor(images)
        target = tf.get_static_value(size)
        has_operator = method in _OPERATORS and not (
            antialias and method == "bilinear"
        )
        if (
            has_operator
            or preserve_aspect_ratio
            or target is None
            or images.shape.rank != 4
            or None in images.shape[1:3]
        ):
            return original(
                images, size, method, preserve_aspect_ratio, antialias, name
            )
        with tf.name_scope(name or "resize"):
            x = tf.cast(images, tf.float32)
            for axis, length in enumerate(map(int, target), start=1):
                x = _along(x, axis, length, original, method, antialias)
            return x

    return resize


def _along(
    x: tf.Tensor,
    axis: int,
    length: int,
    resize: Callable[..., Any],
    method: Any,
    antialias: bool,
) -> tf.Tensor:
    """An image resized along one axis, which is the last one on the way."""
    with tf.init_scope():
        # Column i is what becomes of pixel i.
        pixels = np.eye(x.shape[axis], dtype=np.float32)[None, :, None]
        found = resize(pixels, (length, 1), method, antialias=antialias)
        matrix = np.asarray(found)[0, :, 0]
    order = [0, 1, 2, 3]
    order[axis], order[3] = 3, axis
    x = tf.transpose(x, order)
    x = tf.tensordot(x, np.ascontiguousarray(matrix.T), 1)
    return tf.transpose(x, order)
