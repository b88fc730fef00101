"""Which layers of a model are trained by LoRA, for copies and saved models.

Keras saves a layer's rank with the layer. A layer inside of another one, such
as the query of an attention, is built anew without it; so a model that is
loaded would lack variables that its optimizer was saved for.

Keras loads a layer's kernel and factors as one kernel, and both factors as
zeros. Their gradients are then zeros, too, and the layer would never learn
again.
"""

from __future__ import annotations

from typing import Any

import keras

from msq_tf.core import saved
from msq_tf.keras3.discovery import walk
from msq_tf.keras3.lora import is_enabled
from msq_tf.keras3.overlay import all_layers

_FIRST = ("lora_kernel_a", "lora_embeddings_a")


def settings(base: Any) -> list[dict[str, Any]]:
    """Path, rank and alpha of each layer that is trained by LoRA."""
    return [
        {"path": path, "rank": layer.lora_rank, "alpha": layer.lora_alpha}
        for path, layer in walk(base)
        if is_enabled(layer)
    ]


def restore(base: Any, kept: Any) -> None:
    """Enables LoRA where `settings` say so and it is not enabled.

    Raises:
        ValueError: If they do not fit the model.
    """
    entries = saved.records("lora", kept)
    layers = dict(walk(base)) if entries else {}
    for entry in entries:
        layer = layers.get(str(entry.get("path")))
        if layer is None or not hasattr(layer, "enable_lora"):
            raise ValueError(
                "A saved model is trained by LoRA at a layer that it has not. "
                f"Received: {entry}"
            )
        if not is_enabled(layer):
            layer.enable_lora(entry["rank"], lora_alpha=entry["alpha"])


def revive(base: Any) -> None:
    """Gives factors that are all zero a first one that can be trained.

    What the model computes stays as it is.
    """
    for layer in all_layers(base):
        if not is_enabled(layer):
            continue
        for name in _FIRST:
            first = getattr(layer, name, None)
            if first is not None and not keras.ops.any(first):
                start = keras.initializers.HeUniform()
                first.assign(start(first.shape, first.dtype))
