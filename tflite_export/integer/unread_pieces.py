"""Slices instead of operators that have outputs which nothing reads.

Where a state starts with zeros, the gate that forgets it is cut out of a
product and read by nothing. LiteRT's GPU accelerator may end the process on
such a SPLIT, and the emulator of Qualcomm's NPU can't run it.
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.integer.reshaping import new_tensor

_SEVERAL = ("SPLIT", "SPLIT_V", "UNPACK")


def cut(model: schema.ModelT) -> None:
    """Changes a float model without pairs in place; tensors keep their indices.

    Makes slices of the pieces that are read, where others are not.
    """
    graph = model.subgraphs[0]
    for op in list(graph.operators):
        if fb.op_name(model, op) in _SEVERAL:
            _cut(model, graph, op)


def _cut(
    model: schema.ModelT, graph: schema.SubGraphT, op: schema.OperatorT
) -> None:
    kept = set(fb.outputs(graph))
    for other in graph.operators:
        kept.update(fb.inputs(other))
    pieces = fb.outputs(op)
    split = fb.op_name(model, op) != "UNPACK"
    source = fb.inputs(op)[1 if fb.op_name(model, op) == "SPLIT" else 0]
    axes = fb.axes(graph.tensors[source])
    axis = _axis(model, graph, op)
    if axis is None or kept.issuperset(pieces) or -1 in axes:
        return
    axis %= len(axes)
    # An UNPACK takes pieces of one, without the axis.
    lengths = [
        fb.axes(graph.tensors[piece])[axis] if split else 1 for piece in pieces
    ]
    starts = np.cumsum([0, *lengths[:-1]])
    made = []
    for place, length, piece in zip(starts, lengths, pieces, strict=True):
        if piece not in kept:
            continue
        whole = (*axes[:axis], length, *axes[axis + 1 :])
        start = np.zeros(len(axes), np.int32)
        start[axis] = place
        inputs = [
            source,
            edit.new_constant(model, start, graph),
            edit.new_constant(model, np.array(whole, np.int32), graph),
        ]
        result = piece if split else new_tensor(graph, whole)
        made.append(
            edit.new_operator(
                model, "SLICE", 1, inputs, [result], "SliceOptions"
            )
        )
        if not split:
            made.append(edit.reshape(model, result, piece))
    at = edit.before(graph, op)
    graph.operators[at : at + 1] = made


def _axis(
    model: schema.ModelT, graph: schema.SubGraphT, op: schema.OperatorT
) -> int | None:
    name = fb.op_name(model, op)
    if name == "UNPACK":
        return int(op.builtinOptions.axis)
    source = fb.inputs(op)[0 if name == "SPLIT" else 2]
    place = fb.constant(model, graph.tensors[source])
    return None if place is None else int(place.reshape(-1)[0])
