"""Separable convolutions in their two parts.

A runtime runs a separable convolution as two operators, with an integer tensor
between them. Keras computes it as one operation, which hides that tensor. This
module computes both parts separately, with the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)


def is_plain(layer: Any) -> bool:
    """Whether a layer is a separable convolution that Keras computes.

    What a subclass does in a `call` of its own is not known.
    """
    return any(
        isinstance(layer, kind) and type(layer).call is kind.call
        for kind in SEPARABLE
    )


def computed(layer: Any, inputs: Any, between: Callable[[Any], Any]) -> Any:
    """Computes what a plain separable convolution returns.

    `between` is a function of what the depthwise part gives, that returns what
    the pointwise part reads.
    """
    kernels = layer.depthwise_kernel, layer.pointwise_kernel
    strides, dilations = layer.strides, layer.dilation_rate
    if layer.rank == 2:
        x = _parts(layer, inputs, kernels, strides, dilations, between)
    else:
        # As Keras does it: one image axis more, from end to end.
        axis = 1 if layer.data_format == "channels_last" else 2
        x = _parts(
            layer,
            keras.ops.expand_dims(inputs, axis),
            [keras.ops.expand_dims(kernel, 0) for kernel in kernels],
            strides * 2,
            (1, *dilations),
            between,
        )
        x = keras.ops.squeeze(x, axis)
    if layer.use_bias:
        ones = (1,) * (len(x.shape) - 2)
        shape = (1, *ones, layer.filters)
        if layer.data_format == "channels_first":
            shape = (1, layer.filters, *ones)
        x = keras.ops.add(x, keras.ops.reshape(layer.bias, shape))
    return x if layer.activation is None else layer.activation(x)


def _parts(
    layer: Any,
    inputs: Any,
    kernels: Sequence[Any],
    strides: Sequence[int],
    dilations: Sequence[int],
    between: Callable[[Any], Any],
) -> Any:
    depthwise, pointwise = kernels
    # As Keras does it: not every CPU has convolutions of channels first.
    turned = layer.data_format == "channels_first" and _on_cpus()
    data_format = "channels_last" if turned else layer.data_format
    x = keras.ops.depthwise_conv(
        keras.ops.moveaxis(inputs, 1, -1) if turned else inputs,
        depthwise,
        strides=strides,
        padding=layer.padding,
        data_format=data_format,
        dilation_rate=dilations,
    )
    # In half precision a grid's numbers come in float32.
    x = keras.ops.conv(
        keras.ops.cast(between(x), x.dtype),
        pointwise,
        strides=1,
        padding="valid",
        data_format=data_format,
    )
    return keras.ops.moveaxis(x, -1, 1) if turned else x


def _on_cpus() -> bool:
    return not tf.config.list_logical_devices("GPU")
