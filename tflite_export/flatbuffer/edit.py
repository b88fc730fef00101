"""Small changes to a TFLite model's object tree."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.errors import ExportError
from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer import operators


def new_buffer(model: schema.ModelT, data: np.ndarray) -> int:
    """Appends a buffer with the bytes of an array; returns its index."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def new_tensor(
    graph: schema.SubGraphT,
    kind: str,
    like: schema.TensorT | None = None,
    shape: tuple[int, ...] = (),
    buffer: int = 0,
) -> int:
    """Appends a tensor of a type, such as `"INT8"`; returns its index.

    It has the shape of another one, open axes included, or the one given, and
    the constant of a buffer, 0 for none.
    """
    tensor = schema.TensorT()
    tensor.type = getattr(schema.TensorType, kind)
    tensor.buffer = buffer
    if like is None:
        tensor.shape = np.array(shape, np.int32)
    else:
        tensor.shape = like.shape
        tensor.shapeSignature = like.shapeSignature
        tensor.hasRank = like.hasRank
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def new_constant(
    model: schema.ModelT,
    values: np.ndarray,
    graph: schema.SubGraphT | None = None,
) -> int:
    """Appends an array to the main graph, or to another; returns its index."""
    return new_tensor(
        model.subgraphs[0] if graph is None else graph,
        values.dtype.name.upper(),
        shape=values.shape,
        buffer=new_buffer(model, values),
    )


def quantization(
    scale: np.ndarray, zero_point: int = 0, axis: int | None = None
) -> schema.QuantizationParametersT:
    """Quantization parameters with one scale or one per channel."""
    parameters = schema.QuantizationParametersT()
    parameters.scale = np.atleast_1d(np.asarray(scale, np.float32))
    # As many zero points as scales: runtimes check it.
    parameters.zeroPoint = np.full(parameters.scale.shape, zero_point, np.int64)
    parameters.quantizedDimension = axis or 0
    return parameters


def new_operator(
    model: schema.ModelT,
    name: str,
    version: int,
    inputs: list[int],
    outputs: list[int],
    options: str = "",
) -> schema.OperatorT:
    """Makes an operator, without placing it.

    `options` is the name of its options' table, empty for none.
    """
    op = schema.OperatorT()
    builtin = getattr(schema.BuiltinOperator, name)
    op.opcodeIndex = op_code(model, builtin, version)
    op.inputs = np.array(inputs, np.int32)
    op.outputs = np.array(outputs, np.int32)
    if options:
        op.builtinOptionsType = getattr(schema.BuiltinOptions, options)
        op.builtinOptions = getattr(schema, f"{options}T")()
    return op


def conversion(
    model: schema.ModelT, name: str, kind: str, source: int, result: int
) -> schema.OperatorT:
    """A QUANTIZE to INT8 or INT16, or a DEQUANTIZE, without placing it."""
    version = operators.conversion_version(name, kind.upper())
    options = f"{name.capitalize()}Options"
    return new_operator(model, name, version, [source], [result], options)


def reshape(model: schema.ModelT, source: int, result: int) -> schema.OperatorT:
    """A RESHAPE to the shape of its result, without placing it."""
    axes = fb.axes(model.subgraphs[0].tensors[result])
    shape = np.array(axes, np.int32)
    inputs = [source, new_constant(model, shape)]
    op = new_operator(model, "RESHAPE", 1, inputs, [result], "ReshapeOptions")
    op.builtinOptions.newShape = shape
    return op


def op_code(model: schema.ModelT, builtin: int, version: int) -> int:
    """Index of an operator code, which is appended if missing."""
    for index, code in enumerate(model.operatorCodes):
        if (code.builtinCode, code.version) == (builtin, version):
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = builtin
    code.deprecatedBuiltinCode = min(builtin, 127)
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def set_input(op: schema.OperatorT, position: int, tensor: int) -> None:
    """Lets an operator read another tensor."""
    indices = fb.inputs(op)
    indices[position] = tensor
    op.inputs = np.array(indices, np.int32)


def redirect(graph: schema.SubGraphT, old: int, new: int) -> None:
    """Lets all readers of a tensor, graph outputs included, read another."""
    for op in graph.operators:
        if old in fb.inputs(op):
            op.inputs = replaced(fb.inputs(op), old, new)
    if old in fb.outputs(graph):
        graph.outputs = replaced(fb.outputs(graph), old, new)


def replaced(indices: list[int], old: int, new: int) -> np.ndarray:
    """Indices of tensors with another one in the place of one."""
    return np.array([new if i == old else i for i in indices], np.int32)


def sign(model: schema.ModelT, side: str, old: int, new: int) -> None:
    """Has signatures name another tensor among `"inputs"` or `"outputs"`."""
    for signature in model.signatureDefs or ():
        for entry in getattr(signature, side):
            if entry.tensorIndex == old:
                entry.tensorIndex = new


def before(graph: schema.SubGraphT, op: schema.OperatorT) -> int:
    """Position of an operator."""
    return next(k for k, other in enumerate(graph.operators) if other is op)


def drop_unread(graph: schema.SubGraphT, indices: list[int]) -> None:
    """Drops the operators that write tensors which nothing reads any more.

    `indices` are what an operator read that is gone. What only the dropped
    operators read goes as well.
    """
    waiting = list(indices)
    while waiting:
        index = waiting.pop()
        read = {*fb.outputs(graph)}
        for op in graph.operators:
            read.update(fb.inputs(op))
        for op in list(graph.operators):
            results = fb.outputs(op)
            if index in results and not read & set(results):
                del graph.operators[before(graph, op)]
                waiting += fb.inputs(op)


def scale_inputs(
    model: schema.ModelT,
    graph: schema.SubGraphT,
    weight: int,
    columns: np.ndarray,
    path: str,
) -> None:
    """Multiplies the inputs of a weight's readers by a vector.

    Raises:
        ExportError: If an input has another last axis than `columns`.
    """
    place = new_constant(model, columns.astype(np.float32), graph)
    for reader in fb.readers(graph, weight):
        data = fb.inputs(reader)[0]
        plain = graph.tensors[data]
        if fb.shape(plain)[-1:] != columns.shape:
            raise ExportError(
                f"Layer '{path}': the converter multiplied the "
                "weight by a vector along its inputs and flattens the input "
                "in the same operator. Expected a Flatten layer before the "
                f"normalization. Received: shape={fb.shape(plain)}, and "
                f"{columns.size} factors"
            )
        result = new_tensor(graph, "FLOAT32", plain)
        op = new_operator(
            model, "MUL", 1, [data, place], [result], "MulOptions"
        )
        graph.operators.insert(before(graph, reader), op)
        set_input(reader, 0, result)
