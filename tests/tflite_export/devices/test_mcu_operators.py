"""Operators that TFLite Micro runs, all in one file."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.tflite_export.samples import quantized
from tflite_export import export
from tflite_export import inspect_file
from tflite_export import targets
from tflite_export.verification import integer_outputs

L = keras.layers
BORDER = [[0, 0], [1, 1], [1, 1], [0, 0]]
NONE = [[0, 0], [0, 0]]
FUNCTIONS = {
    "ABS": tf.abs,
    "ARG_MAX": lambda x: tf.argmax(x, -1, tf.int32),
    "ARG_MIN": lambda x: tf.argmin(x, -1, tf.int32),
    "DIV": lambda x: x / (tf.sigmoid(tf.reverse(x, [1])) + 0.5),
    "ELU": tf.nn.elu,
    "EQUAL": lambda x: tf.equal(x, tf.reverse(x, [1])),
    "GATHER_ND": lambda x: tf.gather_nd(x, [[0, 1], [0, 2]]),
    "GREATER": lambda x: x > tf.reverse(x, [1]),
    "GREATER_EQUAL": lambda x: x >= tf.reverse(x, [1]),
    "LESS": lambda x: x < tf.reverse(x, [1]),
    "LESS_EQUAL": lambda x: x <= tf.reverse(x, [1]),
    "LOG_SOFTMAX": tf.nn.log_softmax,
    "NOT_EQUAL": lambda x: tf.not_equal(x, tf.reverse(x, [1])),
    "SELECT_V2": lambda x: tf.where(x > tf.reverse(x, [1]), x, 0.5),
    "SQUARED_DIFFERENCE": lambda x: tf.math.squared_difference(
        x, tf.reverse(x, [1])
    ),
    # A table of 256 results.
    "CAST": tf.exp,
    "ADD": lambda x: x + tf.reverse(x, [1]),
    "AVERAGE_POOL_2D": lambda x: tf.nn.avg_pool2d(x, 2, 2, "VALID"),
    "BATCH_MATMUL": lambda x: tf.matmul(x, x, transpose_b=True),
    "BATCH_TO_SPACE_ND": lambda x: tf.batch_to_space(
        tf.space_to_batch(x, [2, 2], NONE), [2, 2], NONE
    ),
    "BROADCAST_TO": lambda x: tf.broadcast_to(x[:, :1], (1, 4, 4, 4)),
    "CONCATENATION": lambda x: tf.concat([x, x * 2], -1),
    "DEPTH_TO_SPACE": lambda x: tf.nn.depth_to_space(x, 2),
    "GATHER": lambda x: tf.gather(x, [1, 0, 2], axis=1),
    "HARD_SWISH": lambda x: x * tf.nn.relu6(x + 3) / 6,
    "L2_NORMALIZATION": lambda x: tf.math.l2_normalize(x, -1),
    "LEAKY_RELU": lambda x: tf.nn.leaky_relu(x, 0.1),
    "LOGISTIC": tf.sigmoid,
    "MAXIMUM": lambda x: tf.maximum(x, tf.reverse(x, [1])),
    "MAX_POOL_2D": lambda x: tf.nn.max_pool2d(x, 2, 2, "VALID"),
    "MEAN": lambda x: tf.reduce_mean(x, [1, 2]),
    "MINIMUM": lambda x: tf.minimum(x, tf.reverse(x, [1])),
    "MIRROR_PAD": lambda x: tf.pad(x, BORDER, "REFLECT"),
    "MUL": lambda x: x * tf.reverse(x, [1]),
    "PACK": lambda x: tf.stack([x, x], 0),
    "PAD": lambda x: tf.pad(x, BORDER),
    "PADV2": lambda x: tf.pad(x, BORDER, constant_values=-1.0),
    "REDUCE_MAX": lambda x: tf.reduce_max(x, [1, 2]),
    "REDUCE_MIN": lambda x: tf.reduce_min(x, [1, 2]),
    "RESHAPE": lambda x: tf.reshape(x, (1, -1)),
    "RESIZE_BILINEAR": lambda x: tf.image.resize(x, (8, 8)),
    "RESIZE_NEAREST_NEIGHBOR": lambda x: tf.image.resize(x, (8, 8), "nearest"),
    "REVERSE_V2": lambda x: tf.reverse(x, [1]),
    "SLICE": lambda x: tf.slice(x, [0, 1, 1, 0], [1, 2, 2, 4]),
    "SOFTMAX": tf.nn.softmax,
    "SPACE_TO_BATCH_ND": lambda x: tf.space_to_batch(x, [2, 2], NONE),
    "SPACE_TO_DEPTH": lambda x: tf.nn.space_to_depth(x, 2),
    "SPLIT": lambda x: tf.split(x, 2, -1)[0] + tf.split(x, 2, -1)[1],
    "SPLIT_V": lambda x: tf.split(x, [1, 3], -1)[1],
    "STRIDED_SLICE": lambda x: x[:, ::2, 1:, :],
    "SUB": lambda x: x - tf.reverse(x, [1]),
    "TANH": tf.tanh,
    "TRANSPOSE": lambda x: tf.transpose(x, [0, 2, 1, 3]),
    "UNPACK": lambda x: tf.unstack(x, axis=1)[0] + tf.unstack(x, axis=1)[1],
}
LAYERS = {
    "PRELU": L.PReLU(alpha_initializer="uniform"),
    "TRANSPOSE_CONV": L.Conv2DTranspose(4, 3, strides=2),
    "FULLY_CONNECTED": L.Dense(3),
    "DEPTHWISE_CONV_2D": L.DepthwiseConv2D(3),
}
# The converter writes these as others, or fuses them.
UNSEEN = {
    *("EXPAND_DIMS", "FILL", "RELU", "SHAPE", "SQUEEZE"),
    # A product with -1, and a table where no range is trained.
    *("NEG", "RSQRT"),
}
# Between grids, and at float inputs and outputs.
IN_EVERY_FILE = {"CONV_2D", "DEQUANTIZE", "QUANTIZE"}


class Function(L.Layer):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


@pytest.mark.slow
def test_operators(tmp_path, monkeypatch):
    # That LiteRT computes them rightly has tests of its own.
    monkeypatch.setattr(
        integer_outputs, "check", lambda *args, **kwargs: ([], [], ())
    )
    inputs = keras.Input((4, 4, 3), batch_size=1)
    x = L.Conv2D(4, 1)(inputs)
    ends = [Function(function)(x) for function in FUNCTIONS.values()]
    ends += [layer(x) for layer in LAYERS.values()]
    qmodel = quantized(keras.Model(inputs, ends))
    qmodel.set_bits(dict.fromkeys(qmodel.bits, 8))
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(4, 4, 4, 3)).astype(np.float32)
    path = tmp_path / "m.tflite"
    report = export(qmodel, path, "mcu", samples)
    assert report.device["max_units"] <= 1
    seen = {name.split()[0] for name in inspect_file(path).ops}
    assert set(FUNCTIONS) | set(LAYERS) | IN_EVERY_FILE == seen
    rows = set(targets.load("mcu").operators)
    assert rows - UNSEEN == seen - {"DEQUANTIZE"}
