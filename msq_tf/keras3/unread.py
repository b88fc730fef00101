"""Weights of a model that inference never reads.

Heads that only training needs, a discriminator beside its generator, an
encoder's variance when only the mean goes on: no result of the traced model
depends on them, and no exported file holds them.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from msq_tf.keras3.discovery import walk
from msq_tf.keras3.flow import input_signature
from msq_tf.keras3.overlay import symbolic_inputs

REASON = "inference never reads it: no exported file holds it"


def unread_variables(base: Any, example_inputs: Any = None) -> set[int]:
    """The `id`s of the variables on which no output of a model depends.

    Without example inputs nothing is known of a subclassed model.
    """
    if _reads_everything(base) or tf.distribute.has_strategy():
        return set()
    if example_inputs is None and symbolic_inputs(base) is None:
        return set()
    signature = input_signature(base, example_inputs)
    function = tf.function(
        lambda inputs: base(inputs, training=False), autograph=False
    )
    try:
        traced = function.get_concrete_function(signature)
    except Exception:  # of the model's own code: who calls it will hear it
        return set()
    reached = _reached(traced.graph)
    read = {
        id(outer)
        for outer, inner in traced.graph.captures
        if inner.op.name in reached
    }
    return {
        id(variable)
        for variable in base.variables
        if id(variable.value.handle) not in read
    }


def _reads_everything(base: Any) -> bool:
    """Whether a model is a graph of Keras's own layers, all of it used.

    Tracing a large one takes seconds.
    """
    layers = [base, *(layer for _, layer in walk(base))]
    return all(
        type(layer).__module__.startswith("keras.")
        and (layer is base or not _has_results_to_spare(layer))
        for layer in layers
    )


def _has_results_to_spare(layer: Any) -> bool:
    return isinstance(layer, keras.Model) and (
        symbolic_inputs(layer) is None or len(layer.outputs) > 1
    )


def _reached(graph: Any) -> set[str]:
    """Names of the operations on which a graph's outputs depend."""
    found: set[str] = set()
    # What a variable is given now is what a later call reads of it.
    writers: dict[str, list[Any]] = {}
    for operation in graph.get_operations():
        if operation.type.startswith("Assign"):
            variable = operation.inputs[0].op.name
            writers.setdefault(variable, []).append(operation)
    waiting = [tensor.op for tensor in graph.outputs]
    while waiting:
        operation = waiting.pop()
        if operation.name not in found:
            found.add(operation.name)
            waiting += [tensor.op for tensor in operation.inputs]
            waiting += writers.get(operation.name, [])
    return found
