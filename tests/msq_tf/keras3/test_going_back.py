"""Steps of an optimizer after its model went back to earlier weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from msq_tf.search.kept_states import give_back

X = np.random.default_rng(0).normal(size=(256, 12)).astype("float32")
Y = X[:, :4].argmax(-1)


def quantized(optimizer):
    keras.utils.set_random_seed(0)
    base = keras.Sequential(
        [
            keras.Input((12,)),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(4),
        ]
    )
    qmodel = msq_tf.quantize_model(base)
    qmodel.compile(
        optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return qmodel


def moved(qmodel, epochs=1):
    """How far weights move in some epochs."""
    before = [w.numpy().copy() for w in qmodel.trainable_variables]
    qmodel.fit(X, Y, epochs=epochs, verbose=0)
    return sum(
        np.abs(w.numpy() - b).sum()
        for w, b in zip(qmodel.trainable_variables, before, strict=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Adam", "Nadam"])
def test_steps_are_about_as_long_as_at_first(kind):
    """Adam corrects young means of squares, and would not once time went on."""
    qmodel = quantized(getattr(keras.optimizers, kind)(1e-3))
    state = qmodel.training_state()
    first = [variable.numpy().copy() for variable in state]
    at_first = moved(qmodel)
    assert qmodel.second_moments() == []
    moved(qmodel, 60)
    squares = qmodel.second_moments()
    assert len(squares) == len(qmodel.trainable_variables)
    give_back(state, first, squares)
    kept = moved(qmodel)
    give_back(state, first, ())
    assert kept < 3.0 * at_first
    assert moved(qmodel) > 3.0 * kept


def test_momentum_is_no_mean_of_squares():
    qmodel = quantized(keras.optimizers.SGD(0.01, momentum=0.9))
    moved(qmodel)
    qmodel.optimizer.iterations.assign(3000)
    assert qmodel.second_moments() == []


def test_replicas_go_back_and_get_more_bits():
    if len(tf.config.list_logical_devices("CPU")) < 2:
        pytest.skip("needs two logical CPU devices")
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        qmodel = quantized(keras.optimizers.Adam(0.01))
    search = msq_tf.MSQCallback(
        msq_tf.ToleranceRule(
            max_drop=30.0, monitor="val_loss", mode="min", unit="metric"
        ),
        hessian=False,
    )
    qmodel.fit(
        *(X, Y),
        validation_data=(X, Y),
        epochs=3,
        verbose=0,
        callbacks=[search],
    )
    assert search.outcome.kept
    assert len(search.outcome.trials) == 3
    qmodel.set_bits(dict.fromkeys(qmodel.paths, 2))
    moved(qmodel)
    before = [record.values for record in qmodel.quantized_weights()]
    qmodel.search.bits.assign([4, 8])
    qmodel.keep_values([2, 2])
    qmodel.hold_scales()
    for old, record in zip(before, qmodel.quantized_weights(), strict=True):
        assert np.all(np.abs(record.values - old) <= 1e-3 * record.step)
