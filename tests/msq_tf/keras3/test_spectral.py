"""Spectral normalization divides latent weights, not their quantized values."""

import keras
import numpy as np
import pytest

import msq_tf

L = keras.layers
X = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
Y = X[:, :2]


def normalized():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            L.SpectralNormalization(L.Dense(8, activation="relu"), name="sn"),
            L.Dense(2, name="head"),
        ]
    )
    for layer in (model.layers[0].layer, model.layers[1]):
        layer.kernel.assign(layer.kernel * 3)
    return model


def of_sn(model):
    layer = model.get_layer("sn")
    return np.asarray(layer.kernel), np.asarray(layer.vector_u)


def test_training_moves_the_latent_kernel_as_in_float():
    plain, base = normalized(), normalized()
    before = of_sn(base)[0]
    qmodel = msq_tf.quantize_model(base, msq_tf.MSQConfig(start_bits=2))
    with qmodel.quantized_scope():
        codes = np.asarray(base.get_layer("sn").kernel.value)
    found = np.asarray(qmodel(X, training=True))
    plain(X, training=True)
    for ours, theirs in zip(of_sn(base), of_sn(plain), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    factor = of_sn(base)[0].max() / before.max()
    hidden = np.maximum(X @ (codes * factor), 0)
    with qmodel.quantized_scope():
        head = np.asarray(base.get_layer("head").kernel.value)
    np.testing.assert_allclose(found, hidden @ head, rtol=1e-4, atol=1e-5)
    # In inference the kernel stays.
    kept = of_sn(base)[0]
    qmodel(X, training=False)
    np.testing.assert_array_equal(of_sn(base)[0], kept)


@pytest.mark.first(1)
@pytest.mark.parametrize("own", [False, True])
def test_small_steps_add_up(own):
    """Weights that were put back on their grid at each step would stay."""

    class Own(keras.Sequential):
        def train_step(self, data):
            return super().train_step(data)

    base = normalized()
    if own:
        base = Own(base.layers)
        base.build((None, 6))
    config = msq_tf.MSQConfig(start_bits=3, scale="max")
    qmodel = msq_tf.quantize_model(base, config)
    qmodel.compile(keras.optimizers.SGD(1e-4), "mse")
    qmodel.fit(X, Y, epochs=1, verbose=0)
    first = of_sn(base)[0]
    qmodel.fit(X, Y, epochs=3, verbose=0)
    after = of_sn(base)[0]
    assert (after != first).any()
    steps = 7 * after / np.abs(after).max()
    assert np.abs(steps - np.round(steps)).max() > 0.2


def test_half_precision():
    keras.utils.set_random_seed(0)
    dense = L.Dense(4, dtype="mixed_bfloat16")
    layer = L.SpectralNormalization(dense, name="sn", dtype="mixed_bfloat16")
    base = keras.Sequential([keras.Input((6,)), layer])
    qmodel = msq_tf.quantize_model(base)
    qmodel.compile("sgd", "mse")
    qmodel.fit(X, X[:, :4], epochs=2, verbose=0)
    assert np.isfinite(of_sn(base)[0]).all()
    assert np.abs(of_sn(base)[0]).max() > 0.01


def test_a_kernel_that_stays_float_is_normalized_by_keras():
    plain, base = normalized(), normalized()
    qmodel = msq_tf.quantize_model(base, filters="head")
    np.testing.assert_array_equal(of_sn(base)[0], of_sn(plain)[0])
    qmodel(X, training=True)
    plain(X, training=True)
    for ours, theirs in zip(of_sn(base), of_sn(plain), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
