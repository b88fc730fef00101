"""Removes tensors that nothing reads or writes."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import model as fb


def compact(model: schema.ModelT) -> dict[tuple[int, int], int]:
    """Removes unused tensors of all graphs; the others keep their order.

    Returns the new index of each tensor that stays, by subgraph and old index.
    """
    places: dict[tuple[int, int], int] = {}
    for number, graph in enumerate(model.subgraphs):
        nodes = [graph, *(graph.operators or ())]
        used = {
            index
            for node in nodes
            for index in (*fb.inputs(node), *fb.outputs(node))
        } | _signed(model, number)
        kept = [i for i in range(len(graph.tensors)) if i in used]
        moved = {old: new for new, old in enumerate(kept)}
        graph.tensors = [graph.tensors[old] for old in kept]
        for node in nodes:
            node.inputs = _moved(fb.inputs(node), moved)
            node.outputs = _moved(fb.outputs(node), moved)
        places |= {(number, old): new for old, new in moved.items()}
    for signature in model.signatureDefs or ():
        for entry in (*signature.inputs, *signature.outputs):
            old = (signature.subgraphIndex, entry.tensorIndex)
            entry.tensorIndex = places[old]
    return places


def _signed(model: schema.ModelT, graph: int) -> set[int]:
    """Tensors of a graph that a signature names."""
    return {
        entry.tensorIndex
        for signature in model.signatureDefs or ()
        if signature.subgraphIndex == graph
        for entry in (*signature.inputs, *signature.outputs)
    }


def _moved(indices: list[int], moved: dict[int, int]) -> np.ndarray:
    # -1 stands for an optional input that isn't there.
    return np.array([moved.get(i, -1) for i in indices], np.int32)
