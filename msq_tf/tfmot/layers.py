"""Which weights of tf_keras layers can be quantized."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from msq_tf.core import layer_registry
from msq_tf.core.weight_spec import WeightSpec
from msq_tf.tfmot.compat.imports import tf_keras

layers = tf_keras.layers

_KNOWN = layer_registry.registry(layers, "depthwise_kernel")


def known_weights(layer: Any) -> tuple[WeightSpec, ...]:
    """The quantizable weights of a layer; none where its class is unknown."""
    return layer_registry.specs_of(_KNOWN, layer)


def channel_axes(
    layer: Any, attribute: str, known: Mapping[str, Sequence[int]]
) -> tuple[int, ...]:
    """The axes of a weight that have scales of their own.

    Of weights that the table does not know, the `known` ones; else the last.
    """
    for spec in known_weights(layer):
        if spec.attribute == attribute:
            rank = len(getattr(layer, attribute).shape)
            return spec.axes(layer, rank)
    return tuple(known.get(attribute, (-1,)))


def is_operation(layer: Any) -> bool:
    """Whether a layer stands for code: `x + 1`, `tf.nn.relu6(x)`, a lambda.

    A wrapper around one cannot be rebuilt from its configuration.
    """
    return isinstance(layer, layers.Lambda) or type(layer).__name__ in (
        # Not public in tf_keras.
        "InstanceMethod",
        "InstanceProperty",
        "SlicingOpLambda",
        "TFOpLambda",
    )
