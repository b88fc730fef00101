"""Data that Keras refuses in the words of a kernel, or of Python."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf

L = keras.layers
X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
Y = np.arange(20) % 3
TEXT = X.astype(str)
SPARSE = "sparse_categorical_crossentropy"


def model(loss=SPARSE, base=None):
    if base is None:
        base = keras.Sequential(
            [keras.Input((4,)), L.Dense(3, activation="softmax", name="d")]
        )
    qmodel = msq_tf.quantize_model(base)
    qmodel.compile("sgd", loss)
    return qmodel


@pytest.mark.first(1)
@pytest.mark.parametrize("name", ["fit", "evaluate"])
@pytest.mark.parametrize(
    "loss",
    [
        SPARSE,
        "SparseCategoricalCrossentropy",
        keras.losses.sparse_categorical_crossentropy,
        keras.losses.SparseCategoricalCrossentropy(),
        [SPARSE],
    ],
)
def test_labels_without_a_class(name, loss):
    qmodel = model(loss)
    call = getattr(qmodel, name)
    for wrong, ends in ((Y + 1, "1 to 3"), (Y - 1, "-1 to 1"), (Y + 0.0, "")):
        if not ends:
            call(X, wrong, verbose=0)
            continue
        for labels in (wrong, wrong[:, None], wrong.astype("float32")):
            message = f"`y` has labels.*from 0 to 2 .*Received: {ends}"
            with pytest.raises(ValueError, match=message):
                call(X, labels, verbose=0)


def test_labels_held_out():
    with pytest.raises(ValueError, match="`y` of validation_data has labels"):
        model().fit(X, Y, validation_data=(X, Y + 1), verbose=0)
    with pytest.raises(ValueError, match="`x` of validation_data holds text"):
        model().fit(X, Y, validation_data=(TEXT, Y), verbose=0)
    with pytest.raises(ValueError, match="no `y` of validation_data"):
        model().fit(X, Y, validation_data=(X, None), verbose=0)
    model().fit(X, Y, validation_data=(X, Y), verbose=0)


def test_labels_that_a_loss_ignores():
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=255)
    labels = np.where(np.arange(20) < 5, 255, Y)
    qmodel = model(loss)
    qmodel.fit(X, labels, verbose=0)
    with pytest.raises(ValueError, match="Received: 0 to 9"):
        qmodel.fit(X, np.where(labels == 1, 9, labels), verbose=0)


@pytest.mark.first(1)
@pytest.mark.parametrize("kind", ["named", "listed"])
def test_labels_of_several_outputs(kind):
    inputs = keras.Input((4,))
    a = L.Dense(3, activation="softmax", name="a")(inputs)
    b = L.Dense(2, activation="softmax", name="b")(inputs)
    named = kind == "named"
    base = keras.Model(inputs, {"a": a, "b": b} if named else [a, b])
    given = {"a": Y, "b": Y % 2}
    wrong = {"a": Y, "b": Y}
    if not named:
        given, wrong = list(given.values()), list(wrong.values())
    qmodel = model({"a": SPARSE, "b": SPARSE} if named else [SPARSE] * 2, base)
    qmodel.fit(X, given, verbose=0)
    with pytest.raises(ValueError, match="output 'b' has .*from 0 to 1"):
        qmodel.fit(X, wrong, verbose=0)


class OwnLoss(keras.Model):
    """A model whose loss is one without targets."""

    def __init__(self):
        super().__init__()
        self.dense = L.Dense(3)

    def call(self, x):
        return self.dense(x)

    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        del x, y, sample_weight, training
        return keras.ops.mean(keras.ops.square(y_pred))


@pytest.mark.first(1)
@pytest.mark.parametrize("name", ["fit", "evaluate"])
def test_no_targets(name):
    call = getattr(model(), name)
    data = tf.data.Dataset.from_tensor_slices(X).batch(4)
    for x in (X, tf.constant(X), data, data.map(lambda x: (x,))):
        with pytest.raises(ValueError, match="no `y`.*Received: y=None"):
            call(x, verbose=0)
    # Keras warns of a data set that it can't shuffle.
    plain = {"shuffle": False} if name == "fit" else {}
    both = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    call(both, verbose=0, **plain)
    own = OwnLoss()
    own(X)
    getattr(model("mse", own), name)(X, verbose=0)


@pytest.mark.first(1)
@pytest.mark.parametrize("name", ["fit", "evaluate", "predict"])
@pytest.mark.parametrize("kind", [str, object])
def test_text(name, kind):
    qmodel = model()
    labels = {} if name == "predict" else {"y": Y}
    with pytest.raises(ValueError, match="`x` holds text.*Received: dtype="):
        getattr(qmodel, name)(TEXT.astype(kind), **labels, verbose=0)
    if labels:
        with pytest.raises(ValueError, match="`y` holds text"):
            getattr(qmodel, name)(X, Y.astype(kind), verbose=0)


def test_text_that_a_model_reads():
    words = np.array(["a b", "c"] * 10, dtype=object)
    inputs = keras.Input((), dtype="string")
    reader = L.TextVectorization(8, output_sequence_length=4)
    reader.adapt(words.astype(str))
    x = L.Flatten()(L.Embedding(8, 4)(reader(inputs)))
    base = keras.Model(inputs, L.Dense(3, activation="softmax")(x))
    qmodel = model(SPARSE, base)
    # As plain Keras, which takes arrays of objects that are all text.
    qmodel.fit(words, Y, verbose=0)
    qmodel.evaluate(words, Y, verbose=0)
    assert qmodel.predict(words, verbose=0).shape == (20, 3)
    for wrong in (words.astype(str), words[:, None]):
        with pytest.raises(ValueError, match="`x` holds text"):
            qmodel.predict(wrong, verbose=0)
    with pytest.raises(ValueError, match="`x` holds text"):
        model().predict(words, verbose=0)


@pytest.mark.slow
def test_structures_inside_of_structures():
    inputs = keras.Input((4,))
    a, b, c = (
        L.Dense(n, name=k)(inputs) for n, k in ((3, "a"), (2, "b"), (1, "c"))
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for outputs, losses, labels in (
        ([[a, b], c], [[loss, "mse"], "mse"], [[Y, X[:, :2]], X[:, :1]]),
        (
            {"p": {"a": a, "b": b}, "c": c},
            {"p": {"a": loss, "b": "mse"}, "c": "mse"},
            {"p": {"a": Y, "b": X[:, :2]}, "c": X[:, :1]},
        ),
    ):
        qmodel = model(losses, keras.Model(inputs, outputs))
        qmodel.fit(X, labels, verbose=0)
        qmodel.evaluate(X, labels, verbose=0)


def test_outputs_that_are_one_number():
    inputs = keras.Input((4,))
    number = keras.ops.mean(L.Dense(3)(inputs))
    qmodel = model(lambda y, y_pred: y_pred, keras.Model(inputs, number))
    qmodel.fit(X, Y, verbose=0)


@pytest.mark.first(1)
@pytest.mark.parametrize("name", ["fit", "evaluate", "predict"])
def test_what_is_no_callback(name):
    qmodel = model()
    data = (X,) if name == "predict" else (X, Y)
    for wrong, shown in (
        ("x", "'x'"),
        (["x"], "'x'"),
        ([keras.callbacks.EarlyStopping], "the class EarlyStopping"),
    ):
        with pytest.raises(ValueError, match=f"objects.*Received: {shown}"):
            getattr(qmodel, name)(*data, callbacks=wrong, verbose=0)
    for nothing in (False, 0, "", (), {}):
        getattr(qmodel, name)(*data, callbacks=nothing, verbose=0)
    ones = [None, keras.callbacks.Callback()]
    for right in (None, [], ones[1:], ones[1], keras.callbacks.CallbackList()):
        getattr(qmodel, name)(*data, callbacks=right, verbose=0)


def test_wrong_arguments_are_left_to_keras():
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        model().predict(X, nonsense=1)
