"""Forms of operators that Vela compiles for every Ethos-U.

A mean over axes side by side is one over a single axis of the same numbers in
another shape. A convolution with long strides reads an image with its padding.
What is reversed, or taken of the channels, is cut out and joined.
"""

from __future__ import annotations

import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.targets import vela_rules
from tflite_export.targets.nodes import Node

_Steps = list[schema.OperatorT] | None
_LONGEST_AXIS = 4096
# Beyond that many, a reversed axis would be more operators than a network.
_MOST_SLICES = 64


def mean(model: schema.ModelT, op: schema.OperatorT) -> _Steps:
    """A mean of images of one row, or of one column.

    Returns:
        Operators in its place, `None` where it may stay, or has to.
    """
    graph = model.subgraphs[0]
    node = Node(model, graph, op)
    shape = fb.axes(graph.tensors[fb.inputs(op)[0]])
    over = sorted(node.axes(1, len(shape)))
    if (
        vela_rules.vela_mean(node) is None
        or not over
        or min(shape) < 1
        or over != list(range(over[0], over[-1] + 1))
    ):
        return None
    first, last = over[0], over[-1] + 1
    before, behind = math.prod(shape[:first]), math.prod(shape[last:])
    count = math.prod(shape[first:last])
    if count >= _LONGEST_AXIS:
        return None
    # Channels may be reduced where there is one row.
    wide = (1, before, count, behind) if behind > 1 else (1, 1, before, count)
    axis = 2 if behind > 1 else 3
    source, flat = _new(model, wide), _new(model, _without(wide, axis))
    place = edit.new_constant(model, np.array([axis], np.int32))
    new = edit.new_operator(
        model, "MEAN", 1, [source, place], [flat], "ReducerOptions"
    )
    return [
        edit.reshape(model, fb.inputs(op)[0], source),
        new,
        edit.reshape(model, flat, fb.outputs(op)[0]),
    ]


def padded(model: schema.ModelT, op: schema.OperatorT) -> _Steps:
    """A convolution without padding, of an image that has it.

    Vela makes padding of a PAD alone that stands before a convolution. So one
    row more is padded, and cut off.

    Returns:
        Operators in its place, `None` where it may stay, or has to.
    """
    if fb.op_name(model, op) != "CONV_2D":
        return None  # what a pool adds is no number
    graph = model.subgraphs[0]
    source = before = fb.inputs(op)[0]
    node = Node(model, graph, op)
    pads = np.zeros((4, 2), np.int32)
    if vela_rules.vela_strides(node) is not None:
        pads[1:3] = vela_rules.padding(node)
    elif vela_rules.is_long(node):
        pad = fb.writers(graph).get(source)
        if pad is None or fb.op_name(model, pad) != "PAD":
            return None
        before = fb.inputs(pad)[0]
        given = fb.constant(model, _tensor(model, fb.inputs(pad)[1]))
        if given is None or given.shape != pads.shape:
            return None
        pads += given.astype(np.int32)
    shape = fb.axes(_tensor(model, before))
    if not pads.any() or min(shape) < 1:
        return None
    cut = [n + sum(pair) for n, pair in zip(shape, pads, strict=True)]
    pads[1, 1] += 1
    more = _new(model, (cut[0], cut[1] + 1, *cut[2:]))
    whole = _new(model, tuple(cut))
    place, size = (
        edit.new_constant(model, np.array(values, np.int32))
        for values in ([0] * len(cut), cut)
    )
    edit.set_input(op, 0, whole)
    op.builtinOptions.padding = schema.Padding.VALID
    edit.drop_unread(graph, [source])
    return [
        edit.new_operator(
            model,
            "PAD",
            1,
            [before, edit.new_constant(model, pads)],
            [more],
            "PadOptions",
        ),
        edit.new_operator(
            model, "SLICE", 1, [more, place, size], [whole], "SliceOptions"
        ),
        op,
    ]


