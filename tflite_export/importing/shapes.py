"""Operators that move, cut and join values, and those of shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.importing.operator import NeedsFixedBatch
from tflite_export.importing.operator import Operator

layers = keras.layers
ops = keras.ops


def reshape(op: Operator) -> Any:
    """RESHAPE.

    Where the batch is open, the first axis holds the batch, or rows of all
    samples one after the other, and all that is known is the other axes.
    """
    x = op.inputs[0]
    if len(op.inputs) > 1 and isinstance(op.inputs[1], np.ndarray):
        shape = op.integers(1)
    elif op.options is not None and op.options.newShape is not None:
        shape = [int(axis) for axis in op.options.newShape]
    else:
        shape = list(op.shapes[0])
    # Multiples of a batch that is open are negative, too.
    shape = [max(axis, -1) for axis in shape]
    if isinstance(x, np.ndarray):
        return x.reshape(shape)
    if op.batch is not None:
        return ops.reshape(x, shape)
    if not shape or None in x.shape[1:]:
        raise NeedsFixedBatch
    inner, rest = int(np.prod(x.shape[1:])), shape[1:]
    if -1 in rest:
        others = -int(np.prod(rest))
        if shape[0] != 1 or op.given[0][:1] != (1,) or inner % others:
            raise NeedsFixedBatch
        rest[rest.index(-1)] = inner // others
    if int(np.prod(rest)) != inner:
        return ops.reshape(x, (-1, *rest))
    if len(rest) == 1:
        return layers.Flatten(name=op.name)(x)
    return layers.Reshape(rest, name=op.name)(x)


def transpose(op: Operator) -> Any:
    """TRANSPOSE."""
    x, order = op.inputs[0], op.integers(1)
    if isinstance(x, np.ndarray):
        return x.transpose(order)
    if order[0] == 0:
        return layers.Permute(order[1:], name=op.name)(x)
    if op.lengths_open:
        raise NeedsFixedBatch
    return ops.transpose(x, order)


def squeeze(op: Operator) -> Any:
    """SQUEEZE."""
    x = op.inputs[0]
    axes = op.options.squeezeDims
    rank = len(x.shape)
    if axes is None or not len(axes):
        axes = [i for i, n in enumerate(x.shape) if n == 1]
    op.leaves_batch(axes, x)
    return ops.squeeze(x, tuple(int(a) % rank for a in axes))


def expand_dims(op: Operator) -> Any:
    """EXPAND_DIMS."""
    x = op.inputs[0]
    (axis,) = op.integers(1)
    return ops.expand_dims(x, axis)


def concatenation(op: Operator) -> Any:
    """CONCATENATION."""
    parts, axis = op.inputs, op.options.axis
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts, axis)
    for part in parts:
        op.leaves_batch([axis], part)
    if any(isinstance(part, np.ndarray) for part in parts):
        if op.batch is None:
            raise NeedsFixedBatch
        return op.activated(ops.concatenate(parts, axis))
    return op.activated(layers.Concatenate(axis, name=op.name)(parts))


def pad(op: Operator) -> Any:
    """PAD and PADV2."""
    x = op.inputs[0]
    widths = op.constant(1).reshape(-1, 2).tolist()
    op.check_size(
        (length or 1) + sum(width)
        for length, width in zip(x.shape, widths, strict=True)
    )
    value = 0.0
    if len(op.inputs) > 2:
        value = float(np.ravel(op.constant(2))[0])
    symbolic = not isinstance(x, np.ndarray)
    if symbolic and any(widths[0]):
        op.leaves_batch([0], x)
    if (
        symbolic
        and len(widths) == 4
        and not value
        and not any(widths[0] + widths[3])
    ):
        return layers.ZeroPadding2D(widths[1:3], name=op.name)(x)
    return ops.pad(x, widths, "constant", value)


def mirror_pad(op: Operator) -> Any:
    """MIRROR_PAD."""
    reflect = op.options.mode == schema.MirrorPadMode.REFLECT
    widths = op.constant(1).reshape(-1, 2).tolist()
    return ops.pad(op.inputs[0], widths, "reflect" if reflect else "symmetric")


def shape_of(op: Operator) -> Any:
    """SHAPE: -1 stands for the batch that is open."""
    return np.array(
        [-1 if axis is None else axis for axis in op.inputs[0].shape], np.int64
    )


def strided_slice(op: Operator) -> Any:
    """STRIDED_SLICE with constant bounds."""
    x, options = op.inputs[0], op.options
    begin, end, strides = (op.integers(i) for i in (1, 2, 3))
    made = bin(options.newAxisMask & ~options.ellipsisMask).count("1")
    index: list[Any] = []
    # Where axes of the result are that its input has not.
    added: list[int] = []
    place = 0
    for number, (first, last, step) in enumerate(
        zip(begin, end, strides, strict=True)
    ):
        bit = 1 << number
        if options.ellipsisMask & bit:
            covered = len(x.shape) - (len(begin) - 1 - made)
            index += [slice(None, None, 1)] * covered
            place += covered
        elif options.newAxisMask & bit:
            added.append(place)
            place += 1
        elif options.shrinkAxisMask & bit:
            index.append(first)
        else:
            stop = first + last if options.offset else last
            index.append(
                slice(
                    None if options.beginMask & bit else first,
                    None if options.endMask & bit else stop,
                    step,
                )
            )
            place += 1
    if isinstance(x, np.ndarray):
        y = x[tuple(index)]
        return np.expand_dims(y, added) if added else y
    y = x[_of_all_samples(op, index)]
    for axis in added:
        y = ops.expand_dims(y, axis)
    return y


def _of_all_samples(op: Operator, index: list[Any]) -> tuple[Any, ...]:
    """An index that takes all samples, where a file takes its only one."""
    for axis, length in enumerate(op.inputs[0].shape[: len(index)]):
        if length is None:
            own = index[axis]
            if not isinstance(own, slice) or own.start or own.step != 1:
                raise NeedsFixedBatch
            # Up to the end of the file's one sample; of an axis that is open
            # the file has no end.
            ends = (None,) if op.lengths_open else (None, op.given[0][axis])
            if own.stop not in ends:
                raise NeedsFixedBatch
            index[axis] = slice(None)
    return tuple(index)


def cut(op: Operator) -> Any:
    """SLICE with constant bounds."""
    x = op.inputs[0]
    index: list[Any] = [
        slice(first, None if size == -1 else first + size, 1)
        for first, size in zip(op.integers(1), op.integers(2), strict=True)
    ]
    if isinstance(x, np.ndarray):
        return x[tuple(index)]
    return x[_of_all_samples(op, index)]


def pack(op: Operator) -> Any:
    """PACK."""
    axis = op.options.axis
    if all(isinstance(part, np.ndarray) for part in op.inputs):
        return np.stack(op.inputs, axis)
    return ops.stack(op.inputs, axis)


def top_k(op: Operator) -> list[Any]:
    """TOPK_V2 of the last axis: values, and where they were."""
    (count,) = op.integers(1)
    return list(ops.top_k(op.inputs[0], count))


def one_hot(op: Operator) -> Any:
    """ONE_HOT along any axis."""
    index = op.inputs[0]
    (depth,) = op.integers(1)
    on, off = (np.ravel(op.constant(i))[0] for i in (2, 3))
    axis = op.options.axis
    if axis == len(index.shape):
        axis = -1
    elif not axis:
        op.leaves_batch([0], index)
    ones = ops.one_hot(index, depth, axis=axis, dtype=on.dtype.name)
    return ones * (on - off) + off


def unpack(op: Operator) -> Any:
    """UNPACK."""
    x, axis = op.inputs[0], op.options.axis
    if isinstance(x, np.ndarray):
        return [np.take(x, i, axis) for i in range(x.shape[axis])]
    op.leaves_batch([axis], x)
    return list(ops.unstack(x, axis=axis))


def split(op: Operator) -> Any:
    """SPLIT into equal parts."""
    (axis,) = op.integers(0)
    x = op.inputs[1]
    op.leaves_batch([axis], x)
    return list(ops.split(x, op.options.numSplits, axis))


def split_v(op: Operator) -> Any:
    """SPLIT_V into parts of given sizes."""
    x, sizes = op.inputs[0], op.integers(1)
    (axis,) = op.integers(2)
    op.leaves_batch([axis], x)
    return list(ops.split(x, np.cumsum(sizes[:-1]).tolist(), axis))


def reverse(op: Operator) -> Any:
    """REVERSE_V2."""
    axes = op.integers(1)
    op.leaves_batch(axes, op.inputs[0])
    return ops.flip(op.inputs[0], tuple(axes))


def cumsum(op: Operator) -> Any:
    """CUMSUM from the first element on, each included."""
    (axis,) = op.integers(1)
    if op.options.exclusive or op.options.reverse:
        raise op.unknown("it is exclusive or reversed")
    return ops.cumsum(op.inputs[0], axis)


def fill(op: Operator) -> Any:
    """FILL; one row stands for a batch that is open, and broadcasts."""
    shape = op.integers(0)
    if -1 in shape[1:]:
        raise op.unknown(f"shape {shape}")
    rows = [1 if axis == -1 else axis for axis in shape]
    op.check_size(rows)
    return np.full(rows, np.ravel(op.constant(1))[0])


def tile(op: Operator) -> Any:
    """TILE."""
    x, times = op.inputs[0], op.integers(1)
    if isinstance(x, np.ndarray):
        op.check_size([*x.shape, *times])
    return ops.tile(x, times)


def broadcast_to(op: Operator) -> Any:
    """BROADCAST_TO a shape without a batch of its own."""
    x, shape = op.inputs[0], op.integers(1)
    if op.batch is None and (-1 in shape or not isinstance(x, np.ndarray)):
        raise NeedsFixedBatch
    op.check_size(shape)
    if isinstance(x, np.ndarray):
        return np.broadcast_to(x, shape)
    return ops.broadcast_to(x, shape)


def batch_matmul(op: Operator) -> Any:
    """BATCH_MATMUL of two computed values, or of one and a constant."""
    a, b = op.inputs
    if op.options.adjX:
        a = ops.swapaxes(a, -1, -2)
    if op.options.adjY:
        b = ops.swapaxes(b, -1, -2)
    return ops.matmul(a, b)


def same(op: Operator) -> Any:
    """QUANTIZE and DEQUANTIZE: values are real ones on both sides."""
    return op.inputs[0]


OPERATORS: dict[str, Callable[[Operator], Any]] = {
    "BATCH_MATMUL": batch_matmul,
    "BROADCAST_TO": broadcast_to,
    "CONCATENATION": concatenation,
    "CUMSUM": cumsum,
    "DEQUANTIZE": same,
    "EXPAND_DIMS": expand_dims,
    "FILL": fill,
    "MIRROR_PAD": mirror_pad,
    "ONE_HOT": one_hot,
    "PACK": pack,
    "PAD": pad,
    "PADV2": pad,
    "QUANTIZE": same,
    "RESHAPE": reshape,
    "REVERSE_V2": reverse,
    "SHAPE": shape_of,
    "SLICE": cut,
    "SPLIT": split,
    "SPLIT_V": split_v,
    "SQUEEZE": squeeze,
    "STRIDED_SLICE": strided_slice,
    "TILE": tile,
    "TOPK_V2": top_k,
    "TRANSPOSE": transpose,
    "UNPACK": unpack,
}
