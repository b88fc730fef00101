"""Which weights of tf_keras layers can be quantized."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from msq_tf.core.weight_spec import WeightSpec
from msq_tf.tfmot.compat.imports import tf_keras
from msq_tf.weight_layout import Layout

layers = tf_keras.layers


def _einsum_output_axes(layer: Any) -> tuple[int, ...]:
    operands, output = layer.equation.replace(" ", "").split("->")
    kernel = operands.split(",")[1]
    return tuple(i for i, axis in enumerate(kernel) if axis in output)


_CONV = (WeightSpec("kernel", (-1,), Layout.CONV),)
_CONV_TRANSPOSE = (WeightSpec("kernel", (-2,), Layout.CONV_TRANSPOSE),)
_DEPTHWISE = (WeightSpec("depthwise_kernel", (-2, -1), Layout.DEPTHWISE),)
_SEPARABLE = (
    *_DEPTHWISE,
    WeightSpec("pointwise_kernel", (-1,), Layout.CONV),
)
_RECURRENT = (
    WeightSpec("kernel", (-1,), Layout.RECURRENT),
    WeightSpec("recurrent_kernel", (-1,), Layout.RECURRENT),
)

# Matched by class, the first entry wins: a DepthwiseConv2D and a
# SeparableConv2D are convolutions too.
_TABLE: tuple[tuple[type, tuple[WeightSpec, ...]], ...] = (
    (layers.SeparableConv1D, _SEPARABLE),
    (layers.SeparableConv2D, _SEPARABLE),
    (layers.DepthwiseConv1D, _DEPTHWISE),
    (layers.DepthwiseConv2D, _DEPTHWISE),
    (layers.Conv1DTranspose, _CONV_TRANSPOSE),
    (layers.Conv2DTranspose, _CONV_TRANSPOSE),
    (layers.Conv3DTranspose, _CONV_TRANSPOSE),
    (layers.Conv1D, _CONV),
    (layers.Conv2D, _CONV),
    (layers.Conv3D, _CONV),
    (layers.Dense, (WeightSpec("kernel", (-1,), Layout.DENSE),)),
    (
        layers.Embedding,
        (WeightSpec("embeddings", (-1,), Layout.EMBEDDING),),
    ),
    (
        layers.EinsumDense,
        (WeightSpec("kernel", _einsum_output_axes, Layout.EINSUM),),
    ),
    # Cells are inside of layers, where no wrapper is; MSQ could quantize them.
    (layers.LSTMCell, _RECURRENT),
    (layers.GRUCell, _RECURRENT),
    (layers.SimpleRNNCell, _RECURRENT),
)


def known_weights(layer: Any) -> tuple[WeightSpec, ...]:
    """The quantizable weights of a layer; none where its class is unknown."""
    for kind, specs in _TABLE:
        if isinstance(layer, kind):
            return specs
    return ()


def channel_axes(
    layer: Any, attribute: str, known: Mapping[str, Sequence[int]]
) -> tuple[int, ...]:
    """The axes of a weight that have scales of their own.

    Args:
        layer: The layer.
        attribute: Name of the weight on it.
        known: Axes of weights that the table does not know; the last axis
            where there is no entry.
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
