"""Channels that a published network has and does not use.

Weight decay can drive all weights of a channel to nothing: the published
network of Visual Wake Words has two thirds of its channels so. Such a channel
is the same for all inputs, and what reads it decayed with it, so it can go.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

import msq_tf

# Relative to the largest weight of the layer; float32 resolves no less.
_NOTHING = 1e-7


def idle_channels(kernel: np.ndarray) -> list[int]:
    """Numbers of the channels whose weights are all next to nothing.

    Args:
        kernel: Of a convolution or a dense layer, outputs last.
    """
    sizes = np.abs(kernel.reshape(-1, kernel.shape[-1])).max(0)
    return np.flatnonzero(sizes <= _NOTHING * sizes.max()).tolist()


def idle_groups(qmodel: msq_tf.MSQModel) -> dict[str, list[int]]:
    """What `msq_tf.remove_channels` may remove, by the paths of layers.

    A group that ties several layers, as a residual network has them, stays.
    """
    layers = {layer.name: layer for layer in qmodel.base.layers}
    found = {}
    for group in msq_tf.channel_groups(qmodel):
        maker: Any = layers.get(group.paths[0])
        plain = isinstance(maker, (keras.layers.Conv2D, keras.layers.Dense))
        if group.reason or len(group.paths) > 1 or not plain:
            continue
        numbers = idle_channels(np.asarray(maker.kernel))
        if 0 < len(numbers) < group.channels:
            found[group.paths[0]] = numbers
    return found
