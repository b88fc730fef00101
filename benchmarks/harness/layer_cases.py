"""Small models of one layer or operation each, for the table of layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

L = keras.layers
OPS = keras.ops
IMAGE, SEQUENCE, VECTOR = (6, 6, 4), (6, 4), (8,)
VOLUME = (4, 4, 4, 2)


class _DepthToSpace(L.Layer):
    def call(self, x: Any) -> Any:
        return tf.nn.depth_to_space(x, 2)


def _one(shape: tuple[int, ...], make: Callable[[Any], Any]) -> Any:
    """The layer beside a dense one, so that there is a weight to quantize."""
    inputs = keras.Input(shape)
    flat = inputs if len(shape) == 1 else L.Flatten()(inputs)
    return keras.Model(inputs, [make(inputs), L.Dense(2)(flat)])


def _two(make: Callable[[Any, Any], Any]) -> Any:
    a, b = keras.Input(VECTOR), keras.Input(VECTOR)
    return keras.Model([a, b], [make(a, b), L.Dense(2)(a)])


def _tokens(dtype: str) -> Any:
    inputs = keras.Input((6,), dtype=dtype)
    return keras.Model(inputs, L.Embedding(9, 4)(inputs))


def _tied() -> Any:
    """Tokens to vectors and back, by one table."""
    inputs = keras.Input((6,), dtype="int32")
    table = L.ReversibleEmbedding(9, 4)
    return keras.Model(inputs, table(L.Dense(4)(table(inputs)), reverse=True))


def _bytes() -> Any:
    inputs = keras.Input(IMAGE, dtype="uint8")
    x = L.Rescaling(1 / 255.0)(inputs)
    return keras.Model(inputs, L.Conv2D(2, 3)(x))


def _on(
    shape: tuple[int, ...], make: Callable[[Any], Any]
) -> Callable[[], Any]:
    return lambda: _one(shape, make)


def _activation(name: str) -> Callable[[], Any]:
    return _on(VECTOR, lambda x: L.Activation(name)(x))


def _operation(name: str, **options: Any) -> Callable[[], Any]:
    return _on(VECTOR, lambda x: getattr(OPS, name)(x, **options))


def _pair(name: str) -> Callable[[], Any]:
    return lambda: _two(lambda a, b: getattr(OPS, name)(a, b))


def _reduction(name: str) -> Callable[[], Any]:
    return _on(SEQUENCE, lambda x: getattr(OPS, name)(x, axis=1))


CASES: dict[str, Callable[[], Any]] = {
    "Dense": _on(VECTOR, lambda x: L.Dense(3)(x)),
    "Dense, sequence": _on(SEQUENCE, lambda x: L.Dense(3)(x)),
    "EinsumDense": _on(
        SEQUENCE, lambda x: L.EinsumDense("abc,cd->abd", (None, 3))(x)
    ),
    "Conv1D": _on(SEQUENCE, lambda x: L.Conv1D(3, 2)(x)),
    "Conv1D, dilated": _on(
        SEQUENCE, lambda x: L.Conv1D(3, 2, padding="causal", dilation_rate=2)(x)
    ),
    "Conv2D": _on(IMAGE, lambda x: L.Conv2D(3, 3, activation="relu")(x)),
    "Conv2D, 1x1": _on(IMAGE, lambda x: L.Conv2D(3, 1)(x)),
    "Conv2D, grouped": _on(IMAGE, lambda x: L.Conv2D(4, 3, groups=2)(x)),
    "Conv2D, dilated": _on(
        IMAGE, lambda x: L.Conv2D(3, 3, dilation_rate=(1, 2))(x)
    ),
    "Conv3D": _on(VOLUME, lambda x: L.Conv3D(3, 2)(x)),
    "Conv1DTranspose": _on(SEQUENCE, lambda x: L.Conv1DTranspose(3, 2, 2)(x)),
    "Conv3DTranspose": _on(VOLUME, lambda x: L.Conv3DTranspose(3, 2, 2)(x)),
    "Conv2DTranspose": _on(IMAGE, lambda x: L.Conv2DTranspose(3, 2, 2)(x)),
    "DepthwiseConv1D": _on(SEQUENCE, lambda x: L.DepthwiseConv1D(3)(x)),
    "SeparableConv1D": _on(SEQUENCE, lambda x: L.SeparableConv1D(3, 3)(x)),
    "DepthwiseConv2D": _on(IMAGE, lambda x: L.DepthwiseConv2D(3)(x)),
    "SeparableConv2D": _on(IMAGE, lambda x: L.SeparableConv2D(3, 3)(x)),
    "Embedding": lambda: _tokens("int32"),
    "Embedding, float tokens": lambda: _tokens("float32"),
    "Embedding, tied": _tied,
    "LSTM": _on(SEQUENCE, lambda x: L.LSTM(3)(x)),
    "LSTM, unrolled": _on(SEQUENCE, lambda x: L.LSTM(3, unroll=True)(x)),
    "GRU": _on(SEQUENCE, lambda x: L.GRU(3)(x)),
    "GRU, unrolled": _on(SEQUENCE, lambda x: L.GRU(3, unroll=True)(x)),
    "SimpleRNN": _on(SEQUENCE, lambda x: L.SimpleRNN(3)(x)),
    "SimpleRNN, unrolled": _on(
        SEQUENCE, lambda x: L.SimpleRNN(3, unroll=True)(x)
    ),
    "Bidirectional": _on(SEQUENCE, lambda x: L.Bidirectional(L.LSTM(3))(x)),
    "ConvLSTM1D": _on((3, 6, 2), lambda x: L.ConvLSTM1D(3, 2)(x)),
    "ConvLSTM2D": _on((3, 6, 6, 2), lambda x: L.ConvLSTM2D(3, 2)(x)),
    "ConvLSTM2D, unrolled": _on(
        (3, 6, 6, 2), lambda x: L.ConvLSTM2D(3, 2, unroll=True)(x)
    ),
    "TimeDistributed": _on(
        SEQUENCE, lambda x: L.TimeDistributed(L.Dense(3))(x)
    ),
    "TimeDistributed, images": _on(
        (3, 6, 6, 2), lambda x: L.TimeDistributed(L.Conv2D(3, 3))(x)
    ),
    "SpectralNormalization": _on(
        VECTOR, lambda x: L.SpectralNormalization(L.Dense(3))(x)
    ),
    "BatchNormalization": _on(IMAGE, lambda x: L.BatchNormalization()(x)),
    "Conv2D, BatchNormalization": _on(
        IMAGE, lambda x: L.ReLU()(L.BatchNormalization()(L.Conv2D(3, 3)(x)))
    ),
    "MaxPooling2D": _on(IMAGE, lambda x: L.MaxPooling2D(2)(x)),
    "AveragePooling2D": _on(IMAGE, lambda x: L.AveragePooling2D(2)(x)),
    "GlobalAveragePooling2D": _on(
        IMAGE, lambda x: L.GlobalAveragePooling2D()(x)
    ),
    "GlobalMaxPooling2D": _on(IMAGE, lambda x: L.GlobalMaxPooling2D()(x)),
    "UpSampling1D": _on(SEQUENCE, lambda x: L.UpSampling1D(3)(x)),
    "UpSampling2D": _on(IMAGE, lambda x: L.UpSampling2D((2, 3))(x)),
    "UpSampling2D, bilinear": _on(
        IMAGE, lambda x: L.UpSampling2D(2, interpolation="bilinear")(x)
    ),
    "Resizing": _on(IMAGE, lambda x: L.Resizing(5, 8)(x)),
    "RepeatVector": _on(VECTOR, lambda x: L.RepeatVector(3)(x)),
    "ZeroPadding2D": _on(IMAGE, lambda x: L.ZeroPadding2D(1)(x)),
    "Cropping2D": _on(IMAGE, lambda x: L.Cropping2D(1)(x)),
    "Permute": _on(IMAGE, lambda x: L.Permute((3, 1, 2))(x)),
    "Rescaling, uint8": _bytes,
    "Normalization": _on(
        VECTOR, lambda x: L.Normalization(mean=[0.1] * 8, variance=[2.0] * 8)(x)
    ),
    "UnitNormalization": _on(VECTOR, lambda x: L.UnitNormalization()(x)),
    "LayerNormalization": _on(VECTOR, lambda x: L.LayerNormalization()(x)),
    "GroupNormalization": _on(IMAGE, lambda x: L.GroupNormalization(2)(x)),
    "RMSNormalization": _on(VECTOR, lambda x: L.RMSNormalization()(x)),
    "Add": lambda: _two(lambda a, b: L.Add()([a, b])),
    "Average": lambda: _two(lambda a, b: L.Average()([a, b])),
    "Concatenate": lambda: _two(lambda a, b: L.Concatenate()([a, b])),
    "Dot": lambda: _two(lambda a, b: L.Dot(1)([a, b])),
    "Maximum": lambda: _two(lambda a, b: L.Maximum()([a, b])),
    "Minimum": lambda: _two(lambda a, b: L.Minimum()([a, b])),
    "Multiply": lambda: _two(lambda a, b: L.Multiply()([a, b])),
    "Subtract": lambda: _two(lambda a, b: L.Subtract()([a, b])),
    "Attention": _on(SEQUENCE, lambda x: L.Attention()([x, x])),
    "MultiHeadAttention": _on(
        SEQUENCE, lambda x: L.MultiHeadAttention(2, 4)(x, x)
    ),
    "GroupQueryAttention": _on(
        SEQUENCE, lambda x: L.GroupQueryAttention(4, 4, 2)(x, x)
    ),
    "AdditiveAttention": _on(SEQUENCE, lambda x: L.AdditiveAttention()([x, x])),
    "ELU": _on(VECTOR, lambda x: L.ELU()(x)),
    "LeakyReLU": _on(VECTOR, lambda x: L.LeakyReLU()(x)),
    "PReLU": _on(VECTOR, lambda x: L.PReLU()(x)),
    "PReLU, a slope a channel": _on(
        IMAGE, lambda x: L.PReLU("uniform", shared_axes=[1, 2])(x)
    ),
    "PReLU, a slope a pixel": _on(IMAGE, lambda x: L.PReLU("uniform")(x)),
    "ReLU with a threshold": _on(
        VECTOR,
        lambda x: L.ReLU(max_value=4, negative_slope=0.1, threshold=0.2)(x),
    ),
    "Softmax": _on(VECTOR, lambda x: L.Softmax()(x)),
    "Softmax, several vectors": _on(SEQUENCE, lambda x: L.Softmax()(x)),
    **{
        f"activation {name}": _activation(name)
        for name in (
            *("celu", "exponential", "gelu", "hard_shrink", "hard_sigmoid"),
            *("hard_silu", "hard_tanh", "log_sigmoid", "log_softmax", "mish"),
            *(
                "relu",
                "relu6",
                "selu",
                "sigmoid",
                "silu",
                "soft_shrink",
                "softplus",
            ),
            *("softsign", "squareplus", "tanh", "tanh_shrink"),
        )
    },
    **{
        f"ops.{name}": _operation(name)
        for name in (
            *("absolute", "ceil", "cos", "exp", "floor", "negative", "round"),
            *("sigmoid", "sign", "sin", "square"),
        )
    },
    "ops.sqrt": _on(VECTOR, lambda x: OPS.sqrt(OPS.absolute(x))),
    "ops.log": _on(VECTOR, lambda x: OPS.log(OPS.absolute(x) + 0.5)),
    "ops.rsqrt": _on(VECTOR, lambda x: OPS.rsqrt(OPS.absolute(x) + 0.5)),
    "ops.clip to -1..1": _operation("clip", x_min=-1.0, x_max=1.0),
    "ops.clip": _operation("clip", x_min=-0.5, x_max=2.0),
    "ops.power": _on(VECTOR, lambda x: OPS.power(OPS.absolute(x), 1.5)),
    "ops.divide": lambda: _two(lambda a, b: a / (OPS.absolute(b) + 0.5)),
    "squared difference": lambda: _two(lambda a, b: OPS.square(a - b)),
    "ops.maximum": _pair("maximum"),
    "ops.where": lambda: _two(lambda a, b: OPS.where(a > b, a, b)),
    "mask by comparison": _on(
        VECTOR, lambda x: x * OPS.cast(x > 0.5, "float32")
    ),
    "ops.greater": _pair("greater"),
    **{
        f"ops.{name}": _reduction(name)
        for name in (
            *("cumsum", "flip", "logsumexp", "max", "mean", "min", "std"),
            *("sum", "var"),
        )
    },
    "ops.norm": _on(SEQUENCE, lambda x: OPS.norm(x, axis=1)),
    "ops.stack": lambda: _two(lambda a, b: OPS.stack([a, b], 1)),
    "ops.split": _on(SEQUENCE, lambda x: OPS.split(x, 2, axis=2)[0]),
    "ops.unstack": _on(SEQUENCE, lambda x: OPS.unstack(x, axis=1)[0]),
    "tf.nn.depth_to_space": _on(IMAGE, lambda x: _DepthToSpace()(x)),
    "ops.take": _on(SEQUENCE, lambda x: OPS.take(x, np.array([0, 2]), axis=1)),
    "ops.tile": _on(SEQUENCE, lambda x: OPS.tile(x, (1, 2, 1))),
    "ops.repeat": _on(SEQUENCE, lambda x: OPS.repeat(x, 2, axis=1)),
    "ops.roll": _on(SEQUENCE, lambda x: OPS.roll(x, 1, axis=1)),
    "ops.pad, reflect": _on(
        SEQUENCE,
        lambda x: OPS.pad(x, ((0, 0), (1, 1), (0, 0)), mode="reflect"),
    ),
    "ops.argmax": _on(SEQUENCE, lambda x: OPS.argmax(x, axis=-1)),
    "ops.argmin": _on(SEQUENCE, lambda x: OPS.argmin(x, axis=-1)),
    "ops.one_hot": _on(
        SEQUENCE, lambda x: OPS.one_hot(OPS.argmax(x, axis=-1), 4)
    ),
    "ops.erf": _operation("erf"),
    "ops.image.extract_patches": _on(
        IMAGE, lambda x: OPS.image.extract_patches(x, 3)
    ),
    "ops.image.resize, bicubic": _on(
        IMAGE, lambda x: OPS.image.resize(x, (9, 9), interpolation="bicubic")
    ),
    "ops.top_k": _on(VECTOR, lambda x: OPS.top_k(x, 2)[0]),
    "ops.matmul": _on(
        SEQUENCE, lambda x: OPS.matmul(x, OPS.transpose(x, (0, 2, 1)))
    ),
}


def samples(model: Any, count: int = 8) -> list[np.ndarray]:
    """Inputs of a model: tokens, bytes or normal numbers."""
    rng = np.random.default_rng(0)
    table = any(isinstance(layer, L.Embedding) for layer in model.layers)
    found = []
    for inputs in model.inputs:
        shape = (count, *inputs.shape[1:])
        if table:
            array = rng.integers(0, 9, shape)
        elif inputs.dtype == "uint8":
            array = rng.integers(0, 256, shape)
        else:
            array = rng.normal(size=shape)
        found.append(array.astype(inputs.dtype))
    return found
