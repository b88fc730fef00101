"""A hand-made quantized model, and how tests prepare real ones."""

from __future__ import annotations

import dataclasses
import itertools

import keras
import numpy as np
import tensorflow as tf

import msq_tf
from msq_tf.core.quantized_weight import QuantizedWeight
from msq_tf.core.quantized_weight import SkippedWeight
from msq_tf.weight_layout import Layout

BITS = (8, 4, 2, 3, 6, 5, 7)


@dataclasses.dataclass
class HandMade:
    """The exporter's whole view of a model, with codes made by hand."""

    base: keras.Model
    weights: list[QuantizedWeight]
    skipped: list[SkippedWeight] = dataclasses.field(default_factory=list)
    variables: list = dataclasses.field(default_factory=list)

    def quantized_weights(self):
        return self.weights

    def skipped_weights(self):
        return self.skipped

    def quantized_scope(self):
        return keras.StatelessScope(
            state_mapping=[
                (v, tf.constant(w.values))
                for v, w in zip(self.variables, self.weights, strict=True)
            ]
        )


def weight(
    codes: np.ndarray,
    step: np.ndarray,
    layout: Layout = Layout.DENSE,
    channel_axes: tuple[int, ...] = (-1,),
    bits: int = 8,
    path: str = "layer",
) -> QuantizedWeight:
    """A record with defaults."""
    axes = tuple(a % codes.ndim for a in channel_axes)
    return QuantizedWeight(
        path=path,
        layer="Layer",
        attribute="kernel",
        layout=layout,
        channel_axes=axes,
        codes=codes.astype(np.int8),
        step=np.asarray(step, np.float32),
        bits=bits,
    )


def dense_model() -> HandMade:
    """Two dense layers with four-bit codes."""
    rng = np.random.default_rng(0)
    inputs = keras.Input((6,), name="x")
    hidden = keras.layers.Dense(8, activation="relu", name="a")(inputs)
    base = keras.Model(inputs, keras.layers.Dense(3, name="b")(hidden))
    kernels = [layer.kernel for layer in base.layers[1:]]
    weights = [
        weight(
            rng.integers(-7, 8, kernel.shape),
            rng.uniform(0.01, 0.1, (1, kernel.shape[1])),
            bits=4,
            path=name,
        )
        for name, kernel in zip("ab", kernels, strict=True)
    ]
    return HandMade(base, weights, variables=kernels)


def randomize(model: keras.Model) -> None:
    """Gives a model negative gammas, as after training, and a dead channel."""
    rng = np.random.default_rng(1)
    for variable in model.variables:
        if len(variable.shape) == 1 and "float" in variable.dtype:
            value = rng.normal(size=variable.shape)
            if "variance" in variable.path:
                value = np.abs(value) + 0.3
            variable.assign(value)
    kernel = next(v for v in model.variables if len(v.shape) > 1)
    kernel.assign(kernel.numpy() * (np.arange(kernel.shape[-1]) != 1))


def quantized(model: keras.Model, **config) -> msq_tf.MSQModel:
    """Quantizes a model, bits 2 to 8 cycling over its layers."""
    randomize(model)
    qmodel = msq_tf.quantize_model(model, msq_tf.MSQConfig(**config))
    qmodel.set_bits(dict(zip(qmodel.bits, itertools.cycle(BITS), strict=False)))
    return qmodel
