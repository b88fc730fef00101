"""Inputs whose columns one grid can't hold, as `msq_tf.keras3.columns`."""

from __future__ import annotations

from typing import Any

from msq_tf.keras3.columns import lost_in
from msq_tf.tfmot.compat.imports import tf_keras

_BITS = 8


def readers(layer: Any) -> list[Any]:
    """The layers that read what a layer returns."""
    return [node.layer for node in layer.outbound_nodes]


def narrow(layer: Any) -> bool:
    """Whether an input has columns that vary by less than a grid resolves.

    None counts where something reads the input that does not normalize it.
    """
    lost = [
        lost_in(reader, tf_keras.layers, _BITS) for reader in readers(layer)
    ]
    return any(lost) and None not in lost
