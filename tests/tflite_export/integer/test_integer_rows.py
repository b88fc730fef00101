"""Every row of `_integer.json`, run for real."""

from __future__ import annotations

import keras
import pytest
import tensorflow as tf

import msq_tf
from tests.tflite_export.integer.networks import samples
from tflite_export import export
from tflite_export import inspect_file
from tflite_export import targets

L = keras.layers
# operator -> what makes the converter use it, from a map of (None, 4, 4, 4)
ONE = {
    "MEAN": lambda x: tf.reduce_mean(x, [1, 2]),
    "REDUCE_MAX": lambda x: tf.reduce_max(x, 3),
    "REDUCE_MIN": lambda x: tf.reduce_min(x, 3),
    "RELU": tf.nn.relu,
    "RELU6": tf.nn.relu6,
    "RELU_0_TO_1": lambda x: tf.minimum(1.0, tf.maximum(0.0, x)),
    "LEAKY_RELU": tf.nn.leaky_relu,
    "GELU": tf.nn.gelu,
    "HARD_SWISH": lambda x: x * tf.nn.relu6(x + 3.0) / 6.0,
    "SOFTMAX": tf.nn.softmax,
    "LOGISTIC": tf.sigmoid,
    "TANH": tf.tanh,
    "L2_NORMALIZATION": lambda x: tf.nn.l2_normalize(x, -1),
    "MAX_POOL_2D": lambda x: tf.nn.max_pool2d(x, 2, 2, "VALID"),
    "AVERAGE_POOL_2D": lambda x: tf.nn.avg_pool2d(x, 2, 2, "VALID"),
    "RESIZE_BILINEAR": lambda x: tf.image.resize(x, (8, 8)),
    "RESIZE_NEAREST_NEIGHBOR": lambda x: tf.image.resize(x, (8, 8), "nearest"),
    "UNPACK": lambda x: tf.unstack(x, axis=1)[2],
    "SPLIT": lambda x: tf.split(x, 2, 3)[1],
    "SPLIT_V": lambda x: tf.split(x, [1, 3], 3)[1],
    "PAD": lambda x: tf.pad(x, [[0, 0], [1, 0], [0, 2], [0, 0]]),
    "PADV2": lambda x: tf.pad(
        x, [[0, 0], [1, 0], [0, 2], [0, 0]], constant_values=0.25
    ),
    "MIRROR_PAD": lambda x: tf.pad(
        x, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT"
    ),
    "RESHAPE": lambda x: tf.reshape(x, (-1, 8, 8)),
    "EXPAND_DIMS": lambda x: tf.expand_dims(tf.tanh(x), 2),
    "TRANSPOSE": lambda x: tf.transpose(x, (0, 3, 1, 2)),
    "STRIDED_SLICE": lambda x: x[:, ::2, 1:],
    "SLICE": lambda x: tf.slice(x, [0, 1, 0, 0], [-1, 2, 2, 4]),
    "GATHER": lambda x: tf.gather(x, [0, 2], axis=3),
    "TILE": lambda x: tf.tile(x, [1, 2, 1, 1]),
    "BROADCAST_TO": lambda x: tf.broadcast_to(x[:1, :1], (3, 4, 4, 4)),
    "REVERSE_V2": lambda x: tf.reverse(x, [2]),
    "DEPTH_TO_SPACE": lambda x: tf.nn.depth_to_space(x, 2),
    "SPACE_TO_DEPTH": lambda x: tf.nn.space_to_depth(x, 2),
    "SPACE_TO_BATCH_ND": lambda x: tf.space_to_batch(
        x, [2, 2], [[0, 0], [0, 0]]
    ),
    "BATCH_TO_SPACE_ND": lambda x: tf.batch_to_space(
        tf.tanh(tf.space_to_batch(x, [2, 2], [[0, 0], [0, 0]])),
        [2, 2],
        [[0, 0], [0, 0]],
    ),
    "FILL": lambda x: tf.fill(tf.shape(x), 0.5) + x,
    "ABS": tf.abs,
    "ARG_MAX": lambda x: tf.one_hot(tf.argmax(x, -1), 4),
    "ARG_MIN": lambda x: tf.one_hot(tf.argmin(x, -1), 4),
    "ELU": tf.nn.elu,
    "GATHER_ND": lambda x: tf.gather_nd(x, [[0, 1], [0, 2]]),
    "NEG": tf.negative,
    "ONE_HOT": lambda x: tf.one_hot(tf.argmax(x, -1), 4),
    "RELU_N1_TO_1": lambda x: tf.minimum(1.0, tf.maximum(-1.0, x)),
    "SELECT": lambda x: tf.where(x > tf.reverse(x, [1]), x, tf.abs(x)),
    "SELECT_V2": lambda x: tf.where(x > tf.reverse(x, [1]), x, 0.5),
    "TOPK_V2": lambda x: tf.math.top_k(x, 2)[0],
    "SHAPE": lambda x: tf.reshape(x, (tf.shape(x)[0], -1, 2)),
}
# With a fixed batch size they are a RESHAPE, or a constant.
OPEN = ("EXPAND_DIMS", "FILL", "SHAPE")
# The converter writes RESHAPE in its place.
NEVER = ("SQUEEZE",)
TWO = {
    "ADD": tf.add,
    "SUB": tf.subtract,
    "MUL": tf.multiply,
    "MAXIMUM": tf.maximum,
    "MINIMUM": tf.minimum,
    **{
        name: lambda x, y, compare=compare: tf.where(compare(x, y), x, y)
        for name, compare in {
            "EQUAL": tf.equal,
            "GREATER": tf.greater,
            "GREATER_EQUAL": tf.greater_equal,
            "LESS": tf.less,
            "LESS_EQUAL": tf.less_equal,
            "NOT_EQUAL": tf.not_equal,
        }.items()
    },
    "SQUARED_DIFFERENCE": tf.math.squared_difference,
    "CONCATENATION": lambda x, y: tf.concat([x, y], 3),
    "PACK": lambda x, y: tf.stack([x, y], 1),
    "BATCH_MATMUL": tf.matmul,
}
LAYERS = {
    "CONV_2D": lambda: L.Conv2D(4, 3),
    "DEPTHWISE_CONV_2D": lambda: L.DepthwiseConv2D(3),
    "FULLY_CONNECTED": lambda: L.Dense(3),
    "TRANSPOSE_CONV": lambda: L.Conv2DTranspose(4, 3, strides=2),
    "PRELU": lambda: L.PReLU(
        shared_axes=[1, 2], alpha_initializer="random_uniform"
    ),
}


