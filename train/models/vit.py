"""Vision transformers as DeiT has them, of any size."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

import msq_tf

PACKAGE = "msq_tf_train"
# Why position embeddings, position biases and tokens have no bits.
ADDED = "added to activations, which no kernel does with low-bit weights"
_EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """Size of a vision transformer.

    Attributes:
        patch: Side of a patch in pixels; images are a multiple of it.
        width: Features of a token.
        depth: Number of blocks.
        heads: Attention heads; they divide the width.
        mlp_ratio: Hidden features of a block's MLP, by `width`.
        distilled: Whether there is a distillation token beside the class
            token, with a head of its own (DeiT). The logits are the mean of
            both heads.
        layer_scale: Where the factors of every residual branch start (CaiT);
            `None` for no such factors.
    """

    patch: int = 16
    width: int = 192
    depth: int = 12
    heads: int = 3
    mlp_ratio: int = 4
    distilled: bool = True
    layer_scale: float | None = None


# DeiT-Tiny of Touvron et al. 2021 (arXiv 2012.12877, table 1), distilled.
DEIT_TINY = ViTConfig()
# For images of about 32 pixels.
VIT_MICRO = ViTConfig(
    patch=4, width=64, depth=4, heads=2, mlp_ratio=2, distilled=False
)


@keras.saving.register_keras_serializable(package=PACKAGE)
@msq_tf.register_float("token", "position", reason=ADDED)
class TokensAndPositions(keras.layers.Layer):
    """Puts learned tokens in front of a sequence, and adds positions.

    Maps (batch, patches, width) to (batch, tokens + patches, width). Both
    weights stay in float, see `ADDED`.

    Args:
        tokens: Number of tokens.
        **kwargs: As `keras.layers.Layer` takes them.
    """

    def __init__(self, tokens: int = 1, **kwargs: Any):
        super().__init__(**kwargs)
        self.tokens = tokens

    def build(self, input_shape: tuple[Any, ...]) -> None:
        _, patches, width = input_shape
        initializer = keras.initializers.TruncatedNormal(stddev=0.02)
        self.token = self.add_weight(
            name="token",
            shape=(1, self.tokens, width),
            initializer=initializer,
        )
        self.position = self.add_weight(
            name="position",
            shape=(1, self.tokens + patches, width),
            initializer=initializer,
        )

    def call(self, inputs: Any) -> Any:
        shape = (keras.ops.shape(inputs)[0], *self.token.shape[1:])
        tokens = keras.ops.broadcast_to(self.token, shape)
        return keras.ops.concatenate([tokens, inputs], axis=1) + self.position

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "tokens": self.tokens}


@keras.saving.register_keras_serializable(package=PACKAGE)
class LayerScale(keras.layers.Layer):
    """Multiplies every feature by a learned factor (CaiT, arXiv 2103.17239).

    Args:
        start: Value of the factors at the start.
        **kwargs: As `keras.layers.Layer` takes them.
    """

    def __init__(self, start: float = 1e-5, **kwargs: Any):
        super().__init__(**kwargs)
        self.start = start

    def build(self, input_shape: tuple[Any, ...]) -> None:
        self.factor = self.add_weight(
            name="factor",
            shape=input_shape[-1:],
            initializer=keras.initializers.Constant(self.start),
        )

    def call(self, inputs: Any) -> Any:
        return inputs * self.factor

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "start": self.start}


def vision_transformer(
    input_shape: tuple[int, int, int],
    classes: int,
    config: ViTConfig = DEIT_TINY,
    name: str = "vit",
) -> keras.Model:
    """Builds a classifier with fresh weights and logits as its output.

    Raises:
        ValueError: If the image is no multiple of a patch, or the width none
            of the heads.
    """
    inputs, x = patches(input_shape, config.width, config.patch)
    check_heads(config.width, config.heads)
    x = keras.layers.Reshape((-1, config.width), name="sequence")(x)
    tokens = 2 if config.distilled else 1
    x = TokensAndPositions(tokens, name="tokens")(x)
    for number in range(1, config.depth + 1):
        x = _block(x, config, f"block{number}")
    x = normalized(x, "norm")
    logits = [
        keras.layers.Dense(classes, name=head)(x[:, place])
        for place, head in enumerate(("logits", "distilled_logits")[:tokens])
    ]
    outputs = logits[0]
    if config.distilled:
        outputs = keras.layers.Average(name="mean_logits")(logits)
    return keras.Model(inputs, outputs, name=name)


def _block(
    inputs: keras.KerasTensor, config: ViTConfig, name: str
) -> keras.KerasTensor:
    x = normalized(inputs, f"{name}_norm1")
    x = keras.layers.MultiHeadAttention(
        config.heads, config.width // config.heads, name=f"{name}_attention"
    )(x, x)
    x = _scaled(x, config, f"{name}_scale1")
    inputs = keras.layers.Add(name=f"{name}_add1")([inputs, x])
    x = normalized(inputs, f"{name}_norm2")
    x = mlp(x, config.mlp_ratio, f"{name}_mlp")
    x = _scaled(x, config, f"{name}_scale2")
    return keras.layers.Add(name=f"{name}_add2")([inputs, x])


def _scaled(
    inputs: keras.KerasTensor, config: ViTConfig, name: str
) -> keras.KerasTensor:
    if config.layer_scale is None:
        return inputs
    return LayerScale(config.layer_scale, name=name)(inputs)


def patches(
    input_shape: tuple[int, int, int], width: int, patch: int
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """The input, and a vector of `width` for every patch of the image.

    Raises:
        ValueError: If the image is no multiple of a patch.
    """
    if input_shape[0] % patch or input_shape[1] % patch:
        raise ValueError(
            "Expected images whose sides are multiples of "
            f"patch={patch}. Received: input_shape={input_shape}"
        )
    inputs = keras.Input(input_shape, name="image")
    cut = keras.layers.Conv2D(width, patch, strides=patch, name="patches")
    return inputs, cut(inputs)


def check_heads(width: int, heads: int) -> None:
    """Raises a `ValueError` unless the heads divide the width."""
    if width % heads:
        raise ValueError(
            "Expected a width that the heads divide. Received: "
            f"width={width}, heads={heads}"
        )


def normalized(inputs: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Layer normalization as transformers have it."""
    layer = keras.layers.LayerNormalization(epsilon=_EPSILON, name=name)
    return layer(inputs)


def mlp(inputs: keras.KerasTensor, ratio: int, name: str) -> keras.KerasTensor:
    """Two dense layers with a GELU in between, `ratio` times as wide."""
    width = inputs.shape[-1]
    x = keras.layers.Dense(ratio * width, activation="gelu", name=f"{name}1")(
        inputs
    )
    return keras.layers.Dense(width, name=f"{name}2")(x)
