"""Weights that the converter must not fold into anything.

The converter folds everything that it can compute: a table that is read at
known places becomes the rows that are read, the rows are added to a bias, and
the codes are lost. So if a weight is not simply multiplied with data, the
converter gets an input in its place, which it can't fold. Afterwards the input
becomes a constant again. So it is known which constant holds which weight, and
what its elements are.

A tensor has its scales along one axis. A bank of experts has one for each
expert and feature, so that the input is a matrix with these as its rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

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
        order: Where a tensor has no room for the weight's scales, the axes of
            what is read in the order in which the input has them, merged to a
            matrix; empty otherwise.
        shape: Of what is read.
    """

    name: str
    weight: QuantizedWeight
    edges: tuple[Edge, ...]
    order: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()

    @property
    def read(self) -> str:
        """Name of the node that is read in the weight's place."""
        return f"{self.name}_read" if self.order else self.name

    def nodes(self) -> list[tf.compat.v1.NodeDef]:
        """The input, and what gives it the shape in which it is read."""
        node = tf.compat.v1.NodeDef(name=self.name, op="Placeholder")
        node.attr["dtype"].type = tf.float32.as_datatype_enum
        shape = tf.TensorShape(self.weight.codes.shape)
        node.attr["shape"].shape.CopyFrom(shape.as_proto())
        if not self.order:
            return [node]
        split = [self.shape[axis] for axis in self.order]
        back = np.argsort(self.order).tolist()
        return [
            node,
            _integers(f"{self.name}_split", split),
            _of_two("Reshape", f"{self.name}_axes", self.name, "split"),
            _integers(f"{self.name}_back", back),
            _of_two("Transpose", self.read, f"{self.name}_axes", "back"),
        ]


def _integers(name: str, values: Sequence[int]) -> tf.compat.v1.NodeDef:
    node = tf.compat.v1.NodeDef(name=name, op="Const")
    proto = tf.make_tensor_proto(values, tf.int32)
    node.attr["dtype"].type = proto.dtype
    node.attr["value"].tensor.CopyFrom(proto)
    return node


def _of_two(
    op: str, name: str, data: str, integers: str
) -> tf.compat.v1.NodeDef:
    """A node that reads data, and integers of the same seal."""
    seal = data.removesuffix("_axes")
    node = tf.compat.v1.NodeDef(name=name, op=op)
    node.input.extend([data, f"{seal}_{integers}"])
    node.attr["T"].type = tf.float32.as_datatype_enum
    of = "Tshape" if op == "Reshape" else "Tperm"
    node.attr[of].type = tf.int32.as_datatype_enum
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
            held = weight if places is None else _selected(weight, places)
            order = _order(held) if weight.path in paths else ()
            found.append(
                Seal(
                    f"{_NAME}{len(found)}",
                    _merged(held, order) if order else held,
                    tuple(dict.fromkeys(edges)),
                    order,
                    held.codes.shape,
                )
            )
    return found


def _order(weight: QuantizedWeight) -> tuple[int, ...]:
    """Axes with scales, then the rest; none where one axis can hold them."""
    step = np.broadcast_to(weight.step, weight.codes.shape)
    axes = [
        axis
        for axis in range(step.ndim)
        if step.size and (step != step.take([0], axis)).any()
    ]
    if len(axes) < 2:
        return ()
    return (*axes, *(k for k in range(step.ndim) if k not in axes))


def _merged(weight: QuantizedWeight, order: Sequence[int]) -> QuantizedWeight:
    """A weight as a matrix with a scale for each row."""
    step = np.broadcast_to(weight.step, weight.codes.shape).transpose(order)
    rows = 1
    for axis, length in enumerate(step.shape):
        if (step != step.take([0], axis)).any():
            rows *= length
    return dataclasses.replace(
        weight,
        layout=Layout.OTHER,
        channel_axes=(0,),
        codes=weight.codes.transpose(order).reshape(rows, -1),
        step=step.reshape(rows, -1)[:, :1],
    )


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
