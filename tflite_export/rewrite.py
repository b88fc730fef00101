"""Puts integer codes in the place of float weights.

A matched constant becomes an integer tensor with scales, and a DEQUANTIZE in
front of its first reader makes the float tensor that its readers see.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export import flatbuffer as fb
from tflite_export import packing
from tflite_export.errors import ExportError
from tflite_export.match import Match
from tflite_export.targets import CONTAINERS
from tflite_export.targets import Target


@dataclasses.dataclass(frozen=True)
class Written:
    """A weight tensor as it was written.

    Attributes:
        match: Which weight it is.
        container: Weight type, such as `"INT4"`.
        granularity: `"per_tensor"` or `"per_channel"`.
        payload_bytes: Bytes of the packed codes.
        output: Index of the float tensor behind the DEQUANTIZE.
    """

    match: Match
    container: str
    granularity: str
    payload_bytes: int
    output: int


def rewrite(
    model: schema.ModelT, matches: Sequence[Match], target: Target
) -> list[Written]:
    """Replaces matched constants in place.

    Tensors keep their indices; new ones come after them.

    Args:
        model: The float model, changed in place.
        matches: Which constants hold which weights.
        target: What may be written.

    Returns:
        One record per match, in the order of `matches`.

    Raises:
        ExportError: If the target has no cell for an operator that reads a
            weight.
    """
    return [_rewrite_one(model, match, target) for match in matches]


def _rewrite_one(model: schema.ModelT, match: Match, target: Target) -> Written:
    container = target.container(match.weight.bits)
    scale, axis = match.fit.scale, match.fit.axis
    if axis is None or (scale == scale[0]).all():
        scale, axis = scale[:1], None
    granularity = "per_tensor" if axis is None else "per_channel"
    for op in match.constant.readers:
        if not target.allows(op, container, granularity):
            raise ExportError(
                f"Layer '{match.weight.path}': target '{target.name}' has no "
                f"evidence that {op} runs with {granularity} {container} "
                f"weights ({target.mode}). Leave the layer out of "
                "quantize_model (filters=), or choose another target"
            )
    graph = model.subgraphs[match.constant.graph]
    index = match.constant.tensor
    tensor = graph.tensors[index]
    data = packing.pack(match.codes, CONTAINERS[container])

    dequantized = schema.TensorT()
    dequantized.shape = tensor.shape
    dequantized.type = schema.TensorType.FLOAT32
    dequantized.buffer = 0
    graph.tensors.append(dequantized)
    output = len(graph.tensors) - 1
    _redirect(graph, index, output)

    tensor.type = getattr(schema.TensorType, container)
    tensor.name = match.weight.path.encode()
    tensor.quantization = _quantization(scale, axis)
    tensor.buffer = _new_buffer(model, data)
    version = target.dequantize[container][granularity]
    _insert_dequantize(model, graph, index, output, version)
    if match.fit.columns is not None:
        _scale_inputs(
            model, graph, output, match.fit.columns, match.weight.path
        )
    return Written(match, container, granularity, data.size, output)


def _quantization(
    scale: np.ndarray, axis: int | None
) -> schema.QuantizationParametersT:
    parameters = schema.QuantizationParametersT()
    parameters.scale = np.ascontiguousarray(scale, np.float32)
    # As many zero points as scales: runtimes check it.
    parameters.zeroPoint = np.zeros(scale.shape, np.int64)
    parameters.quantizedDimension = axis or 0
    return parameters


def _new_buffer(model: schema.ModelT, data: np.ndarray) -> int:
    buffer = schema.BufferT()
    buffer.data = data
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def _redirect(graph: schema.SubGraphT, old: int, new: int) -> None:
    for node in (*graph.operators, graph):
        indices = fb.inputs(node) if node is not graph else []
        if old in indices:
            node.inputs = np.array(
                [new if i == old else i for i in indices], np.int32
            )
    indices = fb.outputs(graph)
    if old in indices:
        graph.outputs = np.array(
            [new if i == old else i for i in indices], np.int32
        )


def _insert_dequantize(
    model: schema.ModelT,
    graph: schema.SubGraphT,
    source: int,
    result: int,
    version: int,
) -> None:
    op = schema.OperatorT()
    op.opcodeIndex = _op_code(model, schema.BuiltinOperator.DEQUANTIZE, version)
    op.inputs = np.array([source], np.int32)
    op.outputs = np.array([result], np.int32)
    op.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
    op.builtinOptions = schema.DequantizeOptionsT()
    first = next(
        (
            position
            for position, reader in enumerate(graph.operators)
            if result in fb.inputs(reader)
        ),
        len(graph.operators),
    )
    graph.operators.insert(first, op)


def _scale_inputs(
    model: schema.ModelT,
    graph: schema.SubGraphT,
    weight: int,
    columns: np.ndarray,
    path: str,
) -> None:
    """Multiplies the inputs of the readers instead of the weight's columns."""
    factors = schema.TensorT()
    factors.shape = np.array(columns.shape, np.int32)
    factors.type = schema.TensorType.FLOAT32
    factors.buffer = _new_buffer(model, columns.view(np.uint8))
    graph.tensors.append(factors)
    place = len(graph.tensors) - 1
    for reader in [op for op in graph.operators if weight in fb.inputs(op)]:
        data = fb.inputs(reader)[0]
        plain = graph.tensors[data]
        if fb.shape(plain)[-1:] != columns.shape:
            raise ExportError(
                f"Layer '{path}': the converter multiplied the "
                "weight by a vector along its inputs and flattens the input "
                f"of shape {fb.shape(plain)} in the same operator. Put a "
                "Flatten layer before the normalization"
            )
        scaled = schema.TensorT()
        scaled.shape = plain.shape
        scaled.shapeSignature = plain.shapeSignature
        scaled.hasRank = plain.hasRank
        scaled.type = schema.TensorType.FLOAT32
        scaled.buffer = 0
        graph.tensors.append(scaled)
        result = len(graph.tensors) - 1
        op = schema.OperatorT()
        op.opcodeIndex = _op_code(model, schema.BuiltinOperator.MUL, 1)
        op.inputs = np.array([data, place], np.int32)
        op.outputs = np.array([result], np.int32)
        op.builtinOptionsType = schema.BuiltinOptions.MulOptions
        op.builtinOptions = schema.MulOptionsT()
        position = next(
            k for k, other in enumerate(graph.operators) if other is reader
        )
        graph.operators.insert(position, op)
        reader.inputs = np.array([result, *fb.inputs(reader)[1:]], np.int32)


def _op_code(model: schema.ModelT, builtin: int, version: int) -> int:
    for index, code in enumerate(model.operatorCodes):
        if (code.builtinCode, code.version) == (builtin, version):
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
