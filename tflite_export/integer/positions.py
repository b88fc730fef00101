"""Operators that compute positions: whole numbers that count things.

Lengths, distances and the angles of rotary embeddings come from integers, and
end as integers, masks or sines. No activation meets them, and a grid of 8 bits
would shift a position by several tokens.
"""

from __future__ import annotations

from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import model as fb
from tflite_export.integer.trained_grids import is_float

# Those of a byte may be a picture, and a flag has a code.
_COUNTS = ("INT32", "INT64")
_ENDS = {
    "COS",
    "EQUAL",
    "GREATER",
    "GREATER_EQUAL",
    "LESS",
    "LESS_EQUAL",
    "NOT_EQUAL",
    "SIN",
}
# They look rows up, or multiply with weights.
_TABLES = {
    "BATCH_MATMUL",
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "EMBEDDING_LOOKUP",
    "FULLY_CONNECTED",
    "GATHER",
    "GATHER_ND",
}


def find(model: schema.ModelT) -> set[int]:
    """`id` of each operator that computes a position in float."""
    graph = model.subgraphs[0]
    counted: set[int] = set()
    found: list[schema.OperatorT] = []
    for op in graph.operators:
        if fb.op_name(model, op) in _TABLES:
            continue
        floats = [i for i in fb.inputs(op) if is_float(model, i)]
        whole = any(
            i >= 0 and fb.type_name(graph.tensors[i]) in _COUNTS
            for i in fb.inputs(op)
        )
        if counted >= set(floats) and (
            floats or (whole and fb.op_name(model, op) == "CAST")
        ):
            counted.update(i for i in fb.outputs(op) if is_float(model, i))
            found.append(op)
    ending: set[int] = set(counted - set(fb.outputs(graph)))
    while True:
        lost = {
            index
            for index in ending
            if not all(
                _takes(model, op, counted, ending)
                for op in fb.readers(graph, index)
            )
        }
        if not lost:
            break
        ending -= lost
    return {
        id(op)
        for op in found
        if ending
        and all(i in ending for i in fb.outputs(op) if is_float(model, i))
        and any(i in ending for i in (*fb.inputs(op), *fb.outputs(op)))
    }


def _takes(
    model: schema.ModelT,
    op: schema.OperatorT,
    counted: set[int],
    ending: set[int],
) -> bool:
    """Whether an operator takes positions, or goes on with them."""
    name = fb.op_name(model, op)
    if name in _TABLES:
        return False
    if name in _ENDS:
        # Beside an activation a position has a grid.
        return all(i in counted for i in fb.inputs(op) if is_float(model, i))
    return all(i in ending for i in fb.outputs(op) if is_float(model, i))
