"""Holds a model to what export targets can run."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import keras

from msq_tf.keras3.discovery import walk
from msq_tf.keras3.flow import hookable
from msq_tf.rules import target_limits


def check_model(model: Any, names: Sequence[str]) -> None:
    """Raises a ValueError for layers that can't run on the named targets."""
    found = [
        f"'{path}' ({type(layer).__name__}) on '{name}': {reason}"
        for name in names
        for path, layer in _layers(model)
        if (reason := _against(layer, target_limits.TARGETS[name])) is not None
    ]
    if found:
        raise ValueError(
            "The model has layers that can't run where `targets` says. "
            "Expected other layers, or `targets` without these. Received: "
            f"{'; '.join(found)}"
        )


def _layers(model: Any) -> Iterator[tuple[str, Any]]:
    """Layers and operations, each once, with their paths."""
    seen: set[int] = set()
    for path, layer in (*walk(model), *hookable(model)):
        if id(layer) not in seen:
            seen.add(id(layer))
            yield path, layer


def _against(layer: Any, limits: target_limits.Limits) -> str | None:
    for ancestor in type(layer).__mro__:
        if ancestor.__name__ in limits.layers:
            return limits.layers[ancestor.__name__]
    unrolled = getattr(layer, "unroll", False)
    if (
        isinstance(layer, keras.layers.RNN)
        and not limits.float_regions
        and not unrolled
    ):
        return target_limits.LOOP
    function = getattr(layer, "activation", None)
    name = getattr(function, "__name__", None)
    return limits.activations.get(name) if name else None
