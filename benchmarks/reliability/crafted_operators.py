"""Crafted files whose operators read what is long, each one again."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from benchmarks.reliability.crafted_maker import File
from benchmarks.reliability.crafted_maker import table

_OP = schema.BuiltinOperator
_T = schema.TensorType


def _shared(kind: int, count: int, place: int, shape: Any, value: int) -> bytes:
    """Operators that read one long constant at one of their inputs."""
    file = File()
    x = file.tensor("x", (1, 2, 2, 3))
    data = np.full(shape, value, np.int32)
    held = file.buffer(data.ravel())
    long = file.tensor("long", shape, Type=_T.INT32, Buffer=held)
    inputs = [x] * place + [long] + [x] * (place == 0)
    read, wrote = file.ints(inputs), file.ints([file.tensor("y", (1, 1, 1, 1))])
    code = file.code(kind)
    for _ in range(count):
        file.operator(code, read, wrote)
    file.graph([x])
    return file.done()


def axes(count: int) -> bytes:
    """Means along one long constant of axes."""
    return _shared(_OP.MEAN, count, 1, (10 * count,), 1)


def split(count: int) -> bytes:
    """Splits along one long constant of axes."""
    return _shared(_OP.SPLIT, count, 0, (10 * count,), 1)


def strides(count: int) -> bytes:
    """Slices with one long constant of strides."""
    return _shared(_OP.STRIDED_SLICE, count, 3, (10 * count,), 1)


def paddings(count: int) -> bytes:
    """Paddings by one long constant."""
    return _shared(_OP.PAD, count, 1, (1, 10 * count), 0)


def grids(count: int) -> bytes:
    """Operators between two tensors of many scales that differ at the end."""
    file = File()
    made = []
    for last in (1.0, 2.0):
        scale = np.append(np.ones(10 * count - 1, np.float32), last)
        parameters = table(
            file.builder,
            "QuantizationParameters",
            Scale=file.builder.CreateNumpyVector(scale.astype(np.float32)),
            ZeroPoint=file.builder.CreateNumpyVector(
                np.zeros(10 * count, np.int64)
            ),
        )
        shape = (10 * count, 1)
        made.append(
            file.tensor("g", shape, Type=_T.INT8, Quantization=parameters)
        )
    read, wrote = file.ints(made[:1]), file.ints(made[1:])
    for kind in (_OP.RESHAPE, _OP.MAX_POOL_2D, _OP.RELU, _OP.TRANSPOSE):
        code = file.code(kind)
        for _ in range(count // 4):
            file.operator(code, read, wrote)
    file.graph(made[:1])
    return file.done()


def wide(count: int) -> bytes:
    """Operators of many inputs."""
    file = File()
    x, y = file.tensor("x"), file.tensor("y")
    read, wrote = file.ints([x] * count), file.ints([y])
    for kind in (_OP.CONCATENATION, _OP.PACK, _OP.CONV_2D):
        file.operator(file.code(kind), read, wrote)
    file.graph([x])
    return file.done()


def conversions(count: int) -> bytes:
    """Conversions in a graph that lists one output many times."""
    file = File()
    x, y = file.tensor("x"), file.tensor("y", Type=_T.INT8)
    read, wrote = file.ints([x]), file.ints([y])
    code = file.code(_OP.QUANTIZE)
    for _ in range(count):
        file.operator(code, read, wrote)
    file.graph([x], [y] * count)
    return file.done()
