"""Files for the tests of devices, made anew: none is stored."""

from __future__ import annotations

import functools
import warnings

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer import packing
from tflite_export.targets import CONTAINERS

L = keras.layers
SHAPE = (8, 8, 3)


def network() -> keras.Model:
    """A convolutional network with every common operator, in small."""
    x = inputs = keras.Input(SHAPE, batch_size=1, name="image")
    x = L.Conv2D(8, 3, padding="same", activation="relu")(x)
    y = L.DepthwiseConv2D(3, padding="same", activation="relu6")(x)
    x = L.Add()([x, L.Conv2D(8, 1)(y)])
    x = L.MaxPooling2D()(x)
    x = L.GlobalAveragePooling2D()(x)
    outputs = L.Dense(4, activation="softmax", name="classes")(x)
    return keras.Model(inputs, outputs)


def images(count: int) -> np.ndarray:
    """Random inputs of `network`."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, *SHAPE)).astype(np.float32)


@functools.cache
def files() -> dict[str, bytes]:
    """`network` as the converter writes it: int8, with float ports, float."""
    keras.utils.set_random_seed(0)
    model = network()

    def samples():
        return ([image[None]] for image in images(8))

    result = {}
    for name in ("float", "float_ports", "int8"):
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        if name != "float":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = samples
            # As the Edge TPU wants it.
            converter._experimental_disable_per_channel_quantization_for_dense_layers = True  # noqa: E501
        if name == "int8":
            converter.target_spec.supported_ops = [
                tf.lite.OpsSet.TFLITE_BUILTINS_INT8
            ]
            converter.inference_input_type = tf.int8
            converter.inference_output_type = tf.int8
        with warnings.catch_warnings():
            # The converter warns that inputs have no statistics: they come
            # from the representative data set.
            warnings.simplefilter("ignore")
            result[name] = converter.convert()
    return result


def one_op(
    op: str, weights: str, granularity: str, bias: bool = True
) -> tuple[bytes, np.ndarray, np.ndarray]:
    """A file of one int8 operator with hand-made weights.

    All scales are powers of two, so that float64 arithmetic is exact.

    Returns:
        The file, one input and the output by exact arithmetic.
    """
    rng = np.random.default_rng(0)
    side, depth, width, kernel = 5, 8, 6, 3
    bits = CONTAINERS[weights]
    top = 2 ** (bits - 1) - 1
    if op == "DEPTHWISE_CONV_2D":
        width = depth
    shape = {
        "CONV_2D": (width, kernel, kernel, depth),
        "DEPTHWISE_CONV_2D": (1, kernel, kernel, depth),
        "FULLY_CONNECTED": (width, depth),
    }[op]
    codes = rng.integers(-top, top + 1, shape)
    exponents = rng.integers(-4, 0, width if granularity[4:] != "tensor" else 1)
    scales = (2.0**exponents).astype(np.float32)
    axis = 3 if op == "DEPTHWISE_CONV_2D" else 0
    model = schema.ModelT()
    model.version = 3
    model.buffers = [schema.BufferT(), schema.BufferT()]
    model.buffers[1].data = packing.pack(codes, bits)
    given = (1, depth) if op == "FULLY_CONNECTED" else (1, side, side, depth)
    inner = side - kernel + 1
    wanted = (1, width) if len(given) == 2 else (1, inner, inner, width)
    graph = schema.SubGraphT()
    graph.tensors = [
        _tensor("x", given, "INT8", [1.0]),
        _tensor("w", shape, weights, scales, axis, buffer=1),
        _tensor("y", wanted, "INT8", [8.0]),
    ]
    node = schema.OperatorT()
    node.inputs, node.outputs = [0, 1, -1], [2]
    if bias:
        _add_bias(model, graph, node, scales, width)
    node.builtinOptionsType, node.builtinOptions = _options(op)
    graph.operators, graph.inputs, graph.outputs = [node], [0], [2]
    model.subgraphs = [graph]
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, op)
    code.deprecatedBuiltinCode = code.builtinCode
    code.version = 7 if op != "FULLY_CONNECTED" else 10
    model.operatorCodes = [code]
    x = rng.integers(-16, 17, given).astype(np.int8)
    along = [-1 if k == axis else 1 for k in range(len(shape))]
    real = codes * scales.reshape(along)
    exact = np.clip(np.round(_apply(op, x.astype(float), real) / 8), -128, 127)
    return fb.dump(model), x, exact


def _add_bias(model, graph, node, scales, width: int) -> None:
    buffer = schema.BufferT()
    buffer.data = np.zeros(width, np.int32).view(np.uint8)
    model.buffers.append(buffer)
    node.inputs[2] = len(graph.tensors)
    graph.tensors.append(_tensor("b", (width,), "INT32", scales, buffer=2))


def _options(op: str):
    union = schema.BuiltinOptions
    if op == "FULLY_CONNECTED":
        return union.FullyConnectedOptions, schema.FullyConnectedOptionsT()
    if op == "CONV_2D":
        kind, options = union.Conv2DOptions, schema.Conv2DOptionsT()
    else:
        kind = union.DepthwiseConv2DOptions
        options = schema.DepthwiseConv2DOptionsT()
        options.depthMultiplier = 1
    options.padding = schema.Padding.VALID
    options.strideH = options.strideW = 1
    return kind, options


def _apply(op: str, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    if op == "FULLY_CONNECTED":
        return x @ w.T
    patches = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
    if op == "CONV_2D":
        return np.einsum("bijchw,ohwc->bijo", patches, w)
    return np.einsum("bijchw,hwc->bijc", patches, w[0])


def _tensor(name, shape, kind, scales, axis=0, buffer=0):
    tensor = schema.TensorT()
    tensor.name, tensor.shape = name.encode(), list(shape)
    tensor.buffer = buffer
    tensor.type = getattr(schema.TensorType, kind)
    q = tensor.quantization = schema.QuantizationParametersT()
    q.scale = np.asarray(scales, np.float32)
    q.zeroPoint = np.zeros(len(q.scale), np.int64)
    q.quantizedDimension = axis
    return tensor
