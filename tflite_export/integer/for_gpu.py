"""Other operators where LiteRT's GPU accelerator computes wrong numbers.

It takes the operators, says that it runs the file whole, and is wrong without
an error, or ends the process; measured with LiteRT 2.3.0 and LiteRT.js 2.5.3
on SwiftShader. What is written instead computes the same.
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.integer.reshaping import new_tensor

_BROADCAST = (
    *("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM"),
    "SQUARED_DIFFERENCE",
)


def avoid(model: schema.ModelT) -> None:
    """Changes a float model without pairs in place; tensors keep their indices.

    - int8 convolutions of one pixel ignore their strides. A pooling of one
      pixel takes them over.
    - An activation of fewer axes than the other operand, which the converter
      makes by a RESHAPE where the batch is 1, is spread along wrong axes.
    - A product of a matrix with itself ends the process; so does an operator
      with several outputs of which nothing reads one.
    """
    graph = model.subgraphs[0]
    for op in list(graph.operators):
        name = fb.op_name(model, op)
        if name == "CONV_2D":
            _strides_apart(model, graph, op)
        elif name in _BROADCAST:
            _whole_operands(model, graph, op)
        elif name == "BATCH_MATMUL":
            _two_operands(model, graph, op)
        elif name in ("SPLIT", "SPLIT_V", "UNPACK"):
            _read_pieces(model, graph, op)


def _strides_apart(
    model: schema.ModelT, graph: schema.SubGraphT, op: schema.OperatorT
) -> None:
    source, weight = fb.inputs(op)[:2]
    options = op.builtinOptions
    strides = (options.strideH, options.strideW)
    if fb.shape(graph.tensors[weight])[1:3] != (1, 1) or strides == (1, 1):
        return
    batch, _, _, channels = fb.axes(graph.tensors[source])
    _, height, width, _ = fb.axes(graph.tensors[fb.outputs(op)[0]])
    taken = new_tensor(graph, (batch, height, width, channels))
    pool = edit.new_operator(
        model, "MAX_POOL_2D", 1, [source], [taken], "Pool2DOptions"
    )
    pool.builtinOptions.padding = options.padding
    pool.builtinOptions.strideH, pool.builtinOptions.strideW = strides
    pool.builtinOptions.filterHeight = pool.builtinOptions.filterWidth = 1
    graph.operators.insert(edit.before(graph, op), pool)
    edit.set_input(op, 0, taken)
    options.strideH = options.strideW = 1


def _whole_operands(
    model: schema.ModelT, graph: schema.SubGraphT, op: schema.OperatorT
) -> None:
    writers = fb.writers(graph)
    rank = len(fb.axes(graph.tensors[fb.outputs(op)[0]]))
    for position, index in enumerate(fb.inputs(op)):
        reshape = writers.get(index)
        if reshape is None or fb.op_name(model, reshape) != "RESHAPE":
            continue
        source = fb.inputs(reshape)[0]
        axes = fb.axes(graph.tensors[source])
        short = fb.axes(graph.tensors[index])
        if rank < len(axes) or axes != (1,) * (len(axes) - len(short)) + short:
            continue
        edit.set_input(op, position, source)
        edit.drop_unread(graph, [index])


def _two_operands(
    model: schema.ModelT, graph: schema.SubGraphT, op: schema.OperatorT
) -> None:
    first, second = fb.inputs(op)
    if first != second:
        return
    copy = new_tensor(graph, fb.axes(graph.tensors[first]))
    graph.operators.insert(
        edit.before(graph, op), edit.reshape(model, first, copy)
    )
    edit.set_input(op, 1, copy)


def _read_pieces(
    model: schema.ModelT, graph: schema.SubGraphT, op: schema.OperatorT
) -> None:
    """Makes slices of the pieces that are read, where others are not."""
    kept = set(fb.outputs(graph))
    for other in graph.operators:
        kept.update(fb.inputs(other))
    pieces = fb.outputs(op)
    split = fb.op_name(model, op) != "UNPACK"
    source = fb.inputs(op)[1 if fb.op_name(model, op) == "SPLIT" else 0]
    axes = fb.axes(graph.tensors[source])
    axis = _axis(model, graph, op)
    if axis is None or kept.issuperset(pieces) or -1 in axes:
        return
    axis %= len(axes)
    # An UNPACK takes pieces of one, without the axis.
    lengths = [
        fb.axes(graph.tensors[piece])[axis] if split else 1 for piece in pieces
    ]
    starts = np.cumsum([0, *lengths[:-1]])
    made = []
    for place, length, piece in zip(starts, lengths, pieces, strict=True):
        if piece not in kept:
            continue
        whole = (*axes[:axis], length, *axes[axis + 1 :])
        start = np.zeros(len(axes), np.int32)
        start[axis] = place
        inputs = [
            source,
            edit.new_constant(model, start, graph),
            edit.new_constant(model, np.array(whole, np.int32), graph),
        ]
        result = piece if split else new_tensor(graph, whole)
        made.append(
            edit.new_operator(
                model, "SLICE", 1, inputs, [result], "SliceOptions"
            )
        )
        if not split:
            made.append(edit.reshape(model, result, piece))
    at = edit.before(graph, op)
    graph.operators[at : at + 1] = made


def _axis(
    model: schema.ModelT, graph: schema.SubGraphT, op: schema.OperatorT
) -> int | None:
    name = fb.op_name(model, op)
    if name == "UNPACK":
        return int(op.builtinOptions.axis)
    source = fb.inputs(op)[0 if name == "SPLIT" else 2]
    place = fb.constant(model, graph.tensors[source])
    return None if place is None else int(place.reshape(-1)[0])
