"""Layers that write variables in inference, and those that draw numbers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from tests.tflite_export.samples import quantized
from tflite_export import ExportError
from tflite_export import export
from tflite_export.runtime import interpreter

L = keras.layers


def recurrent(layer, **options):
    return keras.Sequential(
        [keras.Input((4, 5), **options), layer, L.Dense(2, name="head")]
    )


LAYERS = {
    "lstm": lambda: L.LSTM(4, dropout=0.2, unroll=True),
    "lstm_loop": lambda: L.LSTM(4, dropout=0.2, recurrent_dropout=0.1),
    "gru": lambda: L.GRU(4, recurrent_dropout=0.2),
    "both_ways": lambda: L.Bidirectional(L.SimpleRNN(4, dropout=0.2)),
}


@pytest.mark.first(1)
@pytest.mark.parametrize("name", LAYERS)
def test_seeds_of_dropout_stay_out_of_the_file(name, tmp_path):
    qmodel = msq_tf.quantize_model(recurrent(LAYERS[name]()))
    report = export(qmodel, tmp_path / "m.tflite")
    assert {t.name for t in report.tensors} == set(qmodel.bits)


class Counting(L.Layer):
    """Counts its calls, in a variable of Keras and in one of TensorFlow."""

    def __init__(self):
        super().__init__()
        self.plain = tf.Variable(0.0)

    def build(self, shape):
        self.calls = self.add_weight(
            shape=(), initializer="zeros", trainable=False
        )

    def call(self, x):
        self.calls.assign_add(1.0)
        if not tf.executing_eagerly():
            self.plain.assign_add(1.0)
        return x


class AlwaysTraining(L.Layer):
    def __init__(self):
        super().__init__()
        self.norm = L.BatchNormalization()

    def build(self, shape):
        self.norm.build(shape)

    def call(self, x):
        return self.norm(x, training=True)


@pytest.mark.first(1)
@pytest.mark.parametrize("layer", [Counting, AlwaysTraining])
def test_what_is_written_and_not_read_is_no_matter(layer, tmp_path):
    qmodel = quantized(
        keras.Sequential([keras.Input((5,)), L.Dense(4), layer(), L.Dense(2)])
    )
    qmodel(np.zeros((1, 5), "f"))
    before = [np.array(v) for v in qmodel.base.non_trainable_variables]
    report = export(qmodel, tmp_path / "m.tflite", batch_size=4)
    assert len(report.tensors) == 2
    # An export changes nothing in a model.
    after = qmodel.base.non_trainable_variables
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)


class Sampling(L.Layer):
    """The reparameterization of a VAE."""

    def __init__(self):
        super().__init__()
        self.seed = keras.random.SeedGenerator(1)

    def call(self, inputs):
        mean, log_variance = inputs
        shape = keras.ops.shape(mean)
        noise = keras.random.normal(shape, seed=self.seed)
        jitter = keras.random.uniform(shape, -0.1, 0.1, seed=self.seed)
        return mean + keras.ops.exp(0.5 * log_variance) * noise + jitter


def sampling():
    inputs = keras.Input((6,))
    mean = L.Dense(3, name="mean")(inputs)
    log_variance = L.Dense(3, name="log_variance")(inputs)
    x = Sampling()([mean, log_variance])
    return keras.Model(inputs, L.Dense(2, name="decoder")(x))


def test_a_sampling_layer_draws_new_numbers_at_every_run(tmp_path):
    qmodel = quantized(sampling())
    report = export(qmodel, tmp_path / "m.tflite")
    assert {t.name for t in report.tensors} == set(qmodel.bits)
    assert any("random numbers in 2 places" in n for n in report.notes)
    assert max(c.relative_error for c in report.checks) < 1e-5
    session = interpreter.Session(
        (tmp_path / "m.tflite").read_bytes(), "builtin"
    )
    x = [np.ones((1, 6), np.float32)]
    first, second = (session(x)[0].copy() for _ in range(2))
    assert (first != second).any()


@pytest.mark.parametrize("bits", [8, None], ids=["trained", "measured"])
def test_a_sampling_layer_in_integers(bits, tmp_path):
    """Operators are not compared between two draws."""
    x = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    config = msq_tf.MSQConfig(activation_bits=bits)
    qmodel = msq_tf.quantize_model(sampling(), config)
    if bits:
        msq_tf.calibrate(qmodel, x)
    report = export(
        qmodel,
        tmp_path / "m.tflite",
        target="cpu_int8",
        representative_data=x,
    )
    assert any("random numbers in 2 places" in n for n in report.notes)
    assert max(check.max_units for check in report.checks) <= 2
    session = interpreter.Session(
        (tmp_path / "m.tflite").read_bytes(), "builtin"
    )
    first, second = (session([x[:8]])[0].copy() for _ in range(2))
    assert (first != second).any()


def test_noise_of_another_size_is_found(tmp_path, monkeypatch):
    """The check is not blind to what happens to the numbers."""
    qmodel = quantized(sampling())
    original = keras.random.normal
    calls = []

    def louder(*args, **options):
        calls.append(1)
        # The first call is the one that is traced.
        return original(*args, **options) * (1.0 if len(calls) == 1 else 1.1)

    monkeypatch.setattr(keras.random, "normal", louder)
    with pytest.raises(ExportError, match="other numbers than Keras"):
        export(qmodel, tmp_path / "m.tflite")
