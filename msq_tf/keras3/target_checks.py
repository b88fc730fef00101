"""Checks of a model against what export targets can run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import keras

from msq_tf.keras3.discovery import walk
from msq_tf.keras3.flow import hookable
from msq_tf.rules import target_limits


def check_model(model: Any, names: Sequence[str]) -> None:
    """Raises a ValueError for layers that can't run on the named targets.

    Warns of those that only a part of a target's devices runs.
    """
    layers = list(_layers(model))
    target_limits.check_layers(layers, names, keras.layers)
    target_limits.check_booleans(list(_booleans(model)), names)
    for need in target_limits.narrow(layers, names):
        warnings.warn(need, UserWarning, stacklevel=3)


def _booleans(model: Any) -> Iterator[str]:
    """Inputs and outputs of a functional model that are booleans."""
    for end in ("inputs", "outputs"):
        for tensor in getattr(model, end, None) or ():
            if keras.backend.standardize_dtype(tensor.dtype) == "bool":
                yield f"'{tensor.name}' of its {end}"


def _layers(model: Any) -> Iterator[tuple[str, Any]]:
    """Layers and operations, each once, with their paths."""
    seen: set[int] = set()
    for path, layer in (*walk(model), *hookable(model)):
        if id(layer) not in seen:
            seen.add(id(layer))
            yield path, layer
