"""Positions in tables, in the forms that devices compute them in."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.targets import Target

_POSITIONS = ("INT32", "INT64")


def wrap(model: schema.ModelT, op: schema.OperatorT, target: Target) -> bool:
    """Rewrites the choice between a position and one from the end.

    Device kernels choose between activations only; the sum with 0 or the
    length is the same. Returns whether a SELECT was such a choice.
    """
    graph = model.subgraphs[0]
    mask, shifted, plain = fb.inputs(op)
    kind = fb.type_name(graph.tensors[plain])
    adds = [
        other
        for other in graph.operators
        if shifted in fb.outputs(other)
        and fb.op_name(model, other) == "ADD"
        and fb.inputs(other)[0] == plain
    ]
    if kind != "INT32" or not adds or not target.has("CAST"):
        return False
    flags = edit.new_tensor(graph, kind, graph.tensors[mask])
    steps = edit.new_tensor(graph, kind, graph.tensors[mask])
    cast = edit.new_operator(model, "CAST", 1, [mask], [flags], "CastOptions")
    cast.builtinOptions.inDataType = schema.TensorType.BOOL
    cast.builtinOptions.outDataType = schema.TensorType.INT32
    length = fb.inputs(adds[0])[1]
    at = edit.before(graph, op)
    graph.operators[at : at + 1] = [
        cast,
        edit.new_operator(
            model, "MUL", 1, [flags, length], [steps], "MulOptions"
        ),
        edit.new_operator(
            model, "ADD", 1, [plain, steps], fb.outputs(op), "AddOptions"
        ),
    ]
    if not any(shifted in fb.inputs(other) for other in graph.operators):
        del graph.operators[edit.before(graph, adds[0])]
    return True


def take(model: schema.ModelT, op: schema.OperatorT) -> None:
    """Makes an input that is only cut to integers an input of integers.

    Where nothing runs in float, the caller cuts. `op` is a CAST from floats.
    """
    graph = model.subgraphs[0]
    source, result = fb.inputs(op)[0], fb.outputs(op)[0]
    readers = [o for o in graph.operators if source in fb.inputs(o)]
    if (
        fb.type_name(graph.tensors[result]) not in _POSITIONS
        or source not in fb.inputs(graph)
        or len(readers) > 1
    ):
        return
    graph.tensors[result].name = graph.tensors[source].name
    graph.inputs = edit.replaced(fb.inputs(graph), source, result)
    edit.sign(model, "inputs", source, result)
    del graph.operators[edit.before(graph, op)]


def narrow(model: schema.ModelT, op: schema.OperatorT) -> None:
    """Makes constant positions of a GATHER or GATHER_ND ones of 32 bits."""
    graph = model.subgraphs[0]
    tensor = graph.tensors[fb.inputs(op)[1]]
    value = fb.constant(model, tensor)
    if value is None or fb.type_name(tensor) != "INT64":
        return
    buffer = edit.new_buffer(model, value.astype(np.int32))
    edit.set_input(
        op, 1, edit.new_tensor(graph, "INT32", tensor, buffer=buffer)
    )