GROUPS = {
    "one": [op for op in ONE if op not in OPEN and "RELU" not in op],
    "relu": [op for op in ONE if "RELU" in op],
    "open": list(OPEN),
    "two": list(TWO),
    "layers": list(LAYERS),
}


def build(ops):
    """All operators side by side."""
    inputs = keras.Input((4, 4, 4))
    x = L.Conv2D(4, 1, name="first")(inputs)
    y = L.Conv2D(4, 1, name="second")(inputs)
    # Nothing fuses behind a transposition, and its grid is free.
    z = L.Lambda(lambda x: tf.transpose(x, (0, 2, 1, 3)))(x)
    outputs = []
    for op in ops:
        if op in LAYERS:
            outputs.append(LAYERS[op]()(x))
        elif op in TWO:
            outputs.append(L.Lambda(lambda p, op=op: TWO[op](*p))([x, y]))
        elif "RELU" in op:
            # It would fuse with anything else in front.
            outputs.append(L.Conv2D(4, 1)(L.Lambda(ONE[op])(inputs)))
        else:
            outputs.append(L.Lambda(ONE[op])(z))
    return keras.Model(inputs, outputs)


def kernels(mode):
    rows = targets.load(f"cpu_{mode}").operators
    return {op for op, row in rows.items() if row.version(mode)}


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("mode", ["int8", "int16"])
def test_rows(mode, group, tmp_path):
    ops = [op for op in GROUPS[group] if op in kernels(mode)]
    model = build(ops)
    qmodel = msq_tf.quantize_model(model)
    path = tmp_path / "m.tflite"
    report = export(
        qmodel,
        path,
        target=f"cpu_{mode}",
        representative_data=samples(model, 3),
        integer_io=True,
        batch_size=None if group == "open" else 3,
    )
    info = inspect_file(path)
    assert set(ops) <= {name.split()[0] for name in info.ops}
    assert {port.type for port in info.outputs} == {mode.upper()}
    assert [check.ran for check in report.checks[:2]] == [True, True]
    rows = targets.load(f"cpu_{mode}").operators
    for found in report.operators:
        if found.op in rows:
            assert found.units <= rows[found.op].units.get(mode, 1)


@pytest.mark.parametrize("mode", ["int8", "int16"])
def test_every_row_is_run(mode):
    tested = {op for group in GROUPS.values() for op in group}
    tested.add("QUANTIZE")  # test_two_ranges_of_one_tensor
    # Float where no range is trained: test_coverage.py.
    tested.update(["DIV", "EXP", "LOG", "RSQRT", "SQRT"])
    tested.add("CAST")  # test_coverage.py
    assert kernels(mode) - tested == set(NEVER)
