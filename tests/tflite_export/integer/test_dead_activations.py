"""Files of models whose activations are zero on all that training saw."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf
from tests.tflite_export.integer import networks
from tflite_export import export
from tflite_export import inspect_file
from tflite_export.integer.grids import coarser
from tflite_export.integer.grids import finer
from tflite_export.integer.grids import grid_of_range
from tflite_export.integer.grids import make_grid

L = keras.layers


def images():
    rng = np.random.default_rng(0)
    return rng.normal(size=(16, 8, 8, 3)).astype(np.float32)


def low(value):
    return keras.initializers.Constant(-value)


def convolutions(size):
    x = inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(6, 3, activation="relu", bias_initializer=low(50 * size))(x)
    x = L.Conv2D(4, 3, activation="relu")(x)
    return keras.Model(inputs, L.Dense(2)(L.Flatten()(x)))


def depthwise(size):
    x = inputs = keras.Input((8, 8, 3))
    x = L.DepthwiseConv2D(3, activation="relu", bias_initializer=low(size))(x)
    return keras.Model(inputs, L.Dense(2)(L.Flatten()(x)))


def added(size):
    """The process ends where a kernel adds on a grid that is too fine."""
    inputs = keras.Input((8, 8, 3))
    draw = keras.initializers.RandomNormal(stddev=size)
    x = L.Conv2D(3, 1, kernel_initializer=draw)(inputs)
    y = L.Conv2D(3, 1, bias_initializer=low(100 * size))(inputs)
    x = L.ReLU()(L.Add()([x, y]))
    return keras.Model(inputs, L.Dense(2)(L.Flatten()(x)))


def squashed(size):
    x = inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(3, 1, activation="relu", bias_initializer=low(99 * size))(x)
    x = L.Dense(4, activation="tanh")(L.Flatten()(x))
    return keras.Model(inputs, L.Dense(3, activation="softmax")(x))


@pytest.mark.slow
@pytest.mark.parametrize("size", [1.0, 1e5])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    "build",
    [convolutions, depthwise, added, squashed],
    ids=lambda f: f.__name__,
)
def test_dead_layers_export(build, bits, size, tmp_path):
    keras.utils.set_random_seed(0)
    x = images()
    qmodel = msq_tf.quantize_model(
        build(size), msq_tf.MSQConfig(activation_bits=bits)
    )
    networks.see(qmodel, x)
    report = export(
        qmodel,
        tmp_path / "m.tflite",
        f"cpu_int{bits}",
        representative_data=x,
    )
    assert all(check.ran for check in report.checks)
    assert not any(tensor.silenced for tensor in report.tensors)


@pytest.mark.first(1)
@pytest.mark.parametrize("target", ["cpu_int8", "cpu_int16"])
def test_dead_layers_export_by_calibration(target, tmp_path):
    keras.utils.set_random_seed(0)
    report = export(
        msq_tf.quantize_model(added(1e5)),
        tmp_path / "m.tflite",
        target,
        representative_data=images(),
    )
    assert all(check.ran for check in report.checks)


def clipped(size, lone):
    """ReLU6 behind what is nearly nothing, fused and as it is drawn."""
    draw = keras.initializers.RandomNormal(stddev=size)
    x = inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, kernel_initializer=draw)(x)
    if lone:
        x = L.MaxPooling2D(2)(x)
    x = L.ReLU(max_value=6.0)(x)
    x = L.DepthwiseConv2D(3, activation="relu6")(x)
    return keras.Model(inputs, L.Dense(2)(L.Flatten()(x)))


@pytest.mark.first(1)
@pytest.mark.parametrize("lone", [False, True])
@pytest.mark.parametrize("size", [1e-10])
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("target", ["cpu_int8", "cpu_int16"])
def test_ends_that_no_unit_reaches(target, trained, size, lone, tmp_path):
    """6 is more than 2^31 units there, which the kernels can't count."""
    keras.utils.set_random_seed(0)
    bits = (8 if target == "cpu_int8" else 16) if trained else None
    qmodel = msq_tf.quantize_model(
        clipped(size, lone), msq_tf.MSQConfig(activation_bits=bits)
    )
    if trained:
        networks.see(qmodel, images())
    report = export(
        qmodel,
        tmp_path / "m.tflite",
        target,
        representative_data=images(),
    )
    assert all(check.ran for check in report.checks)
    assert not any(tensor.silenced for tensor in report.tensors)


@pytest.mark.slow
def test_softmax_beside_16_bits_is_a_float_one(tmp_path):
    """The 16-bit kernel was off by 22 units for 12 classes."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 3))
    x = L.Dense(100)(L.Flatten()(L.Conv2D(8, 3, activation="relu")(x)))
    qmodel = msq_tf.quantize_model(keras.Model(inputs, L.Softmax()(8 * x)))
    report = export(
        qmodel,
        tmp_path / "m.tflite",
        "cpu_int16",
        representative_data=images(),
    )
    assert {row.op for row in report.operators}.isdisjoint({"SOFTMAX"})
    # A unit of scores within +-30 is 0.001, of which a softmax makes at most
    # a quarter: 8 units of 1/32768. The integer kernel was off by 188.
    assert max(check.max_units for check in report.checks) <= 8
    assert "SOFTMAX 1" in str(inspect_file(tmp_path / "m.tflite").ops)


def test_ranges_next_to_zero_are_none():
    assert grid_of_range("int8", 0.0, 0.0) == make_grid("int8", 1 / 255, -128)
    assert grid_of_range("int8", 0.0, 1e-40).scale == np.float32(1 / 255)
    assert grid_of_range("int16", -1e-30, 0.0).scale == np.float32(1 / 32767)
    assert grid_of_range("int8", 0.0, 1e-25).scale == np.float32(1e-25 / 255)


def test_coarser_grids_keep_their_zero():
    grid = make_grid("int8", 0.25, 3)
    assert coarser(grid, 0.125) is grid
    assert coarser(grid, 2.0) == make_grid("int8", 2.0, 3)


def test_finer_grids_divide_the_unit():
    grid = make_grid("int16", 12.0, 0)
    assert finer(grid, 12.0) is grid
    assert finer(grid, 5.0) == make_grid("int16", 4.0, 0)
    assert finer(grid, float("inf")) is grid


@pytest.mark.slow
@pytest.mark.parametrize("squash", ["sigmoid", "tanh"])
def test_huge_inputs_of_16_bit_tables(squash, tmp_path):
    """The kernels overflow where a unit of the input is 5.4 or more."""
    keras.utils.set_random_seed(0)
    draw = keras.initializers.RandomNormal(stddev=1e6)
    x = inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(3, 1, kernel_initializer=draw)(x)
    x = L.Activation(squash)(x)
    report = export(
        msq_tf.quantize_model(keras.Model(inputs, L.Dense(2)(L.Flatten()(x)))),
        tmp_path / "m.tflite",
        "cpu_int16",
        representative_data=images(),
    )
    assert all(check.ran for check in report.checks)
