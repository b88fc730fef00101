"""Hand-made integer files of one operator with weights, run and compared."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer import packing
from tflite_export.runtime import interpreter
from tflite_export.targets import CONTAINERS

_INPUTS, _OUTPUTS = 8, 16
_VERSIONS = {
    ("FULLY_CONNECTED", "INT8", "INT8"): 4,
    ("FULLY_CONNECTED", "INT4", "INT8"): 10,
    ("FULLY_CONNECTED", "INT2", "INT8"): 14,
    ("FULLY_CONNECTED", "INT8", "INT16"): 7,
    ("CONV_2D", "INT8", "INT8"): 3,
    ("CONV_2D", "INT8", "INT16"): 4,
}
_OPTIONS = {
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "CONV_2D": "Conv2DOptions",
}


def _empty() -> schema.ModelT:
    model = schema.ModelT()
    model.version = 3
    model.buffers, model.operatorCodes = [schema.BufferT()], []
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = [], []
    model.subgraphs = [graph]
    return model


def _tensor(model, kind, shape, scale, data=None):
    tensor = schema.TensorT()
    tensor.name = f"t{len(model.subgraphs[0].tensors)}".encode()
    tensor.type = getattr(schema.TensorType, kind)
    tensor.shape = np.array(shape, np.int32)
    tensor.buffer = 0 if data is None else edit.new_buffer(model, data)
    scale = np.atleast_1d(np.asarray(scale, np.float32))
    axis = 0 if scale.size > 1 else None
    tensor.quantization = edit.quantization(scale, axis=axis)
    model.subgraphs[0].tensors.append(tensor)
    return len(model.subgraphs[0].tensors) - 1


def error(op, weights, activations, codes, scales, bias, units, kernels):
    """Largest difference from exact arithmetic, in units of the output.

    Args:
        op: `"FULLY_CONNECTED"` or `"CONV_2D"`.
        weights: Type of the weights.
        activations: `"INT8"` or `"INT16"`.
        codes: Codes of 16 channels with 8 inputs.
        scales: One scale a channel.
        bias: Integers, one a channel.
        units: Scales of input and output.
        kernels: The kernel set.
    """
    model = _empty()
    middle = (2, 2) if op == "CONV_2D" else ()
    ones = (1, 1) if op == "CONV_2D" else ()
    dtype = np.int8 if activations == "INT8" else np.int16
    wide = "INT32" if activations == "INT8" else "INT64"
    scales = np.asarray(scales, np.float32)
    packed = packing.pack(codes.astype(np.int8), CONTAINERS[weights])
    x = _tensor(model, activations, (1, *middle, _INPUTS), units[0])
    w = _tensor(model, weights, (_OUTPUTS, *ones, _INPUTS), scales, packed)
    b = _tensor(
        model,
        wide,
        (_OUTPUTS,),
        np.float32(units[0]) * scales,
        np.asarray(bias, getattr(np, wide.lower())),
    )
    y = _tensor(model, activations, (1, *middle, _OUTPUTS), units[1])
    operator = edit.new_operator(
        model,
        op,
        _VERSIONS[op, weights, activations],
        [x, w, b],
        [y],
        _OPTIONS[op],
    )
    if op == "CONV_2D":
        options = operator.builtinOptions
        options.strideH = options.strideW = 1
        options.dilationHFactor = options.dilationWFactor = 1
    graph = model.subgraphs[0]
    graph.operators.append(operator)
    graph.inputs, graph.outputs = np.array([x]), np.array([y])
    limits = np.iinfo(dtype)
    inputs = np.random.default_rng(1).integers(
        limits.min, limits.max + 1, (1, *middle, _INPUTS)
    )
    session = interpreter.Session(fb.dump(model), kernels)
    (got,) = session([inputs.astype(dtype)])
    sums = inputs @ codes.T.astype(np.int64) + np.asarray(bias, np.int64)
    real = sums * (np.float32(units[0]) * scales.astype(np.float64))
    want = np.round(real / np.float32(units[1]))
    want = np.clip(want, limits.min, limits.max)
    return int(np.abs(got - want).max())


def _codes(weights):
    top = 2 ** (CONTAINERS[weights] - 1) - 1
    rng = np.random.default_rng(0)
    return rng.integers(-top, top + 1, (_OUTPUTS, _INPUTS))


def biased(op, weights, activations, bias, top, kernels):
    """`error` with large biases, which make `top` units of the output."""
    scales = np.linspace(0.9, 1.1, _OUTPUTS) * 1e-7
    units = 0.02, bias * 0.02 * 1e-7 / top
    signs = np.where(np.arange(_OUTPUTS) % 2, 1, -1)
    return error(
        op, weights, activations, _codes(weights), scales, bias * signs, units,
        kernels,
    )  # fmt: skip


def scaled(op, factor, kernels):
    """`error` with a given factor from sums to units of the output."""
    scales = np.full(_OUTPUTS, factor * 1e-3 / 0.02)
    bias = np.full(_OUTPUTS, 5)
    return error(
        op, "INT8", "INT8", _codes("INT8"), scales, bias, (0.02, 1e-3), kernels
    )


def depthwise(factors, size=4):
    """The bytes of a DEPTHWISE_CONV_2D of 3x3, with codes of -1, 0 and 1.

    Args:
        factors: From sums to units of the output, one a channel.
        size: Height and width of the image.
    """
    rng = np.random.default_rng(0)
    model = _empty()
    channels, units = len(factors), (0.02, 0.03)
    scales = (np.asarray(factors) * units[1] / units[0]).astype(np.float32)
    codes = rng.integers(-1, 2, (1, 3, 3, channels)).astype(np.int8)
    x = _tensor(model, "INT8", (1, size, size, channels), units[0])
    w = _tensor(model, "INT8", codes.shape, scales, codes)
    b = _tensor(
        model,
        "INT32",
        (channels,),
        np.float32(units[0]) * scales,
        rng.integers(-5, 6, channels).astype(np.int32),
    )
    y = _tensor(model, "INT8", (1, size, size, channels), units[1])
    graph = model.subgraphs[0]
    graph.tensors[w].quantization.quantizedDimension = 3
    operator = edit.new_operator(
        *(model, "DEPTHWISE_CONV_2D", 3, [x, w, b], [y]),
        "DepthwiseConv2DOptions",
    )
    options = operator.builtinOptions
    options.padding = schema.Padding.SAME
    options.strideH = options.strideW = options.depthMultiplier = 1
    options.dilationHFactor = options.dilationWFactor = 1
    graph.operators.append(operator)
    graph.inputs, graph.outputs = np.array([x]), np.array([y])
    return fb.dump(model)
