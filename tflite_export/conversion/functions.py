"""Functions that TFLite has no operator for, by others that it has.

Exact up to the rounding of float32. A zero has no sign here: Keras looks for
the sign of zeros in `argmax`, with operators that no runtime has.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

_KERAS = "keras.src.backend.tensorflow.numpy"
# Rational approximation of erf on [-4, 4] in float32, by powers of the square
# from the highest: that of Eigen, with which TensorFlow computes.
_ERF_LIMIT = 4.0
_ERF_ABOVE = (
    *(-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06),
    *(-5.69250639462346e-05, -7.34990630326855e-04, -2.95459980854025e-03),
    -1.60960333262415e-02,
)
_ERF_BELOW = (
    *(-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03),
    *(-7.37332916720468e-03, -1.42647390514189e-02),
)
ERF = "erf"


def replacements(erf: bool) -> list[tuple[Any, str, Callable[..., Any]]]:
    """Lists modules, names in them, and what to find there while tracing.

    Args:
        erf: Whether the error function is among them. The converter makes
            GELU of most formulas that have it, and refuses it elsewhere.
    """
    found: list[tuple[Any, str, Callable[..., Any]]] = [
        (module, name, _of_floats(function, getattr(tf.math, name)))
        for name, function in _ELEMENTWISE.items()
        for module in (tf, tf.math)
        if hasattr(module, name) and (erf or name != ERF)
    ]
    found.append((tf.math, "cumprod", _cumprod(tf.math.cumprod)))
    found.append((tf.linalg, "diag_part", _diag_part(tf.linalg.diag_part)))
    keras = sys.modules.get(_KERAS)
    if keras is not None:
        found += [
            (keras, "argmax", functools.partial(_extreme, tf.argmax)),
            (keras, "argmin", functools.partial(_extreme, tf.argmin)),
            (keras, "signbit", _signbit(keras.signbit)),
        ]
    return found


def has_lone_erf(graph: Any) -> bool:
    """Whether an error function is not in `x / 2 * (1 + erf(...))`.

    Args:
        graph: A `FuncGraph`.
    """
    return any(
        op.type == "Erf" and not _is_in_gelu(op)
        for op in graph.get_operations()
    )


def _is_in_gelu(op: Any) -> bool:
    add = _reader(op, ("Add", "AddV2"))
    product = add and _reader(add, ("Mul",))
    if product is None or 1.0 not in _numbers(add):
        return False
    return any(
        x.op.type == "Mul" and 0.5 in _numbers(x.op) for x in product.inputs
    )


def _reader(op: Any, kinds: Sequence[str]) -> Any:
    """The one operation that reads a result, if it is of some kinds."""
    readers = op.outputs[0].consumers()
    alone = len(readers) == 1 and readers[0].type in kinds
    return readers[0] if alone else None


def _numbers(op: Any) -> list[float]:
    values = [tf.get_static_value(x) for x in op.inputs]
    return [float(v) for v in values if v is not None and v.size == 1]


def _of_floats(
    function: Callable[[tf.Tensor], tf.Tensor], original: Callable[..., Any]
) -> Callable[..., Any]:
    def of(x: Any, name: str | None = None) -> Any:
        x = tf.convert_to_tensor(x)
        if not x.dtype.is_floating:
            return original(x, name)
        with tf.name_scope(name or original.__name__):
            return function(x)

    return of


def _erf(x: tf.Tensor) -> tf.Tensor:
    x = tf.clip_by_value(x, -_ERF_LIMIT, _ERF_LIMIT)
    square = x * x
    above = _polynomial(square, _ERF_ABOVE)
    return x * above / _polynomial(square, _ERF_BELOW)


def _polynomial(x: tf.Tensor, factors: Sequence[float]) -> tf.Tensor:
    found = x * factors[0] + factors[1]
    for factor in factors[2:]:
        found = found * x + factor
    return found


def _sinh(x: tf.Tensor) -> tf.Tensor:
    # Of small numbers a difference of powers would lose all digits.
    power = tf.math.expm1(tf.abs(x))
    return tf.sign(x) * (power + power / (power + 1.0)) / 2.0


def _cosh(x: tf.Tensor) -> tf.Tensor:
    return (tf.exp(x) + tf.exp(-x)) / 2.0


def _asinh(x: tf.Tensor) -> tf.Tensor:
    size = tf.abs(x)
    square = size * size
    rest = square / (tf.sqrt(square + 1.0) + 1.0)
    return tf.sign(x) * tf.math.log1p(size + rest)


def _acosh(x: tf.Tensor) -> tf.Tensor:
    above = x - 1.0
    return tf.math.log1p(above + tf.sqrt(above * (above + 2.0)))


def _atanh(x: tf.Tensor) -> tf.Tensor:
    return (tf.math.log1p(x) - tf.math.log1p(-x)) / 2.0


def _atan(x: tf.Tensor) -> tf.Tensor:
    return tf.math.atan2(x, tf.ones_like(x))


def _asin(x: tf.Tensor) -> tf.Tensor:
    return tf.math.atan2(x, tf.sqrt((1.0 - x) * (1.0 + x)))


def _acos(x: tf.Tensor) -> tf.Tensor:
    return tf.math.atan2(tf.sqrt((1.0 - x) * (1.0 + x)), x)


_ELEMENTWISE: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "acos": _acos,
    "acosh": _acosh,
    "asin": _asin,
    "asinh": _asinh,
    "atan": _atan,
    "atanh": _atanh,
    "cosh": _cosh,
    ERF: _erf,
    "sinh": _sinh,
    "tan": lambda x: tf.sin(x) / tf.cos(x),
}


def _cumprod(original: Callable[..., Any]) -> Callable[..., Any]:
    """Products of ever longer stretches, along an axis of known length."""

    def cumprod(
        x: Any,
        axis: Any = 0,
        exclusive: bool = False,
        reverse: bool = False,
        name: str | None = None,
    ) -> Any:
        x = tf.convert_to_tensor(x)
        place = tf.get_static_value(axis)
        length = None if place is None else x.shape[int(place)]
        if length is None or exclusive or reverse:
            return original(x, axis, exclusive, reverse, name)
        with tf.name_scope(name or "cumprod"):
            front = (slice(None),) * (int(place) % x.shape.rank)
            step = 1
            while step < length:
                behind = x[(*front, slice(step, None))]
                moved = x[(*front, slice(None, length - step))]
                first = x[(*front, slice(None, step))]
                x = tf.concat([first, behind * moved], int(place))
                step *= 2
            return x

    return cumprod


def _diag_part(original: Callable[..., Any]) -> Callable[..., Any]:
    """The diagonal of matrices of a known size, as rows that are looked up."""

    def diag_part(x: Any, *args: Any, **options: Any) -> Any:
        x = tf.convert_to_tensor(x)
        if args or options or None in x.shape[-2:]:
            return original(x, *args, **options)
        rows, columns = x.shape[-2:]
        with tf.name_scope("diag_part"):
            places = [i * (columns + 1) for i in range(min(rows, columns))]
            shape = tf.concat([tf.shape(x)[:-2], [rows * columns]], 0)
            if None not in x.shape[1:-2]:
                shape = (-1, *x.shape[1:-2], rows * columns)
            return tf.gather(tf.reshape(x, shape), places, axis=-1)

    return diag_part


def _extreme(
    find: Callable[..., tf.Tensor],
    x: Any,
    axis: int | None = None,
    keepdims: bool = False,
) -> tf.Tensor:
    """Keras's `argmax` and `argmin`."""
    x = tf.convert_to_tensor(x)
    if axis is None:
        found = find(tf.reshape(x, [-1]), axis=0, output_type=tf.int32)
        shape: Any = [1] * x.shape.rank
        return tf.reshape(found, shape) if keepdims else found
    found = find(x, axis=axis, output_type=tf.int32)
    return tf.expand_dims(found, axis) if keepdims else found


def _signbit(original: Callable[..., Any]) -> Callable[..., Any]:
    def signbit(x: Any) -> Any:
        x = tf.convert_to_tensor(x)
        if not x.dtype.is_floating:
            return original(x)
        return tf.less(x, tf.zeros_like(x))

    return signbit
