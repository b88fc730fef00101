"""The pull on low bits stands beside whatever loss a model is compiled with."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf

L = keras.layers
X = np.random.default_rng(0).normal(size=(48, 8)).astype(np.float32)
Y = X[:, :3].argmax(-1)
BATCH = 16


class OwnLoss(keras.Model):
    """A loss of its own, which stays one for each sample."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return super().compute_loss(x, y, y_pred, sample_weight)


def pulled(kind=keras.Model, regularizer=None):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,))
    x = L.Dense(12, activation="relu", kernel_regularizer=regularizer)(inputs)
    model = kind(inputs, L.Dense(3, dtype="float32")(x))
    qmodel = msq_tf.quantize_model(model)
    qmodel.search.lsb.assign([1] * len(qmodel.paths))
    qmodel.search.strength.assign(1e-2)
    return qmodel


def trained(reduction, kind=keras.Model):
    """Weights after two epochs of the sum of the losses of a batch."""
    rate = 0.1 if reduction == "sum_over_batch_size" else 0.1 / BATCH
    qmodel = pulled(kind)
    if reduction == "sum_over_batch_size":
        # Then the pull is not divided by the batch either.
        qmodel.search.strength.assign(1e-2 / BATCH)
    qmodel.compile(
        keras.optimizers.SGD(rate),
        keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction=reduction
        ),
    )
    history = qmodel.fit(
        X,
        Y,
        batch_size=BATCH,
        epochs=2,
        shuffle=False,
        verbose=0,
    )
    return qmodel.get_weights(), history.history["loss"]


@pytest.mark.first(1)
@pytest.mark.parametrize("kind", [keras.Model, OwnLoss])
def test_a_loss_that_is_not_reduced_trains_as_its_sum(kind):
    weights, loss = trained("none", kind)
    for reduction, factor in (("sum", BATCH), ("sum_over_batch_size", 1)):
        others, other_loss = trained(reduction, kind)
        for weight, other in zip(weights, others, strict=True):
            if weight.dtype == np.float32 and weight.size > 1:
                np.testing.assert_allclose(weight, other, atol=2e-6)
        np.testing.assert_allclose(
            np.multiply(loss, factor), other_loss, rtol=1e-5
        )


def test_a_search_with_a_loss_that_is_not_reduced():
    qmodel = pulled()
    qmodel.compile(
        "sgd",
        keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction="none"
        ),
    )
    rule = msq_tf.BudgetRule(target_compression=8)
    qmodel.fit(X, Y, verbose=0, callbacks=[msq_tf.MSQCallback(rule, verbose=0)])
    assert msq_tf.precision_report(qmodel).compression >= 8


@pytest.mark.parametrize("data", [(X,), (X, Y)])
def test_the_pull_alone_is_no_loss(data):
    qmodel = pulled()
    before = qmodel.get_weights()
    qmodel.compile("sgd")
    with pytest.raises(ValueError, match="No loss to compute"):
        qmodel.fit(*data, verbose=0)
    for old, new in zip(before, qmodel.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_regularizer_alone_trains_as_in_keras():
    qmodel = pulled(regularizer="l2")
    before = qmodel.base.layers[1].kernel.numpy()
    qmodel.compile("sgd")
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        qmodel.fit(X, verbose=0)
    assert np.any(qmodel.base.layers[1].kernel.numpy() != before)


def test_losses_of_the_model_keep_the_pull():
    qmodel = pulled()
    qmodel(X, training=True)
    assert len(qmodel.losses) == 1
    with tf.GradientTape() as tape:
        qmodel(X, training=True)
        (pull,) = qmodel.losses
    assert np.any(tape.gradient(pull, qmodel.base.layers[1].kernel) != 0)
