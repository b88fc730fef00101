"""Small networks, and files that TensorFlow's converter makes of them."""

from __future__ import annotations

import contextlib
import os
import warnings

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

L = keras.layers


def conv(x, filters, size=3, strides=1):
    x = L.Conv2D(filters, size, strides, "same", use_bias=False)(x)
    return L.ReLU(6.0)(L.BatchNormalization()(x))


def separable(x, filters, strides=1):
    x = L.DepthwiseConv2D(3, strides, "same", use_bias=False)(x)
    return conv(L.ReLU()(L.BatchNormalization()(x)), filters, 1)


def keyword():
    """As the DS-CNN of MLPerf Tiny: a padding of its own, uneven kernels."""
    x = inputs = keras.Input((25, 10, 1))
    x = L.ZeroPadding2D(((4, 5), (1, 1)))(x)
    x = L.Conv2D(8, (10, 4), 2, "valid", activation="relu")(x)
    x = separable(x, 8)
    x = L.AveragePooling2D((5, 2))(x)
    x = L.Dense(12, activation="softmax")(L.Flatten()(x))
    return keras.Model(inputs, x)


def autoencoder():
    return keras.Sequential(
        [keras.Input((32,))]
        + [L.Dense(size, activation="relu") for size in (16, 4, 16)]
        + [L.Dense(32)]
    )


def detector():
    """As BlazeFace: additions, two scales, two outputs."""
    x = inputs = keras.Input((16, 16, 3))
    x = separable(conv(x, 8, 3, 2), 8)
    x = L.Add()([x, conv(x, 8)])
    y = L.Concatenate()([L.MaxPooling2D()(x), conv(x, 4, 3, 2)])
    boxes = [L.Reshape((-1, 4))(L.Conv2D(8, 1)(z)) for z in (x, y)]
    scores = L.Dense(3)(L.GlobalAveragePooling2D()(y))
    return keras.Model(inputs, [L.Concatenate(1)(boxes), scores])


def segmenter():
    x = inputs = keras.Input((8, 8, 3))
    x = conv(x, 4)
    y = L.MaxPooling2D()(x)
    up = L.Conv2DTranspose(4, 3, 2, "same", activation="relu")(y)
    wide = L.UpSampling2D(2, interpolation="bilinear")(y)
    return keras.Model(inputs, L.Conv2D(2, 1)(L.Concatenate()([up, wide, x])))


def mobile():
    """As MobileNetV3: gates, slopes, groups."""
    x = inputs = keras.Input((8, 8, 4))
    x = L.PReLU(shared_axes=[1, 2])(L.Conv2D(8, 3, 2, "same")(x))
    x = L.Activation("hard_silu")(x)
    gate = L.Conv2D(8, 1, activation="hard_sigmoid")(
        L.GlobalAveragePooling2D(keepdims=True)(x)
    )
    x = L.Conv2D(8, 3, groups=2)(L.Multiply()([x, gate]))
    return keras.Model(inputs, L.Dense(4)(L.GlobalMaxPooling2D()(x)))


def text():
    x = inputs = keras.Input((6,), dtype="int32")
    x = L.Embedding(50, 8)(x)
    x = L.LayerNormalization()(x + L.MultiHeadAttention(2, 4)(x, x))
    x = L.Dense(16, activation="gelu")(x)
    return keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling1D()(x)))


def series():
    x = inputs = keras.Input((6, 4))
    x = L.Conv1D(4, 3, padding="same", activation="relu")(x)
    return keras.Model(inputs, L.Dense(3)(L.GRU(4, unroll=True)(x)))


NETWORKS = [*(keyword, autoencoder, detector, segmenter, mobile, text, series)]


def settle(model):
    """Statistics and biases that no initializer gives."""
    rng = np.random.default_rng(1)
    for v in model.weights:
        if "gamma" in v.path or "variance" in v.path:
            v.assign(rng.uniform(0.5, 1.5, v.shape))
        elif any(part in v.path for part in ("beta", "mean", "bias", "alpha")):
            v.assign(0.2 * rng.normal(size=v.shape))
    return model


def samples(model, count):
    rng = np.random.default_rng(2)
    shape = (count, *model.input_shape[1:])
    if model.inputs[0].dtype == "int32":
        return rng.integers(0, 50, shape).astype(np.int32)
    return rng.normal(size=shape).astype(np.float32)


@contextlib.contextmanager
def quiet():
    """The converter writes to the error stream from native code."""
    with open(os.devnull, "w") as null:
        saved = os.dup(2)
        os.dup2(null.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def convert(model, kind, path):
    """As a user of TensorFlow makes a file."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if kind != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind == "int8":
        calibrate(converter, samples(model, 50))
    return written(converter, path)


def calibrate(converter, x):
    """Has a converter take ranges of samples, one at a time."""
    converter.representative_dataset = lambda: (
        [x[i : i + 1]] for i in range(len(x))
    )


def written(converter, path):
    """The file that a converter makes, without its words."""
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        path.write_bytes(converter.convert())
    return path


def outputs_of_file(path, x):
    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    details = interpreter.get_output_details()
    found = []
    for sample in x:
        interpreter.set_tensor(
            interpreter.get_input_details()[0]["index"], sample[None]
        )
        interpreter.invoke()
        found.append(
            [interpreter.get_tensor(entry["index"])[0] for entry in details]
        )
    return [np.stack(column) for column in zip(*found, strict=True)]


def apart(path, model, count=4):
    """Largest difference to the file, in shares of its range, by output."""
    x = samples(model, count)
    wanted = outputs_of_file(path, x)
    batch = model.input_shape[0] or count
    got = [
        keras.tree.flatten(model(x[i : i + batch]))
        for i in range(0, count, batch)
    ]
    joined = [np.concatenate(column) for column in zip(*got, strict=True)]
    return [
        float(np.abs(a - b).max() / np.abs(a).max())
        for a, b in zip(wanted, joined, strict=True)
    ]
