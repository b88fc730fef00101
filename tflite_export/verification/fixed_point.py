"""The arithmetic of LiteRT's builtin integer kernels, operator by operator.

XNNPACK rescales accumulators in float; the builtin and reference kernels do it
in fixed point, with a rounding twice where the float arithmetic rounds once
(gemmlowp's `SaturatingRoundingDoublingHighMul`, then a rounding shift). With
few-bit codes accumulators are small numbers, and the second rounding meets
ties often: single units, which later operators may add up. So a file on those
kernels is compared with this simulation.

Convolutions are computed here, with sums of integers that float64 holds
exactly, and equal the kernels' bit for bit (a test holds them to that): the
reference kernels break ties away from zero, the optimized builtin ones
upwards. Any other operator runs alone on the kernels, from the simulated
inputs (LiteRT 2.3.0). So does all that XNNPACK takes of a file that it shares
with them: it requantizes in fixed point, too, sums floats in an order of its
own, and differs from float arithmetic in a few convolved values of a million,
which a chain of layer normalizations can make many units of.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Container
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer import packing
from tflite_export.runtime import interpreter
from tflite_export.targets import CONTAINERS

_PADDING = {schema.Padding.SAME: "SAME", schema.Padding.VALID: "VALID"}
_INT32 = np.iinfo(np.int32)
_ACTIVATIONS = {
    schema.ActivationFunctionType.NONE: (-math.inf, math.inf),
    schema.ActivationFunctionType.RELU: (0.0, math.inf),
    schema.ActivationFunctionType.RELU6: (0.0, 6.0),
    schema.ActivationFunctionType.RELU_N1_TO_1: (-1.0, 1.0),
}


def multiplier(real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positive factors as 31-bit fixed-point numbers and powers of two.

    int64 numbers `q` and exponents `e` with `real ~ q * 2**(e - 31)`.
    """
    mantissa, exponent = np.frexp(real)
    fixed = np.floor(mantissa * 2.0**31 + 0.5).astype(np.int64)
    over = fixed == 2**31
    fixed = np.where(over, fixed // 2, fixed)
    exponent = np.where(over, exponent + 1, exponent)
    fixed = np.where(exponent < -31, 0, fixed)
    return fixed, exponent.astype(np.int64)


def rescale(
    x: np.ndarray, real: np.ndarray, ties_up: bool = False
) -> np.ndarray:
    """`round(x * real)` of int64 sums as the builtin kernels compute it.

    With `ties_up` both roundings break ties upwards, as the optimized kernels
    do, instead of away from zero.
    """
    fixed, exponent = multiplier(np.asarray(real, np.float64))
    shifted = x * 2 ** np.maximum(exponent, 0)
    product = np.clip(shifted, _INT32.min, _INT32.max) * fixed
    shift = np.maximum(-exponent, 0)
    if ties_up:
        high = (product + (1 << 30)) >> 31
        return (high + ((np.int64(1) << shift) >> 1)) >> shift
    total = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    # C++ divides towards zero.
    high = np.where(total >= 0, total >> 31, -((-total) >> 31))
    return _rounding_shift(high, shift)


def _rounding_shift(x: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    mask = (np.int64(1) << exponent) - 1
    remainder = x & mask
    threshold = (mask >> 1) + (x < 0)
    return (x >> exponent) + (remainder > threshold)


class FixedPoint:
    """Runs an int8 file in this arithmetic.

    Args:
        data: The bytes of the file.
        kernels: `"builtin"` or `"reference"`.
        delegated: Positions of operators that XNNPACK computes.
        singles: Files of single operators by position and shapes, which other
            simulations of the same file made; added to.
    """

    def __init__(
        self,
        data: bytes,
        kernels: str,
        delegated: Container[int] = (),
        singles: dict[Any, bytes] | None = None,
    ):
        self._model = fb.read(data)
        self._kernels = kernels
        self._delegated = delegated
        self._sessions: dict[Any, interpreter.Session] = {}
        self._singles = {} if singles is None else singles

    def __call__(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Runs one batch; arrays as the file takes them, in its order."""
        graph = self._model.subgraphs[0]
        values = dict(zip(fb.inputs(graph), inputs, strict=True))
        ties_up = self._kernels == "builtin"
        for position, op in enumerate(graph.operators):
            result = None
            if position not in self._delegated:
                result = _convolved(self._model, op, values, ties_up)
            if result is None:
                values |= self._alone(position, op, values)
            else:
                values[fb.outputs(op)[0]] = result
        return [values[index] for index in fb.outputs(graph)]

    def _alone(
        self,
        position: int,
        op: schema.OperatorT,
        values: Mapping[int, np.ndarray],
    ) -> dict[int, np.ndarray]:
        """Runs one operator on its own."""
        reads = [i for i in dict.fromkeys(fb.inputs(op)) if i in values]
        if position in self._delegated and not reads:
            # Of constants alone XNNPACK makes a constant, and then has nothing
            # to run: such a file of one operator fails, or ends the process.
            values = dict(values)
            for index in fb.inputs(op)[:1]:
                tensor = self._model.subgraphs[0].tensors[index]
                value = fb.constant(self._model, tensor)
                if value is not None:
                    values[index] = value
                    reads = [index]
        shapes = tuple(values[index].shape for index in reads)
        key = (position, shapes)
        if key not in self._sessions:
            if key not in self._singles:
                self._singles[key] = _single(
                    self._model, op, dict(zip(reads, shapes, strict=True))
                )
            kernels = self._kernels
            if position in self._delegated and reads:
                kernels = "xnnpack"
            self._sessions[key] = interpreter.Session(
                self._singles[key], kernels
            )
        results = self._sessions[key]([values[index] for index in reads])
        return dict(zip(fb.outputs(op), results, strict=True))


def _single(
    model: schema.ModelT,
    op: schema.OperatorT,
    reads: Mapping[int, tuple[int, ...]],
) -> bytes:
    """A file of one operator, with the tensors and constants it needs.

    Whole graphs would make the time of a simulation quadratic.
    """
    graph = copy.copy(model.subgraphs[0])
    kept = [i for i in (*fb.inputs(op), *fb.outputs(op)) if i >= 0]
    places = {index: k for k, index in enumerate(dict.fromkeys(kept))}
    graph.tensors = [copy.copy(graph.tensors[index]) for index in places]
    for index, shape in reads.items():
        graph.tensors[places[index]].shape = np.array(shape, np.int32)
        graph.tensors[places[index]].shapeSignature = None
        graph.tensors[places[index]].buffer = 0
    tensors = model.subgraphs[0].tensors
    needed = {tensors[i].buffer for i in fb.inputs(op) if i >= 0}
    for body in model.subgraphs[1:]:  # of a loop
        needed.update(tensor.buffer for tensor in body.tensors)
    for tensor in graph.tensors:
        if tensor.buffer not in needed:
            tensor.buffer = 0
    places[-1] = -1  # an optional input that isn't there

    def placed(indices: Sequence[int]) -> np.ndarray:
        return np.array([places[index] for index in indices], np.int32)

    alone = copy.copy(op)
    alone.inputs, alone.outputs = placed(fb.inputs(op)), placed(fb.outputs(op))
    graph.operators = [alone]
    graph.inputs, graph.outputs = placed(list(reads)), alone.outputs
    single = copy.copy(model)
    single.subgraphs = [graph, *model.subgraphs[1:]]
    single.signatureDefs = None
    single.operatorCodes = list(model.operatorCodes)
    single.buffers = [
        buffer if number in needed else schema.BufferT()
        for number, buffer in enumerate(model.buffers)
    ]
    single.metadata = None
    if len(single.subgraphs) == 1:
        single.buffers = _gathered(graph, single.buffers)
    return fb.dump(single)


def _gathered(
    graph: schema.SubGraphT, buffers: Sequence[schema.BufferT]
) -> list[schema.BufferT]:
    """The buffers that a graph's tensors use, which are numbered anew."""
    used = sorted({0, *(tensor.buffer for tensor in graph.tensors)})
    for tensor in graph.tensors:
        tensor.buffer = used.index(tensor.buffer)
    return [buffers[number] for number in used]


@dataclasses.dataclass(frozen=True)
class Sums:
    """Sums of an int8 convolution, before they are rescaled.

    Attributes:
        total: int64 sums, the bias among them.
        real: The factor to units of the output, one a channel or one for all.
        zero: The output's zero point.
        low: Least code of the output.
        high: Greatest one.
    """

    total: np.ndarray
    real: np.ndarray
    zero: int
    low: float
    high: float

    def codes(self, scaled: np.ndarray) -> np.ndarray:
        """The output's codes, of rescaled sums."""
        result = np.clip(scaled + self.zero, self.low, self.high)
        return result.astype(np.int8)


def sums(
    model: schema.ModelT,
    op: schema.OperatorT,
    values: Mapping[int, np.ndarray],
) -> Sums | None:
    """Sums of a convolution, `None` if it is no int8 one.

    Args:
        model: A file.
        op: One of its operators.
        values: Tensors of the file by their index.
    """
    convolve = _CONVOLUTIONS.get(fb.op_name(model, op))
    tensors = model.subgraphs[0].tensors
    if convolve is None or fb.inputs(op)[0] not in values:
        return None
    source, weight = (tensors[i] for i in fb.inputs(op)[:2])
    target = tensors[fb.outputs(op)[0]]
    kinds = (fb.type_name(source), fb.type_name(target))
    codes = _codes(model, weight)
    if kinds != ("INT8", "INT8") or codes is None:
        return None
    x = values[fb.inputs(op)[0]].astype(np.float64)
    x -= source.quantization.zeroPoint[0]
    found = convolve(x, codes, op.builtinOptions)
    if found is None:
        return None
    total = found.astype(np.int64)
    if len(fb.inputs(op)) > 2 and fb.inputs(op)[2] >= 0:
        bias = fb.constant(model, tensors[fb.inputs(op)[2]])
        if bias is None:
            return None
        total += bias.astype(np.int64)
    unit = _scales(target)[0]
    zero = int(target.quantization.zeroPoint[0])
    low, high = (
        zero + round(end / unit) if math.isfinite(end) else end
        for end in _ACTIVATIONS[op.builtinOptions.fusedActivationFunction]
    )
    return Sums(
        total,
        _scales(source)[0] * _scales(weight) / unit,
        zero,
        max(low, -128),
        min(high, 127),
    )


def _convolved(
    model: schema.ModelT,
    op: schema.OperatorT,
    values: Mapping[int, np.ndarray],
    ties_up: bool,
) -> np.ndarray | None:
    """The result of an int8 convolution, `None` for anything else."""
    found = sums(model, op, values)
    if found is None:
        return None
    total, real = found.total, found.real
    scaled = rescale(total, real)
    if ties_up:
        # The optimized depthwise kernel takes eight channels at a time; it
        # goes over those that are left as the reference kernels do.
        eights = fb.op_name(model, op) == "DEPTHWISE_CONV_2D"
        count = scaled.shape[-1] // 8 * 8 if eights else scaled.shape[-1]
        scaled[..., :count] = rescale(total, real, True)[..., :count]
    return found.codes(scaled)


def _scales(tensor: schema.TensorT) -> np.ndarray:
    scales = np.asarray(tensor.quantization.scale, np.float32)
    return scales.astype(np.float64)


def _codes(model: schema.ModelT, weight: schema.TensorT) -> np.ndarray | None:
    raw = fb.raw_data(model, weight)
    bits = CONTAINERS.get(fb.type_name(weight))
    if raw is None or bits is None:
        return None
    shape = fb.shape(weight)
    return packing.unpack(raw, bits, math.prod(shape)).reshape(shape)


def _convolution(x: np.ndarray, codes: np.ndarray, options: Any) -> Any:
    if codes.shape[3] != x.shape[3]:
        return None  # grouped
    return tf.nn.conv2d(
        x,
        np.transpose(codes, (1, 2, 3, 0)).astype(np.float64),
        [1, options.strideH, options.strideW, 1],
        _PADDING[options.padding],
        dilations=[options.dilationHFactor, options.dilationWFactor],
    ).numpy()


def _depthwise(x: np.ndarray, codes: np.ndarray, options: Any) -> Any:
    if options.strideH != options.strideW:
        return None  # TensorFlow has no such operator
    _, height, width, channels = codes.shape
    depth = x.shape[3]
    kernel = codes.reshape(height, width, depth, channels // depth)
    return tf.nn.depthwise_conv2d(
        x,
        kernel.astype(np.float64),
        [1, options.strideH, options.strideW, 1],
        _PADDING[options.padding],
        dilations=[options.dilationHFactor, options.dilationWFactor],
    ).numpy()


_CONVOLUTIONS = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
}
