"""Forms of operators that Vela compiles for every Ethos-U.

A mean over axes side by side is one over a single axis of the same numbers in
another shape. A convolution with long strides takes its padding from a PAD.
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

    Returns:
        Operators in its place, `None` where it may stay, or has to.
    """
    if fb.op_name(model, op) != "CONV_2D":
        return None  # what a pool adds is no number
    node = Node(model, model.subgraphs[0], op)
    shape = fb.axes(_tensor(model, fb.inputs(op)[0]))
    if vela_rules.vela_strides(node) is None or min(shape) < 1:
        return None
    rows, columns = vela_rules.padding(node)
    pads = np.array([(0, 0), rows, columns, (0, 0)], np.int32)
    wide = _new(
        model,
        tuple(n + sum(pair) for n, pair in zip(shape, pads, strict=True)),
    )
    pad = edit.new_operator(
        model,
        "PAD",
        1,
        [fb.inputs(op)[0], edit.new_constant(model, pads)],
        [wide],
        "PadOptions",
    )
    edit.set_input(op, 0, wide)
    op.builtinOptions.padding = schema.Padding.VALID
    return [pad, op]


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _tensor(model: schema.ModelT, index: int) -> schema.TensorT:
    return model.subgraphs[0].tensors[index]


def _new(model: schema.ModelT, axes: tuple[int, ...]) -> int:
    return edit.new_tensor(
        model.subgraphs[0], "FLOAT32", shape=tuple(int(n) for n in axes)
    )
