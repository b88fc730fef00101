"""Padding with minus infinity, and ranges without data."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf
from tests.tflite_export.integer import networks
from tflite_export import export
from tflite_export import run
from tflite_export.verification import amplification
from tflite_export.verification import integer_outputs
from tflite_export.verification import keras_agreement

L = keras.layers
SIDES = [[0, 0], [1, 1], [1, 1], [0, 0]]


def padded():
    """A convolution, then max pooling as ResNetV2 pads it."""
    x = inputs = keras.Input((8, 8, 3))
    # All below zero: what a padding of zeros would hide.
    x = L.Conv2D(4, 3, bias_initializer=keras.initializers.Constant(-9.0))(x)
    x = keras.ops.pad(x, SIDES, constant_values=float("-inf"))
    x = L.Conv2D(4, 1)(L.MaxPooling2D(3, 2)(x))
    return keras.Model(inputs, L.Flatten()(x))


@pytest.mark.slow
@pytest.mark.parametrize("bits", [None, 8])
def test_the_lowest_code_stands_for_it(bits, tmp_path):
    qmodel = msq_tf.quantize_model(
        padded(), msq_tf.MSQConfig(activation_bits=bits)
    )
    x = networks.samples(qmodel.base, 32)
    qmodel.compile("adam", "mse")
    history = qmodel.fit(x, np.zeros(qmodel(x).shape), verbose=0, epochs=2)
    assert np.isfinite(history.history["loss"]).all()
    path = tmp_path / "m"
    export(qmodel, path, target="cpu_int8", representative_data=x)
    got, wanted = run(path, x), qmodel(x, training=False).numpy()
    assert np.abs(got - wanted).max() < 0.1 * np.ptp(wanted)


@pytest.mark.slow
@pytest.mark.parametrize(
    "activation",
    ["softmax", "sigmoid", "tanh", "swish", "gelu", "leaky_relu", "relu6"],
)
def test_trained_activations_need_no_data(activation, tmp_path):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            L.Conv2D(4, 3, activation=activation),
            L.AveragePooling2D(2),
            L.Flatten(),
            L.Dense(3, activation=activation),
        ]
    )
    qmodel = msq_tf.quantize_model(model, msq_tf.MSQConfig(activation_bits=8))
    networks.see(qmodel, networks.samples(model))
    report = export(qmodel, tmp_path / "m", target="cpu_int8")
    assert not any("no site of training" in note for note in report.notes)


@keras.saving.register_keras_serializable(package="tests")
class ByHand(L.Layer):
    """Attention whose scores and softmax are no layer's."""

    def call(self, x):
        scores = keras.ops.matmul(x, keras.ops.swapaxes(x, -2, -1))
        return keras.ops.matmul(keras.ops.softmax(scores), x)


@pytest.mark.slow
def test_what_no_site_covers_is_left_out(tmp_path, monkeypatch):
    """What a layer of one's own computes inside."""
    for module in (integer_outputs, keras_agreement):
        monkeypatch.setattr(module, "END_UNITS", {"int8": -1})
    monkeypatch.setattr(amplification, "explain", lambda *_: "not asked")
    x = inputs = keras.Input((6, 8))
    x = L.Flatten()(ByHand()(L.Dense(4)(x)))
    model = keras.Model(inputs, L.Dense(3)(x))
    qmodel = msq_tf.quantize_model(model, msq_tf.MSQConfig(activation_bits=8))
    x = networks.samples(model)
    networks.see(qmodel, x)
    report = export(
        qmodel, tmp_path / "m", target="cpu_int8", representative_data=x
    )
    notes = " ".join(report.notes)
    assert "no site of training covers" in notes
    assert "1 sites can't be compared" in notes


@pytest.mark.slow
@pytest.mark.parametrize(
    "layer",
    [
        lambda: L.Conv1D(6, 3, activation="relu"),
        lambda: L.DepthwiseConv1D(3, activation="relu"),
        lambda: L.Conv1DTranspose(6, 3),
        lambda: L.Dense(5, activation="relu"),
    ],
)
def test_operators_that_only_move_numbers_carry_grids(layer, tmp_path):
    model = keras.Sequential(
        [keras.Input((12, 4)), layer(), L.Flatten(), L.Dense(3)]
    )
    qmodel = msq_tf.quantize_model(model, msq_tf.MSQConfig(activation_bits=8))
    x = networks.samples(model)
    networks.see(qmodel, x)
    report = export(
        qmodel, tmp_path / "m", target="cpu_int8", representative_data=x
    )
    assert not any("no site of training" in note for note in report.notes)
    assert any("with its trained ranges" in note for note in report.notes)
