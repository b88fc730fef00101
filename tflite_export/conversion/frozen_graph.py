"""Traced functions as graphs with their weights inside, for the converter.

TensorFlow's own freezing holds ten copies of the weights and keeps most of this
memory; for a model of 400 MB it takes 4 GB. This module writes the weights
once, node after node, into the bytes for the converter. The bytes are the same;
only the memory on the way differs. Some weights can be left out, see `parts`.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import math
from collections.abc import Container
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from msq_tf.core.quantized_weight import QuantizedWeight
from tflite_export.conversion import constant_kernels
from tflite_export.conversion import dilations
from tflite_export.conversion import node_bytes
from tflite_export.conversion import tensor_lists
from tflite_export.conversion import weight_groups
from tflite_export.conversion.other_floats import drop_casts
from tflite_export.conversion.seals import find
from tflite_export.conversion.trained import Trained
from tflite_export.conversion.trained import Value
from tflite_export.conversion.uses import Edge
from tflite_export.conversion.uses import Uses

# What stands for the elements of weights that are left out. The converter makes
# one operator of two with equal inputs and weights, so that neighbours of one
# shape, such as queries, keys and values, get numbers of their own. Many
# numbers would be many weights in the file.
_STAND_INS = (0.5, 0.5625, 0.625, 0.6875)


@dataclasses.dataclass(eq=False)
class Traced:
    """A traced function, which can be let go of.

    Attributes:
        function: The `ConcreteFunction`; `None` once it is not needed any
            more.
        inputs: Names of the tensors that are its arguments.
        outputs: Names of the tensors that it returns.
        captured: How to get what it captured besides variables, by the names
            of its placeholders.
        states: The Keras variables which it writes, by the names of their
            placeholders.
        trained: The model's quantized weights.
    """

    function: Any
    inputs: list[str]
    outputs: list[str]
    captured: dict[str, Value]
    states: dict[str, Any] = dataclasses.field(default_factory=dict)
    trained: Trained = dataclasses.field(default_factory=lambda: Trained(()))


class FrozenGraph:
    """A graph whose captured weights become constants when it is serialized.

    It stands for a `GraphDef` where the converter asks for one.

    Args:
        graph: The graph, function calls inlined, a placeholder for each
            captured tensor.
        captured: How to get the captured tensors, by their placeholders.
        outputs: Names of the nodes that are its results.
        trained: The model's quantized weights.
        states: Variables which are written, by the nodes.

    Attributes:
        shown: Names of the weights that have their own values in the bytes;
            `None` for all of them.
        weights: Shapes of the weights that can be left out, float32 with
            elements that differ, in the order of the graph.
        seals: The weights that inputs stand for.
        outputs: As given.
        folded: Constants that were made of what the model's code computes.
    """

    def __init__(
        self,
        graph: tf.compat.v1.GraphDef,
        captured: dict[str, Value],
        outputs: Sequence[str],
        trained: Trained,
        states: dict[str, Any],
    ):
        drop_casts(graph)
        tensor_lists.pack(graph)
        uses = Uses(graph.node, outputs, captured)
        self.folded = constant_kernels.fold(
            graph, uses, trained.named(graph, captured)
        )
        if self.folded:
            uses = Uses(graph.node, outputs, captured)
        self._graph = graph
        self._states = states
        self._captured = captured
        self.outputs = list(outputs)
        self._trained = trained
        self._nodes = trained.nodes(graph, captured)
        self.shown: Container[str] | None = None
        self.weights: dict[str, tuple[int, ...]] = {}
        self._stand_ins: dict[str, float] = {}
        self._uses = self._all_uses = uses
        self._dilated = dilations.merged(graph.node, self._value)
        self.seal(())

    def seal(self, paths: Iterable[str]) -> None:
        """Has inputs of the graph stand for weights that would be folded.

        The weights of these paths are kept apart wherever they are read.
        """
        self.seals = find(self._all_uses, self._nodes, paths)
        self._sealed: dict[Edge, str] = {
            edge: seal.read for seal in self.seals for edge in seal.edges
        }
        if self._sealed:
            self._uses = Uses(
                self._graph.node, self.outputs, self._captured, self._sealed
            )
        self._find_weights()

    def unread(self) -> list[QuantizedWeight]:
        """The quantized weights on which no result depends."""
        live = [
            weight
            for name, weight in self._nodes.items()
            if name in self._all_uses.live
        ]
        others = self._trained.others(live, self._graph.library)
        # What has a weight's shape and is nobody's may be that weight by
        # other values than its codes say.
        strange = self._strange_shapes() if others else set()
        return [w for w in others if w.codes.shape not in strange]

    def _strange_shapes(self) -> set[tuple[int, ...]]:
        """Shapes of constants that are no weight of the model."""
        return {
            value.shape
            for node in self._graph.node
            if node.name in self._all_uses.live
            and node.name not in self._nodes
            and (value := self._value(node)) is not None
            and value.dtype == np.float32
            and value.ndim > 1
            and not self._trained.known(value)
        }

    def sealed_inputs(self) -> list[tf.Tensor]:
        """The inputs that stand for weights."""
        with tf.Graph().as_default():
            return [
                tf.compat.v1.placeholder(
                    tf.float32, seal.weight.codes.shape, seal.name
                )
                for seal in self.seals
            ]

    def kept_states(self) -> list[Any]:
        """Variables whose value of the call before results depend on."""
        live = self._all_uses.live
        return [kept for name, kept in self._states.items() if name in live]

    def changed(self) -> list[str]:
        """Paths of quantized weights that are computed with before use."""
        return [
            weight.path
            for name, weight in self._nodes.items()
            if name in self._all_uses.live and self._all_uses.changes(name)
        ]

    def computed(self) -> list[np.ndarray]:
        """Arrays that the graph computes from constants, not quantized ones."""
        return self._uses.computed(self._nodes, self._captured)

    def _find_weights(self) -> None:
        self.weights.clear()
        self._stand_ins.clear()
        if self._graph.library.function:
            return  # who reads what is not known
        alike: collections.Counter[tuple[int, ...]] = collections.Counter()
        for node in self._graph.node:
            if node.name not in self._uses.live:
                continue
            value = self._value(node)
            # What is one number already takes no memory, and the converter may
            # see that it is zero or one.
            if (
                value is None
                or value.dtype != np.float32
                or value.size < 2
                or (value == value.flat[0]).all()
            ):
                continue
            self.weights[node.name] = value.shape
            number = alike[value.shape] % len(_STAND_INS)
            self._stand_ins[node.name] = _STAND_INS[number]
            alike[value.shape] += 1

    def __getattr__(self, name: str) -> Any:
        # Its nodes, its library and so on, which have no weights in them.
        return getattr(self._graph, name)

    def groups(self) -> list[list[str]]:
        """The weights in groups that the converter may make one constant of."""
        return weight_groups.groups(self._graph.node, self.weights)

    def whole(self) -> tf.compat.v1.GraphDef:
        """The graph with all weights in it, as the model computes."""
        whole = tf.compat.v1.GraphDef()
        whole.library.CopyFrom(self._graph.library)
        whole.versions.CopyFrom(self._graph.versions)
        sealed, shown = self._sealed, self.shown
        self._sealed, self.shown = {}, None
        try:
            for node in self._graph.node:
                if node.name in self._all_uses.live or self._is_input(node):
                    whole.node.append(self._written(node))
        finally:
            self._sealed, self.shown = sealed, shown
        return whole

    def _is_input(self, node: tf.compat.v1.NodeDef) -> bool:
        """Inputs are asked for, whether anything reads them or not."""
        return node.op == "Placeholder" and node.name not in self._captured

    def SerializeToString(self) -> bytes:  # noqa: N802 (name of the message's)
        """The serialized `GraphDef` with the weights in it."""
        # Messages that follow each other are one message.
        stream = io.BytesIO()
        for node in self._graph.node:
            if node.name not in self._uses.live and not self._is_input(node):
                continue
            for each in self._dilated.get(node.name, [node]):
                node_bytes.write(stream, self._written(each))
        for seal in self.seals:
            whole = tf.compat.v1.GraphDef(node=seal.nodes())
            stream.write(whole.SerializeToString())
        rest = tf.compat.v1.GraphDef()
        rest.library.CopyFrom(self._graph.library)
        rest.versions.CopyFrom(self._graph.versions)
        stream.write(rest.SerializeToString())
        return stream.getvalue()

    def _value(self, node: tf.compat.v1.NodeDef) -> np.ndarray | None:
        """What a node holds, `None` if it is no constant."""
        if node.name in self._captured:
            return self._captured[node.name]()
        if node.op == "Const":
            return tf.make_ndarray(node.attr["value"].tensor)
        return None

    def _written(self, node: tf.compat.v1.NodeDef) -> tf.compat.v1.NodeDef:
        """A node as it is serialized."""
        left_out = (
            node.name in self.weights
            and self.shown is not None
            and node.name not in self.shown
        )
        if left_out:
            proto = tf.make_tensor_proto(self._stand_ins[node.name], tf.float32)
            proto.tensor_shape.CopyFrom(
                tf.TensorShape(self.weights[node.name]).as_proto()
            )
        elif node.name in self._captured:
            value = self._captured[node.name]()
            if value.size > 1 and value.dtype == np.float32:
                return node_bytes.constant(node.name, value)
            proto = tf.make_tensor_proto(value)
        else:
            return self._with_inputs(node)
        constant = tf.compat.v1.NodeDef(name=node.name, op="Const")
        constant.attr["dtype"].type = proto.dtype
        constant.attr["value"].tensor.CopyFrom(proto)
        return constant

    def _with_inputs(self, node: tf.compat.v1.NodeDef) -> tf.compat.v1.NodeDef:
        """A node that reads inputs where weights are sealed, and no orders."""
        reads = [
            self._sealed.get((node.name, place), read)
            for place, read in enumerate(node.input)
            if not read.startswith("^")
        ]
        if reads == list(node.input):
            return node
        changed = tf.compat.v1.NodeDef()
        changed.CopyFrom(node)
        del changed.input[:]
        changed.input.extend(reads)
        return changed


def bytes_of(shape: tuple[int, ...]) -> int:
    """Bytes of a float32 array."""
    return 4 * math.prod(shape)
