"""Separable convolutions in their two parts.

A runtime runs one as two operators, and holds an integer tensor between them,
which needs a range. TFMOT splits those of two dimensions. It gives the parts
another float type than the layer's, names them by a counter of the process,
and leaves a layer with a configuration of its own as it is.
"""

from __future__ import annotations

import collections
from typing import Any

# None of these is public.
from tensorflow_model_optimization.python.core.quantization.keras.graph_transformations import (  # noqa: E501
    transforms,
)

from msq_tf.tfmot.compat.imports import tf_keras
from msq_tf.tfmot.quantize_config import MSQQuantizeConfig

layers = tf_keras.layers

_PARTS = {
    "SeparableConv1D": (layers.DepthwiseConv1D, layers.Conv1D),
    "SeparableConv2D": (layers.DepthwiseConv2D, layers.Conv2D),
}
_CONFIG = "quantize_config"


class SplitSeparable(transforms.Transform):
    """Makes a depthwise convolution and a pointwise one of each."""

    def pattern(self) -> Any:
        return transforms.LayerPattern("|".join(_PARTS))

    def replacement(self, match_layer: Any) -> Any:
        config = match_layer.layer["config"]
        given = match_layer.metadata.get(_CONFIG)
        # Not of other packages, nor of one that names the layer's weights.
        if given is not None and not (
            isinstance(given, MSQQuantizeConfig) and given.splits
        ):
            return match_layer
        padded = config["padding"] == "causal"
        if padded and config["data_format"] != "channels_last":
            return match_layer  # which no padding layer knows
        values = list(match_layer.weights.values())
        depthwise, pointwise = _PARTS[match_layer.layer["class_name"]]
        name = config["name"]
        first = _node(
            depthwise(
                name=f"{name}_depthwise",
                padding="valid" if padded else config["padding"],
                use_bias=False,
                **_same(
                    config,
                    "kernel_size",
                    "strides",
                    "depth_multiplier",
                    "dilation_rate",
                    "depthwise_initializer",
                    "depthwise_regularizer",
                    "depthwise_constraint",
                ),
            ),
            {"depthwise_kernel:0": values[0]},
            None if given is None else given.with_linear_output(),
        )
        if padded:
            reach = config["dilation_rate"][0] * (config["kernel_size"][0] - 1)
            layer = layers.ZeroPadding1D(
                (reach, 0), name=f"{name}_padding", dtype=config["dtype"]
            )
            first.input_layers = [_node(layer, {}, None)]
        second = _node(
            pointwise(
                config["filters"],
                1,
                name=f"{name}_pointwise",
                activation=config["activation"],
                activity_regularizer=config["activity_regularizer"],
                kernel_initializer=config["pointwise_initializer"],
                kernel_regularizer=config["pointwise_regularizer"],
                kernel_constraint=config["pointwise_constraint"],
                **_same(
                    config,
                    "use_bias",
                    "bias_initializer",
                    "bias_regularizer",
                    "bias_constraint",
                ),
            ),
            dict(zip(("kernel:0", "bias:0"), values[1:], strict=False)),
            given,
        )
        second.input_layers = [first]
        return second


def _same(config: dict[str, Any], *names: str) -> dict[str, Any]:
    """Arguments that a part has from the whole."""
    always = ("data_format", "dtype", "trainable")
    return {name: config[name] for name in (*always, *names)}


def _node(layer: Any, values: dict[str, Any], config: Any) -> Any:
    saved = tf_keras.layers.serialize(layer, use_legacy_format=True)
    saved["name"] = layer.name
    return transforms.LayerNode(
        saved,
        weights=collections.OrderedDict(values),
        input_layers=[],
        metadata={_CONFIG: config},
    )
