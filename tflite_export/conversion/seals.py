"""Weights that the converter must not fold into anything.

The converter folds everything that it can compute: a table that is read at
known places becomes the rows that are read, the rows are added to a bias, and
the codes are lost. So if a weight is not simply multiplied with data, the
converter gets an input in its place, which it can't fold. Afterwards the input
becomes a constant again. So it is known which constant holds which weight, and
what its elements are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from msq_tf.core.quantized_weight import QuantizedWeight
from msq_tf.weight_layout import Layout
from tflite_export.conversion.uses import Edge
from tflite_export.conversion.uses import Uses
from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer.prune import compact

# No layer's name begins like this.
_NAME = "sealed_weight_"


@dataclasses.dataclass(frozen=True, eq=False)
class Seal:
    """A weight, or a selection of its elements, as an input of the graph.

    Attributes:
        name: Name of the input.
        weight: The weight with the elements that are read there.
        edges: Where the input is read.
    """

    name: str
    weight: QuantizedWeight
    edges: tuple[Edge, ...]

    def node(self) -> tf.compat.v1.NodeDef:
        """The input."""
        node = tf.compat.v1.NodeDef(name=self.name, op="Placeholder")
        node.attr["dtype"].type = tf.float32.as_datatype_enum
        shape = tf.TensorShape(self.weight.codes.shape)
        node.attr["shape"].shape.CopyFrom(shape.as_proto())
        return node


def find(
    uses: Uses,
    trained: Mapping[str, QuantizedWeight],
    everywhere: Iterable[str] = (),
) -> list[Seal]:
    """Finds the weights of a graph that have to be sealed.

    Where a weight is read in part, the part is sealed, unless it is larger
    than the weight.

    Args:
        uses: The graph.
        trained: Its quantized weights by the names of their nodes.
        everywhere: Paths of weights that are sealed wherever they are read.
    """
    paths = set(everywhere)
    found: list[Seal] = []
    for node, weight in trained.items():
        groups: dict[bytes, tuple[np.ndarray | None, list[Edge]]] = {}
        for edge in uses.sealing(node, weight.path in paths):
            place, places = _deepest(uses, node, weight, edge)
            key = b"" if places is None else _key(places)
            groups.setdefault(key, (places, []))[1].append(place)
        for places, edges in groups.values():
            found.append(
                Seal(
                    f"{_NAME}{len(found)}",
                    weight if places is None else _selected(weight, places),
                    tuple(dict.fromkeys(edges)),
                )
            )
    return found


def _deepest(
    uses: Uses, node: str, weight: QuantizedWeight, edge: Edge
) -> tuple[Edge, np.ndarray | None]:
    """The last edge on the way to one at which no more elements are read."""
    trail = uses.trail(node, edge)
    if len(trail) == 1:
        return edge, None
    shape = weight.codes.shape
    found = uses.places(node, shape, trail)
    fitting = [
        (place, places)
        for place, places in zip(trail, found, strict=True)
        if places.size <= weight.codes.size
    ]
    place, places = fitting[-1]
    if places.shape == shape and np.array_equal(
        places.ravel(), np.arange(places.size)
    ):
        return place, None
    return place, places


def _key(places: np.ndarray) -> bytes:
    return str(places.shape).encode() + places.tobytes()


def _selected(weight: QuantizedWeight, places: np.ndarray) -> QuantizedWeight:
    step = np.broadcast_to(weight.step, weight.codes.shape)
    return dataclasses.replace(
        weight,
        layout=Layout.OTHER,
        channel_axes=(),
        codes=weight.codes.reshape(-1)[places],
        step=step.reshape(-1)[places],
    )


def settle(
    model: schema.ModelT, seals: Iterable[Seal]
) -> dict[tuple[int, int], QuantizedWeight]:
    """Makes constants of the inputs that stood for weights.

    Returns the weights that tensors are known to hold, by subgraph and tensor.
    """
    graph = model.subgraphs[0]
    places = {fb.name(graph.tensors[i]): i for i in fb.inputs(graph)}
    held: dict[tuple[int, int], QuantizedWeight] = {}
    for seal in seals:
        index = places[seal.name]
        value = seal.weight.values
        tensor = graph.tensors[index]
        graph.inputs = np.array(
            [i for i in fb.inputs(graph) if i != index], np.int32
        )
        # A table that is looked up and multiplied with is one constant.
        other = _equal(model, graph, value)
        if other is not None:
            edit.redirect(graph, index, other)
            held[(0, other)] = seal.weight
            continue
        tensor.shapeSignature = None
        tensor.name = seal.weight.path.encode()
        tensor.buffer = edit.new_buffer(model, value)
        held[(0, index)] = seal.weight
    if not held:
        return held
    moved = compact(model)
    return {(0, moved[k]): held[k] for k in held if k in moved}


def _equal(
    model: schema.ModelT, graph: schema.SubGraphT, value: np.ndarray
) -> int | None:
    for index, tensor in enumerate(graph.tensors):
        if (
            tensor.type == schema.TensorType.FLOAT32
            and fb.shape(tensor) == value.shape
            and (known := fb.constant(model, tensor)) is not None
            and np.array_equal(known, value)
        ):
            return index
    return None
