"""Models that compute in another float type than files do, which is float32.

TFLite has no kernels for other floats on CPUs. Codes and steps are float32 in
any case. So a file of such a model computes with exactly the trained values,
and at least as precisely as most of these types.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from msq_tf.keras3.overlay import all_layers
from msq_tf.keras3.uncast import uncast

NAMES = ("bfloat16", "float16", "float64")
_TYPES = {tf.as_dtype(name).as_datatype_enum for name in NAMES}
_FLOAT32 = tf.float32.as_datatype_enum


class _InFloat32(keras.DTypePolicy):
    """Computing in float32 on variables of any float type."""

    def __init__(self, variables: str):
        super().__init__("float32")
        self._variables = variables

    @property
    def variable_dtype(self) -> str:
        return self._variables


@contextlib.contextmanager
def in_float32(base: Any) -> Iterator[None]:
    """Lets every layer of a model compute in float32."""
    layers = [
        layer
        for layer in all_layers(base)
        if isinstance(layer, keras.layers.Layer)
        and layer.compute_dtype in NAMES
        and layer.dtype_policy.quantization_mode is None
    ]
    # Tensors that `adapt` made in the layer's type.
    moments = [
        (layer, name, getattr(layer, name))
        for layer in layers
        for name in ("mean", "variance")
        if isinstance(layer, keras.layers.Normalization)
    ]
    changed = [(layer, layer.dtype_policy) for layer in layers]
    try:
        for layer, policy in changed:
            layer.dtype_policy = _InFloat32(policy.variable_dtype)
        for layer, name, value in moments:
            setattr(layer, name, tf.cast(value, tf.float32))
        with uncast():
            yield
    finally:
        for layer, policy in changed:
            layer.dtype_policy = policy
        for layer, name, value in moments:
            setattr(layer, name, value)


def as_read(base: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Inputs rounded to the types that a Functional model takes.

    Arrays keep their types.
    """
    own = keras.tree.flatten(getattr(base, "input", None))
    if len(own) != len(inputs):
        return list(inputs)
    return [
        array
        if tf.as_dtype(getattr(tensor, "dtype", "float32")).name not in NAMES
        else tf.cast(tf.cast(array, tensor.dtype), array.dtype).numpy()
        for array, tensor in zip(inputs, own, strict=True)
    ]


def drop_casts(graph: tf.compat.v1.GraphDef) -> None:
    """Has a graph go on in float32 where it casts to another float and back.

    A model casts its inputs to its own type, and its layers cast them again.
    """
    nodes = {node.name: node for node in graph.node}
    for node in graph.node:
        before = nodes.get(node.input[0]) if _casts(node) else None
        if before is None or not _casts(before):
            continue
        types = before.attr["SrcT"].type, node.attr["DstT"].type
        if types == (_FLOAT32, _FLOAT32) and before.attr["DstT"].type in _TYPES:
            node.op = "Identity"
            node.input[:] = [before.input[0], *node.input[1:]]
            node.attr.clear()
            node.attr["T"].type = _FLOAT32


def _casts(node: Any) -> bool:
    return node.op == "Cast"
