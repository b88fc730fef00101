"""Large models, converted a part of their weights at a time.

TensorFlow's converter holds some eight copies of the weights that it gets. So
it gets the weights of a large model one part after the other. In each of the
other weights, one number stands for all elements and takes no memory. Every
conversion gives the same operators; the constants that differ are the weights
of the part. Folding, permuting and the like stay with the converter.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.conversion.converter import Converter
from tflite_export.conversion.frozen_graph import bytes_of
from tflite_export.files import give_back
from tflite_export.files import let_go
from tflite_export.files import spooled
from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer.prune import compact

# Bytes of weights from which they are converted in parts, and those of a part:
# a share, for every conversion takes some seconds whatever it is given.
LEAST = 1 << 26
_SHARE = 8
_LEAST_PART = 1 << 24
# Where an operator or the graph (-1) reads a tensor: subgraph, operator, place.
_Place = tuple[int, int, int]


class _Unlike(Exception):
    """Two conversions did not give the same operators."""


def convert(
    converter: Converter, folder: str | os.PathLike[str]
) -> schema.ModelT:
    """Converts a model, in parts where it is large; constants may lie on disk.

    Raises:
        ExportError: If the converter refuses the model.
    """
    if sum(map(bytes_of, converter.weights.values())) >= LEAST:
        cut = parts(converter)
        # Else a constant was made of weights in two parts, or what operators
        # there are depends on the numbers.
        with contextlib.suppress(_Unlike):
            if len(cut) > 1:
                return _Assembly(converter, folder).of(cut)
    return fb.load(spooled([converter.convert()], folder))


def parts(converter: Converter) -> list[set[str]]:
    """Cuts a model's weights, by name, into parts of about the same size.

    A group is in one part.
    """
    sizes = {name: bytes_of(s) for name, s in converter.weights.items()}
    most = max(sum(sizes.values()) // _SHARE, _LEAST_PART)
    found: list[set[str]] = []
    room = 0
    for group in converter.groups():
        size = sum(sizes[name] for name in group)
        if not found or size > room:
            found.append(set())
            room = most
        found[-1].update(group)
        room -= size
    return found


class _Assembly:
    """Takes every constant from the conversion that saw its weight."""

    def __init__(self, converter: Converter, folder: str | os.PathLike[str]):
        self._converter = converter
        self._folder = folder
        # What all conversions have in common, as it was and as it becomes.
        data = spooled([converter.convert(shown=())], folder)
        self._common = fb.load(data)
        self._model = fb.load(data)
        self._data = data
        self._taken: set[_Place] = set()

    def of(self, parts: Iterable[set[str]]) -> schema.ModelT:
        for shown in parts:
            give_back()
            data = spooled([self._converter.convert(shown)], self._folder)
            self._take(fb.load(data))
            let_go(data)
            let_go(self._data)
        give_back()
        compact(self._model)
        _empty_unread(self._model)
        return self._model

    def _take(self, part: schema.ModelT) -> None:
        _check_alike(self._common, part)
        copies: dict[tuple[int, int], int] = {}
        for place in _places(self._common):
            known = _tensor(self._common, place)
            found = _tensor(part, place)
            if _same(self._common, known, part, found):
                continue
            if place in self._taken:
                raise _Unlike
            self._taken.add(place)
            source = (place[0], _index(part, place))
            if source not in copies:
                copies[source] = self._copied(part, place[0], found)
            self._set(place, copies[source])

    def _copied(
        self, part: schema.ModelT, graph: int, found: schema.TensorT
    ) -> int:
        tensor = copy.copy(found)
        self._model.buffers.append(part.buffers[found.buffer])
        tensor.buffer = len(self._model.buffers) - 1
        tensors = self._model.subgraphs[graph].tensors
        tensors.append(tensor)
        return len(tensors) - 1

    def _set(self, place: _Place, index: int) -> None:
        node, position = _node(self._model, place), place[2]
        if place[1] < 0:
            node.outputs = _with(fb.outputs(node), position, index)
        else:
            node.inputs = _with(fb.inputs(node), position, index)


def _empty_unread(model: schema.ModelT) -> None:
    """Takes the content of buffers that no tensor is left to have."""
    read = {t.buffer for graph in model.subgraphs for t in graph.tensors}
    read.update(entry.buffer for entry in model.metadata or ())
    for index, buffer in enumerate(model.buffers):
        if index not in read:
            buffer.data = None


def _with(indices: list[int], position: int, index: int) -> np.ndarray:
    indices[position] = index
    return np.array(indices, np.int32)


def _node(model: schema.ModelT, place: _Place) -> Any:
    graph = model.subgraphs[place[0]]
    return graph if place[1] < 0 else graph.operators[place[1]]


def _index(model: schema.ModelT, place: _Place) -> int:
    node = _node(model, place)
    read = fb.outputs(node) if place[1] < 0 else fb.inputs(node)
    return read[place[2]]


def _tensor(model: schema.ModelT, place: _Place) -> schema.TensorT:
    return model.subgraphs[place[0]].tensors[_index(model, place)]


def _places(model: schema.ModelT) -> Iterator[_Place]:
    """Where constants are read, also as results of the graph."""
    for number, graph in enumerate(model.subgraphs):
        reads = [(-1, fb.outputs(graph))]
        reads += [(k, fb.inputs(op)) for k, op in enumerate(graph.operators)]
        for node, indices in reads:
            for position, index in enumerate(indices):
                if index >= 0 and fb.is_constant(model, graph, index):
                    yield number, node, position


def _same(
    one: schema.ModelT,
    first: schema.TensorT,
    other: schema.ModelT,
    second: schema.TensorT,
) -> bool:
    """Whether two tensors are constants of the same numbers."""
    a, b = fb.raw_data(one, first), fb.raw_data(other, second)
    return (
        (first.type, fb.shape(first)) == (second.type, fb.shape(second))
        and a is not None
        and b is not None
        and np.array_equal(a, b)
    )


def _check_alike(one: schema.ModelT, other: schema.ModelT) -> None:
    """Raises `_Unlike` if two files differ in more than their constants."""
    if len(one.subgraphs) != len(other.subgraphs):
        raise _Unlike
    for first, second in zip(one.subgraphs, other.subgraphs, strict=True):
        if len(first.operators) != len(second.operators):
            raise _Unlike
        pairs: dict[int, int] = {}
        for a, b in (
            (first, second),
            *zip(first.operators, second.operators, strict=True),
        ):
            if a is not first and _described(one, a) != _described(other, b):
                raise _Unlike
            _pair(one, first, fb.inputs(a), other, second, fb.inputs(b), pairs)
            _pair(
                one, first, fb.outputs(a), other, second, fb.outputs(b), pairs
            )


def _pair(
    one: schema.ModelT,
    first: schema.SubGraphT,
    reads: list[int],
    other: schema.ModelT,
    second: schema.SubGraphT,
    others: list[int],
    pairs: dict[int, int],
) -> None:
    """Checks that tensors which are computed are the same ones."""
    if len(reads) != len(others):
        raise _Unlike
    for a, b in zip(reads, others, strict=True):
        if (a < 0) != (b < 0):
            raise _Unlike
        if a < 0:
            continue
        constant = fb.is_constant(one, first, a)
        if constant != fb.is_constant(other, second, b):
            raise _Unlike
        if not constant and (
            pairs.setdefault(a, b) != b
            or _axes(first.tensors[a]) != _axes(second.tensors[b])
        ):
            raise _Unlike


def _axes(tensor: schema.TensorT) -> tuple[Any, ...]:
    signature = tensor.shapeSignature
    open_axes = None if signature is None else tuple(map(int, signature))
    return tensor.type, fb.shape(tensor), open_axes


def _described(model: schema.ModelT, op: schema.OperatorT) -> tuple[Any, ...]:
    code = fb.op_code(model, op)
    return (
        fb.code_name(code),
        code.version,
        _plain(op.builtinOptions),
        _plain(op.builtinOptions2),
        None if op.customOptions is None else bytes(op.customOptions),
    )


def _plain(value: Any) -> Any:
    """Options as values that can be compared."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if hasattr(value, "__dict__"):
        return type(value).__name__, {
            key: _plain(item) for key, item in vars(value).items()
        }
    return value
