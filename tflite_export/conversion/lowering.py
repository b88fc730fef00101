"""Functions in a form that the converter has operators for."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tflite_export.conversion import fourier
from tflite_export.conversion import functions
from tflite_export.conversion import images
from tflite_export.conversion import volumes


@contextlib.contextmanager
def lowered(erf: bool = False) -> Iterator[None]:
    """A scope to trace layers in.

    `tf.roll` is traced as slices and concatenations, `tf.map_fn` as one
    computation, 3-D pooling as pooling along two axes and then along the third,
    and the rest as the modules `volumes`, `fourier`, `functions` and `images`
    have it. What shall be compiled by itself (Keras has grouped convolutions
    compiled, for gradients) becomes part of the graph, which a function would
    not. Layers call all these themselves, so that they are exchanged in the
    modules where layers find them while the scope is open.

    Args:
        erf: As for `functions.replacements`.
    """
    with contextlib.ExitStack() as stack:
        for module, name, function in (
            (tf, "roll", _roll(tf.roll)),
            (tf, "function", _function(tf.function)),
            (tf, "map_fn", _map(tf.map_fn)),
            (tf.nn, "max_pool", _pool(tf.nn.max_pool)),
            (tf.nn, "avg_pool", _pool(tf.nn.avg_pool)),
            (tf.nn, "convolution", volumes.convolution(tf.nn.convolution)),
            (tf.nn, "bias_add", volumes.bias_add(tf.nn.bias_add)),
            *functions.replacements(erf),
            *images.replacements(),
        ):
            stack.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, function)
        with fourier.by_matrices():
            yield


def _function(original: Callable[..., Any]) -> Callable[..., Any]:
    def function(func=None, *args, jit_compile=None, **options):
        if not jit_compile:
            return original(func, *args, jit_compile=jit_compile, **options)
        return func if func is not None else lambda found: found

    return function


def _map(original: Callable[..., Any]) -> Callable[..., Any]:
    """A function of one sample at a time, as one of all of them.

    The converter needs a known batch size for a loop over samples.
    """

    def map_fn(fn, elems, *args, **options):
        try:
            return tf.vectorized_map(fn, elems, fallback_to_while_loop=False)
        # What it can't do at once it says in several ways.
        except (ValueError, TypeError, NotImplementedError):
            return original(fn, elems, *args, **options)

    return map_fn


def _roll(original: Callable[..., Any]) -> Callable[..., Any]:
    def roll(input, shift, axis, name=None):  # noqa: A002 (as in TensorFlow)
        x = tf.convert_to_tensor(input)
        shifts = _known(shift)
        axes = _known(axis)
        sizes = x.shape
        if shifts is None or axes is None or sizes.rank is None:
            return original(x, shift, axis, name)
        if any(sizes[place] is None for place in axes):
            return original(x, shift, axis, name)
        with tf.name_scope(name or "roll"):
            for by, place in zip(shifts, axes, strict=True):
                x = _rolled(x, by % sizes[place], place % sizes.rank)
            return x

    return roll


def _pool(original: Callable[..., Any]) -> Callable[..., Any]:
    """Maxima of maxima, or means of means of equally many numbers."""

    def pool(
        input,  # noqa: A002 (as in TensorFlow)
        ksize,
        strides,
        padding,
        data_format=None,
        name=None,
    ):
        x = tf.convert_to_tensor(input)
        sizes, moves = _triple(ksize), _triple(strides)
        if (
            x.shape.rank != 5
            or data_format not in {None, "NDHWC"}
            or None in x.shape[1:]
            or sizes is None
            or moves is None
            or not isinstance(padding, str)
        ):
            return original(x, ksize, strides, padding, data_format, name)
        (deep, *kernel), (far, *steps) = sizes, moves
        depth, *image, channels = x.shape[1:]
        with tf.name_scope(name or "pool"):
            x = tf.reshape(x, (-1, *image, channels))
            x = original(x, kernel, steps, padding)
            image = x.shape[1:3]
            x = tf.reshape(x, (-1, depth, math.prod(image), channels))
            x = original(x, (deep, 1), (far, 1), padding)
            return tf.reshape(x, (-1, x.shape[1], *image, channels))

    return pool


def _triple(value: Any) -> list[int] | None:
    """A size along depth, height and width; `None` where it is for others."""
    sizes = np.ravel(value).tolist()
    if len(sizes) == 5 and sizes[0] == sizes[-1] == 1:
        sizes = sizes[1:-1]
    sizes = sizes * 3 if len(sizes) == 1 else sizes
    return sizes if len(sizes) == 3 else None


def _known(value: Any) -> list[int] | None:
    """Integers that are known while tracing."""
    if isinstance(value, tf.Tensor):
        value = tf.get_static_value(value)
    return None if value is None else np.atleast_1d(value).tolist()


def _rolled(x: tf.Tensor, by: int, axis: int) -> tf.Tensor:
    if by == 0:
        return x
    front = (slice(None),) * axis
    parts = (x[(*front, slice(-by, None))], x[(*front, slice(None, -by))])
    return tf.concat(parts, axis)
