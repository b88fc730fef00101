"""One file of several, each of them a signature of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer import names
from tflite_export.flatbuffer.check_model import CALLS
from tflite_export.flatbuffer.prune_constants import share
from tflite_export.matching.records import Written


def join(files: Mapping[str, bytes]) -> bytes:
    """Puts files of one signature each into one, by the signatures' names.

    Constants that are equal byte for byte are stored once. Metadata of the
    converter, which no runtime reads, is left out.
    """
    loaded = [fb.load(data) for data in files.values()]
    joined, *others = loaded
    for name, model in zip(files, loaded, strict=True):
        (signature,) = model.signatureDefs
        signature.signatureKey = name.encode()
    for model in others:
        _append(joined, model)
    # It counts buffers, which become others.
    joined.metadata = joined.metadataBuffer = None
    share(joined)
    names.renumber(joined)
    return fb.dump(joined)


def _append(joined: schema.ModelT, model: schema.ModelT) -> None:
    graphs, buffers = len(joined.subgraphs), len(joined.buffers)
    codes = [_code(joined, code) for code in model.operatorCodes]
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.buffer += buffers
        for op in graph.operators:
            op.opcodeIndex = codes[op.opcodeIndex]
            for options in (op.builtinOptions, op.builtinOptions2):
                _move_calls(options, graphs)
    for signature in model.signatureDefs:
        signature.subgraphIndex += graphs
    joined.subgraphs += model.subgraphs
    joined.buffers += model.buffers
    joined.signatureDefs += model.signatureDefs


def _code(model: schema.ModelT, wanted: schema.OperatorCodeT) -> int:
    """Index of an operator code, which is appended if missing."""
    for index, code in enumerate(model.operatorCodes):
        if vars(code) == vars(wanted):
            return index
    model.operatorCodes.append(wanted)
    return len(model.operatorCodes) - 1


def _move_calls(options: Any, by: int) -> None:
    """Has an operator call graphs that are now further behind."""
    for name in CALLS:
        called = getattr(options, name, None)
        if isinstance(called, np.ndarray):
            setattr(options, name, called + by)
        elif called is not None and called >= 0:
            setattr(options, name, called + by)


def moved(written: Sequence[Written], graphs: int) -> tuple[Written, ...]:
    """Records of weights in a file whose graphs are behind others now."""
    return tuple(
        dataclasses.replace(
            record,
            match=dataclasses.replace(
                record.match,
                constant=dataclasses.replace(
                    record.match.constant,
                    graph=record.match.constant.graph + graphs,
                ),
            ),
        )
        for record in written
    )


def buffers(data: bytes, written: Sequence[Written]) -> dict[str, set[int]]:
    """The buffers that hold each weight, by its path."""
    model = fb.read(data)
    found: dict[str, set[int]] = {}
    for record in written:
        graph = model.subgraphs[record.match.constant.graph]
        held = found.setdefault(record.match.weight.path, set())
        held.add(graph.tensors[record.tensor].buffer)
    return found
