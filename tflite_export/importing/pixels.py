"""Operators that resize images, or move numbers between pixels and channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from msq_tf.keras3.sampled_resize import SampledResize
from tflite_export.importing.operator import NeedsFixedBatch
from tflite_export.importing.operator import Operator

layers = keras.layers
ops = keras.ops


def resize(op: Operator) -> Any:
    """RESIZE_BILINEAR and RESIZE_NEAREST_NEIGHBOR.

    Keras's own layers sample at the centers of pixels. What samples elsewhere
    is a layer of this project.
    """
    rows, columns = op.integers(1)
    options = op.options
    method = "bilinear" if op.kind == "RESIZE_BILINEAR" else "nearest"
    x = op.inputs[0]
    factors = (rows / x.shape[1], columns / x.shape[2])
    whole = all(factor == int(factor) for factor in factors)
    exact = method == "nearest" and whole and not options.alignCorners
    if not options.halfPixelCenters and not exact:
        return SampledResize(
            rows,
            columns,
            method,
            "corners" if options.alignCorners else "origin",
            name=op.name,
        )(x)
    if options.alignCorners:
        raise op.unknown("it samples at corners and at centers")
    if whole:
        size = tuple(map(int, factors))
        return layers.UpSampling2D(size, interpolation=method, name=op.name)(x)
    return layers.Resizing(rows, columns, method, name=op.name)(x)


def depth_to_space(op: Operator) -> Any:
    """DEPTH_TO_SPACE."""
    size, x = op.options.blockSize, op.inputs[0]
    rows, columns, depth = x.shape[1:]
    y = layers.Reshape((rows, columns, size, size, depth // size**2))(x)
    y = layers.Permute((1, 3, 2, 4, 5))(y)
    return layers.Reshape((rows * size, columns * size, depth // size**2))(y)


def space_to_depth(op: Operator) -> Any:
    """SPACE_TO_DEPTH."""
    size, x = op.options.blockSize, op.inputs[0]
    rows, columns, depth = x.shape[1:]
    y = layers.Reshape((rows // size, size, columns // size, size, depth))(x)
    y = layers.Permute((1, 3, 2, 4, 5))(y)
    return layers.Reshape((rows // size, columns // size, depth * size**2))(y)


def space_to_batch(op: Operator) -> Any:
    """SPACE_TO_BATCH_ND: each place of a block becomes a batch of its own."""
    x, blocks = op.inputs[0], op.integers(1)
    added = op.constant(2).reshape(-1, 2).tolist()
    count = len(blocks)
    sizes = _inner(op, x, count)
    rest = sizes[count:]
    x = ops.pad(x, [[0, 0], *added, *[[0, 0] for _ in rest]])
    parts = []
    for size, more, block in zip(sizes, added, blocks, strict=False):
        parts += [(size + sum(more)) // block, block]
    x = ops.reshape(x, (-1, *parts, *rest))
    places = [2 + 2 * i for i in range(count)]
    pixels = [1 + 2 * i for i in range(count)]
    last = list(range(1 + 2 * count, 1 + 2 * count + len(rest)))
    x = ops.transpose(x, [*places, 0, *pixels, *last])
    return ops.reshape(x, (-1, *parts[::2], *rest))


def batch_to_space(op: Operator) -> Any:
    """BATCH_TO_SPACE_ND: the inverse, less what was added."""
    x, blocks = op.inputs[0], op.integers(1)
    less = op.constant(2).reshape(-1, 2).tolist()
    count = len(blocks)
    sizes = _inner(op, x, count)
    rest = sizes[count:]
    x = ops.reshape(x, (*blocks, -1, *sizes))
    order = [count]
    for i in range(count):
        order += [count + 1 + i, i]
    order += list(range(2 * count + 1, 2 * count + 1 + len(rest)))
    x = ops.transpose(x, order)
    wide = [size * block for size, block in zip(sizes, blocks, strict=False)]
    x = ops.reshape(x, (-1, *wide, *rest))
    cut = [
        slice(first, size - last)
        for size, (first, last) in zip(wide, less, strict=True)
    ]
    return x[(slice(None), *cut)]


def _inner(op: Operator, x: Any, count: int) -> list[int]:
    """The axes of a sample, which have to be known."""
    sizes = list(x.shape[1:])
    if None in sizes or len(sizes) < count:
        raise NeedsFixedBatch
    return [int(np.int64(size)) for size in sizes]


OPERATORS: dict[str, Callable[[Operator], Any]] = {
    "BATCH_TO_SPACE_ND": batch_to_space,
    "DEPTH_TO_SPACE": depth_to_space,
    "RESIZE_BILINEAR": resize,
    "RESIZE_NEAREST_NEIGHBOR": resize,
    "SPACE_TO_BATCH_ND": space_to_batch,
    "SPACE_TO_DEPTH": space_to_depth,
}
