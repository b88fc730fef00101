"""Means along the last axis, where a runtime computes them wrong.

XNNPACK's kernel for WebAssembly with relaxed SIMD is wrong on an int8 MEAN of
the last axis, whatever its length, and right along others (LiteRT.js 2.5.3). A
TRANSPOSE puts other axes last, or a RESHAPE an axis of one element where there
is no other; the sums and their rounding stay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.integer.reshaping import new_tensor
from tflite_export.targets import Target

_OPTION = "mean_of_last_axis"


def avoid(
    model: schema.ModelT, target: Target, floats: Sequence[schema.OperatorT]
) -> None:
    """Changes a float model in place; tensors keep their indices.

    Args:
        model: The float model, as it will be written.
        target: Where it shall run. Its option `mean_of_last_axis` says whether
            it computes them.
        floats: Operators that stay float, and as they are.
    """
    if target.options.get(_OPTION, True):
        return
    graph = model.subgraphs[0]
    for op in list(graph.operators):
        if fb.op_name(model, op) == "MEAN" and all(op is not f for f in floats):
            _put_apart(model, graph, op)


def _put_apart(
    model: schema.ModelT, graph: schema.SubGraphT, op: schema.OperatorT
) -> None:
    source, place = fb.inputs(op)[:2]
    result = fb.outputs(op)[0]
    said = fb.constant(model, graph.tensors[place])
    axes = fb.axes(graph.tensors[source])
    if said is None or -1 in axes:
        return
    gone = sorted({int(axis) % len(axes) for axis in said.reshape(-1)})
    # Behind the last one there may be axes of one element.
    if not gone or math.prod(axes[gone[-1] + 1 :]) > 1:
        return
    kept = [axis for axis in range(len(axes)) if axis not in gone]
    count = math.prod(axes[axis] for axis in kept)
    if count > 1:
        first = [axis for axis in kept[:1] if axis == 0 and axes[0] == 1]
        order = [*first, *gone, *kept[len(first) :]]
        moved = new_tensor(graph, tuple(axes[axis] for axis in order))
        now = range(len(first), len(first) + len(gone))
        inputs = [source, _integers(model, graph, order)]
        step = edit.new_operator(
            model, "TRANSPOSE", 1, inputs, [moved], "TransposeOptions"
        )
        left = tuple(axes[axis] for axis in kept)
    elif axes[-1] > 1:
        moved = new_tensor(graph, (1, math.prod(axes), 1))
        now, left = range(1, 2), (1, 1)
        step = edit.reshape(model, source, moved)
    else:
        return
    op.inputs = np.array([moved, _integers(model, graph, now)], np.int32)
    op.builtinOptions.keepDims = False
    steps = [step, op]
    if left != fb.axes(graph.tensors[result]):
        flat = new_tensor(graph, left)
        op.outputs = np.array([flat], np.int32)
        steps.append(edit.reshape(model, flat, result))
    at = edit.before(graph, op)
    graph.operators[at : at + 1] = steps


def _integers(
    model: schema.ModelT, graph: schema.SubGraphT, values: Sequence[int]
) -> int:
    return edit.new_constant(model, np.array(values, np.int32), graph)
