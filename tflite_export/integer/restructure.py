"""The float graph in the form that the integer graph will have.

Changes of structure come first, on floats, so that ranges are measured on the
tensors that the integer graph really has.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer.operators import KEEPS_AXES
from tflite_export.integer import for_gpu
from tflite_export.integer import grouped
from tflite_export.integer import narrow_weights
from tflite_export.integer import pools
from tflite_export.integer import reshaping
from tflite_export.integer import tied_tables
from tflite_export.integer import unread_pieces
from tflite_export.matching.match import Match
from tflite_export.targets import CONTAINERS
from tflite_export.targets import Target

_POINTWISE = ("CONV_2D",)


def prepare(
    model: schema.ModelT, matches: Sequence[Match], target: Target
) -> list[Match]:
    """Changes a float model without pairs in place; tensors keep their indices.

    Returns the matches as they are from now on.
    """
    if target.gpu:
        for_gpu.avoid(model)
        matches = grouped.apart(model, matches)
    if not target.unread_outputs:
        unread_pieces.cut(model)
    pools.shrink_windows(model)
    prepared = []
    for match in matches:
        graph = model.subgraphs[match.constant.graph]
        if match.fit.columns is not None:
            _take_out_columns(model, graph, match)
        if target.pointwise_as_fully_connected:
            _to_fully_connected(model, graph, match, target)
        prepared += tied_tables.take_out_features(model, match, target)
    if target.dense_as_convolution:
        reshaping.dense_to_convolutions(model, prepared, target)
    return narrow_weights.avoid(model, prepared, target)


def _take_out_columns(
    model: schema.ModelT, graph: schema.SubGraphT, match: Match
) -> None:
    columns = match.fit.columns
    if columns is None:
        return
    codes = match.codes
    plain = codes * match.fit.along(match.fit.scale, codes.ndim)
    tensor = graph.tensors[match.constant.tensor]
    tensor.buffer = edit.new_buffer(model, plain.astype(np.float32))
    edit.scale_inputs(
        model, graph, match.constant.tensor, columns, match.weight.path
    )


def _to_fully_connected(
    model: schema.ModelT,
    graph: schema.SubGraphT,
    match: Match,
    target: Target,
) -> None:
    """Makes FULLY_CONNECTED of 1x1 convolutions that profit from it."""
    index = match.constant.tensor
    shape = match.constant.value.shape
    readers = fb.readers(graph, index)
    if not (
        len(shape) == 4
        and shape[1:3] == (1, 1)
        and shape[0] > 1
        and all(_is_pointwise(model, graph, op, shape[3]) for op in readers)
        and _smaller(match.weight.bits, shape[3], target)
    ):
        return
    graph.tensors[index].shape = np.array((shape[0], shape[3]), np.int32)
    for op in readers:
        options = schema.FullyConnectedOptionsT()
        options.keepNumDims = True
        options.fusedActivationFunction = (
            op.builtinOptions.fusedActivationFunction
        )
        op.opcodeIndex = edit.op_code(
            model, schema.BuiltinOperator.FULLY_CONNECTED, KEEPS_AXES
        )
        op.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
        op.builtinOptions = options


def _is_pointwise(
    model: schema.ModelT, graph: schema.SubGraphT, op: schema.OperatorT, n: int
) -> bool:
    if fb.op_name(model, op) not in _POINTWISE:
        return False
    options = op.builtinOptions
    # With fewer input channels in the weight than in the data the convolution
    # is grouped.
    channels = fb.shape(graph.tensors[fb.inputs(op)[0]])[-1:]
    return channels == (n,) and options.strideH == options.strideW == 1


def _smaller(bits: int, inputs: int, target: Target) -> bool:
    """Whether FULLY_CONNECTED has a smaller weight type than CONV_2D."""

    def width(op: str) -> int:
        return min(
            CONTAINERS[kind]
            for kind in target.containers_for(bits)
            for granularity in ("per_tensor", "per_channel")
            if target.allows(op, kind, granularity, inputs) or kind == "INT8"
        )

    return width("FULLY_CONNECTED") < width("CONV_2D")
