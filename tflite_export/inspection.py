"""What any TFLite file holds."""

from __future__ import annotations

import collections
import dataclasses
import json
import math
import os
from collections.abc import Sequence

import numpy as np
import rich.table
from ai_edge_litert import schema_py_generated as schema

from tflite_export import files
from tflite_export import flatbuffer as fb
from tflite_export import packing
from tflite_export.tables import printable
from tflite_export.tables import render
from tflite_export.tables import table

_INTEGERS = {
    schema.TensorType.INT2: 2,
    schema.TensorType.INT4: 4,
    schema.TensorType.INT8: 8,
}


@dataclasses.dataclass(frozen=True)
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
        ops: Operators that read it.
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
class PortInfo:
    """An input or output: its name, type and shape (-1 where open)."""

    name: str
    type: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class FileInfo:
    """What a TFLite file holds; `str()` is a table.

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
        return json.dumps(dataclasses.asdict(self), indent=indent)

    def __str__(self) -> str:
        return f"{printable(self._head())}\n{render(*self._tables())}"

    def _repr_html_(self) -> str:
        """The same as tables of a notebook."""
        # It takes TensorFlow, which reading files does without.
        from msq_tf.html_tables import as_html

        return as_html([self._head(), *self._tables()], markup=False)

    def _head(self) -> str:
        return f"{self.path}: {self.bytes:,} bytes, {self.description}"

    def _tables(self) -> list[rich.table.Table]:
        ports = table("inputs and outputs", ["", "name", "type", "shape"])
        for kind, group in (("in", self.inputs), ("out", self.outputs)):
            for port in group:
                ports.add_row(kind, port.name, port.type, _shape(port.shape))
        tensors = table(
            "constants",
            ["tensor", "type", "shape", "read by"],
            ["scales", "bits used", "codes", "bytes"],
        )
        for t in self.tensors:
            tensors.add_row(
                t.name or f"#{t.graph}.{t.index}",
                t.type,
                _shape(t.shape),
                ", ".join(t.ops),
                str(t.scales or "-"),
                str(t.used_bits or "-"),
                str(t.distinct_codes or "-"),
                f"{t.bytes:,}",
            )
        ops = table("operators", ["operator"], ["count"])
        for name, count in self.ops.items():
            ops.add_row(name, str(count))
        return [ports, tensors, ops]


def inspect_file(path: str | os.PathLike[str]) -> FileInfo:
    """Reads what a TFLite file holds.

    Args:
        path: Any TFLite file, whoever wrote it.

    Returns:
        A `FileInfo`: tensors, types, scales, the bits that codes really use,
        operators. `str()` prints it, `to_json()` has it as data.

    Raises:
        ValueError: If the file can't be read or is no TFLite file.
    """
    data = files.read_bytes(path)
    try:
        return describe(data, str(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def describe(data: bytes, path: str = "") -> FileInfo:
    """`inspect_file` for the bytes of a file."""
    model = fb.load(data)
    main = model.subgraphs[0]
    names = [fb.code_name(code) for code in model.operatorCodes]
    counts = collections.Counter(
        op.opcodeIndex for graph in model.subgraphs for op in graph.operators
    )
    ops: collections.Counter[str] = collections.Counter()
    for index, count in counts.items():
        ops[f"{names[index]} {model.operatorCodes[index].version}"] += count
    known: dict[tuple[int, int], tuple[int, int]] = {}
    return FileInfo(
        path=path,
        bytes=len(data),
        description=_text(model.description),
        signatures=tuple(
            _text(s.signatureKey) for s in model.signatureDefs or ()
        ),
        inputs=tuple(_port(main.tensors[i]) for i in fb.inputs(main)),
        outputs=tuple(_port(main.tensors[i]) for i in fb.outputs(main)),
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
    known: dict[tuple[int, int], tuple[int, int]],
) -> list[TensorInfo]:
    readers: dict[int, dict[str, None]] = {}
    for op in graph.operators:
        for index in fb.inputs(op):
            readers.setdefault(index, {})[names[op.opcodeIndex]] = None
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
                ops=tuple(readers.get(index, ())),
            )
        )
    return found


def _use(
    data: np.ndarray,
    tensor: schema.TensorT,
    known: dict[tuple[int, int], tuple[int, int]],
) -> tuple[int, int] | tuple[None, None]:
    """Bits that integer codes use and how many differ; each buffer once."""
    bits = _INTEGERS.get(tensor.type)
    # Sparse ones hold what is not zero.
    if bits is None or tensor.sparsity is not None:
        return None, None
    count = math.prod(fb.shape(tensor))
    if (tensor.buffer, count) not in known:
        codes = packing.unpack(data, bits, count)
        distinct = int(np.unique(codes).size)
        known[tensor.buffer, count] = _used_bits(codes), distinct
    return known[tensor.buffer, count]


def _scale(tensor: schema.TensorT) -> np.ndarray:
    parameters = tensor.quantization
    if parameters is None or parameters.scale is None:
        return np.zeros(0, np.float32)
    return np.asarray(parameters.scale, np.float32)


def _used_bits(codes: np.ndarray) -> int:
    top = int(np.abs(codes.astype(np.int16)).max(initial=0))
    return max(top.bit_length() + 1, 1)


def _port(tensor: schema.TensorT) -> PortInfo:
    signature = tensor.shapeSignature
    shape = fb.shape(tensor)
    if signature is not None and len(signature) == len(shape):
        shape = tuple(int(d) for d in signature)
    return PortInfo(fb.name(tensor), fb.type_name(tensor), shape)


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join("?" if d < 0 else str(d) for d in shape) or "scalar"


def _text(raw: bytes | str | None) -> str:
    if isinstance(raw, bytes):
        return raw.decode("utf-8", "replace")
    return raw or ""
