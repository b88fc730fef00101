"""Biases as whole units of the accumulator."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from msq_tf.keras3.biases import Bias
from msq_tf.keras3.biases import rounded

L = keras.layers
CONFIG = msq_tf.MSQConfig(activation_bits=8)


def prepared(layers, shape=(8, 8, 3)):
    """A model whose weights and moments are anything but ones and zeros."""
    model = keras.Sequential([keras.Input(shape), *layers])
    rng = np.random.default_rng(0)
    for layer in model.layers:
        for variable in layer.variables:
            if len(variable.shape) == 1:
                variable.assign(rng.uniform(0.5, 2.0, variable.shape))
    qmodel = msq_tf.quantize_model(model, CONFIG)
    qmodel.set_bits(dict.fromkeys(qmodel.bits, 3))
    x = rng.normal(size=(16, *shape)).astype(np.float32)
    qmodel.compile(keras.optimizers.SGD(0.0), "mse")
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.trainable = False
    qmodel.fit(x, np.zeros(qmodel(x).shape), verbose=0)
    return qmodel, x


def folded_unit(qmodel, weight, norm):
    (step,) = [w.step for w in qmodel.quantized_weights() if w.path == weight]
    first = qmodel.activation_quantizers.trained_ranges()[0]
    unit = (first.high - first.low) / 255 * step.reshape(-1)
    if norm is None:
        return unit
    variance = norm.moving_variance.numpy()
    gamma = 1.0 if norm.gamma is None else np.abs(norm.gamma.numpy())
    return unit * gamma / np.sqrt(variance + norm.epsilon)


@pytest.mark.slow
def test_biases_are_found_where_kernels_add_them():
    qmodel, _ = prepared(
        [
            L.Conv2D(4, 3, use_bias=False),
            L.BatchNormalization(),
            L.ReLU(),
            L.MaxPooling2D(),
            L.DepthwiseConv2D(2, activation="tanh"),
            L.SeparableConv2D(4, 1, name="separable_conv2d"),
            L.Flatten(),
            L.Dense(3, activation="softmax"),
        ]
    )
    sites = [site.path for site in qmodel.activations.sites]
    places = [
        (b.layer, sites[b.site], b.norm) for b in qmodel.activations.biases
    ]
    assert [site.split("/")[0] for _, site, _ in places] == [
        "input",
        sites[1],
        "separable_conv2d",
        sites[5],
    ]
    assert [norm >= 0 for _, _, norm in places] == [True, False, False, False]


@pytest.mark.first(1)
@pytest.mark.parametrize(
    "layers",
    [
        lambda: [L.Conv2D(4, 3)],
        lambda: [L.Conv2D(4, 3, use_bias=False), L.BatchNormalization()],
        lambda: [L.Conv2D(4, 3), L.BatchNormalization(scale=False)],
        lambda: [L.DepthwiseConv2D(3, depth_multiplier=2)],
        lambda: [L.Conv2DTranspose(4, 3)],
        lambda: [L.Dense(4)],
    ],
)
def test_what_is_added_is_whole_units(layers):
    """An input of zeros shows the bias, before a grid rounds it."""
    qmodel, x = prepared([*layers(), L.Activation("linear", name="end")])
    base = qmodel.base
    norm = next((k for k in base.layers if hasattr(k, "gamma")), None)
    unit = folded_unit(qmodel, next(iter(qmodel.bits)), norm)
    zeros = np.zeros_like(x[:1])
    seen = []

    def tap(site, value):
        seen.append((site, value))
        return value

    with qmodel.integer_scope(tap):
        base(zeros, training=False)
    # The grid of the result is coarser, or finer, as it happens.
    float_bias = base(zeros, training=False).numpy()[0, 3, 3]
    whole = np.round(float_bias / unit) * unit
    ranges = qmodel.activation_quantizers.trained_ranges()[-1]
    grid = (ranges.high - ranges.low) / 255
    np.testing.assert_allclose(
        seen[-1][1].numpy()[0, 3, 3], whole, atol=0.51 * grid
    )


def test_without_a_center_the_mean_takes_the_change():
    norm = L.BatchNormalization(center=False)
    conv = L.Dense(2, use_bias=False)
    norm.build((None, 2))
    conv.build((None, 3))
    norm.moving_mean.assign([0.3, -0.7])
    norm.gamma.assign([2.0, -0.5])
    step = tf.constant([[0.1, 0.4]])
    ((variable, mean),) = rounded(conv, norm, step, tf.constant(0.25))
    assert variable is norm.moving_mean
    factor = norm.gamma.numpy() / np.sqrt(1.0 + norm.epsilon)
    units = -mean.numpy() * factor / (0.25 * step[0] * np.abs(factor))
    np.testing.assert_allclose(units, np.round(units), atol=1e-4)


def test_gradients_go_straight_through():
    layer = L.Dense(2)
    layer.build((None, 3))
    layer.bias.assign([0.3, -0.7])
    with tf.GradientTape() as tape:
        ((_, value),) = rounded(
            layer, None, tf.constant([[0.1, 0.4]]), tf.constant(0.25)
        )
        loss = tf.reduce_sum(value * [2.0, 3.0])
    np.testing.assert_array_equal(
        tape.gradient(loss, layer.bias.value), [2.0, 3.0]
    )
    units = value / [0.025, 0.1]
    np.testing.assert_allclose(units, np.round(units), atol=1e-4)
    # As long as no step was taken, the input has no unit.
    ((_, value),) = rounded(
        layer, None, tf.constant([[0.1, 0.4]]), tf.constant(0.0)
    )
    np.testing.assert_array_equal(value, layer.bias)


def test_a_plan_from_before_has_none(tmp_path):
    qmodel, x = prepared([L.Conv2D(4, 3)])
    config = qmodel.get_config()
    old = config["activations"]
    assert old.pop("biases")
    for site in old["sites"]:
        for key in ("place", "fixed", "like"):
            site.pop(key)
    loaded = msq_tf.MSQModel.from_config(config)
    assert loaded.activations.biases == ()
    loaded.set_weights(qmodel.get_weights())
    np.testing.assert_allclose(loaded(x), qmodel(x), atol=0.1)
    assert Bias(**qmodel.activations.to_config()["biases"][0])


def test_losses_of_a_layer_survive():
    @keras.saving.register_keras_serializable(package="test_biases")
    class Lossy(L.Dense):
        def call(self, x, training=None):
            y = super().call(x)
            self.add_loss(keras.ops.sum(y) * 0.0 + 7.0)
            return y

    model = keras.Sequential([keras.Input((3,)), Lossy(2)])
    qmodel = msq_tf.quantize_model(model, CONFIG)
    qmodel(np.ones((2, 3), np.float32))
    assert 7.0 in [float(loss) for loss in qmodel.losses]
