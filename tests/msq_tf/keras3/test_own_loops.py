"""A base's own `fit`, `evaluate` and `predict` train the quantized model."""

import inspect

import keras
import numpy as np
import pytest

import msq_tf
from msq_tf.keras3.own_loops import LOOPS

L = keras.layers
X = np.random.default_rng(0).integers(0, 256, (64, 8)).astype("uint8")
Y = X[:, :3].argmax(-1)


def prepared(x):
    return x.astype("float32") / 255.0 - 0.5


class Prepares(keras.Model):
    """Scales what it is given, as KerasHub's tasks do."""

    def fit(self, x, y, validation_data=None, **kwargs):
        if validation_data is not None:
            validation_data = (prepared(validation_data[0]), validation_data[1])
        return super().fit(
            prepared(x), y, validation_data=validation_data, **kwargs
        )

    def evaluate(self, x, y=None, **kwargs):
        if not kwargs.get("_use_cached_eval_dataset"):
            x = prepared(x)
        return super().evaluate(x, y, **kwargs)

    def predict(self, x, **kwargs):
        return super().predict(prepared(x), **kwargs)

    def train_on_batch(self, x, y, **kwargs):
        return super().train_on_batch(prepared(x), y, **kwargs)

    def test_on_batch(self, x, y, **kwargs):
        return super().test_on_batch(prepared(x), y, **kwargs)

    def predict_on_batch(self, x):
        return super().predict_on_batch(prepared(x))


def quantized(kind, bits=3):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,))
    hidden = L.Dense(16, activation="relu")(inputs)
    base = kind(inputs, L.Dense(3, activation="softmax")(hidden))
    model = msq_tf.quantize_model(base, msq_tf.MSQConfig(start_bits=bits))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


@pytest.mark.slow
def test_every_loop_is_the_bases_around_the_quantized_one():
    own, plain = quantized(Prepares), quantized(keras.Model)
    x = prepared(X)
    histories = [
        model.fit(
            data,
            Y,
            validation_data=(data, Y),
            epochs=1,
            shuffle=False,
            verbose=0,
        ).history
        for model, data in ((own, X), (plain, x))
    ]
    assert histories[0] == histories[1]
    for name in ("evaluate", "train_on_batch", "test_on_batch"):
        kwargs = {"verbose": 0} if name == "evaluate" else {}
        np.testing.assert_array_equal(
            getattr(own, name)(X, Y, **kwargs),
            getattr(plain, name)(x, Y, **kwargs),
        )
    np.testing.assert_array_equal(
        own.predict(X, verbose=0), plain.predict(x, verbose=0)
    )
    np.testing.assert_array_equal(
        own.predict_on_batch(X), plain.predict_on_batch(x)
    )
    # The float model stays what it was: it predicts with its own weights.
    assert (
        np.abs(own.base.predict(X, verbose=0) - own.predict(X, verbose=0)).max()
        > 1e-3
    )
    assert own.base.__class__ is Prepares


@pytest.mark.parametrize("name", LOOPS)
def test_loops_have_the_signatures_of_keras(name):
    ours = inspect.signature(getattr(quantized(keras.Model), name))
    theirs = inspect.signature(getattr(keras.Model, name))
    assert list(ours.parameters) == list(theirs.parameters)[1:]


def test_what_it_calls_on_itself_is_quantized():
    class Looks(keras.Model):
        def fit(self, x, y, **kwargs):
            self.before = self.predict(x, verbose=0)
            self.called = self(x)
            return super().fit(x, y, **kwargs)

    model = quantized(Looks)
    x = prepared(X)
    want = model.predict(x, verbose=0)
    model.fit(x, Y, verbose=0)
    np.testing.assert_array_equal(model.base.before, want)
    np.testing.assert_allclose(model.base.called, want, rtol=1e-5)


@pytest.mark.slow
def test_a_search_sees_prepared_data():
    model = quantized(Prepares, bits=8)
    data, target, weight = model.prepared_data((X, Y))
    np.testing.assert_array_equal(data, prepared(X))
    np.testing.assert_array_equal(target, Y)
    assert weight is None
    rule = msq_tf.BudgetRule(target_compression=6, growth=4)
    search = msq_tf.MSQCallback(
        rule, data=(X, Y), held_out=(X, Y), interval=1, verbose=0
    )
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[search])
    assert model.compression >= 6
    again = quantized(keras.Model, bits=8)
    x = prepared(X)
    search = msq_tf.MSQCallback(
        rule, data=(x, Y), held_out=(x, Y), interval=1, verbose=0
    )
    again.fit(x, Y, epochs=3, verbose=0, callbacks=[search])
    assert list(again.bits.values()) == list(model.bits.values())


def test_a_loop_that_is_set_on_the_object_is_refused():
    inputs = keras.Input((8,))
    base = keras.Model(inputs, L.Dense(3)(inputs))
    base.fit = lambda *args: keras.Model.fit(base, *args)
    with pytest.raises(ValueError, match=r"a class.* Received: .'fit'"):
        msq_tf.quantize_model(base)


@pytest.mark.slow
def test_a_loaded_model_keeps_them(tmp_path):
    model = quantized(Prepares)
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(
        tmp_path / "m.keras", custom_objects={"Prepares": Prepares}
    )
    np.testing.assert_array_equal(
        loaded.predict(X, verbose=0), model.predict(X, verbose=0)
    )
