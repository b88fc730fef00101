"""Layers with weights of the operators that read constants as weights."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tflite_export.importing.operator import NeedsFixedBatch
from tflite_export.importing.operator import Operator

layers = keras.layers

# The converter clips cells of Keras's LSTM here, where the hyperbolic tangent
# is one but for a last bit.
_CELL_CLIP = 10.0


def conv_2d(op: Operator) -> Any:
    """CONV_2D: kernel of (outputs, rows, columns, inputs)."""
    x, kernel, bias = op.inputs[0], op.constant(1), op.optional(2)
    groups, rest = divmod(int(x.shape[-1]), kernel.shape[3])
    if rest:
        raise op.unknown(f"kernel {kernel.shape} of {x.shape}")
    layer = layers.Conv2D(
        kernel.shape[0],
        kernel.shape[1:3],
        strides=(op.options.strideH, op.options.strideW),
        padding=op.padding,
        dilation_rate=(
            max(op.options.dilationHFactor, 1),
            max(op.options.dilationWFactor, 1),
        ),
        groups=groups,
        use_bias=bias is not None,
        name=op.name,
    )
    y = op.layer(layer, x, [kernel.transpose(1, 2, 3, 0), bias])
    return op.activated(y)


def depthwise_conv_2d(op: Operator) -> Any:
    """DEPTHWISE_CONV_2D: kernel of (1, rows, columns, outputs)."""
    x, kernel, bias = op.inputs[0], op.constant(1), op.optional(2)
    channels = int(x.shape[-1])
    strides = (op.options.strideH, op.options.strideW)
    dilation = (
        max(op.options.dilationHFactor, 1),
        max(op.options.dilationWFactor, 1),
    )
    shape = (*kernel.shape[1:3], channels, kernel.shape[3] // channels)
    own = kernel.reshape(shape)
    layer: keras.layers.Layer
    if strides[0] == strides[1]:
        layer = layers.DepthwiseConv2D(
            kernel.shape[1:3],
            strides=strides,
            padding=op.padding,
            depth_multiplier=shape[3],
            dilation_rate=dilation,
            use_bias=bias is not None,
            name=op.name,
        )
    else:  # TensorFlow's depthwise kernels have one stride for both axes.
        layer = layers.Conv2D(
            kernel.shape[3],
            kernel.shape[1:3],
            strides=strides,
            padding=op.padding,
            dilation_rate=dilation,
            groups=channels,
            use_bias=bias is not None,
            name=op.name,
        )
        own = kernel.transpose(1, 2, 0, 3)
    return op.activated(op.layer(layer, x, [own, bias]))


def transpose_conv(op: Operator) -> Any:
    """TRANSPOSE_CONV: kernel of (outputs, rows, columns, inputs)."""
    kernel, x, bias = op.constant(1), op.inputs[2], op.optional(3)
    strides = (op.options.strideH, op.options.strideW)
    wanted = tuple(op.shapes[0][1:3])
    same = tuple(
        int(size) * stride if size else size
        for size, stride in zip(x.shape[1:3], strides, strict=True)
    )
    # All that a kernel reaches, of which the operator may leave out the rim.
    full = tuple(
        (int(size) - 1) * stride + length if size else size
        for size, stride, length in zip(
            x.shape[1:3], strides, kernel.shape[1:3], strict=True
        )
    )
    plain = op.padding == "same" and same == wanted
    layer = layers.Conv2DTranspose(
        kernel.shape[0],
        kernel.shape[1:3],
        strides=strides,
        padding="same" if plain else "valid",
        use_bias=bias is not None,
        name=op.name,
    )
    y = op.layer(layer, x, [kernel.transpose(1, 2, 0, 3), bias])
    if plain or tuple(y.shape[1:3]) == wanted:
        return op.activated(y)
    less = [a - b for a, b in zip(full, wanted, strict=True)]
    if tuple(y.shape[1:3]) != full or min(less) < 0:
        raise op.unknown(
            f"its output has {wanted} rows and columns, Keras's "
            f"has {tuple(y.shape[1:3])}"
        )
    cut = [(n // 2, n - n // 2) for n in less]
    return op.activated(layers.Cropping2D(cut, name=f"{op.name}_rim")(y))


def fully_connected(op: Operator) -> Any:
    """FULLY_CONNECTED: weights of (outputs, inputs)."""
    x, kernel, bias = op.inputs[0], op.inputs[1], op.optional(2)
    if not isinstance(kernel, np.ndarray):
        op.leaves_batch([0], kernel)
        y = keras.ops.matmul(x, keras.ops.transpose(kernel))
        return op.activated(y if bias is None else y + bias)
    if not op.options.keepNumDims and len(x.shape) != 2:
        x = _rows(op, x, kernel.shape[1])
    layer = layers.Dense(
        kernel.shape[0], use_bias=bias is not None, name=op.name
    )
    return op.activated(op.layer(layer, x, [kernel.T, bias]))


def _rows(op: Operator, x: Any, inputs: int) -> Any:
    """An input as rows of a length, those of a sample side by side."""
    if int(np.prod(x.shape[1:])) == inputs:
        return layers.Flatten(name=f"{op.name}_flatten")(x)
    return keras.ops.reshape(x, (-1, inputs))


def prelu(op: Operator) -> Any:
    """PRELU: slopes that broadcast against the input, without its batch."""
    x, slopes = op.inputs[0], op.constant(1)
    rank = len(x.shape) - 1
    slopes = slopes.reshape((1,) * (rank - slopes.ndim) + slopes.shape[-rank:])
    shared = [
        i + 1
        for i, (own, full) in enumerate(
            zip(slopes.shape, x.shape[1:], strict=True)
        )
        if own != full
    ]
    layer = layers.PReLU(shared_axes=shared or None, name=op.name)
    return op.layer(layer, x, [slopes])


def gather(op: Operator) -> Any:
    """GATHER: a table of embeddings where rows of a constant are taken.

    With batch axes, each of their elements has a table of its own.
    """
    table, index = op.inputs
    options = op.options
    if (
        isinstance(table, np.ndarray)
        and not isinstance(index, np.ndarray)
        and table.ndim == 2
        and table.dtype == np.float32
        and not options.axis
    ):
        layer = layers.Embedding(*table.shape, name=op.name)
        return op.layer(layer, index, [table])
    if options.batchDims:
        return _gather_by_batch(op, table, index)
    op.leaves_batch([options.axis], table)
    return keras.ops.take(table, index, axis=options.axis)


def _gather_by_batch(op: Operator, table: Any, index: Any) -> Any:
    """What indices take from tables that are aligned in their first axes."""
    ops = keras.ops
    rank, count = len(table.shape), op.options.batchDims % len(index.shape)
    axis = op.options.axis % rank
    constant = isinstance(table, np.ndarray) or isinstance(index, np.ndarray)
    if op.batch is None and constant:
        raise NeedsFixedBatch
    if not count or None in (*table.shape[1:], *index.shape[1:]):
        raise NeedsFixedBatch
    before = list(range(count, axis))
    behind = list(range(axis + 1, rank))
    batch = [-1, *table.shape[1:count]]
    own = list(index.shape[count:])
    # The axis that is taken from first, then those of what is taken.
    moved = ops.transpose(table, [*range(count), axis, *before, *behind])
    number = int(np.prod(own, dtype=np.int64))
    ones = [1] * (len(before) + len(behind))
    places = ops.reshape(index, [*batch, number, *ones])
    taken = ops.take_along_axis(moved, places, axis=count)
    taken = ops.reshape(taken, [*batch, *own, *moved.shape[count + 1 :]])
    rest = list(range(count + len(own), len(taken.shape)))
    found = range(count, count + len(own))
    cut = len(before)
    return ops.transpose(
        taken, [*range(count), *rest[:cut], *found, *rest[cut:]]
    )


def lstm(op: Operator) -> Any:
    """UNIDIRECTIONAL_SEQUENCE_LSTM without projection and peepholes."""
    options = op.options
    own = [op.inputs[i] for i in (9, 10, 11, 16, 17) if i < len(op.inputs)]
    if (
        any(value is not None for value in own + op.inputs[20:])
        or op.inputs[1] is None
        or options.timeMajor
        or 0.0 < options.cellClip < _CELL_CLIP
        or options.projClip
    ):
        raise op.unknown(
            "it has peepholes, a projection, clips, layer norms, "
            "coupled gates or time first"
        )
    kernel = np.concatenate([op.constant(i) for i in (1, 2, 3, 4)])
    recurrent = np.concatenate([op.constant(i) for i in (5, 6, 7, 8)])
    bias = np.concatenate([op.constant(i) for i in (12, 13, 14, 15)])
    layer = layers.LSTM(recurrent.shape[1], return_sequences=True, name=op.name)
    return op.layer(layer, op.inputs[0], [kernel.T, recurrent.T, bias])


OPERATORS = {
    "CONV_2D": conv_2d,
    "DEPTHWISE_CONV_2D": depthwise_conv_2d,
    "FULLY_CONNECTED": fully_connected,
    "GATHER": gather,
    "PRELU": prelu,
    "TRANSPOSE_CONV": transpose_conv,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": lstm,
}
