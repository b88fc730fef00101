"""The contents of any TFLite file."""

from __future__ import annotations

import collections
import dataclasses
import json
import math
import os
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np
import rich.table
from ai_edge_litert import schema_py_generated as schema

from tflite_export import files
from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer import packing
from tflite_export.flatbuffer.port_info import PortInfo
from tflite_export.flatbuffer.port_info import ports
from tflite_export.targets import CONTAINERS
from tflite_export.text_tables import add_rows
from tflite_export.text_tables import printable
from tflite_export.text_tables import render
from tflite_export.text_tables import short
from tflite_export.text_tables import table

# Names of operators that are listed for one constant.
_MOST_READERS = 8
# Bytes that are looked through at once.
_AT_ONCE = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class TensorInfo:
    """One constant tensor with two or more axes, or with scales.

    Attributes:
        graph: Index of the subgraph.
        index: Index of the tensor in it.
        name: Its name, possibly empty.
        type: Its type, such as `"INT4"`.
        shape: Its shape.
        bytes: Bytes of its data.
        scales: Number of scales, 0 for none.
        scale_range: Smallest and largest scale.
        quantized_dimension: Axis of the scales.
        used_bits: Smallest width whose symmetric grid
            `|code| <= 2**(n - 1) - 1` holds all codes, `None` for floats.
        distinct_codes: Number of different codes, `None` for floats.
        ops: Operators that read it, the first eight of them by name, and
            `"and N more"`.
    """

    graph: int
    index: int
    name: str
    type: str
    shape: tuple[int, ...]
    bytes: int
    scales: int
    scale_range: tuple[float, float] | None
    quantized_dimension: int
    used_bits: int | None
    distinct_codes: int | None
    ops: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class FileInfo:
    """The contents of a TFLite file; `str()` is a table.

    Attributes:
        path: The file.
        bytes: Its size.
        description: Its description field.
        signatures: Names of its signatures.
        inputs: Inputs of the main graph.
        outputs: Outputs of the main graph.
        tensors: Constants that may be weights.
        ops: Number of operators by `"NAME version"`, over all subgraphs.
    """

    path: str
    bytes: int
    description: str
    signatures: tuple[str, ...]
    inputs: tuple[PortInfo, ...]
    outputs: tuple[PortInfo, ...]
    tensors: tuple[TensorInfo, ...]
    ops: dict[str, int]

    def to_json(self, indent: int | None = 2) -> str:
        """All fields as JSON."""
        return "".join(json_pieces(self, indent))

    def __str__(self) -> str:
        return f"{printable(self._head())}\n{render(*self._tables())}"

    def _repr_html_(self) -> str:
        """The same as tables of a notebook."""
        # It takes TensorFlow, which reading files does without.
        from msq_tf.reports.html_tables import as_html

        return as_html([self._head(), *self._tables()], markup=False)

    def _head(self) -> str:
        return f"{self.path}: {self.bytes:,} bytes, {short(self.description)}"

    def _tables(self) -> list[rich.table.Table]:
        heads = ["", "name", "type", "shape"]
        kept = any(port.state for port in (*self.inputs, *self.outputs))
        ends = table("inputs and outputs", heads + ["state"] * kept)
        for kind, group in (("in", self.inputs), ("out", self.outputs)):
            word = {"in": "was", "out": "becomes"}[kind]
            rows = (
                (kind, port.name, port.type, _shape(port.shape))
                + (f"{word} '{port.state}'" if port.state else "",) * kept
                for port in group
            )
            add_rows(ends, rows, len(group))
        tensors = table(
            "constants",
            ["tensor", "type", "shape", "read by"],
            ["scales", "bits used", "codes", "bytes"],
        )
        constants = (
            (
                t.name or f"#{t.graph}.{t.index}",
                t.type,
                _shape(t.shape),
                ", ".join(t.ops),
                str(t.scales or "-"),
                str(t.used_bits or "-"),
                str(t.distinct_codes or "-"),
                f"{t.bytes:,}",
            )
            for t in self.tensors
        )
        add_rows(tensors, constants, len(self.tensors))
        ops = table("operators", ["operator"], ["count"])
        counts = ((name, str(count)) for name, count in self.ops.items())
        add_rows(ops, counts, len(self.ops))
        return [ends, tensors, ops]


