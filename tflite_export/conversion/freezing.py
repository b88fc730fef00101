"""How a traced function becomes the graph that the converter is given.

TensorFlow's own freezing holds ten copies of the weights and keeps most of this
memory; for a model of 400 MB it takes 4 GB. The bytes are the same.
"""

from __future__ import annotations

import contextlib
import gc
from types import SimpleNamespace
from typing import Any

import tensorflow as tf

from tflite_export.conversion import known_sizes
from tflite_export.conversion.frozen_graph import FrozenGraph
from tflite_export.conversion.frozen_graph import Traced
from tflite_export.errors import ExportError

# Bytes that are worth the time to look for them among all objects of a process,
# which is a third of the export of a small model.
_WORTH_COLLECTING = 1 << 24


def freeze(converter: Any, traced: Traced) -> FrozenGraph | None:
    """Has a converter freeze its function as this module does.

    The function is let go of. Where it calls others, as a loop does,
    TensorFlow freezes it. Returns the graph that the converter is given,
    `None` where this TensorFlow asks for it in another way.
    """
    function = traced.function
    if function is None or not hasattr(converter, "_freeze_concrete_function"):
        return None
    sizes = known_sizes.find(function.graph)
    graph = _without_variables(function, list(traced.captured))
    captured = traced.captured
    if graph is None:
        graph, inputs, outputs, _ = _by_tensorflow(converter)
        inputs, captured = list(inputs), {}
    else:
        captures = {id(inner) for _, inner in function.graph.captures}
        arguments = [t for t in function.inputs if id(t) not in captures]
        inputs = _alike(arguments)
        outputs = [SimpleNamespace(name=t.name) for t in function.outputs]
        del arguments, captures
    known_sizes.settle(graph, sizes)
    frozen = FrozenGraph(
        graph,
        captured,
        [tensor.name.split(":")[0] for tensor in outputs],
        traced.trained,
        traced.states,
    )
    converter._freeze_concrete_function = lambda: (
        frozen,
        [*inputs, *frozen.sealed_inputs()],
        outputs,
        None,
    )
    # Nor the lines of code that nodes come from, a stack trace for each: its
    # words for users are those of `converter`.
    converter._funcs = [SimpleNamespace(graph=None)]
    held = graph.ByteSize() + sum(
        (outer.shape.num_elements() or 0) * outer.dtype.size
        for outer, _ in function.graph.captures
    )
    with contextlib.suppress(AttributeError):
        function.graph.function_captures.reset_captures([], [])
        # It remembers those that it was asked for last.
        del function.graph.captures[:]
    traced.function = None
    del function
    if held > _WORTH_COLLECTING:
        # Functions are in cycles.
        gc.collect()
    return frozen


def _by_tensorflow(converter: Any) -> Any:
    """What TensorFlow freezes.

    Raises:
        ExportError: If it can't.
    """
    try:
        return converter._freeze_concrete_function()
    except tf.errors.InvalidArgumentError as error:
        lines = str(error).splitlines()
        raise ExportError(
            "TensorFlow can't freeze the functions that the model calls. "
            "Expected no loss in `call` that loops, such as `ctc_loss`, which "
            "a file has no use for: export a model that ends before it, as "
            "`keras.Model(inputs, layer.output)`. Received: "
            f"{lines[0][:200] if lines else type(error).__name__}"
        ) from error


def _without_variables(
    function: Any, captured: list[str]
) -> tf.compat.v1.GraphDef | None:
    """The graph as TensorFlow freezes it, but for captured tensors.

    Their placeholders are left. `None` where it calls functions, in which
    tensors would be replaced, too, or this TensorFlow freezes in another way.
    """
    try:
        from tensorflow.python.framework import convert_to_constants as freezing

        _hide_shapes(function.graph, captured)
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


def _hide_shapes(graph: Any, placeholders: list[str]) -> None:
    """Has placeholders of a graph say nothing about their shapes.

    What inlines functions makes a tensor of zeros for each of them that does.
    """
    unknown = tf.compat.v1.AttrValue(shape=tf.TensorShape(None).as_proto())
    for name in placeholders:
        graph.get_operation_by_name(name)._set_attr("shape", unknown)


def _alike(tensors: list[tf.Tensor]) -> list[tf.Tensor]:
    """Tensors of the same names, types and shapes in a graph of their own."""
    with tf.Graph().as_default():
        return [
            tf.compat.v1.placeholder(t.dtype, t.shape, t.name.split(":")[0])
            for t in tensors
        ]
