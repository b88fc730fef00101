"""Layers that multiply activations by activations, as attention does.

There is no weight in such a product, so there is nothing to give bits to; a
report says so.
"""

from __future__ import annotations

import weakref
from typing import Any

import keras
import tensorflow as tf

from msq_tf.keras3.discovery import walk
from msq_tf.keras3.flow import PRODUCTS
from msq_tf.keras3.flow import input_signature
from msq_tf.keras3.overlay import operations

_ATTENTION: tuple[type, ...] = (
    keras.layers.AdditiveAttention,
    keras.layers.Attention,
    keras.layers.GroupQueryAttention,
    keras.layers.MultiHeadAttention,
)
_MULTIPLYING = (*_ATTENTION, keras.layers.Dot)
# Class names of operations without a public class: `ops.matmul(a, b)` in a
# functional model.
_OPERATIONS = {"Dot", "DotProductAttention", "Einsum", "Matmul", "Tensordot"}
# What they say of their input is not its values.
_SHAPES = {"OnesLike", "Rank", "Shape", "ShapeN", "Size", "ZerosLike"}

_COUNTED: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


def count_products(base: Any) -> int:
    """Number of layers of a built model that multiply two activations.

    The products are looked up in a trace of the model, so that layers of
    anyone's own count, too. A model that nothing suggests any of is not
    traced; of a subclassed model, whose inputs are not known, the attention
    layers are counted.
    """
    if base not in _COUNTED:
        _COUNTED[base] = _count(base)
    return _COUNTED[base]


def _count(base: Any) -> int:
    layers = [base, *(layer for _, layer in walk(base))]
    if not any(_may_multiply(layer) for layer in layers):
        return 0
    try:
        signature = input_signature(base)
    except ValueError:
        return sum(isinstance(layer, _ATTENTION) for layer in layers)
    return len(_scopes(base, signature))


def _may_multiply(layer: Any) -> bool:
    return (
        isinstance(layer, _MULTIPLYING)
        or type(layer).__module__.partition(".")[0] != "keras"
        or any(
            type(operation).__name__ in _OPERATIONS
            for operation in operations(layer)
        )
    )


def _scopes(base: Any, signature: Any) -> set[str]:
    """Name scopes, which are layers', with a product of activations."""
    graph = (
        tf.function(lambda x: base(x, training=False), autograph=False)
        .get_concrete_function(signature)
        .graph
    )
    count = len(keras.tree.flatten(signature))
    flowing = {tensor.name for tensor in graph.inputs[:count]}
    found = set()
    for operation in graph.get_operations():
        inputs = [tensor.name in flowing for tensor in operation.inputs]
        if operation.type in _SHAPES or not any(inputs):
            continue
        flowing.update(tensor.name for tensor in operation.outputs)
        if operation.type in PRODUCTS and all(inputs):
            scope, _, last = operation.name.rpartition("/")
            if last.startswith("Einsum"):
                # `tf.einsum` opens a scope of its own.
                scope = scope.rpartition("/")[0]
            found.add(scope)
    return found
