"""What the inputs were in training is remembered, and saved."""

from __future__ import annotations

import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf

L = keras.layers


def images(scale=1.0, count=48):
    rng = np.random.default_rng(0)
    return (scale * rng.uniform(size=(count, 4, 4, 1))).astype(np.float32)


def network():
    return keras.Sequential(
        [keras.Input((4, 4, 1)), L.Flatten(), L.Dense(3, name="head")]
    )


def prepared(base=None, **config):
    qmodel = msq_tf.quantize_model(
        base or network(), msq_tf.MSQConfig(**config)
    )
    qmodel.compile("sgd", "mse")
    return qmodel


def fit(qmodel, x, y):
    qmodel.fit(x, y, verbose=0)


def step(qmodel, x, y):
    qmodel.train_step((tf.constant(x), tf.constant(y)))


def loop(qmodel, x, y):
    @tf.function
    def one(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((qmodel(x, training=True) - y) ** 2)
        return tape.gradient(loss, qmodel.trainable_variables)

    one(tf.constant(x), tf.constant(y))


@pytest.mark.first(1)
@pytest.mark.parametrize("train", [fit, step, loop])
@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_every_way_of_training_is_seen(train, scale):
    qmodel = prepared()
    assert qmodel.input_ranges.seen(1) == [None]
    train(qmodel, images(scale), np.zeros((48, 3), np.float32))
    (seen,) = qmodel.input_ranges.seen(1)
    assert 0.0 <= seen.low < 0.05 * scale
    assert 0.9 * scale < seen.high <= scale
    assert seen.magnitude == pytest.approx(0.5 * scale, rel=0.1)


def test_inference_is_not_training():
    qmodel = prepared()
    qmodel.predict(images(), verbose=0)
    qmodel.evaluate(images(), np.zeros((48, 3)), verbose=0)
    qmodel(images())
    assert qmodel.input_ranges.seen(1) == [None]


def test_calibration_counts():
    qmodel = prepared(activation_bits=8)
    msq_tf.calibrate(qmodel, images(255.0))
    (seen,) = qmodel.input_ranges.seen(1)
    assert seen.high > 200.0


@keras.saving.register_keras_serializable("input_ranges_tests")
class OwnStep(keras.Model):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x, training=True) - y) ** 2)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"loss": loss}


def test_a_model_with_a_step_of_its_own():
    i = keras.Input((4, 4, 1))
    qmodel = prepared(OwnStep(i, L.Dense(3)(L.Flatten()(i))))
    fit(qmodel, images(255.0), np.zeros((48, 3)))
    (seen,) = qmodel.input_ranges.seen(1)
    assert seen.high > 200.0


def test_each_input_has_its_own_and_indices_have_none():
    a = keras.Input((3,), name="b")
    words = keras.Input((5,), dtype="int32", name="a")
    x = L.Concatenate()([a, L.Flatten()(L.Embedding(9, 2)(words))])
    qmodel = prepared(keras.Model([a, words], L.Dense(2)(x)))
    inputs = {
        "a": np.full((16, 5), 8, np.int32),
        "b": np.full((16, 3), 7.0, np.float32),
    }
    qmodel.fit(inputs, np.zeros((16, 2)), verbose=0)
    first, second = qmodel.input_ranges.seen(2)
    assert (first.low, first.high, second) == (7.0, 7.0, None)


def test_a_subclassed_model():
    @keras.saving.register_keras_serializable("input_ranges_tests")
    class Plain(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.head = L.Dense(2)

        def call(self, inputs):
            return self.head(inputs["x"])

    base = Plain()
    x = {"x": np.full((8, 3), 5.0, np.float32)}
    base(x)
    qmodel = prepared(base)
    qmodel.fit(x, np.zeros((8, 2)), verbose=0)
    assert qmodel.input_ranges.seen(1)[0].high == 5.0


@pytest.mark.first(1)
@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_outliers_hardly_move_them(value):
    x = images()
    x[5, 0, 0, 0] = value
    qmodel = prepared()
    for _ in range(60):
        step(qmodel, images(), np.zeros((48, 3), np.float32))
    step(qmodel, x, np.zeros((48, 3), np.float32))
    (seen,) = qmodel.input_ranges.seen(1)
    assert seen.high < 3.0 and seen.magnitude < 1.5


@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5"])
def test_they_are_saved(tmp_path, name):
    qmodel = prepared()
    fit(qmodel, images(255.0), np.zeros((48, 3)))
    path = tmp_path / name
    if name == "m.keras":
        qmodel.save(path)
        again = keras.models.load_model(path)
    else:
        qmodel.save_weights(path)
        again = prepared()
        again.load_weights(path)
    assert again.input_ranges.seen(1) == qmodel.input_ranges.seen(1)


def test_files_of_before_load_and_are_unknown(tmp_path):
    qmodel = prepared()
    fit(qmodel, images(), np.zeros((48, 3)))
    path = tmp_path / "m.weights.h5"
    qmodel.save_weights(path)
    with h5py.File(path, "a") as file:
        del file["input_ranges"]
    again = prepared()
    fit(again, images(), np.zeros((48, 3)))
    again.load_weights(path)
    assert again.input_ranges.seen(1) == [None]
    np.testing.assert_array_equal(
        again.base.layers[-1].kernel, qmodel.base.layers[-1].kernel
    )


def test_no_weight_is_added(tmp_path):
    qmodel = prepared()
    assert not qmodel.input_ranges.variables
    qmodel.save(tmp_path / "m.keras")
    assert zipfile.is_zipfile(tmp_path / "m.keras")
