"""Removes from a file what no runtime reads."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer import names


def slim(
    model: schema.ModelT,
    keep_names: Collection[tuple[int, int]],
    description: str,
) -> None:
    """Slims a model in place; tensors and operators keep their order.

    Gone are the converter's names of tensors but those of `keep_names`, by
    subgraph and tensor, in whose place `names.give` puts short ones; unused
    buffers and operator codes, empty quantization tables and the converter's
    metadata. Equal buffers become one. Inputs, outputs and signatures keep
    their names.
    """
    model.metadata = model.metadataBuffer = None
    model.description = description.encode()
    share(model)
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            quantization = tensor.quantization
            if quantization is not None and quantization.scale is None:
                tensor.quantization = None
    # Last, for it counts the bytes that are left.
    names.give(model, keep_names)


def share(model: schema.ModelT) -> None:
    """Makes one of equal buffers, and drops those and codes in no use."""
    _share_buffers(model)
    _drop_operator_codes(model)


def _share_buffers(model: schema.ModelT) -> None:
    # Buffer 0 is the empty one by convention.
    kept = [schema.BufferT()]
    nothing = fb.fingerprint(np.zeros(0, np.uint8))
    places = {nothing: 0}
    moved: dict[int, int] = {}
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if tensor.buffer not in moved:
                data = model.buffers[tensor.buffer].data
                key = nothing
                if data is not None:
                    key = fb.fingerprint(np.asarray(data))
                if key not in places:
                    places[key] = len(kept)
                    kept.append(model.buffers[tensor.buffer])
                moved[tensor.buffer] = places[key]
            tensor.buffer = moved[tensor.buffer]
    model.buffers = kept


def _drop_operator_codes(model: schema.ModelT) -> None:
    places: dict[int, int] = {}
    for graph in model.subgraphs:
        for op in graph.operators or ():
            op.opcodeIndex = places.setdefault(op.opcodeIndex, len(places))
    model.operatorCodes = [model.operatorCodes[old] for old in places]
