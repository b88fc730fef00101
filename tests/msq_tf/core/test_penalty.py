"""The printed loss is the task's; the penalty stands beside it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from msq_tf.core import penalty

L = keras.layers
X = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
Y = (X[:, :4].sum(-1) > 0).astype(np.float32)[:, None]


def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8,)),
            L.Dense(
                16,
                activation="relu",
                kernel_regularizer=keras.regularizers.L2(0.01),
            ),
            L.ActivityRegularization(l2=0.01),
            L.Dense(1, activation="sigmoid"),
        ]
    )


def pulled(strength):
    qmodel = msq_tf.quantize_model(model())
    qmodel.compile(keras.optimizers.SGD(0.0), "binary_crossentropy")
    qmodel.search.lsb.assign([1, 1])
    qmodel.search.strength.assign(strength)
    return qmodel


@pytest.mark.slow
def test_the_loss_is_that_of_plain_keras():
    plain = model()
    plain.compile(keras.optimizers.SGD(0.0), "binary_crossentropy")
    want = plain.fit(X, Y, verbose=0).history["loss"][0]
    qmodel = pulled(1e6)
    got = qmodel.fit(X, Y, verbose=0, validation_data=(X, Y)).history
    assert got["loss"][0] == pytest.approx(want, rel=1e-2)
    assert got["val_loss"][0] == pytest.approx(got["loss"][0], rel=1e-5)
    assert qmodel.penalty.logs()["msq_penalty"] > 100.0


def test_a_rule_says_whether_it_needs_the_penalty():
    class Own(msq_tf.ThresholdRule):
        lsb_strength = 0.2

    rules = [msq_tf.BudgetRule, msq_tf.ThresholdRule, Own]
    strengths = [
        msq_tf.MSQCallback(rule(target_compression=6)).lsb_strength
        for rule in rules
    ]
    assert strengths == [0.0, 0.05, 0.2]
    given = msq_tf.MSQCallback(rules[0](target_compression=6), lsb_strength=1)
    assert given.lsb_strength == 1.0


def test_the_pull_is_what_it_was():
    """A step with the penalty apart moves weights as one with it inside."""
    moved = []
    for inside in (True, False):
        qmodel = pulled(0.1)
        qmodel.compile(keras.optimizers.SGD(1.0), "binary_crossentropy")
        if inside:
            with tf.GradientTape() as tape:
                y_pred = qmodel(X[:32], training=True)
                loss = qmodel.compute_loss(y=Y[:32], y_pred=y_pred)
            weights = qmodel.trainable_variables
            qmodel.optimizer.apply(tape.gradient(loss, weights), weights)
        else:
            qmodel.train_on_batch(X[:32], Y[:32])
        moved.append([v.numpy() for v in qmodel.trainable_variables])
    for a, b in zip(*moved, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_log_is_the_mean_of_an_epoch():
    qmodel = pulled(1.0)
    terms = []
    for _ in range(2):
        qmodel(X, training=True)
        terms += [float(tf.add_n(qmodel.losses))]
    qmodel.search.strength.assign(0.0)
    qmodel(X, training=True)
    rest = float(tf.add_n(qmodel.losses))
    want = sum(term - rest for term in terms) / 3
    assert qmodel.search_logs()["msq_penalty"] == pytest.approx(want, rel=1e-4)
    qmodel.penalty.reset()
    assert "msq_penalty" not in qmodel.search_logs()


@pytest.mark.slow
def test_callbacks_that_watch_the_loss_see_the_task(tmp_path):
    qmodel = msq_tf.quantize_model(model())
    qmodel.compile(keras.optimizers.Adam(1e-2), "binary_crossentropy")
    history = qmodel.fit(
        X,
        Y,
        16,
        3,
        verbose=0,
        callbacks=[
            msq_tf.MSQCallback(
                # At 8, 4 and 2 bits it is there after the first step.
                msq_tf.BudgetRule(
                    target_compression=6, allowed_bits=range(2, 9)
                ),
                lsb_strength=1e4,
                verbose=0,
            ),
            keras.callbacks.ReduceLROnPlateau("loss", patience=1),
            keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        ],
    ).history
    assert max(history["loss"]) < 10.0 < history["msq_penalty"][0]
    header = (tmp_path / "log.csv").read_text().splitlines()[0]
    assert "msq_penalty" in header


def test_a_term_without_value_has_its_gradient():
    x = tf.Variable(3.0)
    with penalty.apart(), tf.GradientTape() as tape:
        term = penalty.as_loss(x**2)
    assert (float(term), float(tape.gradient(term, x))) == (0.0, 6.0)
    assert float(penalty.as_loss(x**2)) == 9.0


@pytest.mark.slow
def test_two_replicas_count_the_penalty_once():
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice()
    )
    alone = pulled(1.0)
    alone.fit(X, Y, 64, verbose=0)
    with strategy.scope():
        spread = pulled(1.0)
    spread.fit(X, Y, 64, verbose=0)
    want = alone.penalty.logs()["msq_penalty"]
    got = spread.penalty.logs()["msq_penalty"]
    assert got == pytest.approx(want, rel=1e-5)


@pytest.fixture
def wide_floats():
    """Everything that is made meanwhile is float64."""
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx("float32")


@pytest.mark.slow
def test_it_joins_losses_of_another_width(wide_floats):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    qmodel = msq_tf.quantize_model(model, msq_tf.MSQConfig(activation_bits=8))
    qmodel.compile("sgd", "mse")
    history = qmodel.fit(
        np.ones((8, 4)),
        np.ones((8, 2)),
        verbose=0,
        callbacks=[msq_tf.MSQCallback(msq_tf.BudgetRule(6))],
    )
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.first(1)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_loss_may_have_a_type_of_its_own(dtype):
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(2, dtype=dtype)]
    )
    qmodel = msq_tf.quantize_model(model)
    qmodel.compile("sgd", keras.losses.MeanSquaredError(dtype="float64"))
    history = qmodel.fit(
        np.ones((8, 4)),
        np.ones((8, 2)),
        verbose=0,
        callbacks=[msq_tf.MSQCallback(msq_tf.BudgetRule(6))],
    )
    assert np.isfinite(history.history["msq_penalty"]).all()


@pytest.mark.first(1)
@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_it_joins_losses_where_layers_are_narrower(wide_floats, dtype):
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(2, dtype=dtype)]
    )
    qmodel = msq_tf.quantize_model(model)
    qmodel.compile("sgd", "mse")
    history = qmodel.fit(
        np.ones((8, 4)),
        np.ones((8, 2)),
        verbose=0,
        callbacks=[msq_tf.MSQCallback(msq_tf.BudgetRule(6))],
    )
    assert np.isfinite(history.history["loss"]).all()
