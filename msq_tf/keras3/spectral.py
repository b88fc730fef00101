"""Spectral normalization of weights that are quantized.

In training `SpectralNormalization` divides the kernel of its layer by an
estimate of its largest singular value, and assigns the result. It reads what
stands for the kernel while a model runs. That are quantized values: assigned,
they would take the place of the latent weights, and what training had moved
them by would be lost. Here the latent weights are normalized, as in float, and
the layer computes with the quantized values divided by the same number.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from msq_tf.keras3.overlay import Aside
from msq_tf.keras3.overlay import laid_here

_MARK = "_msq_tf_normalizes_latent"


def normalize_latent(layers: Iterable[Any]) -> None:
    """Has layers of spectral normalization do so to latent weights.

    Only where an overlay has other values for their kernels; else they compute
    as before.
    """
    for layer in layers:
        known = isinstance(layer, keras.layers.SpectralNormalization)
        if known and not hasattr(layer, _MARK):
            layer.call = _normalizing(layer, layer.call)
            setattr(layer, _MARK, True)


def _normalizing(layer: Any, call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def normalizing(inputs: Any, training: Any = False) -> Any:
        scope = laid_here(layer.kernel) if training else None
        if scope is None:
            return call(inputs, training=training)
        with Aside():
            latent = layer.kernel.value
            direction, kernel = keras.ops.cond(
                keras.ops.all(keras.ops.equal(latent, 0)),
                lambda: (layer.vector_u.value, latent),
                layer.normalized_weights,
            )
        size = tf.stop_gradient(
            tf.math.divide_no_nan(tf.norm(kernel), tf.norm(latent))
        )
        value = tf.convert_to_tensor(scope.get_current_value(layer.kernel))
        scaled = tf.stop_gradient(value * tf.cast(size, value.dtype) - value)
        layer.vector_u.assign(direction)
        layer.kernel.assign(tf.stop_gradient(kernel))
        # The gradient is that of the kernel after it was assigned.
        scope.state_mapping[id(layer.kernel)] = value + scaled
        return call(inputs, training=False)

    return normalizing
