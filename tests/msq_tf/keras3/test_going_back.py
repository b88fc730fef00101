"""Steps of an optimizer after its model went back to earlier weights."""

import keras
import numpy as np
import pytest

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
