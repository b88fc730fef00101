"""Statistics read what `fit` was given, whatever its structure."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from msq_tf.sensitivity.fit_inputs import FitInputs
from msq_tf.sensitivity.fit_inputs import weigh_classes

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 6)).astype(np.float32)
A = RNG.random((48, 3)).astype(np.float32)
B = RNG.random((48, 4)).astype(np.float32)


class Seen(msq_tf.MSQCallback):
    """Keeps the batches that statistics are taken on."""

    def _take_samples(self):
        super()._take_samples()
        self.batches = self._samples.batches(48, 16)


def search(kind=msq_tf.MSQCallback, **options):
    rule = msq_tf.BudgetRule(
        target_compression=6, growth=options.pop("growth", 0)
    )
    return kind(rule, verbose=0, hessian=False, batch_size=16, **options)


def two_outputs():
    inputs = {
        "u": keras.Input((6,), name="u"),
        "v": keras.Input((6,), name="v"),
    }
    x = L.Dense(8)(L.Concatenate()([inputs["u"], inputs["v"]]))
    return keras.Model(inputs, {"a": L.Dense(3)(x), "b": L.Dense(4)(x)})


class Batches(keras.utils.PyDataset):
    def __init__(self, batches):
        super().__init__()
        self._batches = batches

    def __len__(self):
        return len(self._batches)

    def __getitem__(self, index):
        return self._batches[index]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["arrays", "tensors", "dataset", "sequence"])
def test_dictionaries_of_inputs_targets_and_weights(kind):
    data = (
        {"u": X, "v": X[::-1]},
        {"a": A, "b": B},
        {"a": np.ones(48), "b": np.arange(48.0)},
    )
    batches = [
        tf.nest.map_structure(lambda part, i=i: part[i : i + 16], data)
        for i in range(0, 48, 16)
    ]
    x, y, weight = data
    if kind == "tensors":
        x, y = tf.nest.map_structure(tf.constant, (x, y))
    elif kind == "dataset":
        x = tf.data.Dataset.from_tensor_slices(data).batch(16)
        y = weight = None
    elif kind == "sequence":
        x, y, weight = Batches(batches), None, None
    qmodel = msq_tf.quantize_model(two_outputs())
    qmodel.compile("sgd", {"a": "mse", "b": "mse"})
    callback = search(Seen)
    qmodel.fit(
        x,
        y,
        sample_weight=weight,
        batch_size=16,
        verbose=0,
        shuffle=False,
        callbacks=[callback],
    )
    assert qmodel.compression >= 6.0
    seen = tf.nest.map_structure(lambda part: part.numpy(), callback.batches)
    tf.nest.map_structure(
        lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-6),
        seen,
        batches,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", [list, tuple])
def test_lists_and_tuples_of_targets(kind):
    inputs = keras.Input((6,))
    x = L.Dense(8)(inputs)
    model = keras.Model(inputs, [L.Dense(3)(x), L.Dense(4)(x)])
    qmodel = msq_tf.quantize_model(model)
    qmodel.compile("sgd", ["mse", "mse"])
    targets = kind([A, B])
    qmodel.fit(X, targets, verbose=0, callbacks=[search()])
    assert qmodel.compression >= 6.0


@pytest.mark.slow
def test_dictionaries_of_validation_data():
    data = {"u": X, "v": X}, {"a": A, "b": B}
    qmodel = msq_tf.quantize_model(two_outputs())
    qmodel.compile("sgd", {"a": "mse", "b": "mse"})
    qmodel.fit(
        *data,
        validation_data=data,
        verbose=0,
        callbacks=[search(growth=1)],
    )
    assert qmodel.fit_inputs == FitInputs()


@pytest.mark.slow
def test_validation_split_is_what_keras_holds_out():
    qmodel = msq_tf.quantize_model(
        keras.Sequential([keras.Input((6,)), L.Dense(8), L.Dense(3)])
    )
    qmodel.compile("sgd", "mse")
    given = FitInputs.of(qmodel.fit, (X, A), {"validation_split": 0.25})
    np.testing.assert_array_equal(given.data[0], X[:36])
    np.testing.assert_array_equal(given.validation_data[1], A[36:])
    by_place = FitInputs.of(
        keras.Model.fit,
        (qmodel, X, A, 16, 1, 0, None, 0.0, (X, A), True, {0: 2.0}, B[:, 0]),
        {},
    )
    assert by_place.validation_data[0] is X
    assert by_place.class_weight == {0: 2.0}
    np.testing.assert_array_equal(by_place.data[2], B[:, 0])
    qmodel.fit(
        X, A, validation_split=0.25, verbose=0, callbacks=[search(growth=1)]
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tensor", "scipy"])
def test_sparse_inputs(kind):
    rounded = np.round(X)
    x = tf.sparse.from_dense(rounded)
    if kind == "scipy":
        x = pytest.importorskip("scipy.sparse").coo_matrix(rounded)
    qmodel = msq_tf.quantize_model(
        keras.Sequential([keras.Input((6,)), L.Dense(8), L.Dense(3)])
    )
    qmodel.compile("sgd", "mse")
    callback = search(Seen)
    qmodel.fit(x, A, validation_split=0.25, verbose=0, callbacks=[callback])
    assert qmodel.compression >= 6.0
    seen = np.concatenate([batch[0] for batch in callback.batches])
    np.testing.assert_array_equal(seen, rounded[:32])


@pytest.mark.first(1)
@pytest.mark.parametrize("one_hot", [False, True])
def test_class_weights_weigh_statistics(one_hot):
    labels = np.arange(48) % 3
    kind = "categorical_crossentropy"
    y = np.eye(3, dtype=np.float32)[labels] if one_hot else labels
    qmodel = msq_tf.quantize_model(
        keras.Sequential([keras.Input((6,)), L.Dense(3, activation="softmax")])
    )
    qmodel.compile("sgd", kind if one_hot else f"sparse_{kind}")
    weights = {0: 5.0, 2: 0.0}
    batches = weigh_classes([(X, y, None)], weights)
    want = np.array([5.0, 1.0, 0.0])[labels]
    np.testing.assert_array_equal(batches[0][2], want)
    loss = qmodel.loss_at(qmodel.quantized_values(), batches[0])
    weighted = qmodel.evaluate(X, y, 48, sample_weight=want, verbose=0)
    assert float(loss) == pytest.approx(weighted, rel=1e-5)
    qmodel.fit(X, y, class_weight=weights, verbose=0, callbacks=[search()])


def test_a_static_batch_is_the_batch():
    inputs = keras.Input((6,), batch_size=16)
    x = keras.ops.reshape(L.Dense(8)(inputs), (16, 8))
    qmodel = msq_tf.quantize_model(keras.Model(inputs, L.Dense(2)(x)))
    qmodel.compile("sgd", "mse")
    callback = search(Seen, samples=40)
    qmodel.fit(X, A[:, :2], 16, verbose=0, callbacks=[callback])
    assert [len(batch[0]) for batch in callback.batches] == [16, 16]
    few = search(data=(X[:8], A[:8, :2]))
    with pytest.raises(ValueError, match="batches of 16.*Received: 8"):
        qmodel.fit(X, A[:, :2], 16, verbose=0, callbacks=[few])


class Look(keras.callbacks.Callback):
    """Copies all state that is neither trained nor the search's."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        del batch, logs
        model = self.model
        state = model.base.non_trainable_variables + model.metrics_variables
        self.seen.append([v.numpy() for v in state])


