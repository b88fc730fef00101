"""Which models of keras.applications the zoo benchmark runs, as data."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_VARIANCE = (0.229**2, 0.224**2, 0.225**2)


@dataclasses.dataclass(frozen=True)
class Row:
    """One architecture.

    Attributes:
        name: Name of its function in `keras.applications`.
        family: Heading in tables.
        size: Height and width of the input in pixels, the least that the
            family takes.
        low: Least pixel value that the model expects.
        high: Greatest one.
    """

    name: str
    family: str
    size: int = 32
    low: float = -1.0
    high: float = 1.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one input."""
        return (self.size, self.size, 3)


# Those with 0..255 scale their pixels inside.
ROWS = (
    Row("MobileNetV2", "MobileNet V2"),
    Row("MobileNetV3Small", "MobileNet V3", low=0.0, high=255.0),
    Row("MobileNetV3Large", "MobileNet V3", low=0.0, high=255.0),
    Row("EfficientNetB0", "EfficientNet", low=0.0, high=255.0),
    Row("EfficientNetV2B0", "EfficientNet V2", low=0.0, high=255.0),
    Row("ResNet50", "ResNet"),
    Row("ResNet50V2", "ResNet V2"),
    Row("DenseNet121", "DenseNet"),
    Row("ConvNeXtTiny", "ConvNeXt", low=0.0, high=255.0),
    Row("MobileNet", "MobileNet"),
    Row("InceptionV3", "Inception", size=75),
    Row("Xception", "Xception", size=71),
    Row("NASNetMobile", "NASNet"),
    Row("VGG16", "VGG"),
    Row("InceptionResNetV2", "Inception-ResNet", size=75),
)


def build(row: Row, **options: Any) -> keras.Model:
    """The row's model as if it had been trained, with logits as its output.

    Args:
        row: Which.
        **options: Further arguments of the function, such as `alpha`.
    """
    keras.utils.set_random_seed(0)
    function = getattr(keras.applications, row.name)
    model = function(
        weights=None,
        input_shape=row.shape,
        classifier_activation=None,
        **options,
    )
    enliven(model, images(row, 32, seed=1))
    return model


def images(row: Row, count: int, seed: int) -> np.ndarray:
    """Random pictures with structure at all sizes.

    Args:
        row: Whose shape and pixel range.
        count: How many.
        seed: Seed of the generator.

    Returns:
        float32 array (count, height, width, 3) from `row.low` to `row.high`.
    """
    rng = np.random.default_rng(seed)
    side = row.size
    total = np.zeros((count, side, side, 3))
    for cells in (1, 2, 4, 8, 16):
        coarse = rng.normal(size=(count, cells, cells, 3))
        index = np.arange(side) * cells // side
        total += coarse[:, index][:, :, index]
    total += rng.normal(size=total.shape)
    # Nine in ten pixels are within the range.
    unit = np.clip(0.5 + total / 8, 0.0, 1.0)
    return (row.low + (row.high - row.low) * unit).astype(np.float32)


def enliven(model: keras.Model, samples: np.ndarray) -> None:
    """Gives fresh weights what training leaves behind.

    Normalizations get factors of both signs and statistics near those of
    `samples`; without them activations of deep models vanish or explode, and
    nothing that is compared at the output could fail.

    Args:
        model: A built model with fresh weights; changed in place.
        samples: Inputs.
    """
    rng = np.random.default_rng(0)
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.Normalization):
            _know_imagenet(layer)
        for variable in layer._trainable_variables:
            if len(variable.shape) == 1:
                variable.assign(_vector(variable, layer, rng))
    settle(model, samples, rng)


def settle(
    model: keras.Model,
    samples: Any,
    rng: np.random.Generator | None = None,
) -> None:
    """Gives batch normalizations statistics near those of `samples`.

    Args:
        model: A built model; changed in place.
        samples: Inputs.
        rng: Draws how far the statistics are off; by default one of seed 0.
    """
    rng = rng or np.random.default_rng(0)
    normalizations = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    if not normalizations:
        return
    momenta = [layer.momentum for layer in normalizations]
    for layer in normalizations:
        layer.momentum = 0.0
    model(samples, training=True)
    for layer, momentum in zip(normalizations, momenta, strict=True):
        layer.momentum = momentum
        variance = layer.moving_variance.numpy()
        # A channel that hardly moved on so few samples may do so on others.
        variance = np.maximum(variance, 0.1 * variance.mean())
        drift = 0.1 * np.sqrt(variance) * rng.normal(size=variance.shape)
        layer.moving_mean.assign_add(drift)
        layer.moving_variance.assign(
            variance * rng.uniform(0.7, 1.4, variance.shape)
        )


def _vector(
    variable: Any, layer: keras.layers.Layer, rng: np.random.Generator
) -> np.ndarray:
    if variable.name == "gamma":
        # The layer scale of a residual branch stays below its factors.
        top = 0.5 if type(layer).__name__ == "LayerScale" else 1.5
        signs = rng.choice([-1, 1], size=variable.shape, p=[0.2, 0.8])
        return signs * rng.uniform(top / 3, top, variable.shape)
    return rng.normal(scale=0.1, size=variable.shape)


def _know_imagenet(layer: keras.layers.Normalization) -> None:
    """What `weights="imagenet"` would have loaded."""
    if getattr(layer, "adapt_mean", None) is not None:
        layer.adapt_mean.assign(_IMAGENET_MEAN)
        layer.adapt_variance.assign(_IMAGENET_VARIANCE)
        layer.finalize_state()
