"""Kernels of layers that are trained by LoRA.

`layer.enable_lora(rank)` freezes a kernel and adds the product of two factors
to it, which are trained. What such a layer computes with is the sum; so the sum
is what is quantized. Gradients reach the factors straight through it. While a
model runs, its quantized value stands for the kernel, and a factor is zero.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from msq_tf.core.model_weight import ModelWeight
from msq_tf.keras3.overlay import Overlay
from msq_tf.keras3.overlay import read_float32

# From the gradient of what a layer computes with to that of a variable; and the
# place of the kernel among others, too.
Pull = Callable[[tf.Tensor], tf.Tensor]
Mover = tuple[int, Pull]

_TURNING_OFF = threading.RLock()
# Layers that are turned off, by their `id`.
_OFF: set[int] = set()


def is_enabled(layer: Any) -> bool:
    """Whether a layer adds factors of LoRA to its kernel."""
    return bool(getattr(layer, "lora_enabled", False))


class Merged(Overlay):
    """An overlay of sums of kernels and factors, which layers do not add.

    What quantizes latent weights reads these: a quantized model computes the
    same inside and outside of it.

    Args:
        values: As of `Overlay`.
        off: The scope of `Adapters.off`.
    """

    is_glass = True

    def __init__(
        self,
        values: Iterable[tuple[Any, Any]],
        off: contextlib.AbstractContextManager[None],
    ):
        super().__init__(values)
        self._off = off

    def __enter__(self) -> Merged:
        self._off.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._off.__exit__(*error)


class Adapters:
    """The factors of a model's weights, wherever there are some by now.

    Args:
        weights: The weights of the model, quantized or not.
    """

    def __init__(self, weights: Iterable[ModelWeight]):
        self._owners = {
            id(weight.variable): (weight.layer, weight.plan.attribute)
            for weight in weights
        }

    def read(self, variable: Any) -> tf.Tensor:
        """Reads what a layer computes with in float: its kernel and factors.

        A float32 tensor, as of `overlay.read_float32`.
        """
        value = read_float32(variable)
        found = self._factors(variable)
        if found is None:
            return value
        first, second, factor = found
        product = tf.linalg.matmul(
            *_flat(read_float32(first), read_float32(second))
        )
        return value + factor * tf.reshape(product, value.shape)

    def moves(self, variable: Any) -> bool:
        """Whether training moves what a layer computes with."""
        return variable.trainable or self._factors(variable) is not None

    def movers(self, variables: Sequence[Any]) -> dict[int, Mover]:
        """Returns what training moves of some kernels, by a variable's `id`."""
        found: dict[int, Mover] = {}
        for place, variable in enumerate(variables):
            found[id(variable)] = place, lambda pull: pull
            factors = self._factors(variable)
            if factors is not None:
                first, second, factor = factors
                found[id(first)] = place, _to_first(first, second, factor)
                found[id(second)] = place, _to_second(first, second, factor)
        return found

    def silenced(self, variables: Sequence[Any]) -> list[tuple[Any, tf.Tensor]]:
        """Values for an overlay beside those of some kernels.

        With them, a layer adds zeros to its kernel.
        """
        found = (self._factors(variable) for variable in variables)
        return [(f[1], tf.zeros(f[1].shape)) for f in found if f is not None]

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        """A scope to trace in, in which layers add nothing to their kernels.

        A graph has no operators then that a converter would have to fold.
        """
        layers = {
            id(layer): layer
            for layer, _ in self._owners.values()
            if is_enabled(layer)
        }.values()
        with _TURNING_OFF:
            for layer in layers:
                layer.lora_enabled = False
                _OFF.add(id(layer))
            try:
                yield
            finally:
                for layer in layers:
                    layer.lora_enabled = True
                    _OFF.discard(id(layer))

    def _factors(self, variable: Any) -> tuple[Any, Any, float] | None:
        layer, attribute = self._owners.get(id(variable), (None, ""))
        first = getattr(layer, f"lora_{attribute}_a", None)
        if first is None or not (is_enabled(layer) or id(layer) in _OFF):
            return None
        second = getattr(layer, f"lora_{attribute}_b")
        return first, second, layer.lora_alpha / layer.lora_rank


def _flat(first: tf.Tensor, second: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Two factors as matrices, of layers whose kernel has more axes, too."""
    rank = second.shape[0]
    return tf.reshape(first, (-1, rank)), tf.reshape(second, (rank, -1))


def _to_first(first: Any, second: Any, factor: float) -> Pull:
    def pull(upstream: tf.Tensor) -> tf.Tensor:
        _, other = _flat(read_float32(first), read_float32(second))
        flat = tf.reshape(upstream, (-1, other.shape[1]))
        found = tf.linalg.matmul(flat, other, transpose_b=True)
        return factor * tf.reshape(found, first.shape)

    return pull


def _to_second(first: Any, second: Any, factor: float) -> Pull:
    def pull(upstream: tf.Tensor) -> tf.Tensor:
        other, _ = _flat(read_float32(first), read_float32(second))
        flat = tf.reshape(upstream, (other.shape[0], -1))
        return factor * tf.linalg.matmul(other, flat, transpose_a=True)

    return pull


def merge(layers: Iterable[Any]) -> None:
    """Adds factors to kernels, and makes them zero."""
    for layer in layers:
        for attribute in ("kernel", "embeddings"):
            second = getattr(layer, f"lora_{attribute}_b", None)
            if is_enabled(layer) and second is not None:
                value = keras.ops.convert_to_numpy(getattr(layer, attribute))
                getattr(layer, f"_{attribute}").assign(value)
                second.assign(np.zeros(second.shape, np.float32))
