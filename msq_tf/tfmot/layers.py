"""Which weights of tf_keras layers can be quantized."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from msq_tf.core import weight_spec
from msq_tf.core.weight_spec import WeightSpec
from msq_tf.tfmot.compat.imports import tf_keras
from msq_tf.weight_layout import Layout

layers = tf_keras.layers


_DEPTHWISE = (WeightSpec("depthwise_kernel", (-2, -1), Layout.DEPTHWISE),)

# Matched by class, the first entry wins: a DepthwiseConv2D and a
# SeparableConv2D are convolutions too.
_TABLE: tuple[tuple[type, tuple[WeightSpec, ...]], ...] = (
    (layers.SeparableConv1D, weight_spec.SEPARABLE),
    (layers.SeparableConv2D, weight_spec.SEPARABLE),
    (layers.DepthwiseConv1D, _DEPTHWISE),
    (layers.DepthwiseConv2D, _DEPTHWISE),
    (layers.Conv1DTranspose, weight_spec.CONV_TRANSPOSE),
    (layers.Conv2DTranspose, weight_spec.CONV_TRANSPOSE),
    (layers.Conv3DTranspose, weight_spec.CONV_TRANSPOSE),
    (layers.Conv1D, weight_spec.CONV),
    (layers.Conv2D, weight_spec.CONV),
    (layers.Conv3D, weight_spec.CONV),
    (layers.Dense, weight_spec.DENSE),
    (layers.Embedding, weight_spec.EMBEDDING),
    (layers.EinsumDense, weight_spec.EINSUM),
    # Cells are inside of layers, where no wrapper is; MSQ could quantize them.
    (layers.LSTMCell, weight_spec.RECURRENT),
    (layers.GRUCell, weight_spec.RECURRENT),
    (layers.SimpleRNNCell, weight_spec.RECURRENT),
)


def known_weights(layer: Any) -> tuple[WeightSpec, ...]:
    """The quantizable weights of a layer; none where its class is unknown."""
    return next((s for kind, s in _TABLE if isinstance(layer, kind)), ())


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