def backwards(model: schema.ModelT, op: schema.OperatorT) -> _Steps:
    """An axis in reverse, as slices that are joined again.

    Returns:
        Operators in its place, `None` where it may stay, or has to.
    """
    shape = fb.axes(_tensor(model, fb.inputs(op)[0]))
    node = Node(model, model.subgraphs[0], op)
    axes = [a for a in node.axes(1, len(shape)) if shape[a] > 1]
    return _turned(model, op, axes[0]) if len(axes) == 1 else None


def _turned(model: schema.ModelT, op: schema.OperatorT, axis: int) -> _Steps:
    source, result = fb.inputs(op)[0], fb.outputs(op)[0]
    shape = fb.axes(_tensor(model, source))
    if (
        min(shape) < 1
        or shape[axis] > _MOST_SLICES
        or fb.type_name(_tensor(model, source)) != "FLOAT32"
    ):
        return None
    one = tuple(1 if k == axis else n for k, n in enumerate(shape))
    size = edit.new_constant(model, np.array(one, np.int32))
    steps, pieces = [], []
    for start in reversed(range(shape[axis])):
        begin = np.zeros(len(shape), np.int32)
        begin[axis] = start
        pieces.append(_new(model, one))
        steps.append(
            edit.new_operator(
                model,
                "SLICE",
                1,
                [source, edit.new_constant(model, begin), size],
                pieces[-1:],
                "SliceOptions",
            )
        )
    joined = edit.new_operator(
        model, "CONCATENATION", 1, pieces, [result], "ConcatenationOptions"
    )
    joined.builtinOptions.axis = axis
    return [*steps, joined]


def every_channel(model: schema.ModelT, op: schema.OperatorT) -> _Steps:
    """Some of the channels, as columns of an image; or an axis in reverse.

    Returns:
        Operators in its place, `None` where it may stay, or has to.
    """
    source, result = fb.inputs(op)[0], fb.outputs(op)[0]
    shape = fb.axes(_tensor(model, source))
    options = op.builtinOptions
    node = Node(model, model.subgraphs[0], op)
    begin, end, strides = (node.constant(k) for k in (1, 2, 3))
    if (
        vela_rules.vela_slice(node) is None
        or begin is None
        or end is None
        or strides is None
        or min(shape) < 1
        or begin.size != len(shape)
        or fb.type_name(_tensor(model, source)) != "FLOAT32"
        or options.ellipsisMask
        or options.newAxisMask
        or options.shrinkAxisMask
    ):
        return None
    taken = [
        slice(
            None if options.beginMask & 1 << k else int(begin[k]),
            None if options.endMask & 1 << k else int(end[k]),
            int(strides[k]),
        ).indices(n)
        for k, n in enumerate(shape)
    ]
    partly = [k for k, n in enumerate(shape) if taken[k] != (0, n, 1)]
    if len(partly) != 1:
        return None
    if taken[partly[0]] == (shape[partly[0]] - 1, -1, -1):
        return _turned(model, op, partly[0])
    if partly[0] != len(shape) - 1 or taken[-1][2] < 1:
        return None
    rows = math.prod(shape[:-1])
    count = len(range(*taken[-1]))
    wide = _new(model, (1, rows, shape[-1], 1))
    some = _new(model, (1, rows, count, 1))
    first, last, step = taken[-1]
    places = [
        edit.new_constant(model, np.array(values, np.int32))
        for values in (
            (0, 0, first, 0),
            (1, rows, last, 1),
            (1, 1, step, 1),
        )
    ]
    new = edit.new_operator(
        model,
        "STRIDED_SLICE",
        1,
        [wide, *places],
        [some],
        "StridedSliceOptions",
    )
    return [
        edit.reshape(model, source, wide),
        new,
        edit.reshape(model, some, result),
    ]


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _tensor(model: schema.ModelT, index: int) -> schema.TensorT:
    return model.subgraphs[0].tensors[index]


def _new(model: schema.ModelT, axes: tuple[int, ...]) -> int:
    return edit.new_tensor(
        model.subgraphs[0], "FLOAT32", shape=tuple(int(n) for n in axes)
    )
