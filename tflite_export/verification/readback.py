"""Reads the codes back from the bytes of a file and compares them.

On purpose this module shares nothing with the writing side except the
description of where a weight lies. It reads through the schema's accessors and
unpacks single bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export import targets
from tflite_export.errors import ExportError
from tflite_export.files import let_go
from tflite_export.flatbuffer import model as fb
from tflite_export.matching.match import Match
from tflite_export.matching.records import Written
from tflite_export.matching.scales import RELATIVE_TOLERANCE

_BITS = {
    schema.TensorType.INT2: 2,
    schema.TensorType.INT4: 4,
    schema.TensorType.INT8: 8,
}
# Versions as the runtimes register them (tflite op_version.cc), kept apart
# from the targets' tables so that one checks the other.
_DEQUANTIZE_VERSIONS = {(8, False): 2, (8, True): 5, 4: 6, 2: 7}
# Codes that are looked at together; a multiple of eight.
_BLOCK = 1 << 20


def check_codes(data: bytes, written: Sequence[Written]) -> None:
    """Compares the codes in a file with the trained codes, bit for bit.

    Raises:
        ExportError: If a code, a scale or a tensor differs.
    """
    model = schema.Model.GetRootAs(data, 0)
    for record in written:
        match = record.match
        path = match.weight.path
        graph = model.Subgraphs(match.constant.graph)
        tensor = graph.Tensors(record.tensor)
        codes = _codes(model, tensor, path)
        scales = _scales(tensor, codes.ndim, path)
        # A 1x1 convolution may have become FULLY_CONNECTED.
        codes = codes.reshape(match.constant.value.shape)
        silenced = record.channels.silenced
        heard = _but(record, silenced)
        for held in (match, *match.twins):
            _compare_codes(codes, record.container, held, heard)
        scales = scales.reshape(_at_rank(scales.shape, codes.ndim))
        others = _but(record, (*silenced, *record.channels.rescaled))
        _compare_values(codes, scales, match, others)
        # A large model's lie on disk.
        let_go(match.constant.value)
        let_go(match.weight.codes)


def _but(record: Written, channels: Sequence[int]) -> np.ndarray:
    """0 for some channels, 1 for all others, to multiply a tensor with."""
    shape = record.match.constant.value.shape
    rank = [1] * len(shape)
    if not channels:
        return np.ones(rank, np.int64)
    axis = record.channels.axis
    rank[axis] = -1
    kept = np.ones(shape[axis], np.int64)
    kept[list(channels)] = 0
    return kept.reshape(rank)


def _compare_codes(
    codes: np.ndarray, container: str, match: Match, heard: np.ndarray
) -> None:
    expected = match.arrangement.apply(match.weight.codes, codes.shape)
    signs = match.fit.along(match.fit.signs, codes.ndim)
    wrong = 0
    for stored, known, sign, keep in _blocks(codes, expected, signs, heard):
        wrong += int((stored * sign != known * keep).sum())
    if wrong:
        raise ExportError(
            f"Layer '{match.weight.path}': the file does not hold the trained "
            f"codes. Expected all of them as {container}. Received: {wrong} "
            f"of {codes.size} that differ"
        )


def _at_rank(shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """Shape of scales for a weight that has become one of another rank.

    Dense layers and 1x1 convolutions are each other; both have their channels
    along the first axis.
    """
    if len(shape) == rank:
        return shape
    return (shape[0], *[1] * (rank - 1))


def _compare_values(
    codes: np.ndarray, scales: np.ndarray, match: Match, heard: np.ndarray
) -> None:
    columns = match.fit.columns
    if columns is None:
        columns = np.ones(1)
    value = match.constant.value
    count, worst = 0, 0.0
    for stored, scale, column, wanted, keep in _blocks(
        codes, scales, columns, value, heard
    ):
        wanted = wanted.astype(np.float64) * keep
        error = np.abs(stored * scale * column - wanted)
        # A muted channel is zero in the float file and next to zero here.
        over = (error > 2 * RELATIVE_TOLERANCE * np.abs(wanted)) & (wanted != 0)
        count += int(over.sum())
        worst = max(worst, float(error[over].max(initial=0.0)))
    if count:
        raise ExportError(
            f"Layer '{match.weight.path}': weights in the file differ from "
            "the converter's. Expected the same to "
            f"{2 * RELATIVE_TOLERANCE:.2g} of each. Received: {count} of "
            f"{value.size} that are off, by up to {worst:.2g}"
        )


def _blocks(*arrays: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Arrays that broadcast against each other, a few rows at a time.

    What is computed of a block in float64 takes eight times its codes.
    """
    shape = np.broadcast_shapes(*(array.shape for array in arrays))
    whole = [np.broadcast_to(array, shape) for array in arrays]
    rows = max(1, _BLOCK * shape[0] // max(1, math.prod(shape)))
    for start in range(0, shape[0], rows):
        yield [array[start : start + rows] for array in whole]


def check_versions(data: bytes) -> None:
    """Checks every operator that reads integer weights.

    Raises:
        ExportError: If a DEQUANTIZE has the wrong version, or another
            operator reads integer weights in a way known to fail.
    """
    model = fb.load(data)
    for graph in model.subgraphs:
        for op in graph.operators or ():
            name = fb.op_name(model, op)
            version = fb.op_code(model, op).version
            for index in fb.inputs(op):
                tensor = graph.tensors[index]
                bits = _BITS.get(tensor.type)
                if index < 0 or bits is None:
                    continue
                scale = getattr(tensor.quantization, "scale", None)
                channels = scale is not None and len(scale) > 1
                if name == "DEQUANTIZE":
                    wanted = _DEQUANTIZE_VERSIONS.get(
                        bits, _DEQUANTIZE_VERSIONS.get((bits, channels))
                    )
                    if version != wanted:
                        raise ExportError(
                            f"Tensor '{fb.name(tensor)}': DEQUANTIZE has "
                            f"another version. Expected {wanted}. Received: "
                            f"{version}"
                        )
                    continue
                against = targets.verdict(
                    name,
                    fb.type_name(tensor),
                    _mode(graph, op),
                    "per_channel" if channels else "per_tensor",
                )
                if against:
                    raise ExportError(
                        f"Tensor '{fb.name(tensor)}' is read by an operator "
                        "that is known to fail on it. Expected one that reads "
                        f"{fb.type_name(tensor)}. Received: {name}: {against}"
                    )


def _mode(graph: schema.SubGraphT, op: schema.OperatorT) -> str:
    """How an operator that reads integer weights sees its activations."""
    results = fb.outputs(op)
    kind = fb.type_name(graph.tensors[results[0]]) if results else ""
    return {"INT8": "int8", "INT16": "int16"}.get(kind, "dynamic_range")


def _codes(model: schema.Model, tensor: schema.Tensor, path: str) -> np.ndarray:
    bits = _BITS.get(tensor.Type())
    shape = tuple(tensor.ShapeAsNumpy()) if tensor.ShapeLength() else ()
    count = int(np.prod(shape, dtype=np.int64))
    buffer = model.Buffers(tensor.Buffer())
    if bits is None or buffer.DataLength() != -(-count * bits // 8):
        raise ExportError(
            f"Layer '{path}': its tensor does not hold its codes. Expected "
            f"{count} integers. Received: {buffer.DataLength()} bytes of type "
            f"{tensor.Type()}"
        )
    packed = buffer.DataAsNumpy()
    weights = 2 ** np.arange(bits)
    weights[-1] *= -1  # two's complement
    codes = np.empty(count, np.int16)
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        # Blocks begin at whole bytes.
        some = packed[start * bits // 8 : -(-stop * bits // 8)]
        stream = np.unpackbits(some, bitorder="little")
        digits = stream[: (stop - start) * bits].reshape(-1, bits)
        codes[start:stop] = digits.astype(np.int64) @ weights
    return codes.reshape(shape)


def _scales(tensor: schema.Tensor, rank: int, path: str) -> np.ndarray:
    parameters = tensor.Quantization()
    scale = parameters.ScaleAsNumpy().astype(np.float64)
    if parameters.ZeroPointLength() != scale.size or any(
        parameters.ZeroPointAsNumpy()
    ):
        raise ExportError(
            f"Layer '{path}': zero points are not all zero. Expected one zero "
            f"for each of {scale.size} scales. Received: "
            f"{parameters.ZeroPointLength()} zero points"
        )
    shape = [1] * rank
    if scale.size > 1:
        shape[parameters.QuantizedDimension()] = scale.size
    return scale.reshape(shape)
