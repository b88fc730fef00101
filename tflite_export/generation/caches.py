"""The key/value cache of a language model, as inputs and outputs of a file.

KerasHub keeps the caches of all layers in one tensor of six axes, which TFLite
can't slice, or in a tuple of keys and values for each layer. In a file, keys
and values of each layer are inputs and outputs of their own.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from msq_tf.keras3.overlay import Aside
from tflite_export.errors import ExportError

# Of the one tensor: batch, layer, key or value, position, head, feature.
_STACKED = 6
_PAIR = 2


class Stacked:
    """A stack of tensors along axis 1, while layers run.

    Taking a part of it is one of the tensors, and no operator. Where it is
    read in another way it is the stack.
    """

    def __init__(self, parts: Sequence[Any]):
        self._parts = parts

    def __getitem__(self, key: Any) -> Any:
        places = key if isinstance(key, tuple) else (key,)
        whole = all(k == slice(None) or k is Ellipsis for k in places[2:])
        known = len(places) > 1 and isinstance(places[1], int)
        if known and places[0] == slice(None) and whole:
            return self._parts[places[1]]
        return tf.convert_to_tensor(self)[key]

    def __tf_tensor__(  # noqa: PLW3201 (TensorFlow's protocol)
        self, dtype: Any = None, name: str | None = None
    ) -> tf.Tensor:
        parts = [tf.convert_to_tensor(part, dtype) for part in self._parts]
        return tf.stack(parts, axis=1, name=name or "stack")

    @property
    def shape(self) -> tf.TensorShape:
        """Shape of the stack."""
        rows, *rest = self._parts[0].shape
        return tf.TensorShape([rows, len(self._parts), *rest])

    @property
    def dtype(self) -> Any:
        """Type of the stack."""
        return self._parts[0].dtype


class Layers:
    """Keys and values of all layers in one tensor, as tensors by name.

    Args:
        shape: (1, layer, 2, position, head, feature).
        label: What is in their names.

    Attributes:
        shapes: Shapes by name, such as `k_cache_0`.
    """

    def __init__(self, shape: Sequence[int], label: str):
        row, self._layers, _, *rest = shape
        self.shapes = {
            f"{kind}_{label}_{layer}": (row, *rest)
            for layer in range(self._layers)
            for kind in "kv"
        }

    def taken(self, ports: Mapping[str, Any]) -> Stacked:
        """The tensor that a model takes, of tensors by name."""
        leaves = [ports[name] for name in self.shapes]
        pairs = [Stacked(leaves[2 * k :][:2]) for k in range(self._layers)]
        return Stacked(pairs)

    def given(self, cache: Any) -> dict[str, Any]:
        """Tensors by name, of the tensor that a model gives."""
        leaves = [
            part for layer in _unstacked(cache) for part in _unstacked(layer)
        ]
        return dict(zip(self.shapes, leaves, strict=True))

    def empty(self) -> dict[str, np.ndarray]:
        """Those before the first token."""
        return {
            name: np.zeros(shape, np.float32)
            for name, shape in self.shapes.items()
        }


class Caches:
    """The form of a model's cache.

    Args:
        model: A language model with `call_with_cache`.
        length: Positions that the cache has.

    Raises:
        ExportError: If the model keeps something else from token to token.
        ValueError: If it has not so many positions.

    Attributes:
        shapes: Shapes by the names of the inputs.
    """

    def __init__(self, model: Any, length: int):
        self._structure = _built(model, length)
        leaves = keras.tree.flatten(self._structure)
        self._layers = 0
        if len(leaves) == 1 and len(leaves[0].shape) == _STACKED:
            _, self._layers, pair, *rest = leaves[0].shape
            if pair == _PAIR:
                leaves = [tf.TensorSpec((1, *rest))] * (2 * self._layers)
        for leaf in leaves:
            if length not in leaf.shape[1:] or leaf.shape[0] != 1:
                raise ExportError(
                    "The model keeps something else than keys and values from "
                    "token to token, and a prompt of another length than the "
                    "file's would change it. Expected a cache with an axis of "
                    f"{length} positions. Received: shape "
                    f"{tuple(leaf.shape)}"
                )
        names = [f"cache_{k}" for k in range(len(leaves))]
        if len(leaves) % _PAIR == 0:
            names = [
                f"{kind}_cache_{layer}"
                for layer in range(len(leaves) // _PAIR)
                for kind in "kv"
            ]
        self.shapes = {
            name: tuple(leaf.shape)
            for name, leaf in zip(names, leaves, strict=True)
        }

    def taken(self, ports: Mapping[str, Any]) -> Any:
        """The cache that a model takes, of tensors by name."""
        leaves = [ports[name] for name in self.shapes]
        if not self._layers:
            return keras.tree.pack_sequence_as(self._structure, leaves)
        pairs = [Stacked(leaves[2 * k :][:2]) for k in range(self._layers)]
        return Stacked(pairs)

    def given(self, cache: Any) -> dict[str, Any]:
        """Tensors by name, of the cache that a model gives."""
        leaves = keras.tree.flatten(cache)
        if self._layers:
            leaves = [
                part
                for layer in _unstacked(cache)
                for part in _unstacked(layer)
            ]
        return dict(zip(self.shapes, leaves, strict=True))

    def empty(self) -> dict[str, np.ndarray]:
        """The cache before the first token."""
        return {
            name: np.zeros(shape, np.float32)
            for name, shape in self.shapes.items()
        }


def _unstacked(stack: Any) -> list[Any]:
    """The tensors that were stacked along axis 1."""
    operation = None
    with contextlib.suppress(AttributeError):
        operation = stack.op
    if (
        operation is not None
        and operation.type == "Pack"
        and operation.get_attr("axis") == 1
    ):
        return list(operation.inputs)
    return tf.unstack(stack, axis=1)


def check_positions(model: Any, name: str, length: int) -> None:
    """Raises a ValueError if a model has not so many positions.

    Args:
        model: A language model.
        name: Of the argument that has the number.
        length: The number.
    """
    most = getattr(model.backbone, "max_sequence_length", None)
    if most is not None and length > most:
        raise ValueError(
            "The model has no positions for so many tokens (argument "
            f"{name}). Expected at most {most}. Received: {name}={length}"
        )


def _built(model: Any, length: int) -> Any:
    """The structure of a model's cache, of tensors that hold nothing."""
    check_positions(model, "max_length", length)
    build = model._build_cache

    def built(ids: tf.Tensor) -> Any:
        given = {"token_ids": ids, "padding_mask": tf.ones_like(ids, tf.bool)}
        arguments = [
            given.get(name)
            for name, parameter in inspect.signature(build).parameters.items()
            if parameter.default is parameter.empty
        ]
        return build(*arguments)[-1]

    # A trace that no layer may change its variables in.
    with Aside():
        traced = tf.function(built, autograph=False).get_concrete_function(
            tf.TensorSpec((1, length), tf.int32)
        )
    return traced.structured_outputs
