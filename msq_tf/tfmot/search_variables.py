"""The state of a search as variables of TFMOT's wrappers."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from msq_tf.core.held_scales import HeldScales
from msq_tf.core.search_state import PER_WEIGHT
from msq_tf.core.search_state import SHARED
from msq_tf.core.search_state import SearchState
from msq_tf.core.search_state import fresh_values
from msq_tf.tfmot.compat.imports import tf_keras

# What the graph reads has a variable of its own, the rest is packed into one.
_IN_GRAPH = ("bits", "lsb", "strength")
_FIELDS = {
    name: shape
    for name, (shape, _) in (PER_WEIGHT | SHARED).items()
    if name not in _IN_GRAPH
}
_STATE = "state"
_HELD = "held"
_HELD_WIDTH = "held_width"
HELD_NAMES = (_HELD, _HELD_WIDTH)


def _slices() -> dict[str, slice]:
    slices, start = {}, 0
    for name, shape in _FIELDS.items():
        end = start + int(np.prod(shape, dtype=int))
        slices[name] = slice(start, end)
        start = end
    return slices


_SLICES = _slices()


def make_variables(
    wrapper: Any, name: str, bits: int, held: int = 0
) -> dict[str, Any]:
    """Adds the variables of one weight to its wrapper.

    They are `"bits"` and `"lsb"`, int32 scalars, `"strength"`, a float32
    scalar, and `"state"`, a float64 vector of what the graph does not read.

    Args:
        wrapper: The wrapper.
        name: Name of the weight.
        bits: Its stored bits.
        held: How many scales are held; they are `"held"`, a float32 vector,
            and `"held_width"`, the int32 bits that they are of.
    """
    fresh = fresh_values([bits])
    state = np.concatenate([np.ravel(fresh[field]) for field in _FIELDS])
    values: dict[str, np.ndarray] = {
        "bits": np.array(bits, np.int32),
        "lsb": np.array(0, np.int32),
        "strength": np.array(0.0, np.float32),
        _STATE: state.astype(np.float64),
    }
    if held:
        values |= {
            _HELD: np.zeros(held, np.float32),
            _HELD_WIDTH: np.array(0, np.int32),
        }
    return {
        key: wrapper.add_weight(
            name=f"{name}_msq_{key}",
            shape=value.shape,
            dtype=tf.as_dtype(value.dtype),
            initializer=tf_keras.initializers.Constant(value),
            trainable=False,
            experimental_autocast=False,
        )
        for key, value in values.items()
    }


class WrapperState(SearchState):
    """A search's state, in the variables that the wrappers of a model have."""

    def __init__(self, variables: Sequence[Mapping[str, Any]]):
        for name in PER_WEIGHT | SHARED:
            setattr(self, name, _Field(name, variables))


class WrapperScales(HeldScales):
    """The held scales of a model, in the variables of its wrappers.

    Args:
        variables: Of each weight, from `make_variables`.
    """

    def __init__(self, variables: Sequence[Mapping[str, Any]]):
        self._variables = variables

    def scales(self) -> tf.Tensor:
        return tf.concat([entry[_HELD] for entry in self._variables], 0)

    def widths(self) -> tf.Tensor:
        return tf.stack([entry[_HELD_WIDTH] for entry in self._variables])

    def counts(self) -> Sequence[int]:
        return [int(entry[_HELD].shape[0]) for entry in self._variables]

    def assign(self, scales: np.ndarray, widths: np.ndarray) -> None:
        ends = np.cumsum(self.counts())[:-1]
        for entry, part, width in zip(
            self._variables, np.split(scales, ends), widths, strict=True
        ):
            entry[_HELD].assign(part)
            entry[_HELD_WIDTH].assign(width)


class _Field:
    """One attribute of the state of all weights.

    What all weights share stands in each of their wrappers; that of the first
    counts.
    """

    def __init__(self, name: str, variables: Sequence[Mapping[str, Any]]):
        self._name = name
        self._variables = variables
        self._shared = name in SHARED
        self._shape, dtype = (PER_WEIGHT | SHARED)[name]
        self._dtype = np.dtype(dtype)

    def numpy(self) -> np.ndarray:
        """The value, of shape (weights, ...) unless it is shared."""
        if self._shared:
            return self._read(self._variables[0])
        return np.stack([self._read(entry) for entry in self._variables])

    def assign(self, value: Any) -> None:
        """Sets the value, in the shape that `numpy` gives."""
        value = np.asarray(value, self._dtype)
        parts = [value] * len(self._variables) if self._shared else value
        for entry, part in zip(self._variables, parts, strict=True):
            if self._name in _IN_GRAPH:
                entry[self._name].assign(part)
            else:
                state = entry[_STATE].numpy()
                state[_SLICES[self._name]] = np.ravel(part)
                entry[_STATE].assign(state)

    def _read(self, entry: Mapping[str, Any]) -> np.ndarray:
        if self._name in _IN_GRAPH:
            return np.asarray(entry[self._name].numpy(), self._dtype)
        part = entry[_STATE].numpy()[_SLICES[self._name]]
        return part.reshape(self._shape).astype(self._dtype)
