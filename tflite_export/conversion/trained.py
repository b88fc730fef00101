"""Which constants of a graph are a model's quantized weights, by their values.

It looks at the graph before anything is folded; there a quantized weight is bit
for bit `codes * step`.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from msq_tf.core.quantized_weight import QuantizedWeight
from tflite_export import files

# Bytes of codes from which they lie on disk.
_SPOOLED = 1 << 24
Value = Callable[[], np.ndarray]
_Digest = tuple[tuple[int, ...], bytes]


class Trained:
    """The quantized weights of a model, found again by value.

    `floats` are values of the weights that stay float.
    """

    def __init__(
        self,
        weights: Iterable[QuantizedWeight],
        floats: Iterable[np.ndarray] = (),
    ):
        self._floats = {_digest(array) for array in floats}
        self._weights: dict[_Digest, list[QuantizedWeight]] = {}
        for weight in weights:
            key = _digest(weight.values)
            self._weights.setdefault(key, []).append(weight)
        self._shapes = {shape for shape, _ in self._weights}

    def find(self, array: np.ndarray) -> list[QuantizedWeight]:
        """The weights of these values, several where they are equal."""
        if array.dtype != np.float32 or array.shape not in self._shapes:
            return []
        return self._weights.get(_digest(array), [])

    def known(self, array: np.ndarray) -> bool:
        """Whether an array is a weight of the model, quantized or not."""
        if not tf.as_dtype(array.dtype).is_floating:
            return False
        return bool(self.find(array)) or _digest(array) in self._floats

    def shorten(self, captured: dict[str, Value]) -> list[np.ndarray]:
        """Has captured tensors that are quantized weights made of codes.

        These take a quarter of the memory. Returns the other float arrays of
        two or more axes.
        """
        found = []
        for name, value in captured.items():
            array = value()
            weights = self.find(array)
            if weights:
                captured[name] = functools.partial(_values, weights)
            elif array.dtype == np.float32 and array.ndim >= 2:
                found.append(array)
        return found

    def nodes(
        self, graph: tf.compat.v1.GraphDef, captured: dict[str, Value]
    ) -> dict[str, QuantizedWeight]:
        """The weights in a graph, by the names of their nodes."""
        found: dict[str, QuantizedWeight] = {}
        seen: dict[int, int] = {}
        for node in graph.node:
            weights: list[QuantizedWeight] = []
            if node.name in captured:
                value = captured[node.name]
                if isinstance(value, functools.partial):
                    weights = value.args[0] if value.func is _values else []
            elif node.op == "Const":
                array = _constant(node)
                weights = [] if array is None else self.find(array)
            if weights:
                # Of equal ones, each node is another as long as there are.
                count = seen.get(id(weights[0]), 0)
                seen[id(weights[0])] = count + 1
                found[node.name] = weights[min(count, len(weights) - 1)]
        return found

    def named(
        self, graph: tf.compat.v1.GraphDef, captured: Iterable[str]
    ) -> set[str]:
        """Names of the nodes that hold what the model trains, or may do so."""
        return {
            node.name
            for node in graph.node
            if node.op == "Const"
            and self.known(tf.make_ndarray(node.attr["value"].tensor))
        }.union(captured)

    def others(
        self, weights: Iterable[QuantizedWeight], library: Any
    ) -> list[QuantizedWeight]:
        """The weights that are neither among some nor in a called function.

        Equal ones cannot be told apart: then none of them is.
        """
        known = {id(weight) for weight in weights}
        for function in library.function:
            for array in constants(function.node_def):
                known.update(map(id, self.find(array)))
        return [
            weight
            for equal in self._weights.values()
            if not known.intersection(map(id, equal))
            for weight in equal
        ]


def spooled(
    weights: Sequence[QuantizedWeight], folder: str | os.PathLike[str] | None
) -> list[QuantizedWeight]:
    """Weights whose codes lie in the folder, where they are many.

    They read as before, and take memory while they are looked at.

    Args:
        weights: The weights.
        folder: See `files.spooled`; `None` leaves them in memory.
    """
    codes = [np.ascontiguousarray(weight.codes) for weight in weights]
    if folder is None or sum(array.nbytes for array in codes) < _SPOOLED:
        return list(weights)
    # Views of no elements have no bytes to cast.
    pieces = [array.reshape(-1).data for array in codes if array.size]
    data = files.spooled(pieces, folder, _SPOOLED)
    found, start = [], 0
    for weight, array in zip(weights, codes, strict=True):
        view = np.frombuffer(data, np.int8, array.size, start)
        start += array.size
        view = view.reshape(array.shape)
        found.append(dataclasses.replace(weight, codes=view))
    files.let_go(data)
    return found


def constants(nodes: Iterable[Any]) -> Iterator[np.ndarray]:
    """Float constants of two or more axes among nodes."""
    for node in nodes:
        if node.op == "Const" and (array := _constant(node)) is not None:
            yield array


def _constant(node: Any) -> np.ndarray | None:
    proto = node.attr["value"].tensor
    rank = len(proto.tensor_shape.dim)
    if rank >= 2 and proto.dtype == tf.float32.as_datatype_enum:
        return tf.make_ndarray(proto)
    return None


def _values(weights: list[QuantizedWeight]) -> np.ndarray:
    values = weights[0].values
    files.let_go(weights[0].codes)
    return values


def _digest(array: np.ndarray) -> _Digest:
    """Equal for arrays of one shape that hold the same numbers.

    In float32, as in files, whatever type a model's variables have.
    """
    # Zeros have signs, which say nothing.
    plain = np.ascontiguousarray(array, np.float32) + np.float32(0)
    return array.shape, hashlib.sha256(plain.data).digest()
