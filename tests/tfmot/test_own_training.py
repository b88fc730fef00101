"""Losses, steps, states and batches of a user's tf_keras model."""

import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from tests.tfmot.samples import layers
from tests.tfmot.samples import msq
from tests.tfmot.samples import quantization
from tests.tfmot.samples import tf_keras

X = np.random.default_rng(0).normal(size=(48, 8)).astype(np.float32)
Y = (X[:, :4].sum(-1) > 0).astype(np.float32)[:, None]


class OwnLoss(tf_keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        loss = super().compute_loss(x, y, y_pred, sample_weight)
        return 1000.0 * loss


def functional(kind=tf_keras.Model, batch_size=None):
    tf_keras.utils.set_random_seed(0)
    inputs = tf_keras.Input((8,), batch_size=batch_size)
    x = layers.Dense(8, activation="relu", name="hidden")(inputs)
    return kind(inputs, layers.Dense(1, activation="sigmoid", name="out")(x))


def search(**options):
    rule = msq_tf.BudgetRule(target_compression=6)
    options = {"data": (X, Y), "lsb_strength": 0.05, **options}
    options = {"hessian": False, **options}
    return msq.MSQCallback(rule, verbose=0, **options)


@pytest.mark.slow
def test_the_loss_is_the_task_and_the_penalty_apart():
    model = msq.quantize_model(functional())
    model.compile(tf_keras.optimizers.legacy.SGD(0.0), "binary_crossentropy")
    model.fit(X, Y, 16, verbose=0)  # a step is traced already
    view = msq.ModelView(model)
    view.search.lsb.assign([1, 1])
    view.search.strength.assign(1e6)
    want = model.evaluate(X, Y, verbose=0)

    class Held(msq.MSQCallback):
        """Keeps the pull, whatever is decided."""

        def _search(self, step, epoch):
            pass

    rule = msq_tf.BudgetRule(target_compression=6)
    with pytest.warns(UserWarning, match="above its target"):
        history = model.fit(
            X,
            Y,
            16,
            verbose=0,
            validation_data=(X, Y),
            callbacks=[Held(rule, data=(X, Y), verbose=0)],
        ).history
    assert want > 1000.0  # outside of a search it has all
    assert history["loss"][0] < 10.0
    assert history["val_loss"][0] < 10.0
    assert history["msq_penalty"][0] == pytest.approx(
        float(tf.add_n(model.losses)), rel=1e-4
    )


@pytest.mark.slow
def test_a_class_with_its_own_loss_keeps_it():
    model = msq.quantize_model(functional(OwnLoss))
    assert type(model) is OwnLoss
    model.compile(tf_keras.optimizers.legacy.SGD(0.0), "binary_crossentropy")
    logs = model.fit(X, Y, 48, verbose=0, callbacks=[search()]).history
    assert logs["msq_compression"][0] >= 6.0
    view = msq.ModelView(model)
    batch = (tf.constant(X), tf.constant(Y), None)
    loss = view.loss_at(view.quantized_values(), batch)
    plain = tf_keras.losses.BinaryCrossentropy()(Y, model(X))
    assert float(loss) == pytest.approx(1000.0 * float(plain), rel=1e-5)


def test_a_class_that_tfmot_would_drop_is_refused():
    class Told(OwnLoss):
        def __init__(self, factor, **kwargs):
            super().__init__(**kwargs)
            self.factor = factor

    def told(*args):
        return Told(2.0, inputs=args[0], outputs=args[1])

    with pytest.raises(ValueError, match=r"Told\(inputs=q.inputs"):
        msq.quantize_model(functional(told))
    with pytest.raises(ValueError, match="compute_loss"):
        msq.annotate_model(functional(OwnLoss))
    around = msq.quantize_model(functional())
    model = Told(2.0, inputs=around.inputs, outputs=around.outputs)
    assert msq.ModelView(model).bits == msq.ModelView(around).bits


@pytest.mark.slow
def test_a_static_batch_is_the_batch():
    model = msq.quantize_model(functional(batch_size=16))
    model.compile("sgd", "binary_crossentropy")
    model.fit(X, Y, 16, verbose=0, callbacks=[search()])
    assert msq.ModelView(model).compression >= 6.0
    with pytest.raises(ValueError, match="batches of 16.*Received: 8"):
        few = search(data=(X[:8], Y[:8]))
        model.fit(X, Y, 16, verbose=0, callbacks=[few])


@pytest.mark.slow
def test_statistics_leave_states_alone():
    inputs = tf_keras.Input((2, 4), batch_size=16)
    gru = layers.GRU(4, stateful=True, name="gru")
    x = layers.Dense(1, activation="sigmoid", name="out")(gru(inputs))
    float_model = tf_keras.Model(inputs, x)
    with quantization.quantize_scope():
        annotated = tf_keras.models.clone_model(
            float_model,
            clone_function=lambda layer: (
                quantization.quantize_annotate_layer(layer)
                if layer.name == "out"
                else layer
            ),
        )
        model = quantization.quantize_apply(
            annotated, scheme=msq.MSQQuantizeScheme()
        )
    model.compile("sgd", "binary_crossentropy")
    seen = []

    class Look(tf_keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            found = next(part for part in model.layers if part.name == "gru")
            seen.append(found.states[0].numpy())

    x = X.reshape(48, 2, 4)
    rule = msq_tf.BudgetRule(target_bits=31)
    callback = msq.MSQCallback(rule, data=(x, Y), hessian=False, verbose=0)
    model.fit(x, Y, 16, 2, verbose=0, callbacks=[Look(), callback, Look()])
    for before, after in zip(seen[::2], seen[1::2], strict=True):
        np.testing.assert_array_equal(before, after)
    assert seen[0].any()
