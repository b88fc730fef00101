"""The benchmarks' networks for any Keras and any peer's layers.

Written once against a few factory methods, so that a peer says only what its
convolution and its dense layer are. Imports nothing: it runs in environments
that have one Keras or the other.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

_STAGES = (16, 32, 64)
# Attributes of layers that hold weights.
_WEIGHTS = (
    "kernel",
    "bias",
    "gamma",
    "beta",
    "moving_mean",
    "moving_variance",
)


class PlainLayers:
    """Factories of layers, float ones unless other classes are given.

    Args:
        keras: The module of Keras 3 or of tf_keras.
        conv: Class of 2-D convolutions.
        dense: Class of dense layers.
    """

    def __init__(self, keras: Any, conv: Any = None, dense: Any = None):
        self.keras = keras
        self._conv = conv or keras.layers.Conv2D
        self._dense = dense or keras.layers.Dense

    def options(self, bias: bool) -> dict[str, Any]:
        """Further arguments, of convolutions and of dense layers.

        Args:
            bias: Whether the layer has one.
        """
        return {}

    def conv(
        self, filters: int, size: int, strides: int, bias: bool, name: str
    ) -> Any:
        """A 2-D convolution with padding."""
        return self._conv(
            filters,
            size,
            strides=strides,
            padding="same",
            use_bias=bias,
            kernel_initializer="he_normal",
            name=name,
            **self.options(bias),
        )

    def dense(self, units: int, name: str) -> Any:
        """A dense layer with a bias."""
        return self._dense(
            units,
            kernel_initializer="he_normal",
            name=name,
            **self.options(True),
        )

    def norm(self, name: str) -> Any:
        """A batch normalization."""
        return self.keras.layers.BatchNormalization(momentum=0.9, name=name)

    def relu(self, name: str) -> Any:
        """A ReLU."""
        return self.keras.layers.Activation("relu", name=name)


# Of the factories, a built model.
Network = Callable[[PlainLayers], Any]


def resnet(
    layers: PlainLayers,
    input_shape: tuple[int, int, int] = (28, 28, 1),
    classes: int = 10,
    blocks: int = 1,
    width: int = 1,
) -> Any:
    """The network that `train.models.builders` calls `resnet8`, or `resnet20`.

    Args:
        layers: Factories.
        input_shape: Height, width and channels of an image.
        classes: Number of classes.
        blocks: Blocks a stage: 1 for ResNet-8, 3 for ResNet-20.
        width: Factor of the number of filters.

    Returns:
        A built Functional model that returns logits; names of layers are
        those of `train.models.builders`.
    """
    keras = layers.keras
    stages = [width * filters for filters in _STAGES]
    inputs = keras.Input(input_shape, name="image")
    x = layers.conv(stages[0], 3, 1, False, "stem")(inputs)
    x = layers.norm("stem_bn")(x)
    x = layers.relu("stem_relu")(x)
    for block in range(len(stages) * blocks):
        stage, first = block // blocks, block % blocks == 0
        strides = 2 if stage > 0 and first else 1
        x = _block(layers, x, stages[stage], strides, f"block{block + 1}")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.dense(classes, "logits")(x)
    return keras.Model(inputs, outputs, name=f"resnet{6 * blocks + 2}")


def _block(
    layers: PlainLayers, inputs: Any, filters: int, strides: int, name: str
) -> Any:
    x = layers.conv(filters, 3, strides, False, f"{name}_conv1")(inputs)
    x = layers.norm(f"{name}_conv1_bn")(x)
    x = layers.relu(f"{name}_relu1")(x)
    x = layers.conv(filters, 3, 1, False, f"{name}_conv2")(x)
    x = layers.norm(f"{name}_conv2_bn")(x)
    if strides > 1:
        inputs = layers.conv(filters, 1, strides, True, f"{name}_shortcut")(
            inputs
        )
    x = layers.keras.layers.Add(name=f"{name}_add")([x, inputs])
    return layers.relu(f"{name}_relu2")(x)


def two_layers(
    layers: PlainLayers,
    input_shape: tuple[int, int, int] = (8, 8, 1),
    classes: int = 3,
) -> Any:
    """A convolution and a dense layer, small enough to count by hand."""
    keras = layers.keras
    inputs = keras.Input(input_shape, name="image")
    x = layers.conv(4, 3, 1, False, "conv")(inputs)
    x = layers.norm("conv_bn")(x)
    x = layers.relu("conv_relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(
        inputs, layers.dense(classes, "logits")(x), name="two_layers"
    )


def variables(model: Any) -> dict[str, Any]:
    """Float weights of a model of one of these networks, by their names.

    Returns:
        Variables by `layer/attribute`, such as `"stem/kernel"`.
    """
    found = {}
    for layer in model.layers:
        for attribute in _WEIGHTS:
            variable = getattr(layer, attribute, None)
            if hasattr(variable, "assign"):
                found[f"{layer.name}/{attribute}"] = variable
    return found


def built(
    build: Network, layers: PlainLayers, weights: Mapping[str, Any] | None
) -> Any:
    """A network of some layers, with given weights or, if `None`, fresh ones.

    Raises:
        ValueError: If the weights are not those of the network.
    """
    model = build(layers)
    if weights is not None:
        load(model, weights)
    return model


def load(model: Any, weights: Mapping[str, Any]) -> None:
    """Assigns weights by their names.

    Args:
        model: A model of one of these networks.
        weights: Arrays by `layer/attribute`.

    Raises:
        ValueError: If the names are not those of the model.
    """
    targets = variables(model)
    if set(targets) != set(weights):
        raise ValueError(
            "The weights are not those of this network. Expected "
            f"{sorted(targets)}. Received: {sorted(weights)}"
        )
    for name, variable in targets.items():
        variable.assign(weights[name])
