"""Traced functions as graphs with their weights inside, for the converter.

TensorFlow's own freezing holds the weights ten times over and keeps most of
that; for a model of 400 MB it takes 4 GB. Here they are written once, node
after node, into the bytes that the converter is given. The bytes say the same:
only what takes memory on the way is different.
"""

from __future__ import annotations

import dataclasses
import gc
import io
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(eq=False)
class Traced:
    """A traced function, which can be let go of.

    Attributes:
        function: The `ConcreteFunction`; `None` once it is not needed any
            more.
        inputs: Names of the tensors that are its arguments.
        outputs: Names of the tensors that it returns.
    """

    function: Any
    inputs: list[str]
    outputs: list[str]


class FrozenGraph:
    """A graph whose captured weights become constants when it is serialized.

    It stands for a `GraphDef` where the converter asks for one.

    Args:
        graph: The graph, function calls inlined, a placeholder for each
            captured tensor.
        captured: The captured tensors by the names of their placeholders.
        released: Called once the bytes are complete and the tensors are not
            needed any more.
    """

    def __init__(
        self,
        graph: tf.compat.v1.GraphDef,
        captured: dict[str, tf.Tensor],
        released: Callable[[], None],
    ):
        self._graph = graph
        self._captured = captured
        self._released = released

    def __getattr__(self, name: str) -> Any:
        # Its nodes, its library and so on, which have no weights in them.
        return getattr(self._graph, name)

    def SerializeToString(self) -> bytes:  # noqa: N802 (name of the message's)
        """The serialized `GraphDef` with the weights in it."""
        # Messages that follow each other are one message.
        stream = io.BytesIO()
        for node in self._graph.node:
            tensor = self._captured.get(node.name)
            if tensor is not None:
                node = _constant(node.name, tensor)
            whole = tf.compat.v1.GraphDef(node=[node])
            stream.write(whole.SerializeToString())
        rest = tf.compat.v1.GraphDef()
        rest.library.CopyFrom(self._graph.library)
        rest.versions.CopyFrom(self._graph.versions)
        stream.write(rest.SerializeToString())
        self._captured = {}
        tensor = None
        self._released()
        # Graphs are in cycles.
        gc.collect()
        return stream.getvalue()


def freeze_sparingly(converter: Any, traced: Traced) -> None:
    """Has a converter freeze its function as this module does.

    Does nothing where the function is of another kind than expected: then
    TensorFlow freezes it.

    Args:
        converter: Of `tf.lite.TFLiteConverter.from_concrete_functions`.
        traced: Its function, which is let go of on the way.
    """
    function = traced.function
    if function is None or not hasattr(converter, "_freeze_concrete_function"):
        return
    captured = {
        inner.name.split(":")[0]: outer
        for outer, inner in function.graph.captures
        if outer.dtype != tf.resource
    }
    graph = _without_variables(function, list(captured))
    if graph is None:
        return
    captures = {id(inner) for _, inner in function.graph.captures}
    arguments = [t for t in function.inputs if id(t) not in captures]
    inputs = _alike(arguments)
    outputs = [SimpleNamespace(name=t.name) for t in function.outputs]

    def released() -> None:
        traced.function = None
        converter._funcs = []

    frozen = FrozenGraph(graph, captured, released)
    converter._freeze_concrete_function = lambda: (
        frozen,
        inputs,
        outputs,
        None,
    )


def _without_variables(
    function: Any, captured: list[str]
) -> tf.compat.v1.GraphDef | None:
    """The graph as TensorFlow freezes it, but for captured tensors.

    Args:
        function: A concrete function.
        captured: Placeholders of the tensors, which are left.

    Returns:
        The graph, or `None` where it calls functions, in which tensors would
        be replaced, too, or where this TensorFlow freezes in another way.
    """
    try:
        from tensorflow.python.framework import convert_to_constants as freezing

        data = freezing._FunctionConverterDataInEager(
            function, False, False, variable_names_denylist=captured
        )
        graph, _ = freezing._replace_variables_by_constants(data)
    except (ImportError, AttributeError, TypeError):
        return None
    placeholders = {n.name for n in graph.node if n.op == "Placeholder"}
    if graph.library.function or not placeholders.issuperset(captured):
        return None
    return graph


def _alike(tensors: list[tf.Tensor]) -> list[tf.Tensor]:
    """Tensors of the same names, types and shapes in a graph of their own."""
    with tf.Graph().as_default():
        return [
            tf.compat.v1.placeholder(t.dtype, t.shape, t.name.split(":")[0])
            for t in tensors
        ]


def _constant(name: str, tensor: tf.Tensor) -> tf.compat.v1.NodeDef:
    value = tf.make_tensor_proto(np.asarray(tensor))
    node = tf.compat.v1.NodeDef(name=name, op="Const")
    node.attr["dtype"].type = value.dtype
    node.attr["value"].tensor.CopyFrom(value)
    return node
