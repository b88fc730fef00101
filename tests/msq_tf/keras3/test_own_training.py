"""Training methods that a model brings work with its quantized weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from tests.msq_tf import recipes

L = keras.layers
X = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
Y = X[:, :3].argmax(-1)


def search(compression=6.0, **options):
    rule = msq_tf.BudgetRule(
        target_compression=compression, allowed_bits=range(2, 9)
    )
    options = {"lsb_strength": 0.05, **options}
    return msq_tf.MSQCallback(rule, verbose=0, **options)


class OwnLoss(keras.Model):
    """A loss that says whether it was asked."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return 1000.0 * super().compute_loss(x, y, y_pred, sample_weight)


class OwnStep(keras.Model):
    """Keras's training step, spelled out."""

    def train_step(self, data):
        x, y, *_ = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred)
            scaled = self.optimizer.scale_loss(loss)
        grads = tape.gradient(scaled, self.trainable_weights)
        self.optimizer.apply(grads, self.trainable_weights)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
        return {"loss": self.metrics[0].result()}


class OwnMetrics(keras.Model):
    """A metric of its own, which its call updates."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.size = keras.metrics.Mean(name="size")

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        self.size.update_state(keras.ops.abs(y_pred))
        return super().compute_metrics(x, y, y_pred, sample_weight)


def functional(kind):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,))
    x = L.Dense(
        12, activation="relu", kernel_regularizer=keras.regularizers.L2(1e-3)
    )(inputs)
    x = L.Dropout(0.1, seed=1)(L.BatchNormalization()(x))
    return kind(inputs, L.Dense(3, dtype="float32")(x))


def trained(kind, optimizer, activation_bits=None, **compiled):
    config = msq_tf.MSQConfig(activation_bits=activation_bits)
    qmodel = msq_tf.quantize_model(functional(kind), config)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    qmodel.compile(optimizer, loss, **compiled)
    # By what both have: the loss.
    callback = search(ranking="measured", lsb_strength=5.0, hessian=False)
    history = qmodel.fit(
        X, Y, 16, 3, verbose=0, shuffle=False, callbacks=[callback]
    )
    return qmodel, history.history


def pulled(kind, optimizer, activation_bits):
    """Three steps under a pull: weights, losses and the penalty."""
    config = msq_tf.MSQConfig(activation_bits=activation_bits)
    qmodel = msq_tf.quantize_model(functional(kind), config)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    qmodel.compile(optimizer, loss)
    qmodel.search.lsb.assign([1, 1])
    qmodel.search.strength.assign(5.0)
    # A bias that falls on the other side of half a unit moves outputs by one:
    # with integer activations only the first step starts from equal numbers.
    losses = [
        qmodel.train_on_batch(X[i : i + 16], Y[i : i + 16])
        for i in range(0, 16 if activation_bits else 48, 16)
    ]
    penalty = qmodel.penalty.logs()["msq_penalty"]
    variables = [v.numpy() for v in qmodel.base.variables]
    return variables, np.array(losses).ravel(), penalty


@pytest.mark.slow
@pytest.mark.parametrize("case", ["adam", "clipped", "activations", "float16"])
def test_a_step_like_that_of_keras_trains_alike(case):
    """But for the order in which the pull is added to other gradients."""

    def optimizer():
        if case == "clipped":
            return keras.optimizers.SGD(0.1, clipnorm=0.5)
        return keras.optimizers.Adam(1e-2)

    bits = 8 if case == "activations" else None
    if case == "float16":
        keras.config.set_dtype_policy("mixed_float16")
    try:
        plain = pulled(keras.Model, optimizer(), bits)
        own = pulled(OwnStep, optimizer(), bits)
    finally:
        keras.config.set_dtype_policy("float32")
    assert plain[2] > 1e-3
    for a, b in zip(own[0], plain[0], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for a, b in zip(own[1:], plain[1:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.slow
def test_own_compute_loss_counts():
    plain = trained(keras.Model, keras.optimizers.SGD(0.0))[1]["loss"]
    own, history = trained(OwnLoss, keras.optimizers.SGD(0.0))
    np.testing.assert_allclose(
        history["loss"], 1000.0 * np.array(plain), rtol=1e-5
    )
    batch = (tf.constant(X[:16]), tf.constant(Y[:16]), None)
    measured = own.loss_at(own.quantized_values(), batch)
    evaluated = own.evaluate(X[:16], Y[:16], verbose=0)
    assert float(measured) == pytest.approx(evaluated, rel=1e-5)
    assert evaluated > 100.0


@pytest.mark.slow
def test_own_metrics_are_reported():
    _, history = trained(
        OwnMetrics, keras.optimizers.SGD(0.0), metrics=["accuracy"]
    )
    assert {"size", "loss", "accuracy"} <= set(history)
    assert history["size"][0] > 0.0


@pytest.mark.slow
def test_learned_ranges_train_beside_an_own_loss():
    config = msq_tf.MSQConfig(
        activation_bits=8, activation_ranges="learned", scale="learned"
    )
    qmodel = msq_tf.quantize_model(functional(OwnLoss), config)
    qmodel.compile("sgd", "sparse_categorical_crossentropy")
    qmodel.fit(X, Y, verbose=0)
    before = [s.numpy() for s in qmodel.learned_scales.scale]
    qmodel.fit(X, Y, verbose=0)
    after = [s.numpy() for s in qmodel.learned_scales.scale]
    assert any((a != b).any() for a, b in zip(before, after, strict=True))
    with pytest.raises(ValueError, match="scale='max'.*Received: learned"):
        msq_tf.quantize_model(functional(OwnStep), config)


@pytest.mark.first(1)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_step_is_traced_once_and_sees_new_bits(jit_compile):
    traces = []

    class Counted(OwnStep):
        def train_step(self, data):
            traces.append(1)
            return super().train_step(data)

    qmodel = msq_tf.quantize_model(functional(Counted))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    qmodel.compile(keras.optimizers.SGD(0.0), loss, jit_compile=jit_compile)

    def task():
        return qmodel.fit(X, Y, 64, verbose=0).history["loss"][0]

    losses = [task()]
    qmodel.set_bits(dict.fromkeys(qmodel.bits, 2))
    losses.append(task())
    assert len(traces) == 1
    assert abs(losses[0] - losses[1]) > 1e-3


@pytest.mark.slow
def test_variational_autoencoder(tmp_path):
    qmodel = msq_tf.quantize_model(recipes.vae())
    qmodel.compile(keras.optimizers.Adam(1e-2))
    history = qmodel.fit(
        X, epochs=4, batch_size=16, verbose=0, callbacks=[search()]
    )
    assert set(history.history) >= {"loss", "kl_loss", "msq_penalty"}
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert qmodel.compression >= 6.0
    qmodel.save(tmp_path / "vae.keras")
    loaded = keras.models.load_model(tmp_path / "vae.keras")
    assert loaded.bits == qmodel.bits
    # Keras does not save the states of seed generators.
    for a, b in zip(qmodel.variables, loaded.variables, strict=True):
        if "seed" in a.path:
            b.assign(a)
    for model in (qmodel, loaded):
        model.fit(X, batch_size=16, shuffle=False, verbose=0)
    for a, b in zip(qmodel.variables, loaded.variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-6)


@pytest.mark.slow
def test_adversarial_networks_with_two_optimizers(tmp_path):
    qmodel = msq_tf.quantize_model(recipes.gan())
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    qmodel.compile(keras.optimizers.Adam(1e-2), keras.optimizers.SGD(0.1), loss)
    history = qmodel.fit(
        X, epochs=3, batch_size=16, verbose=0, callbacks=[search()]
    )
    assert set(history.history) >= {"d_loss", "g_loss"}
    assert history.history["msq_penalty"][0] > 0.0
    qmodel.save(tmp_path / "gan.keras")
    loaded = keras.models.load_model(tmp_path / "gan.keras")
    for place in ("d_optimizer", "g_optimizer"):
        for a, b in zip(
            getattr(qmodel.base, place).variables,
            getattr(loaded.base, place).variables,
            strict=True,
        ):
            np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.slow
def test_triplets_of_a_siamese_network():
    """Data whose three parts are no inputs, targets and weights."""
    qmodel = msq_tf.quantize_model(recipes.siamese(margin=20.0))
    qmodel.compile(keras.optimizers.Adam(1e-2))
    data = tf.data.Dataset.from_tensor_slices((X, X + 0.1, X[::-1])).batch(16)
    history = qmodel.fit(
        data,
        validation_data=data,
        epochs=3,
        shuffle=False,
        verbose=0,
        callbacks=[search(5.0)],
    )
    assert history.history["val_loss"][-1] < history.history["val_loss"][0]
    assert qmodel.compression >= 5.0


@pytest.mark.slow
def test_distillation_by_compute_loss():
    base = recipes.distiller()
    teacher = base.teacher.get_weights()
    base.teacher.trainable = False
    qmodel = msq_tf.quantize_model(base, filters="student")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    qmodel.compile(
        optimizer="adam", metrics=["accuracy"], student_loss_fn=loss, alpha=0.5
    )
    rule = msq_tf.BudgetRule(target_bits=25)
    history = qmodel.fit(
        X,
        Y,
        epochs=3,
        verbose=0,
        callbacks=[msq_tf.MSQCallback(rule, verbose=0)],
    )
    assert {"accuracy", "loss"} <= set(history.history)
    for a, b in zip(teacher, base.teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("options", "received"),
    [
        ({"ranking": "measured"}, "ranking='measured'"),
        ({"held_out": X, "growth": 1}, "growth"),
    ],
)
def test_a_loss_that_only_the_step_knows(options, received):
    growth = options.pop("growth", 0)
    rule = msq_tf.BudgetRule(target_compression=6, growth=growth)
    qmodel = msq_tf.quantize_model(recipes.vae())
    qmodel.compile("adam")
    callback = msq_tf.MSQCallback(rule, verbose=0, **options)
    with pytest.raises(ValueError, match=f"compute_loss.*{received}"):
        qmodel.fit(X, verbose=0, callbacks=[callback])


def test_an_optimizer_that_nobody_knows_is_said():
    hidden = keras.optimizers.SGD(0.1)

    class Hidden(OwnStep):
        def train_step(self, data):
            with tf.GradientTape() as tape:
                loss = self.compute_loss(y=data[1], y_pred=self(data[0]))
            weights = self.trainable_weights
            hidden.apply(tape.gradient(loss, weights), weights)
            return {"loss": loss}

    qmodel = msq_tf.quantize_model(functional(Hidden))
    qmodel.compile(loss="sparse_categorical_crossentropy")
    with pytest.warns(UserWarning, match="attributes of the model"):
        qmodel.fit(X, Y, verbose=0)


def test_a_loop_of_its_own_is_refused():
    class Loop(keras.Model):
        def make_train_function(self, force=False):
            raise NotImplementedError

    with pytest.raises(ValueError, match="Received: .'make_train_function'"):
        msq_tf.quantize_model(functional(Loop))
