"""Reading and writing TFLite files as objects.

The only module that touches the generated schema's classes for reading and
writing whole files.
"""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import mmap
import os
from collections.abc import Iterator
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export import files
from tflite_export.flatbuffer import check_bytes
from tflite_export.flatbuffer import check_model
from tflite_export.flatbuffer.check_bytes import FILE_IDENTIFIER

# `Buffer.data` is declared with force_align 16, which the generated Python
# code ignores.
_BUFFER_ALIGNMENT = 16
# Bytes of a vector above which it is told from others by a digest.
_LONG = 1 << 10
# Room for a tensor or an operator.
_TABLE = 1 << 10

_OP_NAMES, _TYPE_NAMES = (
    {v: name for name, v in vars(kind).items() if not name.startswith("_")}
    for kind in (schema.BuiltinOperator, schema.TensorType)
)
_NUMPY_TYPES = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.FLOAT16: np.float16,
    schema.TensorType.FLOAT64: np.float64,
    schema.TensorType.INT8: np.int8,
    schema.TensorType.UINT8: np.uint8,
    schema.TensorType.INT16: np.int16,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.INT64: np.int64,
    schema.TensorType.BOOL: np.bool_,
}


class _SharingBuilder(flatbuffers.Builder):
    """A builder that writes equal vectors and strings once.

    A float file of a convolutional network repeats the same shapes, zero
    points and names many times; readers do not care who else points at a
    vector. `room` is enough bytes, which take memory once they are written.

    Attributes:
        later: Long vectors of bytes that were left out, each with the place
            of its first byte, counted from the end.
    """

    def __init__(self, room: int):
        super().__init__(0)
        self.Bytes = np.zeros(room, np.uint8).data
        self.head = room
        self.later: list[tuple[int, np.ndarray]] = []
        self._vectors: dict[tuple[str, int, bytes], int] = {}

    def CreateNumpyVector(self, x):  # noqa: N802 (name of the base class)
        key = (x.dtype.str, *fingerprint(x))
        if key not in self._vectors:
            if x.dtype == np.uint8:
                plain = np.ascontiguousarray(x)
                self._vectors[key] = self._aligned_bytes(plain)
            else:
                self._vectors[key] = super().CreateNumpyVector(x)
        return self._vectors[key]

    def CreateString(self, s, encoding="utf-8", errors="strict"):  # noqa: N802
        data = s if isinstance(s, bytes) else s.encode(encoding, errors)
        key = ("str", len(data), bytes(data))
        if key not in self._vectors:
            self._vectors[key] = super().CreateString(data, encoding, errors)
        return self._vectors[key]

    def _aligned_bytes(self, data: np.ndarray) -> int:
        self.StartVector(1, len(data), _BUFFER_ALIGNMENT)
        start = self.head - len(data)
        self.later.append((len(self.Bytes) - start, data))
        self.head = start
        self.vectorNumElems = len(data)
        return self.EndVector()


def load(data: bytes | mmap.mmap) -> schema.ModelT:
    """Parses a TFLite file, whoever wrote it.

    The gate through which every file from outside goes: what it returns has
    been checked, byte by byte and in what it means, and none of it leads out
    of the file. Buffers that a writer placed behind the flatbuffer (files
    beyond 2 GB and those of some editors) are resolved, so that every constant
    is in `model.buffers[i].data`; lists that a graph lacks are empty. The
    object tree looks into `data`, and takes memory in proportion to it.

    Raises:
        ValueError: If `data` is no TFLite file, or a damaged one.
    """
    if not isinstance(data, mmap.mmap):
        data = bytes(data)
    if (known := (_parsed.get() or {}).get(_key(data))) is not None:
        return _copied(known[1])
    check_identifier(data[:8], len(data))
    try:
        check_bytes.verify(data)
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
        _fill_in(model)
        _resolve_outside_data(model, data)
        check_model.check(model, len(data))
    except ValueError as error:
        raise ValueError(
            f"Damaged TFLite file of {len(data)} bytes. Expected a whole "
            f"file, as a converter wrote it. Received: {error}"
        ) from error
    return model


def check_identifier(head: bytes, size: int) -> None:
    """Raises a ValueError unless a file begins like one of TFLite.

    `head` is its first eight bytes, or all if it has fewer.
    """
    if len(head) < 8 or head[4:8] != FILE_IDENTIFIER:
        raise ValueError(
            "Not a TFLite file. Expected the identifier 'TFL3' at byte 4. "
            f"Received: {size} bytes starting with {head!r}"
        )


