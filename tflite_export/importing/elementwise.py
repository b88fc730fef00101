"""Functions of single elements, reductions and poolings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tflite_export.importing.operator import Operator

layers = keras.layers
ops = keras.ops

# Types that a CAST may give. Converters leave its options out.
_CASTS = (
    *("float32", "float16", "bool", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32"),
)


def _unary(function: Callable[[Any], Any]) -> Callable[[Operator], Any]:
    return lambda op: function(op.inputs[0])


def _activation(name: str) -> Callable[[Operator], Any]:
    def apply(op: Operator) -> Any:
        return layers.Activation(name, name=op.name)(op.inputs[0])

    return apply


def _binary(
    function: Callable[[Any, Any], Any], merge: Any = None
) -> Callable[[Operator], Any]:
    """A function of two values; a layer where both are computed alike."""

    def apply(op: Operator) -> Any:
        a, b = op.inputs
        constant = isinstance(a, np.ndarray) or isinstance(b, np.ndarray)
        if merge is not None and not constant and a.shape == b.shape:
            return op.activated(merge(name=op.name)([a, b]))
        return op.activated(function(a, b))

    return apply


def _reduction(
    function: Callable[..., Any], pool: Any = None
) -> Callable[[Operator], Any]:
    """A reduction; a global pooling where it is one over rows and columns."""

    def apply(op: Operator) -> Any:
        x = op.inputs[0]
        rank = len(x.shape)
        axes = sorted({axis % rank for axis in op.integers(1)})
        op.leaves_batch(axes, x)
        keep = bool(op.options.keepDims)
        if pool is not None and rank == 4 and axes == [1, 2]:
            return pool(keepdims=keep, name=op.name)(x)
        return function(x, axis=tuple(axes), keepdims=keep)

    return apply


def _pool(kind: Any) -> Callable[[Operator], Any]:
    def apply(op: Operator) -> Any:
        layer = kind(
            (op.options.filterHeight, op.options.filterWidth),
            (op.options.strideH, op.options.strideW),
            op.padding,
            name=op.name,
        )
        return op.activated(layer(op.inputs[0]))

    return apply


def softmax(op: Operator) -> Any:
    """SOFTMAX over the last axis."""
    x = op.inputs[0]
    if op.options.beta != 1.0:
        x = x * np.float32(op.options.beta)
    return layers.Softmax(name=op.name)(x)


def leaky_relu(op: Operator) -> Any:
    """LEAKY_RELU."""
    return layers.LeakyReLU(op.options.alpha, name=op.name)(op.inputs[0])


def gelu(op: Operator) -> Any:
    """GELU."""
    return ops.gelu(op.inputs[0], approximate=bool(op.options.approximate))


def l2_normalization(op: Operator) -> Any:
    """L2_NORMALIZATION over the last axis, with the kernels' epsilon."""
    x = op.inputs[0]
    squares = ops.sum(ops.square(x), axis=-1, keepdims=True)
    return op.activated(x / ops.sqrt(ops.maximum(squares, 1e-12)))


def select(op: Operator) -> Any:
    """SELECT and SELECT_V2."""
    return ops.where(*op.inputs)


def cast(op: Operator) -> Any:
    """CAST, to the type that the file says."""
    if op.on_grid[0]:
        raise op.unknown(
            "it takes integers of a grid as numbers, as a table of a "
            "function does; a float file of the same network has the "
            "function"
        )
    kind = op.types[0].lower()
    if kind not in _CASTS:
        raise op.unknown(f"type {op.types[0]}")
    return ops.cast(op.inputs[0], kind)


def arg_max(op: Operator) -> Any:
    """ARG_MAX and ARG_MIN over one axis."""
    (axis,) = op.integers(1)
    op.leaves_batch([axis], op.inputs[0])
    function = ops.argmax if op.kind == "ARG_MAX" else ops.argmin
    return function(op.inputs[0], axis=axis)


def add_all(op: Operator) -> Any:
    """ADD_N of any number of values."""
    total = op.inputs[0]
    for part in op.inputs[1:]:
        total = ops.add(total, part)
    return total


OPERATORS: dict[str, Callable[[Operator], Any]] = {
    "ABS": _unary(ops.absolute),
    "ADD": _binary(ops.add, layers.Add),
    "ADD_N": add_all,
    "ARG_MAX": arg_max,
    "ARG_MIN": arg_max,
    "AVERAGE_POOL_2D": _pool(layers.AveragePooling2D),
    "CAST": cast,
    "CEIL": _unary(ops.ceil),
    "COS": _unary(ops.cos),
    "DIV": _binary(ops.divide),
    "ELU": _activation("elu"),
    "EQUAL": _binary(ops.equal),
    "EXP": _unary(ops.exp),
    "FLOOR": _unary(ops.floor),
    "FLOOR_DIV": _binary(ops.floor_divide),
    "FLOOR_MOD": _binary(ops.mod),
    "GELU": gelu,
    "GREATER": _binary(ops.greater),
    "GREATER_EQUAL": _binary(ops.greater_equal),
    "HARD_SWISH": _activation("hard_silu"),
    "L2_NORMALIZATION": l2_normalization,
    "LEAKY_RELU": leaky_relu,
    "LESS": _binary(ops.less),
    "LESS_EQUAL": _binary(ops.less_equal),
    "LOG": _unary(ops.log),
    "LOGICAL_AND": _binary(ops.logical_and),
    "LOGICAL_NOT": _unary(ops.logical_not),
    "LOGICAL_OR": _binary(ops.logical_or),
    "LOGISTIC": _activation("sigmoid"),
    "LOG_SOFTMAX": _activation("log_softmax"),
    "MAXIMUM": _binary(ops.maximum, layers.Maximum),
    "MAX_POOL_2D": _pool(layers.MaxPooling2D),
    "MEAN": _reduction(ops.mean, layers.GlobalAveragePooling2D),
    "MINIMUM": _binary(ops.minimum, layers.Minimum),
    "MUL": _binary(ops.multiply, layers.Multiply),
    "NEG": _unary(ops.negative),
    "NOT_EQUAL": _binary(ops.not_equal),
    "POW": _binary(ops.power),
    "REDUCE_ALL": _reduction(ops.all),
    "REDUCE_ANY": _reduction(ops.any),
    "REDUCE_MAX": _reduction(ops.max, layers.GlobalMaxPooling2D),
    "REDUCE_MIN": _reduction(ops.min),
    "REDUCE_PROD": _reduction(ops.prod),
    "RELU": _activation("relu"),
    "RELU6": lambda op: layers.ReLU(6.0, name=op.name)(op.inputs[0]),
    "RELU_0_TO_1": lambda op: layers.ReLU(1.0, name=op.name)(op.inputs[0]),
    "RELU_N1_TO_1": lambda op: ops.clip(op.inputs[0], -1.0, 1.0),
    "ROUND": _unary(ops.round),
    "RSQRT": _unary(ops.rsqrt),
    "SELECT": select,
    "SELECT_V2": select,
    "SIGN": _unary(ops.sign),
    "SIN": _unary(ops.sin),
    "SOFTMAX": softmax,
    "SQRT": _unary(ops.sqrt),
    "SQUARE": _unary(ops.square),
    "SQUARED_DIFFERENCE": _binary(lambda a, b: ops.square(ops.subtract(a, b))),
    "SUB": _binary(ops.subtract, layers.Subtract),
    "SUM": _reduction(ops.sum),
    "TANH": _activation("tanh"),
    "ZEROS_LIKE": _unary(ops.zeros_like),
}
