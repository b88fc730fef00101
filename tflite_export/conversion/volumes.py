"""Convolutions of volumes as TFLite's one operator has them.

Its CONV_3D knows no groups, and channels come last. TensorFlow's converter
moves channels of images behind the pixels, but none of volumes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

_RANK = 5
_LAST = (0, 2, 3, 4, 1)
_SECOND = (0, 4, 1, 2, 3)


def convolution(original: Callable[..., Any]) -> Callable[..., Any]:
    """`tf.nn.convolution`, one for each group of channels, which come last."""

    def grouped(
        input,  # noqa: A002 (as in TensorFlow)
        filters,
        strides=None,
        padding="VALID",
        data_format=None,
        dilations=None,
        name=None,
    ):
        x, kernel = map(tf.convert_to_tensor, (input, filters))
        if x.shape.rank != _RANK:
            return original(
                x, kernel, strides, padding, data_format, dilations, name
            )
        first = (data_format or "").startswith("NC")
        x = tf.transpose(x, _LAST) if first else x
        channels, each = x.shape[-1], kernel.shape[-2]
        groups = 1 if channels in (None, each) else channels // each
        parts = [
            original(part, weights, strides, padding, "NDHWC", dilations, name)
            for part, weights in zip(
                tf.split(x, groups, -1) if groups > 1 else [x],
                tf.split(kernel, groups, -1) if groups > 1 else [kernel],
                strict=True,
            )
        ]
        x = tf.concat(parts, -1) if groups > 1 else parts[0]
        return tf.transpose(x, _SECOND) if first else x

    return grouped


def bias_add(original: Callable[..., Any]) -> Callable[..., Any]:
    """`tf.nn.bias_add`, as a sum where channels of volumes come first."""

    def added(value, bias, data_format=None, name=None):
        x, vector = map(tf.convert_to_tensor, (value, bias))
        if x.shape.rank != _RANK or not (data_format or "").startswith("NC"):
            return original(x, vector, data_format, name)
        return tf.add(x, tf.reshape(vector, (-1, 1, 1, 1)), name)

    return added
