"""Functions that were traced inside a scope stay inside, others outside."""

import contextlib

import keras
import numpy as np
import pytest

import msq_tf
from msq_tf.keras3.compiled import traced_apart

L = keras.layers
X = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
Y = X[:, :1]


def nested():
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([keras.Input((6,)), L.Dense(4)], name="inner")
    inputs = keras.Input((6,))
    return keras.Model(inputs, L.Dense(1)(L.ReLU()(inner(inputs))))


@pytest.mark.first(1)
@pytest.mark.parametrize("traced", [False, True])
def test_predictions_in_a_scope_are_quantized_and_float_after_it(traced):
    base = nested()
    inner = base.get_layer("inner")
    float_outputs = np.asarray(base(X)), np.asarray(inner(X))
    base.compile("sgd", "mse")
    if traced:
        base.predict(X, verbose=0)
        inner.predict(X, verbose=0)
        before = base.evaluate(X, Y, verbose=0)
    qmodel = msq_tf.quantize_model(base, msq_tf.MSQConfig(start_bits=2))
    wanted = qmodel.predict(X, verbose=0)
    assert np.abs(wanted - float_outputs[0]).max() > 0.1
    with qmodel.quantized_scope():
        np.testing.assert_allclose(
            base.predict(X, verbose=0), wanted, rtol=1e-5, atol=1e-6
        )
        assert np.abs(inner.predict(X, verbose=0) - float_outputs[1]).max() > 0
        np.testing.assert_allclose(
            base.evaluate(X, Y, verbose=0),
            np.mean((wanted - Y) ** 2),
            rtol=1e-5,
        )
    for model, outputs in zip((base, inner), float_outputs, strict=True):
        np.testing.assert_allclose(
            model.predict(X, verbose=0), outputs, rtol=1e-5, atol=1e-6
        )
    after = base.evaluate(X, Y, verbose=0)
    if traced:
        np.testing.assert_allclose(after, before, rtol=1e-6)


def test_an_error_gives_functions_back():
    base = nested()
    base.predict(X, verbose=0)
    function = base.predict_function
    with pytest.raises(KeyError), traced_apart(base):
        assert base.predict_function is None
        raise KeyError
    assert base.predict_function is function


class Encodes(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = L.Dense(3)

    def call(self, x):
        return self.dense(x)

    def encode_text(self, x):
        return self.predict(x, verbose=0)


def test_a_method_of_the_base_is_called_in_a_scope():
    base = Encodes()
    base(X)
    plain = base.encode_text(X)
    qmodel = msq_tf.quantize_model(base, msq_tf.MSQConfig(start_bits=2))
    with pytest.raises(AttributeError, match=r"quantized_scope.*\.encode_text"):
        qmodel.encode_text(X)
    assert not hasattr(qmodel, "encode")
    with pytest.raises(AttributeError, match="not known"):
        qmodel.input  # noqa: B018
    with qmodel.quantized_scope():
        found = qmodel.base.encode_text(X)
    np.testing.assert_allclose(found, qmodel.predict(X, verbose=0), rtol=1e-5)
    assert np.abs(found - plain).max() > 1e-2
    np.testing.assert_array_equal(base.encode_text(X), plain)


def fresh(**config):
    keras.utils.set_random_seed(0)
    base = keras.Sequential(
        [keras.Input((6,)), L.Dense(8, activation="relu"), L.Dense(1)]
    )
    qmodel = msq_tf.quantize_model(
        base, msq_tf.MSQConfig(start_bits=3, **config)
    )
    qmodel.compile("adam", "mse")
    return qmodel


def test_a_quantized_model_computes_the_same_in_its_scope():
    """It quantizes the latent weights there, not once more what it reads."""
    qmodel = fresh()
    wanted = np.asarray(qmodel(X))
    codes = [weight.codes for weight in qmodel.quantized_weights()]
    with qmodel.quantized_scope():
        np.testing.assert_array_equal(qmodel(X), wanted)
        np.testing.assert_allclose(
            qmodel.predict(X, verbose=0), wanted, rtol=1e-5, atol=1e-6
        )
        for before, now in zip(codes, qmodel.quantized_weights(), strict=True):
            np.testing.assert_array_equal(now.codes, before)


@pytest.mark.parametrize("rank", [0, 2])
def test_what_was_traced_in_a_scope_follows_the_weights(rank):
    qmodel = fresh()
    if rank:
        qmodel.base.layers[0].enable_lora(rank)
        qmodel.compile("adam", "mse")
    with qmodel.quantized_scope():
        before = qmodel.predict(X, verbose=0)
        qmodel.evaluate(X, Y, verbose=0)
    qmodel.fit(X, Y, epochs=20, verbose=0)
    after = np.asarray(qmodel(X))
    assert np.abs(after - before).max() > 1e-2
    loss = np.mean((after - Y) ** 2)
    for scope in (contextlib.nullcontext(), qmodel.quantized_scope()):
        with scope:
            np.testing.assert_allclose(
                qmodel.predict(X, verbose=0), after, rtol=1e-5, atol=1e-6
            )
            np.testing.assert_allclose(qmodel(X), after, rtol=1e-5, atol=1e-6)
            found = qmodel.evaluate(X, Y, verbose=0)
            np.testing.assert_allclose(found, loss, rtol=1e-5)


def test_what_a_scope_would_spoil_is_refused_in_it(tmp_path):
    qmodel = fresh()
    path = tmp_path / "m.weights.h5"
    for what, call in (
        ("Training", lambda: qmodel.fit(X, Y, verbose=0)),
        ("`save`", lambda: qmodel.save(tmp_path / "m.keras")),
        ("`save_weights`", lambda: qmodel.save_weights(path)),
        ("`bake`", lambda: msq_tf.bake(qmodel)),
    ):
        with (
            qmodel.quantized_scope(),
            pytest.raises(ValueError, match=rf"^{what}.*Received: an open"),
        ):
            call()
    assert not list(tmp_path.iterdir())
    qmodel.save_weights(path)
