"""Operators as other operators on slices of their inputs.

Some targets have no DEPTH_TO_SPACE or UNPACK, and a SOFTMAX for one vector at a
time only. Codes are moved and joined again; computations use the same kernel on
the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.targets import Target

_NEEDED = ("CONCATENATION", "RESHAPE", "SLICE")
# The rule of devices whose SOFTMAX takes one vector.
_VECTOR = "softmax_length"
# Beyond that many vectors a softmax would be more operators than the network.
_MOST_VECTORS = 64


def space(
    model: schema.ModelT, op: schema.OperatorT, target: Target
) -> list[schema.OperatorT] | None:
    """DEPTH_TO_SPACE: the rows of each block are channels side by side.

    Returns operators in its place, `None` where it has to stay.
    """
    shape, block = _axes(model, fb.inputs(op)[0]), op.builtinOptions.blockSize
    if _runs(target, "DEPTH_TO_SPACE") or not _can(target, shape):
        return None
    batch, height, width, channels = shape
    row = channels // block
    steps: list[schema.OperatorT] = []
    rows = []
    for start in range(0, channels, row):
        piece = _slice(model, steps, op, 3, start, row)
        wide = (batch, height, 1, width * row)
        rows.append(_reshaped(model, steps, piece, wide))
    joined = _new(model, (batch, height, block, width * row))
    steps.append(_concatenation(model, rows, joined, 2))
    steps.append(edit.reshape(model, joined, fb.outputs(op)[0]))
    return steps


def parts(
    model: schema.ModelT, op: schema.OperatorT, target: Target
) -> list[schema.OperatorT] | None:
    """UNPACK: one slice an output; see `space`."""
    shape = _axes(model, fb.inputs(op)[0])
    if _runs(target, "UNPACK") or not _can(target, shape):
        return None
    axis = op.builtinOptions.axis % len(shape)
    steps: list[schema.OperatorT] = []
    for start, result in enumerate(fb.outputs(op)):
        piece = _slice(model, steps, op, axis, start, 1)
        steps.append(edit.reshape(model, piece, result))
    return steps


def vectors(
    model: schema.ModelT, op: schema.OperatorT, target: Target
) -> list[schema.OperatorT] | None:
    """SOFTMAX: one vector after the other; see `space`."""
    source, result = fb.inputs(op)[0], fb.outputs(op)[0]
    shape = _axes(model, source)
    rules = target.options.get("rules", {}).get("operators", {})
    if _VECTOR not in rules.get("SOFTMAX", ()) or not _can(target, shape):
        return None
    count, length = math.prod(shape[:-1]), shape[-1]
    if not 1 < count <= _MOST_VECTORS:
        return None
    steps: list[schema.OperatorT] = []
    # A vector is a row of an image, where it can be cut out.
    flat = _reshaped(model, steps, source, (1, count * length))
    results = []
    for start in range(0, count * length, length):
        piece = _cut(model, steps, flat, (0, start), (1, length))
        results.append(_new(model, (1, length)))
        each = edit.new_operator(
            model, "SOFTMAX", 1, [piece], [results[-1]], "SoftmaxOptions"
        )
        each.builtinOptions.beta = op.builtinOptions.beta
        steps.append(each)
    joined = _new(model, (1, count * length))
    steps.append(_concatenation(model, results, joined, 1))
    steps.append(edit.reshape(model, joined, result))
    return steps


def _runs(target: Target, name: str) -> bool:
    """Whether a target has an operator, and its device as well."""
    rules = target.options.get("rules", {}).get("operators")
    return target.has(name) and (rules is None or name in rules)


def _can(target: Target, shape: Sequence[int]) -> bool:
    """Whether a target has what is needed, and all axes are known."""
    return min(shape, default=0) > 0 and all(
        _runs(target, name) for name in _NEEDED
    )


def _axes(model: schema.ModelT, index: int) -> tuple[int, ...]:
    return fb.axes(model.subgraphs[0].tensors[index])


def _new(model: schema.ModelT, shape: tuple[int, ...]) -> int:
    return edit.new_tensor(model.subgraphs[0], "FLOAT32", shape=shape)


def _integers(model: schema.ModelT, values: Sequence[int]) -> int:
    return edit.new_constant(model, np.array(values, np.int32))


def _slice(
    model: schema.ModelT,
    steps: list[schema.OperatorT],
    op: schema.OperatorT,
    axis: int,
    start: int,
    length: int,
) -> int:
    """A part of what an operator reads, along one axis."""
    source = fb.inputs(op)[0]
    shape = list(_axes(model, source))
    begin = [0] * len(shape)
    begin[axis], shape[axis] = start, length
    return _cut(model, steps, source, begin, shape)


def _cut(
    model: schema.ModelT,
    steps: list[schema.OperatorT],
    source: int,
    begin: Sequence[int],
    shape: Sequence[int],
) -> int:
    piece = _new(model, tuple(shape))
    inputs = [source, _integers(model, begin), _integers(model, shape)]
    steps.append(
        edit.new_operator(model, "SLICE", 1, inputs, [piece], "SliceOptions")
    )
    return piece


def _reshaped(
    model: schema.ModelT,
    steps: list[schema.OperatorT],
    source: int,
    shape: tuple[int, ...],
) -> int:
    result = _new(model, shape)
    steps.append(edit.reshape(model, source, result))
    return result


def _concatenation(
    model: schema.ModelT, sources: list[int], result: int, axis: int
) -> schema.OperatorT:
    op = edit.new_operator(
        model, "CONCATENATION", 1, sources, [result], "ConcatenationOptions"
    )
    op.builtinOptions.axis = axis
    return op
