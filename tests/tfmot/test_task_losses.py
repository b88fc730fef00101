"""The pull on low bits stands beside whatever loss a model is compiled with."""

import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from tests.tfmot.samples import layers
from tests.tfmot.samples import msq
from tests.tfmot.samples import tf_keras

X = np.random.default_rng(0).normal(size=(48, 8)).astype(np.float32)
Y = X[:, :3].argmax(-1)
BATCH = 16


class OwnStep(tf_keras.Model):
    """A step as before `compute_loss` was there."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            outputs = self(x, training=True)
            loss = self.compiled_loss(
                y, outputs, regularization_losses=self.losses
            )
        self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
        return {metric.name: metric.result() for metric in self.metrics}


def pulled(kind=tf_keras.Model, regularizer=None):
    tf_keras.utils.set_random_seed(0)
    inputs = tf_keras.Input((8,))
    x = layers.Dense(
        12, activation="relu", kernel_regularizer=regularizer, name="hidden"
    )(inputs)
    model = msq.quantize_model(
        kind(inputs, layers.Dense(3, name="out")(x)),
        msq.MSQQuantizeScheme(activation_bits=None),
    )
    search = msq.ModelView(model).search
    search.lsb.assign([1, 1])
    search.strength.assign(1e-2)
    return model


def loss_of(reduction):
    return tf_keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction=reduction
    )


class Held(msq.MSQCallback):
    """Keeps the pull, whatever is decided."""

    def _search(self, step, epoch):
        pass


def trained(reduction, kind=tf_keras.Model, searched=False):
    """Weights after two epochs of the sum of the losses of a batch."""
    mean = reduction == "sum_over_batch_size"
    model = pulled(kind)
    if mean:
        # Then the pull is not divided by the batch either.
        msq.ModelView(model).search.strength.assign(1e-2 / BATCH)
    rate = 0.1 if mean else 0.1 / BATCH
    model.compile(tf_keras.optimizers.legacy.SGD(rate), loss_of(reduction))
    callbacks = []
    if searched:
        rule = msq_tf.BudgetRule(target_bits=31)
        callbacks = [Held(rule, data=(X, Y), verbose=0)]
    history = model.fit(
        X, Y, BATCH, 2, shuffle=False, verbose=0, callbacks=callbacks
    )
    return model.get_weights(), history.history["loss"]


@pytest.mark.slow
@pytest.mark.parametrize("searched", [False, True])
@pytest.mark.parametrize("kind", [tf_keras.Model, OwnStep])
def test_a_loss_that_is_not_reduced_trains_as_its_sum(kind, searched):
    weights, loss = trained("none", kind, searched)
    for reduction, factor in (("sum", BATCH), ("sum_over_batch_size", 1)):
        others, other_loss = trained(reduction, kind, searched)
        for weight, other in zip(weights, others, strict=True):
            if weight.dtype == np.float32 and weight.size > 1:
                np.testing.assert_allclose(weight, other, atol=2e-6)
        if searched:  # else the pull is in the printed loss
            np.testing.assert_allclose(
                np.multiply(loss, factor), other_loss, rtol=1e-5
            )


@pytest.mark.slow
def test_a_step_with_a_loss_that_is_not_reduced():
    model = pulled()
    before = [v.numpy() for v in model.trainable_variables]
    model.compile(tf_keras.optimizers.legacy.SGD(1.0), loss_of("none"))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(loss_of("none")(Y, model(X)))
        total += tf.add_n(model.losses)
    gradients = tape.gradient(total, model.trainable_variables)
    model.train_on_batch(X, Y)
    for old, gradient, new in zip(
        before, gradients, model.trainable_variables, strict=True
    ):
        np.testing.assert_allclose(old - gradient, new, atol=1e-5)


@pytest.mark.slow
def test_a_search_with_a_loss_that_is_not_reduced():
    model = pulled()
    model.compile("sgd", loss_of("none"))
    rule = msq_tf.BudgetRule(target_compression=6)
    callback = msq.MSQCallback(rule, data=(X, Y), verbose=0)
    model.fit(X, Y, BATCH, verbose=0, callbacks=[callback])
    assert msq.ModelView(model).compression >= 6


@pytest.mark.first(1)
@pytest.mark.parametrize("data", [(X,), (X, Y)])
def test_the_pull_alone_is_no_loss(data):
    model = pulled()
    before = [v.numpy() for v in model.trainable_variables]
    model.compile("sgd")
    with pytest.raises(ValueError, match="No loss found"):
        model.fit(*data, verbose=0)
    rule = msq_tf.BudgetRule(target_bits=31)
    callback = msq.MSQCallback(rule, data=(X, Y), verbose=0)
    with pytest.raises(ValueError, match="No loss found"):
        model.fit(*data, verbose=0, callbacks=[callback])
    for old, new in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.first(1)
@pytest.mark.parametrize("own", [False, True])
def test_losses_that_are_added_train_as_in_tf_keras(own):
    model = pulled(regularizer=None if own else "l2")
    if own:
        model.add_loss(tf.reduce_mean(tf.square(model.output)))
    before = model.get_weights()
    model.compile("sgd")
    model.fit(X, verbose=0)
    assert any(
        np.any(old != new)
        for old, new in zip(before, model.get_weights(), strict=True)
    )


def test_models_without_a_pull_are_those_of_tf_keras():
    model = tf_keras.Sequential(
        [layers.Input((8,)), layers.Dense(3, kernel_regularizer="l2")]
    )
    model.compile("sgd", loss_of("none"))
    with pytest.raises(ValueError, match="Shapes must be equal rank"):
        model.fit(X, Y, verbose=0)
    model.compile("sgd")
    model.fit(X, verbose=0)
