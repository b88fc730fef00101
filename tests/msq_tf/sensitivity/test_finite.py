"""A search does not decide on NaN."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from msq_tf.rules.records import LayerStats
from msq_tf.sensitivity.finite import _first_row
from msq_tf.sensitivity.finite import check_layers

L = keras.layers
RULES = [
    msq_tf.BudgetRule(target_compression=12.0, end=1.0),
    msq_tf.ThresholdRule(target_compression=12.0, end=1.0),
]
X = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
Y = X[:, :3]


def prepared(loss="mse"):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            L.Dense(8, name="a"),
            L.BatchNormalization(name="norm"),
            L.Dense(3, name="b"),
        ]
    )
    qmodel = msq_tf.quantize_model(model)
    qmodel.compile(keras.optimizers.SGD(0.0), loss)
    return qmodel


class SetAt(keras.callbacks.Callback):
    """Gives a variable NaN at a step."""

    def __init__(self, variable, step, value=np.nan):
        super().__init__()
        self.variable, self.step, self.value = variable, step, value
        self.count = 0

    def on_train_batch_end(self, batch, logs=None):
        self.count += 1
        if self.count == self.step:
            values = self.variable.numpy()
            values.flat[0] = self.value
            self.variable.assign(values)


def search(qmodel, rule, *callbacks, y=Y, **options):
    qmodel.fit(
        X,
        y,
        epochs=6,
        batch_size=16,
        verbose=0,
        callbacks=[
            *callbacks,
            msq_tf.MSQCallback(rule, interval=1, verbose=0, **options),
        ],
    )


@pytest.mark.first(1)
@pytest.mark.parametrize("rule", RULES, ids=["budget", "threshold"])
@pytest.mark.parametrize("hessian", [True, False])
@pytest.mark.parametrize("at", [1, 6, 7])
def test_a_weight_that_is_nan_is_named(rule, hessian, at):
    """At whichever decision it comes, with traces or between two of them."""
    qmodel = prepared()
    spoil = SetAt(qmodel.base.layers[0].kernel, at)
    with pytest.raises(ValueError, match="Weights are not.*numbers in a"):
        search(qmodel, rule, spoil, hessian=hessian)
    # Not a decision was taken on it.
    assert all(c.step < at for c in qmodel.history_of_bits())


@pytest.mark.first(1)
@pytest.mark.parametrize("rule", RULES, ids=["budget", "threshold"])
@pytest.mark.parametrize("hessian", [True, False])
@pytest.mark.parametrize("at", [1, 6, 7])
def test_a_loss_that_is_nan_is_told(rule, hessian, at):
    """As by a statistic of a batch norm, which is no quantized weight."""
    qmodel = prepared()
    spoil = SetAt(qmodel.base.layers[1].moving_mean, at)
    with pytest.raises(ValueError, match="The loss is not finite.*loss=nan"):
        search(qmodel, rule, spoil, hessian=hessian)


@pytest.mark.first(1)
@pytest.mark.parametrize("ranking", ["divergence", "measured", "hessian"])
@pytest.mark.parametrize("hessian", [True, False])
def test_targets_that_are_nan_are_told(ranking, hessian):
    y = np.full_like(Y, np.nan)
    with (
        pytest.warns(UserWarning, match=r"A sample of `y`.*Received: y\[0\]"),
        pytest.raises(ValueError, match="not finite.*NaN in inputs"),
    ):
        search(prepared(), RULES[0], y=y, ranking=ranking, hessian=hessian)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["x", "y", "sample_weight"])
def test_one_wrong_sample_is_named_before_fit_begins(name, value):
    given = {
        "x": np.zeros((300, 4), "f"),
        "y": np.zeros((300, 1), "f"),
        "sample_weight": np.ones(300, "f"),
    }
    given[name][271] = value
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    qmodel = msq_tf.quantize_model(model)
    qmodel.compile("sgd", "mse")

    class Begun(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            raise InterruptedError

    with (
        pytest.warns(UserWarning, match=rf"Received: {name}\[271\]"),
        pytest.raises(InterruptedError),
    ):
        qmodel.fit(**given, callbacks=[Begun()], verbose=0)


def test_rows_are_found_in_any_block():
    for count in (1, 7, 4096):
        for row in {0, count // 2, count - 1}:
            array = np.zeros((count, 600), np.float16)
            assert _first_row(array) is None
            array[row, 599] = np.nan
            assert _first_row(array) == row
    assert _first_row(np.zeros((3, 2), int)) is None
    assert _first_row(np.zeros((0, 2))) is None


def test_statistics_are_checked_one_by_one():
    fine = LayerStats("a", 4, 8, cost={4: 0.5, 2: 3e38})
    check_layers([fine])
    for wrong, words in (
        (LayerStats("b", 4, 8, sensitivity=np.nan), "sensitivity of 'b': nan"),
        (LayerStats("b", 4, 8, cost={3: np.nan}), "cost of 3 bits of 'b': nan"),
        (LayerStats("b", 4, 8, gain=-np.inf), "gain of 'b': -inf"),
    ):
        with pytest.raises(ValueError, match=f"not finite.*{words}"):
            check_layers([fine, wrong])


def test_costs_of_an_earlier_search_are_checked():
    """They may come out of a file."""
    qmodel = prepared()
    qmodel.search.cost.assign(np.full_like(qmodel.search.cost.numpy(), np.nan))

    class Keep(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            state = qmodel.search.rule_state
            qmodel.search.rule_state = state._replace(decisions=1.0)

    with pytest.raises(ValueError, match="not finite.*cost of"):
        qmodel.fit(
            X,
            Y,
            epochs=4,
            verbose=0,
            callbacks=[
                msq_tf.MSQCallback(RULES[0], verbose=0, hessian=False),
                Keep(),
            ],
        )


def test_a_learning_rate_that_is_too_large_is_told():
    qmodel = prepared()
    qmodel.optimizer.learning_rate = 1e30
    with pytest.raises(ValueError, match="lower the learning rate"):
        search(qmodel, RULES[0], hessian=False)


@pytest.mark.parametrize("part", ["x", "y"])
def test_what_statistics_read_of_a_data_set_is_looked_at(part):
    given = {"x": X.copy(), "y": Y.copy()}
    given[part][9, 1] = np.inf
    data = tf.data.Dataset.from_tensor_slices((given["x"], given["y"]))
    search = msq_tf.MSQCallback(RULES[0], verbose=0)

    class Begun(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            raise InterruptedError

    with (
        pytest.warns(UserWarning, match=f"`{part}` of sample 9 of the 64"),
        pytest.raises(InterruptedError),
    ):
        prepared().fit(
            data.batch(16),
            shuffle=False,
            verbose=0,
            callbacks=[search, Begun()],
        )
