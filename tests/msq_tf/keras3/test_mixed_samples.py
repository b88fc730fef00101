"""Models that compare the samples of a batch with each other."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf

RNG = np.random.default_rng(0)


def towers():
    left, right = keras.Input((6,)), keras.Input((6,))
    a = keras.layers.Dense(8, name="left")(left)
    b = keras.layers.Dense(8, name="right")(right)
    logits = keras.ops.matmul(a, keras.ops.transpose(b))
    return keras.Model([left, right], [logits, keras.ops.transpose(logits)])


def rows():
    inputs = keras.Input((None, 6))
    return keras.Model(inputs, keras.layers.Dense(8)(inputs))


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(8)

    def call(self, x):
        found = self.dense(x)
        return keras.ops.matmul(found, keras.ops.transpose(found))


def contrastive(y_true, y_pred):
    del y_true
    places = keras.ops.arange(keras.ops.shape(y_pred)[0])
    return keras.losses.sparse_categorical_crossentropy(
        places, y_pred, from_logits=True
    )


X = RNG.normal(size=(32, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("build", "x", "mixes"),
    [
        (towers, [X, X], True),
        (Own, X, True),
        (rows, X[:, None], False),
        (lambda: keras.Sequential([keras.layers.Dense(2)]), X, False),
    ],
)
def test_which_models_mix_samples(build, x, mixes):
    base = build()
    base(keras.tree.map_structure(lambda a: a[:2], x))
    qmodel = msq_tf.quantize_model(base)
    qmodel.compile("adam", "mse")
    assert qmodel.mixes_samples(x) is mixes


@pytest.mark.slow
def test_a_search_takes_whole_batches_of_them():
    """A part of a batch has fewer classes; of one sample the loss is zero."""
    keras.utils.set_random_seed(0)
    qmodel = msq_tf.quantize_model(towers())
    qmodel.compile(keras.optimizers.Adam(0.01), contrastive)
    search = msq_tf.MSQCallback(
        msq_tf.BudgetRule(target_compression=6),
        interval=1,
        samples=16,
        verbose=0,
    )
    y = np.zeros(32)
    qmodel.fit(
        [X, X], [y, y], batch_size=8, epochs=2, verbose=0, callbacks=[search]
    )
    assert qmodel.compression >= 6
    assert (qmodel.search.trace.numpy() != 0).all()
