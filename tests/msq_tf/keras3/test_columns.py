"""Inputs whose columns one grid can't hold."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf

L = keras.layers
SCALES = np.logspace(-3, 4, 8)


def norm(mean, variance):
    return L.Normalization(mean=mean, variance=variance)


def sites(layer, shape=(8,), **config):
    model = keras.Sequential([keras.Input(shape), layer, L.Dense(2)])
    config = msq_tf.MSQConfig(**{"activation_bits": 8, **config})
    qmodel = msq_tf.quantize_model(model, config)
    return [site.path for site in qmodel.activations.sites]


def batch_norm(variance):
    layer = L.BatchNormalization()
    layer.build((None, 8))
    layer.moving_variance.assign(variance)
    return layer


@pytest.mark.parametrize(
    ("layer", "own"),
    [
        (lambda: norm(np.zeros(8), np.ones(8)), True),
        (lambda: norm(np.zeros(8), SCALES**2), False),
        # A year varies by little beside its mean.
        (lambda: norm(np.full(8, 2000.0), np.full(8, 5.0)), False),
        # Pixels.
        (lambda: norm([120.0] * 8, [58.0**2] * 8), True),
        # A column that is always zero is zero on any grid; one that always
        # is 0.3 is not.
        (lambda: norm(np.zeros(8), [0.0] * 4 + [1.0] * 4), True),
        (lambda: norm([0.3] + [0.0] * 7, [0.0] + [1.0] * 7), False),
        (lambda: L.BatchNormalization(), True),
        (lambda: batch_norm(SCALES**2), False),
        (lambda: L.Rescaling(1 / 127.5, offset=-1.0), True),
        (lambda: L.Rescaling((1.0 / SCALES).tolist()), False),
    ],
)
def test_such_an_input_is_not_rounded(layer, own):
    found = sites(layer())
    assert ("input" in found) == own
    assert len(found) == 2 + own


def test_more_bits_resolve_more():
    layer = norm(np.zeros(8), [1.0] * 4 + [1e4] * 4)
    assert "input" not in sites(layer)
    assert "input" in sites(layer, activation_bits=16)


def test_what_something_else_reads_is_rounded():
    inputs = keras.Input((8,))
    x = norm(np.zeros(8), SCALES**2)(inputs)
    x = L.Concatenate()([x, inputs])
    qmodel = msq_tf.quantize_model(
        keras.Model(inputs, L.Dense(2)(x)), msq_tf.MSQConfig(activation_bits=8)
    )
    assert qmodel.activations.sites[0].path == "input"


def test_what_is_cut_into_bins_is_not_rounded():
    inputs = keras.Input((4,))
    x = L.Discretization(bin_boundaries=[0.0, 0.01, 1.0])(inputs)
    x = L.Flatten()(L.Embedding(4, 3)(x))
    qmodel = msq_tf.quantize_model(
        keras.Model(inputs, L.Dense(2, name="d")(x)),
        msq_tf.MSQConfig(activation_bits=8),
    )
    assert "input" not in [s.path for s in qmodel.activations.sites]


def test_a_device_is_warned_of_before_the_training():
    layer = norm(np.zeros(8), SCALES**2)
    with pytest.warns(UserWarning, match=r"Columns \[0, 1, .*'edgetpu'"):
        sites(layer, targets=("cpu_int8", "edgetpu"))
    sites(layer, targets=("cpu_int8",))


@pytest.mark.slow
def test_such_a_model_trains_as_well_as_in_float():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(1000, 8))
    x = (z * SCALES).astype(np.float32)
    y = (np.sin(2 * z[:, 0]) + z[:, 1] * z[:, 2])[:, None].astype(np.float32)
    layer = L.Normalization()
    layer.adapt(x)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((8,)), layer, L.Dense(32, activation="relu"), L.Dense(1)]
    )
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.fit(x, y, epochs=20, verbose=0)
    qmodel = msq_tf.quantize_model(model, msq_tf.MSQConfig(activation_bits=8))
    qmodel.compile(keras.optimizers.Adam(0.001), "mse")
    qmodel.fit(x, y, epochs=2, verbose=0)
    # On one grid for all columns it was 0.57.
    assert model.evaluate(x, y, verbose=0) < 0.1 * y.var()
    assert qmodel.evaluate(x, y, verbose=0) < 0.1 * y.var()
