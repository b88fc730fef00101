"""Inputs with columns that one grid can't hold, as in `keras3.columns`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from msq_tf.keras3.columns import lost_by
from msq_tf.keras3.columns import warn_of_data
from msq_tf.tfmot.compat import private
from msq_tf.tfmot.compat.imports import tf_keras
from msq_tf.tfmot.strip import is_input_quantizer

# Of activations, as TFMOT has them.
BITS = 8


def readers(layer: Any) -> list[Any]:
    """The layers that read what a layer returns."""
    return [node.layer for node in layer.outbound_nodes]


def narrow(layer: Any) -> list[int]:
    """Columns of an input that vary by less than a grid of all resolves.

    None where something reads the input that does not normalize it.
    """
    return lost_by(readers(layer), tf_keras.layers, BITS)


def look_at(model: Any, x: Any) -> None:
    """Warns of columns of inputs that the grid of an input loses."""
    names = model.input_names
    if isinstance(x, Mapping) and set(names) <= set(x):
        flat = [x[name] for name in names]
    else:
        flat = tf.nest.flatten(x)
    rounded = {
        position: flat[position]
        for position, layer in enumerate(
            private.input_layers(model)[: len(flat)]
        )
        if any(map(is_input_quantizer, readers(layer)))
    }
    warn_of_data(rounded, BITS, stacklevel=3)
