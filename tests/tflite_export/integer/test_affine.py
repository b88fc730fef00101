"""Factors and summands of channels are one operator."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf
from tests.tflite_export.integer import networks
from tflite_export import export
from tflite_export import run
from tflite_export.flatbuffer import model as fb

L = keras.layers
CONFIG = msq_tf.MSQConfig(activation_bits=8)


def norm():
    """A batch norm whose channels are of very unlike size."""
    return L.BatchNormalization(
        beta_initializer=keras.initializers.RandomNormal(seed=1),
        gamma_initializer=lambda shape, dtype=None: np.geomspace(
            0.01, 10.0, shape[0]
        ),
        moving_mean_initializer=keras.initializers.RandomNormal(seed=2),
    )


def first(shape=(8, 8, 3)):
    inputs = keras.Input(shape)
    x = L.Dense(4, activation="relu")(norm()(inputs))
    return keras.Model(inputs, L.Dense(2)(L.Flatten()(x)))


def behind_pooling():
    inputs = keras.Input((8, 8, 3))
    x = L.MaxPooling2D()(L.Conv2D(4, 3, activation="relu")(inputs))
    x = L.ReLU()(norm()(x))
    return keras.Model(inputs, L.Flatten()(L.Conv2D(2, 1)(x)))


def preactivated():
    inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, padding="same")(inputs)
    for _ in range(2):
        y = L.ReLU()(norm()(x))
        y = L.Conv2D(4, 3, padding="same")(y)
        x = L.Add()([x, y])
    x = L.GlobalAveragePooling2D()(L.ReLU()(norm()(x)))
    return keras.Model(inputs, L.Dense(2)(x))


def rescaled():
    inputs = keras.Input((8, 8, 3))
    x = L.Rescaling(0.5, offset=-1.0)(inputs)
    return keras.Model(inputs, L.Flatten()(L.Conv2D(2, 3)(x)))


def exported(model, path, target="cpu_int8", **options):
    x = networks.samples(model, 32)
    qmodel = msq_tf.quantize_model(model, CONFIG)
    msq_tf.calibrate(qmodel, x)
    report = export(
        qmodel, path, target=target, representative_data=x, **options
    )
    return qmodel, x, report


def names(path):
    model = fb.read(path.read_bytes())
    return [fb.op_name(model, op) for op in model.subgraphs[0].operators]


@pytest.mark.first(1)
@pytest.mark.parametrize("target", ["cpu_int8", "mcu"])
@pytest.mark.parametrize(
    "model",
    [
        first,
        lambda: first((6, 3)),
        lambda: first((3,)),
        behind_pooling,
        preactivated,
        rescaled,
    ],
)
def test_they_round_once_as_in_training(model, target, tmp_path):
    path = tmp_path / "m.tflite"
    qmodel, x, report = exported(model(), path, target)
    assert "no site of training" not in " ".join(report.notes)
    assert "DEPTHWISE_CONV_2D" in names(path)
    assert not {"MUL", "SUB", "DIV"} & set(names(path))
    got, wanted = run(path, x), qmodel(x, training=False).numpy()
    assert np.abs(got - wanted).max() < 0.02 * np.ptp(wanted)


def normalized(scales):
    inputs = keras.Input((len(scales),))
    x = L.Normalization(mean=0.5 * scales, variance=scales**2)(inputs)
    model = keras.Model(inputs, L.Dense(2)(L.Dense(8, activation="relu")(x)))
    rng = np.random.default_rng(0)
    return model, (rng.normal(size=(64, len(scales))) * scales).astype("f4")


@pytest.mark.slow
def test_columns_far_apart_are_normalized_in_float(tmp_path):
    model, x = normalized(np.logspace(-3, 4, 8))
    qmodel = msq_tf.quantize_model(model, CONFIG)
    msq_tf.calibrate(qmodel, x)
    path = tmp_path / "m.tflite"
    report = export(qmodel, path, target="cpu_int8", representative_data=x)
    assert "no site of training" not in " ".join(report.notes)
    assert names(path)[:3] == ["SUB", "MUL", "QUANTIZE"]
    wanted = model(x).numpy()
    assert np.abs(run(path, x) - wanted).max() < 0.1 * np.ptp(wanted)
    report = export(
        qmodel, path, target="cpu_int8", representative_data=x, integer_io=True
    )
    assert "input 'input' stays float" in " ".join(report.notes)
    with pytest.raises(Exception, match="no float operators, and one grid"):
        export(qmodel, path, target="mcu", representative_data=x)


def test_columns_alike_are_normalized_in_integers(tmp_path):
    model, x = normalized(np.linspace(1.0, 4.0, 8))
    qmodel = msq_tf.quantize_model(model, CONFIG)
    msq_tf.calibrate(qmodel, x)
    path = tmp_path / "m.tflite"
    export(qmodel, path, target="cpu_int8", representative_data=x)
    assert names(path)[0] == "QUANTIZE"
    assert "DEPTHWISE_CONV_2D" in names(path)


@pytest.mark.slow
def test_so_are_they_where_nothing_was_trained(tmp_path):
    model, x = normalized(np.logspace(-3, 4, 8))
    path = tmp_path / "m.tflite"
    qmodel = msq_tf.quantize_model(model)
    export(qmodel, path, target="cpu_int8", representative_data=x)
    assert names(path)[:3] == ["SUB", "MUL", "QUANTIZE"]
    wanted = model(x).numpy()
    assert np.abs(run(path, x) - wanted).max() < 0.1 * np.ptp(wanted)
    with pytest.raises(Exception, match="no float operators, and one grid"):
        export(qmodel, path, target="mcu", representative_data=x)


@pytest.mark.slow
@pytest.mark.parametrize("config", [CONFIG, msq_tf.MSQConfig()])
def test_a_column_of_zeros_changes_nothing(config, tmp_path):
    """Its variance is zero, and its factor ten millions."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 8)).astype(np.float32) + 0.5
    x[:, 3] = 0.0
    layer = L.Normalization()
    layer.adapt(x)
    model = keras.Sequential(
        [keras.Input((8,)), layer, L.Dense(8, activation="relu"), L.Dense(2)]
    )
    qmodel = msq_tf.quantize_model(model, config)
    if config.activation_bits:
        msq_tf.calibrate(qmodel, x)
    path = tmp_path / "m.tflite"
    for target in ("cpu_int8", "mcu"):
        export(qmodel, path, target=target, representative_data=x)
        assert "DEPTHWISE_CONV_2D" in names(path)
        wanted = model(x).numpy()
        assert np.abs(run(path, x) - wanted).max() < 0.05 * np.ptp(wanted)


@pytest.mark.parametrize("factor", [0.3, -0.3])
@pytest.mark.parametrize("config", [CONFIG, msq_tf.MSQConfig()])
def test_a_sum_may_stand_in_a_row(config, factor, tmp_path):
    """It is a mean times a number, which other numbers join."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 4))
    x = keras.ops.sum(L.Dense(6, activation="relu")(inputs), axis=1)
    model = keras.Model(inputs, L.Dense(2)(x * factor))
    qmodel = msq_tf.quantize_model(model, config)
    x = np.random.default_rng(0).normal(size=(32, 5, 4)).astype(np.float32)
    if config.activation_bits:
        msq_tf.calibrate(qmodel, x)
    path = tmp_path / "m.tflite"
    export(qmodel, path, target="cpu_int8", representative_data=x)
    wanted = model(x).numpy()
    assert np.abs(run(path, x) - wanted).max() < 0.05 * np.ptp(wanted)