def inspect_file(path: str | os.PathLike[str]) -> FileInfo:
    """Describes the contents of a TFLite file.

    Args:
        path: Any TFLite file, from any program.

    Returns:
        A `FileInfo`: tensors, types, scales, the bits that codes really use,
        and operators. `str()` prints it, `to_json()` gives it as data.

    Raises:
        ValueError: If the file can't be read or is no TFLite file.
    """
    data = files.read_bytes(path, fb.check_identifier)
    try:
        return describe(data, str(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def describe(data: bytes, path: str = "") -> FileInfo:
    """`inspect_file` for the bytes of a file."""
    model = fb.load(data)
    names = [fb.code_name(code) for code in model.operatorCodes]
    counts = collections.Counter(
        op.opcodeIndex for graph in model.subgraphs for op in graph.operators
    )
    ops: collections.Counter[str] = collections.Counter()
    for index, count in counts.items():
        ops[f"{names[index]} {model.operatorCodes[index].version}"] += count
    known: dict[tuple[int, int, int], tuple[int, int]] = {}
    inputs, outputs = ports(model)
    return FileInfo(
        path=path,
        bytes=len(data),
        description=fb.text(model.description),
        signatures=tuple(
            fb.text(s.signatureKey) for s in model.signatureDefs or ()
        ),
        inputs=inputs,
        outputs=outputs,
        tensors=tuple(
            info
            for number, graph in enumerate(model.subgraphs)
            for info in _constants(model, number, graph, names, known)
        ),
        ops=dict(sorted(ops.items())),
    )


def _constants(
    model: schema.ModelT,
    number: int,
    graph: schema.SubGraphT,
    names: Sequence[str],
    known: dict[tuple[int, int, int], tuple[int, int]],
) -> list[TensorInfo]:
    readers = _readers(graph, names)
    found = []
    for index, tensor in enumerate(graph.tensors or ()):
        data = fb.raw_data(model, tensor)
        scale = _scale(tensor)
        scales = scale.size
        if data is None or (len(fb.shape(tensor)) < 2 and not scales):
            continue
        used, distinct = _use(data, tensor, known)
        found.append(
            TensorInfo(
                graph=number,
                index=index,
                name=fb.name(tensor),
                type=fb.type_name(tensor),
                shape=fb.shape(tensor),
                bytes=int(data.size),
                scales=scales,
                scale_range=(
                    (float(np.min(scale)), float(np.max(scale)))
                    if scales
                    else None
                ),
                quantized_dimension=(
                    int(tensor.quantization.quantizedDimension) if scales else 0
                ),
                used_bits=used,
                distinct_codes=distinct,
                ops=readers.get(index, ()),
            )
        )
    return found


def _readers(
    graph: schema.SubGraphT, names: Sequence[str]
) -> dict[int, tuple[str, ...]]:
    """Names of the operators that read a tensor, by its index."""
    numbers: dict[str, int] = {}
    kinds = [numbers.setdefault(name, len(numbers)) for name in names]
    vectors = [
        (op.inputs, kinds[op.opcodeIndex])
        for op in graph.operators
        if op.inputs is not None and len(op.inputs)
    ]
    if not vectors:
        return {}
    # As arrays: every operator may read every tensor.
    read = np.concatenate([np.asarray(x, np.int32) for x, _ in vectors])
    by = np.repeat([kind for _, kind in vectors], [len(x) for x, _ in vectors])
    pairs = read.astype(np.int64) * len(numbers) + by
    pairs, first = np.unique(pairs, return_index=True)
    order = np.lexsort((first, pairs // len(numbers)))
    tensors, starts, counts = np.unique(
        pairs[order] // len(numbers), return_index=True, return_counts=True
    )
    spelled = list(numbers)
    found = {}
    for tensor, start, count in zip(tensors, starts, counts, strict=True):
        some = pairs[order[start : start + min(count, _MOST_READERS)]]
        listed = [spelled[pair % len(numbers)] for pair in some]
        if count > _MOST_READERS:
            listed.append(f"and {count - _MOST_READERS:,} more")
        found[int(tensor)] = tuple(listed)
    return found


def json_pieces(value: Any, indent: int | None = 2) -> Iterator[str]:
    """JSON of records, lists and dicts of them, piece by piece."""
    return json.JSONEncoder(
        indent=indent, allow_nan=False, default=fields
    ).iterencode(value)


def fields(record: Any) -> dict[str, Any]:
    """The fields of a dataclass by name, not copied."""
    return {
        field.name: getattr(record, field.name)
        for field in dataclasses.fields(record)
    }


def _use(
    data: np.ndarray,
    tensor: schema.TensorT,
    known: dict[tuple[int, int, int], tuple[int, int]],
) -> tuple[int, int] | tuple[None, None]:
    """Bits that integer codes use and how many differ.

    Each buffer once, but for tensors of different types that share it.
    """
    bits = CONTAINERS.get(fb.type_name(tensor))
    # Sparse ones hold what is not zero.
    if bits is None or tensor.sparsity is not None:
        return None, None
    count = math.prod(fb.shape(tensor))
    key = tensor.buffer, bits, count
    if key not in known:
        codes = _codes(data, bits, count)
        known[key] = _used_bits(codes), len(codes)
    return known[key]


def _codes(data: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The codes that occur, each once."""
    per_byte = 8 // bits
    # The last byte may be filled up with zeros that are no codes.
    whole = min(count // per_byte, len(data))
    seen = np.zeros(256, np.bool_)
    for start in range(0, whole, _AT_ONCE):
        seen[data[start : min(start + _AT_ONCE, whole)]] = True
    full = np.flatnonzero(seen).astype(np.uint8)
    rest = packing.unpack(data[whole:], bits, count - whole * per_byte)
    return np.unique(
        np.append(packing.unpack(full, bits, len(full) * per_byte), rest)
    )


def _scale(tensor: schema.TensorT) -> np.ndarray:
    parameters = tensor.quantization
    if parameters is None or parameters.scale is None:
        return np.zeros(0, np.float32)
    return np.asarray(parameters.scale, np.float32)


def _used_bits(codes: np.ndarray) -> int:
    top = int(np.abs(codes.astype(np.int16)).max(initial=0))
    return max(top.bit_length() + 1, 1)


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join("?" if d < 0 else str(d) for d in shape) or "scalar"
