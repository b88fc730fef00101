"""Checks of a tf_keras model against what export targets can run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

from msq_tf.keras3.columns import warn_of_devices
from msq_tf.rules import target_limits
from msq_tf.tfmot import columns
from msq_tf.tfmot.compat import private
from msq_tf.tfmot.compat.imports import tf_keras


def check_targets(model: Any, names: Sequence[str], bits: int | None) -> None:
    """Raises a ValueError for layers that can't run on the named targets.

    Warns of tools that an export would lack, and of inputs that a device can't
    normalize.
    """
    layers = list(_layers(model))
    target_limits.check_layers(layers, names, tf_keras.layers)
    for need in target_limits.narrow(layers, names):
        warnings.warn(need, UserWarning, stacklevel=2)
    for lacking in target_limits.not_installed(names):
        warnings.warn(
            f"An export on this machine would fail: {lacking}",
            UserWarning,
            stacklevel=2,
        )
    for position, layer in enumerate(
        private.input_layers(model) if bits else ()
    ):
        warn_of_devices(
            columns.narrow(layer), position, columns.BITS, names, stacklevel=2
        )


def _layers(parent: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Layers at any depth, with their paths."""
    for layer in private.direct_layers(parent):
        yield f"{prefix}{layer.name}", layer
        yield from _layers(layer, f"{prefix}{layer.name}/")