# Parsed files while `parsed_once` is entered: the bytes and the model, by the
# bytes, or by the identity of those that are mapped.
_parsed: contextvars.ContextVar[
    dict[int | bytes, tuple[bytes | mmap.mmap, schema.ModelT]] | None
] = contextvars.ContextVar("parsed", default=None)


@contextlib.contextmanager
def parsed_once() -> Iterator[None]:
    """Lets `read` parse each file once for all who only look at it.

    What is known by then `load` copies instead of parsing it again.
    """
    token = _parsed.set({})
    try:
        yield
    finally:
        _parsed.reset(token)


def read(data: bytes | mmap.mmap) -> schema.ModelT:
    """Parses a TFLite file to look at, as `load` does.

    Possibly the model that others look at: it must not be changed.
    """
    known = _parsed.get()
    if known is None:
        return load(data)
    key = _key(data)
    if key not in known:
        known[key] = data, load(data)
    return known[key][1]


def _key(data: bytes | mmap.mmap) -> int | bytes:
    return data if isinstance(data, bytes) else id(data)


def _copied(node: Any) -> Any:
    """A tree of objects of its own; arrays, which nobody writes, are shared."""
    if isinstance(node, list):
        return [_copied(each) for each in node]
    if not hasattr(node, "__dict__"):
        return node
    copy = object.__new__(type(node))
    copy.__dict__ = {key: _copied(each) for key, each in vars(node).items()}
    return copy


def dump(model: schema.ModelT) -> bytes:
    """Serializes a model; equal vectors are written once."""
    return b"".join(_pieces(model))


def size(model: schema.ModelT) -> int:
    """Bytes of `dump(model)`, without making them."""
    return sum(map(len, _pieces(model)))


def spool(
    model: schema.ModelT, folder: str | os.PathLike[str]
) -> bytes | mmap.mmap:
    """The same bytes by way of `files.spooled`."""
    return files.spooled(_pieces(model), folder)


def _pieces(model: schema.ModelT) -> list[memoryview]:
    """A file's bytes, one piece after the other; constants are not copied."""
    # A builder that is full doubles and holds the old half meanwhile; what is
    # too much takes no memory.
    room = sum(
        len(buffer.data) + 2 * _BUFFER_ALIGNMENT
        for buffer in model.buffers or ()
        if buffer.data is not None
    )
    for graph in model.subgraphs or ():
        room += _TABLE * (len(graph.tensors or ()) + len(graph.operators or ()))
    builder = _SharingBuilder((1 << 16) + room)
    builder.Finish(model.Pack(builder), file_identifier=FILE_IDENTIFIER)
    written, end = memoryview(builder.Bytes), len(builder.Bytes)
    pieces, place = [], builder.Head()
    for distance, data in reversed(builder.later):
        pieces += [written[place : end - distance], data.data]
        place = end - distance + len(data)
    return [*pieces, written[place:]]


def fingerprint(array: np.ndarray) -> tuple[int, bytes]:
    """A key that tells an array's bytes from others, without a copy of many."""
    if array.nbytes <= _LONG:
        return array.nbytes, array.tobytes()
    digest = hashlib.sha256(np.ascontiguousarray(array).data).digest()
    files.let_go(array)
    return array.nbytes, digest


def _fill_in(model: schema.ModelT) -> None:
    """Makes empty lists of those that are missing."""
    for name in ("buffers", "operatorCodes", "subgraphs"):
        setattr(model, name, getattr(model, name) or [])
    for graph in model.subgraphs:
        graph.tensors = graph.tensors or []
        graph.operators = graph.operators or []
    for signature in model.signatureDefs or ():
        signature.inputs = signature.inputs or []
        signature.outputs = signature.outputs or []


def _resolve_outside_data(
    model: schema.ModelT, data: bytes | mmap.mmap
) -> None:
    # A placeholder is 0 or 1, in the schema's own words. Views: nothing is
    # copied, however many buffers share a range.
    for buffer in model.buffers:
        if buffer.offset > 1:
            buffer.data = _outside(data, buffer.offset, buffer.size, "buffer")
        buffer.offset = buffer.size = 0
    for graph in model.subgraphs:
        for op in graph.operators:
            start, size = op.largeCustomOptionsOffset, op.largeCustomOptionsSize
            if start > 1:
                op.customOptions = _outside(data, start, size, "custom option")
            op.largeCustomOptionsOffset = op.largeCustomOptionsSize = 0


