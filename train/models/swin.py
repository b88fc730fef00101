"""Swin transformers: attention in windows that shift from block to block."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np

import msq_tf
from train.models.vit import ADDED
from train.models.vit import PACKAGE
from train.models.vit import check_heads
from train.models.vit import mlp
from train.models.vit import normalized
from train.models.vit import patches

# What a masked pair of positions gets before the softmax. Far smaller numbers
# would stretch the range of an integer tensor for nothing.
_MASKED = -100.0


@dataclasses.dataclass(frozen=True)
class SwinConfig:
    """Size of a Swin transformer.

    Attributes:
        patch: Side of a patch in pixels.
        width: Features of a token in the first stage; each stage doubles it.
        depths: Number of blocks of each stage.
        heads: Attention heads of each stage.
        window: Largest side of a window in tokens. A stage whose sides it
            does not divide has smaller windows, which do.
        mlp_ratio: Hidden features of a block's MLP, by its width.
    """

    patch: int = 4
    width: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7
    mlp_ratio: int = 4


# Swin-T of Liu et al. 2021 (arXiv 2103.14030, section 3.3).
SWIN_TINY = SwinConfig()
# For images of about 32 pixels.
SWIN_MICRO = SwinConfig(
    patch=2, width=32, depths=(2, 2), heads=(2, 4), mlp_ratio=2
)


@keras.saving.register_keras_serializable(package=PACKAGE)
@msq_tf.register_float("position_bias", reason=ADDED)
class WindowAttention(keras.layers.Layer):
    """Self-attention in windows, with a bias for each relative position.

    Maps (batch, height, width, channels) to the same shape.

    The bias is added to the scores and stays in float, see `vit.ADDED`.

    Args:
        heads: Attention heads; they divide the channels.
        window: Side of a window; it divides height and width.
        shift: By how many tokens the windows are moved, both ways; 0 for not
            at all. Tokens that were no neighbours do not see each other.
        **kwargs: As `keras.layers.Layer` takes them.
    """

    def __init__(self, heads: int, window: int, shift: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.heads = heads
        self.window = window
        self.shift = shift

    def build(self, input_shape: tuple[Any, ...]) -> None:
        _, height, width, channels = input_shape
        if height % self.window or width % self.window:
            raise ValueError(
                "Expected a height and a width that are multiples of "
                f"window={self.window}. Received: input_shape={input_shape}"
            )
        self._height, self._width, self._channels = height, width, channels
        self.qkv = keras.layers.Dense(3 * channels, name="qkv")
        self.qkv.build(input_shape)
        self.projection = keras.layers.Dense(channels, name="projection")
        self.projection.build(input_shape)
        self.position_bias = self.add_weight(
            name="position_bias",
            shape=((2 * self.window - 1) ** 2, self.heads),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
        )

    def call(self, inputs: Any) -> Any:
        x = inputs
        if self.shift:
            x = keras.ops.roll(x, (-self.shift, -self.shift), (1, 2))
        x = self._attend(self._to_windows(x))
        x = self._from_windows(x)
        if self.shift:
            x = keras.ops.roll(x, (self.shift, self.shift), (1, 2))
        return x

    def _attend(self, x: Any) -> Any:
        """Attention within windows, (windows, tokens, channels)."""
        tokens = self.window**2
        size = self._channels // self.heads
        x = keras.ops.reshape(self.qkv(x), (-1, tokens, 3, self.heads * size))
        query, key, value = (
            keras.ops.transpose(
                keras.ops.reshape(
                    x[:, :, part], (-1, tokens, self.heads, size)
                ),
                (0, 2, 1, 3),
            )
            for part in range(3)
        )
        scores = keras.ops.matmul(
            query * size**-0.5, keras.ops.transpose(key, (0, 1, 3, 2))
        )
        scores = scores + self._bias()
        if self.shift:
            mask = self._mask()
            shape = (-1, len(mask), self.heads, tokens, tokens)
            scores = keras.ops.reshape(scores, shape) + mask[None, :, None]
            scores = keras.ops.reshape(scores, (-1, *shape[2:]))
        x = keras.ops.matmul(keras.ops.softmax(scores), value)
        x = keras.ops.transpose(x, (0, 2, 1, 3))
        return self.projection(
            keras.ops.reshape(x, (-1, tokens, self._channels))
        )

    def _bias(self) -> Any:
        """The bias of every pair of tokens, (1, heads, tokens, tokens)."""
        tokens = self.window**2
        bias = keras.ops.take(
            self.position_bias, _relative_positions(self.window), axis=0
        )
        bias = keras.ops.reshape(bias, (1, tokens, tokens, self.heads))
        return keras.ops.transpose(bias, (0, 3, 1, 2))

    def _mask(self) -> np.ndarray:
        """What to add to the scores, float32 (windows, tokens, tokens)."""
        tokens = self.window**2
        region = np.add.outer(
            4 * self._strips(self._height), self._strips(self._width)
        )
        rows = self._height // self.window
        region = region.reshape(rows, self.window, -1, self.window)
        region = region.transpose(0, 2, 1, 3).reshape(-1, tokens)
        apart = region[:, :, None] != region[:, None]
        return np.where(apart, _MASKED, 0.0).astype(np.float32)

    def _strips(self, size: int) -> np.ndarray:
        """Where each row of a shifted image comes from: 0, 1 or 2."""
        place = np.arange(size)
        return (place >= size - self.window).astype(int) + (
            place >= size - self.shift
        )

    # Four axes are enough: what stays together is one axis.

    def _to_windows(self, x: Any) -> Any:
        side = self.window
        row = (-1, side, self._width // side, side * self._channels)
        x = keras.ops.transpose(keras.ops.reshape(x, row), (0, 2, 1, 3))
        return keras.ops.reshape(x, (-1, side**2, self._channels))

    def _from_windows(self, x: Any) -> Any:
        side = self.window
        row = (-1, self._width // side, side, side * self._channels)
        x = keras.ops.transpose(keras.ops.reshape(x, row), (0, 2, 1, 3))
        return keras.ops.reshape(
            x, (-1, self._height, self._width, self._channels)
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "heads": self.heads,
            "window": self.window,
            "shift": self.shift,
        }


def _relative_positions(window: int) -> np.ndarray:
    """Row of the bias table for each pair of tokens, int32 (pairs,)."""
    grid = np.stack(np.meshgrid(*2 * [np.arange(window)], indexing="ij"))
    flat = grid.reshape(2, -1)
    apart = flat[:, :, None] - flat[:, None] + window - 1
    rows = apart[0] * (2 * window - 1) + apart[1]
    return rows.reshape(-1).astype(np.int32)


@keras.saving.register_keras_serializable(package=PACKAGE)
class PatchMerging(keras.layers.Layer):
    """Joins 2x2 tokens to one of twice the features.

    Maps (batch, height, width, channels) to (batch, height / 2, width / 2,
    2 * channels).
    """

    def build(self, input_shape: tuple[Any, ...]) -> None:
        _, height, width, channels = input_shape
        if height % 2 or width % 2:
            raise ValueError(
                "Expected an even height and width. Received: "
                f"input_shape={input_shape}"
            )
        joined = (None, height // 2, width // 2, 4 * channels)
        self.norm = keras.layers.LayerNormalization(epsilon=1e-6, name="norm")
        self.norm.build(joined)
        self.reduction = keras.layers.Dense(
            2 * channels, use_bias=False, name="reduction"
        )
        self.reduction.build(joined)

    def call(self, inputs: Any) -> Any:
        corners = [
            inputs[:, row::2, column::2] for column in (0, 1) for row in (0, 1)
        ]
        return self.reduction(self.norm(keras.ops.concatenate(corners, -1)))


def swin_transformer(
    input_shape: tuple[int, int, int],
    classes: int,
    config: SwinConfig = SWIN_TINY,
    name: str = "swin",
) -> keras.Model:
    """Builds a classifier with fresh weights and logits as its output.

    Raises:
        ValueError: If the image does not divide into patches and windows, or
            a stage's width into its heads.
    """
    inputs, x = patches(input_shape, config.width, config.patch)
    x = normalized(x, "patches_norm")
    stages = zip(config.depths, config.heads, strict=True)
    for stage, (depth, heads) in enumerate(stages, 1):
        if stage > 1:
            x = PatchMerging(name=f"merge{stage}")(x)
        for block in range(depth):
            shifted = block % 2 == 1
            x = _block(x, config, heads, shifted, f"stage{stage}_{block + 1}")
    x = normalized(x, "norm")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = keras.layers.Dense(classes, name="logits")(x)
    return keras.Model(inputs, outputs, name=name)


def _block(
    inputs: keras.KerasTensor,
    config: SwinConfig,
    heads: int,
    shifted: bool,
    name: str,
) -> keras.KerasTensor:
    _, height, width, channels = inputs.shape
    check_heads(channels, heads)
    window = max(
        side
        for side in range(1, config.window + 1)
        if height % side == width % side == 0
    )
    if window == 1 and height * width > 1:
        raise ValueError(
            f"Expected images that divide into {config.patch}x{config.patch} "
            f"patches and windows of up to {config.window}x{config.window} of "
            f"them. Received: {height}x{width} tokens in {name}"
        )
    shift = window // 2 if shifted and min(height, width) > window else 0
    x = normalized(inputs, f"{name}_norm1")
    x = WindowAttention(heads, window, shift, name=f"{name}_attention")(x)
    inputs = keras.layers.Add(name=f"{name}_add1")([inputs, x])
    x = normalized(inputs, f"{name}_norm2")
    x = mlp(x, config.mlp_ratio, f"{name}_mlp")
    return keras.layers.Add(name=f"{name}_add2")([inputs, x])
