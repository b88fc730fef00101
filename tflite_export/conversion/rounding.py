"""How far rounding alone moves the outputs of a float model.

Every kernel adds in a different order, and a deep network may amplify the
effect. The model itself shows how much: this module runs its graph in float64,
and again in float32 with every weight and every input moved by one unit in the
last place. A right file may differ by as much.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

# How much more other kernels may round than those of Keras: functions such as
# tanh are off by several units in the last place.
FACTOR = 8
_DRAWS = 2
_FLOAT = tf.float32.as_datatype_enum
_DOUBLE = tf.float64.as_datatype_enum
_FLOATS = {
    tf.as_dtype(name).as_datatype_enum
    for name in ("float16", "bfloat16", "float32", "float64")
}
Batches = Sequence[Sequence[np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Graph:
    """A frozen graph that can be run.

    Attributes:
        definition: The graph, weights included.
        inputs: Names of its inputs.
        outputs: Names of its outputs.
    """

    definition: tf.compat.v1.GraphDef
    inputs: Sequence[str]
    outputs: Sequence[str]

    def run(self, batches: Batches) -> list[list[np.ndarray]]:
        """The outputs for each batch."""
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(self.definition, name="")
            places = [graph.get_tensor_by_name(f"{n}:0") for n in self.inputs]
            wanted = [graph.get_tensor_by_name(f"{n}:0") for n in self.outputs]
            with tf.compat.v1.Session(graph=graph) as session:
                return [
                    session.run(
                        wanted,
                        {
                            place: array.astype(place.dtype.as_numpy_dtype)
                            for place, array in zip(places, batch, strict=True)
                        },
                    )
                    for batch in batches
                ]


def bounds(
    graph: Graph, batches: Batches
) -> tuple[list[list[np.ndarray]], list[float]]:
    """The right outputs, and how far each may be from them.

    The outputs for each batch, in float64 where TensorFlow has kernels for
    that and else in float32, and a number for each output.
    """
    plain = graph.run(batches)
    reference = plain
    # Not every operation has a kernel for float64.
    with contextlib.suppress(tf.errors.OpError, ValueError, TypeError):
        reference = Graph(
            in_float64(graph.definition), graph.inputs, graph.outputs
        ).run(batches)
    moved = [distances(plain, reference)]
    rng = np.random.default_rng(0)
    for _ in range(_DRAWS):
        other = Graph(
            _shaken(graph.definition, rng), graph.inputs, graph.outputs
        )
        inputs = [[_moved(x, rng) for x in batch] for batch in batches]
        moved.append(distances(other.run(inputs), plain))
    seen = np.array(moved)
    # What is not a number explains nothing.
    most = np.where(np.isfinite(seen), seen, 0.0).max(axis=0)
    return reference, [FACTOR * float(each) for each in most]


def distances(one: Batches, other: Batches) -> list[float]:
    """Largest difference in each output."""
    return [
        max(
            float(np.abs(np.subtract(a[k], b[k], dtype=np.float64)).max())
            for a, b in zip(one, other, strict=True)
        )
        for k in range(len(one[0]))
    ]


def in_float64(graph: tf.compat.v1.GraphDef) -> tf.compat.v1.GraphDef:
    """A graph with float64 in the place of float32, constants included."""
    wide = tf.compat.v1.GraphDef()
    wide.CopyFrom(graph)
    for function in wide.library.function:
        for argument in (
            *function.signature.input_arg,
            *function.signature.output_arg,
        ):
            if argument.type == _FLOAT:
                argument.type = _DOUBLE
    for node in nodes(wide):
        for value in node.attr.values():
            _widen(value)
    return wide


def _widen(value: Any) -> None:
    kind = value.WhichOneof("value")
    if kind == "type" and value.type == _FLOAT:
        value.type = _DOUBLE
    elif kind == "list":
        value.list.type[:] = [
            _DOUBLE if t == _FLOAT else t for t in value.list.type
        ]
    elif kind == "tensor" and value.tensor.dtype == _FLOAT:
        array = tf.make_ndarray(value.tensor).astype(np.float64)
        value.tensor.CopyFrom(tf.make_tensor_proto(array))


def _shaken(
    graph: tf.compat.v1.GraphDef, rng: np.random.Generator
) -> tf.compat.v1.GraphDef:
    """A graph whose float constants are off by a unit in the last place.

    But for those that give sizes: `Range` to 4 and a bit has five numbers.
    """
    shaken = tf.compat.v1.GraphDef()
    shaken.CopyFrom(graph)
    exact = _counting(graph)
    for node in nodes(shaken):
        if node.op == "Const" and node.name not in exact:
            tensor = node.attr["value"].tensor
            if tensor.dtype == _FLOAT:
                array = _moved(tf.make_ndarray(tensor), rng)
                tensor.CopyFrom(tf.make_tensor_proto(array))
    return shaken


def _counting(graph: tf.compat.v1.GraphDef) -> set[str]:
    """Constants from which alone a graph counts: its ranges and integers."""
    known = {node.name: node for node in graph.node}
    found: set[str] = set()
    for node in graph.node:
        counts = node.op == "Cast" and node.attr["DstT"].type not in _FLOATS
        if node.op != "Range" and not counts:
            continue
        seen: set[str] = set()
        waiting = [node.name]
        while waiting:
            name = waiting.pop()
            if name not in seen and name in known:
                seen.add(name)
                waiting += [
                    read.removeprefix("^").split(":")[0]
                    for read in known[name].input
                ]
        if all(known[name].input or known[name].op == "Const" for name in seen):
            found |= seen
    return found


def _moved(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Floats, each moved to one of its neighbours; zeros stay."""
    if array.dtype != np.float32:
        return array
    ends = np.where(rng.random(array.shape) < 0.5, -np.inf, np.inf)
    moved = np.nextafter(array, ends.astype(np.float32))
    return np.where(array == 0, array, moved).astype(np.float32)


def nodes(graph: tf.compat.v1.GraphDef) -> Iterator[Any]:
    """The nodes of a graph and of the functions that it calls."""
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def