@pytest.mark.slow
def test_statistics_leave_all_state_alone():
    """States, seeds, moving statistics and metrics, in inference mode."""

    @keras.saving.register_keras_serializable("msq_tf_tests")
    class Noise(L.Layer):
        def __init__(self):
            super().__init__()
            self.seed_generator = keras.random.SeedGenerator(1)
            self.calls = self.add_weight(
                shape=(), initializer="zeros", trainable=False
            )

        def call(self, x):
            self.calls.assign_add(1.0)
            return x + 0.1 * keras.random.normal(
                keras.ops.shape(x), seed=self.seed_generator
            )

    inputs = keras.Input((2, 3), batch_size=16)
    x = L.GRU(4, stateful=True)(Noise()(inputs))
    x = L.Dropout(0.5)(L.BatchNormalization()(x))
    qmodel = msq_tf.quantize_model(keras.Model(inputs, L.Dense(2)(x)))
    qmodel.compile("sgd", "mse", metrics=["mae"])
    before, after = Look(), Look()
    rule = msq_tf.BudgetRule(target_compression=6)
    qmodel.fit(
        X.reshape(48, 2, 3),
        A[:, :2],
        batch_size=16,
        epochs=2,
        verbose=0,
        callbacks=[before, msq_tf.MSQCallback(rule, verbose=0), after],
    )
    assert qmodel.compression >= 6.0
    for one, other in zip(before.seen, after.seen, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    moved = [(a != b).any() for a, b in zip(*before.seen[:2], strict=True)]
    assert sum(moved) >= 6


@pytest.mark.parametrize("listed", [True, False])
def test_a_callback_that_is_a_class(tiny, listed):
    qmodel = msq_tf.quantize_model(tiny)
    qmodel.compile("sgd", "mse")
    given = [msq_tf.MSQCallback] if listed else msq_tf.MSQCallback
    with pytest.raises(ValueError, match="Received: the class MSQCallback"):
        qmodel.fit(X, A, verbose=0, callbacks=given)


class Labelled:
    """Rows as pandas has them: by position only in `iloc`."""

    def __init__(self, values):
        self.iloc, self.shape = values, values.shape

    def __getitem__(self, index):
        raise KeyError(index)


def test_rows_with_labels_are_split_by_position():
    def fit(x=None, y=None, validation_split=0.0):
        pass

    found = FitInputs.of(
        fit, (Labelled(X), Labelled(A)), {"validation_split": 0.25}
    )
    np.testing.assert_array_equal(found.data[0], X[:36])
    np.testing.assert_array_equal(found.data[1], A[:36])
    np.testing.assert_array_equal(found.validation_data[1], A[36:])
