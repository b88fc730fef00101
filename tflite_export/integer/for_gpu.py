"""Other operators where LiteRT's GPU accelerator computes wrong numbers.

It takes the operators, says that it runs the file whole, and is wrong without
an error, or ends the process; measured with LiteRT 2.3.0 and LiteRT.js 2.5.3
on SwiftShader. What is written instead computes the same.
"""

from __future__ import annotations

import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.integer.reshaping import new_tensor
from tflite_export.targets import gpu_rules

_BROADCAST = (
    *("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM"),
    "SQUARED_DIFFERENCE",
)


def avoid(model: schema.ModelT) -> None:
    """Changes a float model without pairs in place; tensors keep their indices.

    - int8 convolutions of one pixel ignore their strides. A pooling of one
      pixel takes them over.
    - An activation of fewer axes than the other operand is spread along wrong
      axes. The converter makes such by a RESHAPE where the batch is 1; a model
      may have others, and LiteRT.js is wrong on them on WebAssembly, too.
    - A product of a matrix with itself ends the process.
    - A product is not spread along the axes before the matrices.
    - A dense layer of more than two axes that makes two of them mixes them up.
    - A leaky ReLU takes the larger of two numbers, whatever its slope.
    """
    graph = model.subgraphs[0]
    taken: dict[tuple[int, ...], int] = {}
    for op in list(graph.operators):
        name = fb.op_name(model, op)
        if name == "CONV_2D":
            _strides_apart(model, graph, op, taken)
        elif name in _BROADCAST:
            _whole_operands(model, graph, op)
        elif name == "BATCH_MATMUL":
            _two_operands(model, graph, op)
            _whole_batches(model, graph, op)
        elif name == "FULLY_CONNECTED":
            _two_axes(model, graph, op)
        elif name == "LEAKY_RELU":
            _slopes(model, graph, op)


def _strides_apart(
    model: schema.ModelT,
    graph: schema.SubGraphT,
    op: schema.OperatorT,
    taken: dict[tuple[int, ...], int],
) -> None:
    """Adds a pooling, or reads what another convolution `taken` needed."""
    source, weight = fb.inputs(op)[:2]
    options = op.builtinOptions
    strides = (options.strideH, options.strideW)
    if fb.shape(graph.tensors[weight])[1:3] != (1, 1) or strides == (1, 1):
        return
    key = (source, int(options.padding), *strides)
    if key not in taken:
        batch, _, _, channels = fb.axes(graph.tensors[source])
        _, height, width, _ = fb.axes(graph.tensors[fb.outputs(op)[0]])
        taken[key] = new_tensor(graph, (batch, height, width, channels))
        pool = edit.new_operator(
            model, "MAX_POOL_2D", 1, [source], [taken[key]], "Pool2DOptions"
        )
        made = pool.builtinOptions
        made.padding = options.padding
        made.strideH, made.strideW = strides
        made.filterHeight = made.filterWidth = 1
        graph.operators.insert(edit.before(graph, op), pool)
    edit.set_input(op, 0, taken[key])
    options.strideH = options.strideW = 1


def _whole_operands(
    model: schema.ModelT, graph: schema.SubGraphT, op: schema.OperatorT
) -> None:
    writers = fb.writers(graph)
    rank = len(fb.axes(graph.tensors[fb.outputs(op)[0]]))
    for position, index in enumerate(fb.inputs(op)):
        reshape = writers.get(index)
        short = fb.axes(graph.tensors[index])
        if reshape is not None and fb.op_name(model, reshape) == "RESHAPE":
            source = fb.inputs(reshape)[0]
            axes = fb.axes(graph.tensors[source])
            if rank >= len(axes) and axes == _whole(short, len(axes)):
                edit.set_input(op, position, source)
                edit.drop_unread(graph, [index])
                short = axes
        computed = fb.raw_data(model, graph.tensors[index]) is None
        if computed and len(short) < rank and -1 not in short:
            _reshape_input(model, op, position, _whole(short, rank))


def _reshape_input(
    model: schema.ModelT,
    op: schema.OperatorT,
    position: int,
    axes: tuple[int, ...],
) -> None:
    """Has an operator read one of its inputs in another shape, or a copy."""
    graph = model.subgraphs[0]
    shaped = new_tensor(graph, axes)
    graph.operators.insert(
        edit.before(graph, op),
        edit.reshape(model, fb.inputs(op)[position], shaped),
    )
    edit.set_input(op, position, shaped)


def _whole(axes: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """The same shape with as many axes; the first are 1."""
    return (1,) * (rank - len(axes)) + axes


def _two_operands(
    model: schema.ModelT, graph: schema.SubGraphT, op: schema.OperatorT
) -> None:
    first, second = fb.inputs(op)
    if first != second:
        return
    _reshape_input(model, op, 1, fb.axes(graph.tensors[first]))


def _whole_batches(
    model: schema.ModelT, graph: schema.SubGraphT, op: schema.OperatorT
) -> None:
    """Copies the matrices of an operand that there are more of in the other."""
    shapes = [fb.axes(graph.tensors[index]) for index in fb.inputs(op)]
    if not gpu_rules.spreads(*shapes) or -1 in (*shapes[0], *shapes[1]):
        return
    rank = max(map(len, shapes))
    whole = [_whole(shape, rank) for shape in shapes]
    batch = tuple(map(max, *(shape[:-2] for shape in whole)))
    for position, shape in enumerate(whole):
        if shape[:-2] == batch:
            continue
        if shape != shapes[position]:
            _reshape_input(model, op, position, shape)
        times = [n // m for n, m in zip(batch, shape, strict=False)]
        copies = new_tensor(graph, (*batch, *shape[-2:]))
        counts = edit.new_constant(model, np.array([*times, 1, 1], np.int32))
        tile = edit.new_operator(
            model,
            "TILE",
            1,
            [fb.inputs(op)[position], counts],
            [copies],
            "TileOptions",
        )
        graph.operators.insert(edit.before(graph, op), tile)
        edit.set_input(op, position, copies)


def _two_axes(
    model: schema.ModelT, graph: schema.SubGraphT, op: schema.OperatorT
) -> None:
    source, weight = fb.inputs(op)[:2]
    axes = fb.axes(graph.tensors[source])
    if not gpu_rules.flattens(axes, op) or -1 in axes:
        return
    wide = fb.shape(graph.tensors[weight])[-1]
    _reshape_input(model, op, 0, (math.prod(axes) // wide, wide))


def _slopes(
    model: schema.ModelT, graph: schema.SubGraphT, op: schema.OperatorT
) -> None:
    """A slope a channel, which are all the same."""
    slope = float(op.builtinOptions.alpha)
    channels = fb.axes(graph.tensors[fb.inputs(op)[0]])[-1:]
    if 0 <= slope <= 1 or not channels:
        return
    slopes = edit.new_constant(model, np.full(channels, slope, np.float32))
    graph.operators[edit.before(graph, op)] = edit.new_operator(
        model, "PRELU", 1, [fb.inputs(op)[0], slopes], fb.outputs(op)
    )
