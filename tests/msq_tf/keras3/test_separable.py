"""The seam of a separable convolution is a site."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf
from msq_tf.keras3 import separable

L = keras.layers
CONFIG = msq_tf.MSQConfig(activation_bits=8)


def data(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def model_of(*layers, shape=(8, 8, 3)):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input(shape), *layers])


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: L.SeparableConv2D(4, 3, activation="tanh"), (2, 9, 9, 3)),
        (
            lambda: L.SeparableConv2D(4, 3, strides=2, padding="same"),
            (2, 9, 9, 3),
        ),
        (lambda: L.SeparableConv2D(4, (3, 2), dilation_rate=2), (2, 9, 9, 3)),
        (
            lambda: L.SeparableConv2D(4, 3, strides=2, dilation_rate=2),
            (2, 9, 9, 3),
        ),
        (
            lambda: L.SeparableConv2D(
                4, 3, depth_multiplier=2, data_format="channels_first"
            ),
            (2, 3, 9, 9),
        ),
        (lambda: L.SeparableConv1D(4, 3, activation="relu"), (2, 9, 3)),
        (lambda: L.SeparableConv1D(4, 3, strides=2, padding="same"), (2, 9, 3)),
        (lambda: L.SeparableConv1D(4, 3, dilation_rate=2), (2, 9, 3)),
        (
            lambda: L.SeparableConv1D(4, 3, strides=2, dilation_rate=2),
            (2, 9, 3),
        ),
        (
            lambda: L.SeparableConv1D(
                4, 3, data_format="channels_first", use_bias=False
            ),
            (2, 3, 9),
        ),
    ],
)
def test_its_parts_compute_what_it_computes(layer, shape):
    layer, x = layer(), data(*shape)
    wanted = layer(x)
    if layer.use_bias:
        layer.bias.assign([1.0, -1.0, 0.5, 2.0])
        wanted = layer(x)
    seen = []
    got = separable.computed(layer, x, lambda y: seen.append(y) or y)
    np.testing.assert_array_equal(got, wanted)
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: L.SeparableConv2D(4, 3, name="s"), (8, 8, 3)),
        (lambda: L.SeparableConv1D(4, 3, name="s"), (8, 3)),
    ],
)
def test_it_is_rounded_before_the_second_part(layer, shape):
    qmodel = msq_tf.quantize_model(model_of(layer(), shape=shape), CONFIG)
    sites = qmodel.activations.sites
    assert [site.path for site in sites] == ["input", "s/middle", "s"]
    # The bias is whole units of the second part.
    assert [bias.site for bias in qmodel.activations.biases] == [1]
    msq_tf.calibrate(qmodel, data(16, *shape))
    seen = {}

    def tap(site, value):
        seen[site] = value.numpy()
        return value

    with qmodel.integer_scope(tap):
        qmodel.base(data(4, *shape), training=False)
    middle = qmodel.activation_quantizers.trained_ranges()[1]
    codes = seen[1] / ((middle.high - middle.low) / 255)
    np.testing.assert_allclose(codes, np.round(codes), atol=1e-3)
    assert len(np.unique(np.round(codes))) > 16


def test_each_call_of_a_shared_one_has_its_own():
    inputs = keras.Input((8, 8, 3))
    layer = L.SeparableConv2D(3, 3, padding="same", name="s")
    model = keras.Model(inputs, layer(layer(inputs)))
    sites = msq_tf.quantize_model(model, CONFIG).activations.sites
    assert [site.path for site in sites] == [
        "input",
        "s/middle",
        "s",
        "s/middle#2",
        "s#2",
    ]


@keras.saving.register_keras_serializable(package="tests")
class Twice(L.SeparableConv2D):
    def call(self, inputs):
        return 2.0 * super().call(inputs)


def test_what_a_subclass_computes_is_left_to_it():
    sites = msq_tf.quantize_model(
        model_of(Twice(4, 3, name="s")), CONFIG
    ).activations.sites
    assert [site.path for site in sites] == ["input", "s"]


@pytest.mark.slow
def test_it_trains_in_half_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = model_of(L.SeparableConv2D(4, 3), L.Flatten(), L.Dense(2))
        qmodel = msq_tf.quantize_model(model, CONFIG)
    finally:
        keras.config.set_dtype_policy("float32")
    qmodel.compile("sgd", "mse")
    history = qmodel.fit(data(8, 8, 8, 3), data(8, 2), verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_a_model_of_before_computes_as_before(tmp_path, monkeypatch):
    layers = (
        L.SeparableConv2D(4, 3, name="s"),
        L.ReLU(),
        L.Flatten(),
        L.Dense(2),
    )
    with monkeypatch.context() as patch:
        patch.setattr(separable, "is_plain", lambda layer: False)
        old = msq_tf.quantize_model(model_of(*layers), CONFIG)
    # Nor did it round the bias.
    assert [site.place for site in old.activations.sites] == ["output"] * 3
    x = data(16, 8, 8, 3)
    msq_tf.calibrate(old, x)
    old.save(tmp_path / "old.keras")
    loaded = keras.saving.load_model(tmp_path / "old.keras")
    assert loaded.activations == old.activations
    np.testing.assert_array_equal(loaded(x), old(x))