def _outside(
    data: bytes | mmap.mmap, start: int, size: int, what: str
) -> np.ndarray:
    if start + size > len(data):
        raise ValueError(f"a {what} ends at byte {start + size}")
    return np.frombuffer(data, np.uint8, size, start)


def inputs(node: schema.OperatorT | schema.SubGraphT) -> list[int]:
    """Tensor indices that an operator or a graph reads."""
    return [] if node.inputs is None else [int(i) for i in node.inputs]


def outputs(node: schema.OperatorT | schema.SubGraphT) -> list[int]:
    """Tensor indices that an operator or a graph writes."""
    return [] if node.outputs is None else [int(i) for i in node.outputs]


def writers(graph: schema.SubGraphT) -> dict[int, schema.OperatorT]:
    """The operators that write tensors, by the tensor's index."""
    return {i: op for op in graph.operators for i in outputs(op)}


def readers(graph: schema.SubGraphT, index: int) -> list[schema.OperatorT]:
    """The operators that read a tensor, in order."""
    return [op for op in graph.operators if index in inputs(op)]


def shape(tensor: schema.TensorT) -> tuple[int, ...]:
    """Shape of a tensor; `()` for a scalar."""
    return () if tensor.shape is None else tuple(int(d) for d in tensor.shape)


def axes(tensor: schema.TensorT) -> tuple[int, ...]:
    """Lengths of a tensor's axes, -1 for the open ones."""
    if tensor.shapeSignature is None or not len(tensor.shapeSignature):
        return shape(tensor)
    return tuple(int(axis) for axis in tensor.shapeSignature)


def name(tensor: schema.TensorT) -> str:
    """Name of a tensor, possibly empty."""
    return text(tensor.name)


def text(raw: bytes | str | None) -> str:
    """Text of a file, empty where there is none."""
    if isinstance(raw, bytes):
        return raw.decode("utf-8", "replace")
    return raw or ""


def type_name(tensor: schema.TensorT) -> str:
    """Type of a tensor as the schema spells it, such as `"INT4"`."""
    return _TYPE_NAMES.get(tensor.type, f"type {tensor.type}")


def op_code(model: schema.ModelT, op: schema.OperatorT) -> schema.OperatorCodeT:
    """The operator code entry of an operator."""
    return model.operatorCodes[op.opcodeIndex]


def op_name(model: schema.ModelT, op: schema.OperatorT) -> str:
    """Name of an operator as the schema spells it, such as `"CONV_2D"`."""
    return code_name(op_code(model, op))


def code_name(code: schema.OperatorCodeT) -> str:
    """Name of what an operator code stands for."""
    # Codes below 127 may be in the deprecated field alone.
    value = max(code.builtinCode, code.deprecatedBuiltinCode)
    if code.customCode:
        return f"CUSTOM {code.customCode.decode('utf-8', 'replace')}"
    return _OP_NAMES.get(value, f"operator {value}")


def raw_data(model: schema.ModelT, tensor: schema.TensorT) -> np.ndarray | None:
    """Bytes of a constant tensor, or `None` when it is no constant."""
    data = model.buffers[tensor.buffer].data
    return None if data is None or not len(data) else np.asarray(data, np.uint8)


def is_constant(
    model: schema.ModelT, graph: schema.SubGraphT, index: int
) -> bool:
    """Whether a tensor of a graph is a constant."""
    return raw_data(model, graph.tensors[index]) is not None


def constant(model: schema.ModelT, tensor: schema.TensorT) -> np.ndarray | None:
    """Value of a constant tensor of a whole-byte type, else `None`."""
    data = raw_data(model, tensor)
    dtype = _NUMPY_TYPES.get(tensor.type)
    if data is None or dtype is None:
        return None
    count = int(np.prod(shape(tensor), dtype=np.int64))
    if data.size != count * np.dtype(dtype).itemsize:
        return None
    # A view: many tensors may share a buffer.
    value: np.ndarray = np.frombuffer(data, dtype).reshape(shape(tensor))
    value.flags.writeable = False
    return value
