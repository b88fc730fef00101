"""The models that `--model` can name."""

from __future__ import annotations

from collections.abc import Callable

import keras

from train.models import swin
from train.models import vit

Shape = tuple[int, int, int]
# Of the images' shape, the number of classes and a width multiplier.
Builder = Callable[[Shape, int, float], keras.Model]

APPLICATIONS = "keras.applications."
_STAGES = (16, 32, 64)


def check_name(name: str, label: bool = False) -> None:
    """Refuses what `build` has no model for.

    A label is only what a given model is called.

    Raises:
        ValueError: With the names that there are.
    """
    if label or name in BUILDERS:
        return
    if name.startswith(APPLICATIONS):
        _application_builder(name.removeprefix(APPLICATIONS))
        return
    raise ValueError(
        f"There is no such model. Expected one of {', '.join(BUILDERS)}, "
        f"{APPLICATIONS}<Name>. Received: model={name}"
    )


def build(
    name: str, input_shape: Shape, classes: int, alpha: float = 1.0
) -> keras.Model:
    """Builds a classifier with fresh weights and logits as its output.

    Args:
        name: `"resnet8"`, `"resnet20"`, `"mobilenet_v2"`, the transformers
            `"deit_tiny"` and `"swin_tiny"`, their small relatives for small
            images, `"vit_micro"` and `"swin_micro"`, or
            `"keras.applications."` followed by the name of a model there.
        input_shape: Height, width and channels of an image.
        classes: Number of classes.
        alpha: Width multiplier of `mobilenet_v2`. Defaults to `1.0`.

    Returns:
        A built Functional model.

    Raises:
        ValueError: If there is no such model, or it takes no such images.
    """
    check_name(name)
    if name.startswith(APPLICATIONS):
        application = name.removeprefix(APPLICATIONS)
        return _application(application, input_shape, classes)
    return BUILDERS[name](input_shape, classes, alpha)


def _resnet(
    name: str, input_shape: Shape, classes: int, blocks: int
) -> keras.Model:
    """A residual network of three stages for small images.

    One block a stage is the ResNet-8 of MLPerf Tiny. Three are the ResNet-20
    of He et al. 2016 (arXiv 1512.03385, section 4.2), with 1x1 convolutions
    instead of padding on the shortcuts that change shape.
    """
    inputs = keras.Input(input_shape, name="image")
    x = _convolution(inputs, _STAGES[0], 3, 1, "stem")
    x = keras.layers.Activation("relu", name="stem_relu")(x)
    for block in range(len(_STAGES) * blocks):
        stage, first = block // blocks, block % blocks == 0
        strides = 2 if stage > 0 and first else 1
        x = _block(x, _STAGES[stage], strides, f"block{block + 1}")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = keras.layers.Dense(
        classes, kernel_initializer="he_normal", name="logits"
    )(x)
    return keras.Model(inputs, outputs, name=name)


def _block(
    inputs: keras.KerasTensor, filters: int, strides: int, name: str
) -> keras.KerasTensor:
    x = _convolution(inputs, filters, 3, strides, f"{name}_conv1")
    x = keras.layers.Activation("relu", name=f"{name}_relu1")(x)
    x = _convolution(x, filters, 3, 1, f"{name}_conv2")
    if strides > 1:
        inputs = keras.layers.Conv2D(
            filters,
            1,
            strides=strides,
            padding="same",
            kernel_initializer="he_normal",
            name=f"{name}_shortcut",
        )(inputs)
    x = keras.layers.Add(name=f"{name}_add")([x, inputs])
    return keras.layers.Activation("relu", name=f"{name}_relu2")(x)


def _convolution(
    inputs: keras.KerasTensor, filters: int, size: int, strides: int, name: str
) -> keras.KerasTensor:
    x = keras.layers.Conv2D(
        filters,
        size,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(inputs)
    # Keras's momentum of 0.99 lags too far behind in a run of a few epochs.
    return keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)


def _resnet8(input_shape: Shape, classes: int, _: float) -> keras.Model:
    return _resnet("resnet8", input_shape, classes, blocks=1)


def _resnet20(input_shape: Shape, classes: int, _: float) -> keras.Model:
    return _resnet("resnet20", input_shape, classes, blocks=3)


def _vit(name: str, config: vit.ViTConfig) -> Builder:
    return lambda shape, classes, _: vit.vision_transformer(
        shape, classes, config, name
    )


def _swin(name: str, config: swin.SwinConfig) -> Builder:
    return lambda shape, classes, _: swin.swin_transformer(
        shape, classes, config, name
    )


def _mobilenet_v2(
    input_shape: Shape, classes: int, alpha: float
) -> keras.Model:
    return _application("MobileNetV2", input_shape, classes, alpha=alpha)


def _application(
    application: str, input_shape: Shape, classes: int, **options: float
) -> keras.Model:
    try:
        return _application_builder(application)(
            weights=None,
            input_shape=input_shape,
            classes=classes,
            classifier_activation=None,
            **options,
        )
    except ValueError as error:
        raise ValueError(
            f"keras.applications.{application} cannot be built for these "
            "images. Expected a size that it takes; --image_size resizes the "
            f"data set. Received: input_shape={input_shape} ({error})"
        ) from error


def _application_builder(application: str) -> Callable[..., keras.Model]:
    builder = getattr(keras.applications, application, None)
    if not callable(builder):  # missing, or a submodule
        raise ValueError(
            "keras.applications has no such model. Expected a name such as "
            f"MobileNetV3Small. Received: model={APPLICATIONS}{application}"
        )
    return builder


BUILDERS: dict[str, Builder] = {
    "resnet8": _resnet8,
    "resnet20": _resnet20,
    "mobilenet_v2": _mobilenet_v2,
    "deit_tiny": _vit("deit_tiny", vit.DEIT_TINY),
    "swin_tiny": _swin("swin_tiny", swin.SWIN_TINY),
    "vit_micro": _vit("vit_micro", vit.VIT_MICRO),
    "swin_micro": _swin("swin_micro", swin.SWIN_MICRO),
}
