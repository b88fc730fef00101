"""The same integer arithmetic with every weight in an int8 container.

Not every program that runs integer files reads packed weights. The codes are
the same, so results must be, too.
"""

from __future__ import annotations

import functools
import math

from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer import packing
from tflite_export.flatbuffer.operators import KEEPS_AXES
from tflite_export.targets import CONTAINERS
from tflite_export.targets.operator_rows import parse_rows


def widened(data: bytes) -> bytes:
    """A file with its packed constants as INT8, and with closed axes."""
    model = fb.load(data)
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.shapeSignature = None
    _widen(model)
    return fb.dump(model)


def widened_bytes(data: bytes) -> int:
    """Size of a file with its packed constants as INT8, all else the same."""
    model = fb.load(data)
    _widen(model)
    return fb.size(model)


@functools.cache
def _versions() -> dict[str, int]:
    """Versions for int8 weights of operators that have others for packed."""
    versions = {
        name: row.versions["int8"]
        for name, row in parse_rows({"like": "_integer"}, "int8").items()
        if any(" " in key for key in row.versions)
    }
    dense = "FULLY_CONNECTED"
    return versions | {dense: max(versions[dense], KEEPS_AXES)}


def _widen(model: schema.ModelT) -> None:
    versions = _versions()
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            bits = CONTAINERS.get(fb.type_name(tensor), 8)
            packed = fb.raw_data(model, tensor)
            if bits == 8 or packed is None:
                continue
            count = math.prod(fb.shape(tensor))
            buffer = schema.BufferT()
            buffer.data = packing.unpack(packed, bits, count).view("uint8")
            tensor.type = schema.TensorType.INT8
            tensor.buffer = len(model.buffers)
            model.buffers.append(buffer)
        for op in graph.operators or ():
            code = fb.op_code(model, op)
            most = versions.get(fb.op_name(model, op), code.version)
            code.version = min(code.version, most)
    read = {tensor.buffer for g in model.subgraphs for tensor in g.tensors}
    for number in set(range(len(model.buffers))) - read:
        model.buffers[number].data = None
