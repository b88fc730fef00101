"""Dense layers as convolutions of one pixel, if only those can hold them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.matching.match import Match
from tflite_export.targets import Target

FULLY_CONNECTED = "FULLY_CONNECTED"
# The rule of devices that take only vectors there.
_VECTORS = "one_dimensional_output"


def dense_to_convolutions(
    model: schema.ModelT, matches: Sequence[Match], target: Target
) -> None:
    """Rewrites the dense layers that a target's FULLY_CONNECTED can't hold."""
    graph = model.subgraphs[0]
    found = {m.constant.tensor: m for m in matches if not m.constant.graph}
    rules = target.options.get("rules", {}).get("operators", {})
    vectors = _VECTORS in rules.get(FULLY_CONNECTED, ())
    weights: dict[int, list[schema.OperatorT]] = {}
    for op in graph.operators:
        if fb.op_name(model, op) == FULLY_CONNECTED:
            weights.setdefault(fb.inputs(op)[1], []).append(op)
    for index, readers in weights.items():
        shape = fb.shape(graph.tensors[index])
        match = found.get(index)
        wide = vectors and any(
            any(n > 1 for n in output_axes(graph, op)[:-1]) for op in readers
        )
        if not wide and (match is None or _fits(match, target)):
            continue
        others = [
            op
            for op in fb.readers(graph, index)
            if all(op is not r for r in readers)
        ]
        if others or fb.raw_data(model, graph.tensors[index]) is None:
            continue
        if any(
            min(output_axes(graph, op)[1:], default=1) < 1 for op in readers
        ):
            continue
        graph.tensors[index].shape = np.array(
            (shape[0], 1, 1, shape[1]), np.int32
        )
        for op in readers:
            _to_convolution(model, op, shape)


def output_axes(
    graph: schema.SubGraphT, op: schema.OperatorT
) -> tuple[int, ...]:
    """Axes of what an operator writes, -1 for an open one."""
    return fb.axes(graph.tensors[fb.outputs(op)[0]])


def _fits(match: Match, target: Target) -> bool:
    """Whether FULLY_CONNECTED takes a weight as it is."""
    scale = match.fit.scale
    granularity = "per_channel" if (scale != scale[0]).any() else "per_tensor"
    inputs = match.constant.value.shape[-1]
    return any(
        target.allows(FULLY_CONNECTED, kind, granularity, inputs)
        for kind in target.containers_for(match.weight.bits)
    )


def _to_convolution(
    model: schema.ModelT, op: schema.OperatorT, weight: tuple[int, ...]
) -> None:
    graph = model.subgraphs[0]
    result = fb.outputs(op)[0]
    rows = output_axes(graph, op)[:-1]
    pixels = (rows[0], int(np.prod(rows[1:], dtype=int)), 1)
    if rows[0] > 1:
        # Rows in one image: devices have no batches.
        pixels = (1, rows[0] * pixels[1], 1)
    source = as_image(model, fb.inputs(op)[0], (*pixels, weight[1]), op)
    image = new_tensor(graph, (*pixels, weight[0]))
    options = schema.Conv2DOptionsT()
    options.padding = schema.Padding.VALID
    options.strideH = options.strideW = 1
    options.dilationHFactor = options.dilationWFactor = 1
    options.fusedActivationFunction = op.builtinOptions.fusedActivationFunction
    op.opcodeIndex = edit.op_code(model, schema.BuiltinOperator.CONV_2D, 1)
    op.builtinOptionsType = schema.BuiltinOptions.Conv2DOptions
    op.builtinOptions = options
    inputs = [source, *fb.inputs(op)[1:]]
    if len(inputs) < 3 or inputs[2] < 0:
        inputs[2:] = [zeros(model, weight[0])]
    op.inputs = np.array(inputs, np.int32)
    op.outputs = np.array([image], np.int32)
    back = edit.reshape(model, image, result)
    graph.operators.insert(edit.before(graph, op) + 1, back)


def depthwise(
    model: schema.ModelT, inputs: list[int], result: int
) -> schema.OperatorT:
    """A depthwise convolution of one pixel, without placing it."""
    op = edit.new_operator(
        model,
        "DEPTHWISE_CONV_2D",
        1,
        inputs,
        [result],
        "DepthwiseConv2DOptions",
    )
    options = op.builtinOptions
    options.padding = schema.Padding.VALID
    options.strideH = options.strideW = options.depthMultiplier = 1
    options.dilationHFactor = options.dilationWFactor = 1
    return op


def zeros(model: schema.ModelT, count: int) -> int:
    """A new constant of zeros, such as a bias that changes nothing."""
    return edit.new_constant(model, np.zeros(count, np.float32))


def as_image(
    model: schema.ModelT,
    index: int,
    shape: tuple[int, ...],
    reader: schema.OperatorT,
) -> int:
    """A tensor in another shape, made in front of its reader."""
    graph = model.subgraphs[0]
    image = new_tensor(graph, shape)
    graph.operators.insert(
        edit.before(graph, reader), edit.reshape(model, index, image)
    )
    return image


def new_tensor(graph: schema.SubGraphT, axes: tuple[int, ...]) -> int:
    """A float tensor, with -1 for an open axis."""
    shape = tuple(1 if n < 0 else n for n in axes)
    index = edit.new_tensor(graph, "FLOAT32", shape=shape)
    if shape != axes:
        graph.tensors[index].shapeSignature = np.array(axes, np.int32)
    return index
