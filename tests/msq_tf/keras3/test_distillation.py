"""A quantized model learns from a teacher, with labels and without."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from tests.msq_tf.keras3.test_own_training import OwnLoss
from tests.msq_tf.keras3.test_own_training import OwnStep

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 8)).astype(np.float32)
Y = X[:, :3].argmax(-1)
LOSS = "sparse_categorical_crossentropy"


def network(kind=keras.Model, activation="softmax"):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,))
    x = L.Dense(12, activation="relu", name="hidden")(inputs)
    x = L.BatchNormalization(name="norm")(x)
    x = L.Dropout(0.3, name="drop")(x)
    return kind(inputs, L.Dense(3, activation=activation, name="head")(x))


def prepared(bits=3, **options):
    model = network()
    config = msq_tf.MSQConfig(start_bits=bits)
    qmodel = msq_tf.quantize_model(model, config)
    msq_tf.distill(qmodel, model, **options)
    return qmodel


def search(**options):
    rule = msq_tf.BudgetRule(target_compression=8.0, allowed_bits=range(2, 9))
    return msq_tf.MSQCallback(rule, verbose=0, **options)


def cross(p, q):
    """The mean KL divergence of probabilities."""
    p, q = (np.clip(np.asarray(t, np.float64), 1e-7, 1.0) for t in (p, q))
    return float((p * (np.log(p) - np.log(q))).sum(-1).mean())


def weights(model):
    return [v.numpy() for v in model.trainable_variables]


@pytest.mark.first(1)
@pytest.mark.parametrize("mode", ["graph", "xla", "eager"])
def test_it_learns_from_inputs_alone(mode):
    model = network()
    expected = model(X, training=False).numpy()
    qmodel = msq_tf.quantize_model(model, msq_tf.MSQConfig(start_bits=8))
    msq_tf.distill(qmodel, model)
    qmodel.compile(
        keras.optimizers.Adam(0.01),
        jit_compile=mode == "xla",
        run_eagerly=mode == "eager",
    )
    history = qmodel.fit(
        X,
        epochs=3,
        batch_size=32,
        verbose=0,
        validation_data=X,
        callbacks=[search()],
    ).history
    assert history["loss"] == pytest.approx(history["msq_distillation"])
    assert history["loss"][-1] < history["loss"][0]
    assert "val_msq_distillation" not in history
    assert qmodel.compression >= 8
    # The teacher is what it was, though its weights moved.
    loss = qmodel.evaluate(X, verbose=0)
    assert loss == pytest.approx(
        cross(expected, qmodel(X, training=False)), rel=1e-3
    )
    assert history["val_loss"][-1] == pytest.approx(loss, rel=1e-5)


@pytest.mark.slow
def test_a_data_set_of_inputs_alone_and_metrics_that_see_no_label():
    qmodel = prepared()
    qmodel.compile(
        "adam",
        keras.losses.SparseCategoricalCrossentropy(),
        metrics=["accuracy"],
    )
    data = tf.data.Dataset.from_tensor_slices(X).batch(16)
    history = qmodel.fit(
        data, epochs=1, verbose=0, shuffle=False, callbacks=[search()]
    ).history
    assert history["loss"] == pytest.approx(history["msq_distillation"])
    assert "accuracy" not in history
    # With labels it is as ever.
    found = qmodel.evaluate(X, Y, verbose=0, return_dict=True)
    assert set(found) == {"loss", "accuracy"}


@pytest.mark.first(1)
@pytest.mark.parametrize("weight", [0.0, 0.5])
@pytest.mark.parametrize("kind", [keras.Model, OwnLoss])
def test_a_step_is_that_of_both_losses(kind, weight):
    model = network(kind)
    float_model = network()
    target = float_model(X, training=False)
    qmodel = msq_tf.quantize_model(model, msq_tf.MSQConfig(start_bits=2))
    msq_tf.distill(qmodel, model, weight=weight, temperature=2.0)
    qmodel.compile(keras.optimizers.SGD(0.1), LOSS)
    keras.utils.set_random_seed(1)
    with tf.GradientTape() as tape:
        outputs = qmodel(X, training=True)
        logits = [tf.math.log(t) / 2.0 for t in (target, outputs)]
        a, b = map(tf.nn.log_softmax, logits)
        apart = 4.0 * tf.reduce_mean(tf.reduce_sum(tf.exp(a) * (a - b), -1))
        task = tf.reduce_mean(
            keras.losses.sparse_categorical_crossentropy(Y, outputs)
        )
        factor = 1000.0 if kind is OwnLoss else 1.0
        loss = factor * task + weight * apart
    gradients = tape.gradient(loss, qmodel.trainable_variables)
    expected = [
        w - 0.1 * g.numpy()
        for w, g in zip(weights(qmodel), gradients, strict=True)
    ]
    for variable, other in zip(
        qmodel.base.variables, float_model.variables, strict=True
    ):
        variable.assign(other)
    keras.utils.set_random_seed(1)
    history = qmodel.fit(X, Y, batch_size=64, shuffle=False, verbose=0).history
    assert history["loss"] == pytest.approx([factor * float(task)], rel=1e-3)
    assert history["msq_distillation"] == pytest.approx(
        [weight * float(apart)], rel=1e-3
    )
    if weight:
        for ours, theirs in zip(weights(qmodel), expected, strict=True):
            np.testing.assert_allclose(
                ours, theirs, rtol=0, atol=1e-5 * max(factor, 1.0)
            )


@pytest.mark.slow
def test_nothing_of_it_is_there_when_off():
    def nodes(qmodel):
        step = tf.function(lambda x: qmodel(x, training=True))
        graph = step.get_concrete_function(X).graph
        return sorted(op.type for op in graph.get_operations())

    plain = msq_tf.quantize_model(network())
    plain.compile("adam", LOSS)
    ended = prepared(bits=8)
    ended.compile("adam", LOSS)
    taught = nodes(ended)
    msq_tf.distill(ended, None)
    assert nodes(plain) == nodes(ended) != taught
    for qmodel in (plain, ended):
        keras.utils.set_random_seed(0)
        history = qmodel.fit(X, Y, verbose=0).history
        assert set(history) == {"loss"}
    for a, b in zip(weights(plain), weights(ended), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_teacher_that_comes_later_is_heard():
    model = network()
    qmodel = msq_tf.quantize_model(model)
    qmodel.compile("adam", LOSS)
    qmodel.fit(X, Y, verbose=0)
    msq_tf.distill(qmodel, network())
    assert "msq_distillation" in qmodel.fit(X, Y, verbose=0).history
    with pytest.raises(ValueError, match="trained with the quantized model"):
        msq_tf.distill(qmodel, model)


@pytest.mark.slow
def test_a_teacher_is_no_part_of_the_model(tmp_path):
    model, teacher = network(), network()
    qmodel = msq_tf.quantize_model(model)
    before = len(qmodel.variables)
    msq_tf.distill(qmodel, teacher)
    model.get_layer("drop").rate = 0.0
    qmodel.compile("adam", LOSS)
    kept = [v.numpy() for v in teacher.variables]
    qmodel.fit(X, Y, verbose=0, callbacks=[search()])
    for a, b in zip(kept, teacher.variables, strict=True):
        np.testing.assert_array_equal(a, b.numpy())
    assert len(qmodel.trainable_variables) == len(model.trainable_variables)
    # Two moments a weight, its steps and its rate.
    slots = 2 * len(model.trainable_variables) + 2
    assert len(qmodel.optimizer.variables) == slots
    qmodel.save(tmp_path / "q.keras")
    loaded = keras.models.load_model(tmp_path / "q.keras")
    assert loaded.bits == qmodel.bits
    assert len(qmodel.variables) <= before + 2 + slots
    with pytest.raises(ValueError, match="trained with the quantized model"):
        msq_tf.distill(loaded, loaded.base)
    msq_tf.distill(loaded, teacher)
    more, again = (
        m.fit(X, Y, verbose=0, shuffle=False).history for m in (qmodel, loaded)
    )
    assert set(again) == set(more) == {"loss", "msq_distillation"}
    for name, values in more.items():
        assert again[name] == pytest.approx(values, rel=1e-6)


@pytest.mark.slow
def test_a_run_that_is_resumed_has_the_teacher_it_had(tmp_path):
    def trained(epochs, callbacks=()):
        qmodel = prepared(bits=8)
        qmodel.compile(keras.optimizers.Adam(0.01))
        qmodel.base.get_layer("drop").rate = 0.0
        qmodel.fit(
            X,
            epochs=epochs,
            shuffle=False,
            verbose=0,
            callbacks=[search(data=(X, None)), *callbacks],
        )
        return qmodel

    class Broken(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise RuntimeError("power")

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    with pytest.raises(RuntimeError, match="power"):
        trained(4, [backup(), Broken()])
    resumed, whole = trained(4, [backup()]), trained(4)
    assert resumed.bits == whole.bits
    for a, b in zip(weights(resumed), weights(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_a_loop_of_ones_own_finds_it_among_the_losses():
    qmodel = prepared(bits=2)
    qmodel.compile("adam", LOSS)
    qmodel.base.get_layer("drop").rate = 0.0
    qmodel.base.get_layer("norm").trainable = False
    outputs = qmodel(X, training=True)
    expected = cross(network()(X, training=False), outputs)
    assert float(sum(qmodel.losses)) == pytest.approx(expected, rel=1e-4)
    qmodel(X, training=False)
    assert not qmodel.losses


@pytest.mark.slow
def test_a_loss_of_ones_own_searches_without_labels():
    def own(y, y_pred):
        return keras.ops.mean((y - y_pred) ** 4, axis=-1)

    qmodel = prepared(bits=8)
    qmodel.compile("adam", own)
    history = qmodel.fit(
        X,
        verbose=0,
        epochs=2,
        batch_size=32,
        callbacks=[search(ranking="measured", samples=32)],
    ).history
    assert qmodel.compression >= 8
    assert np.isfinite(history["loss"]).all()


def test_labels_that_are_there_make_the_statistics():
    qmodel = prepared()
    qmodel.compile("adam", LOSS)
    values = qmodel.quantized_values()
    found = float(qmodel.loss_at(values, (X, Y, None)))
    assert found == pytest.approx(qmodel.evaluate(X, Y, verbose=0), rel=1e-5)
    alone = float(qmodel.loss_at(values, (X, None, None)))
    assert alone == pytest.approx(qmodel.evaluate(X, verbose=0), rel=1e-5)
    assert abs(found - alone) > 0.1


@pytest.mark.slow
def test_half_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        qmodel = prepared()
        qmodel.compile(keras.optimizers.Adam(0.01), LOSS)
        history = qmodel.fit(X, Y, epochs=3, verbose=0).history
        history |= {
            f"alone_{k}": v
            for k, v in qmodel.fit(X, epochs=3, verbose=0).history.items()
        }
    finally:
        keras.config.set_dtype_policy("float32")
    assert all(np.isfinite(v).all() for v in history.values())
    assert history["alone_loss"][-1] < history["msq_distillation"][0]


@pytest.mark.slow
@pytest.mark.parametrize("labels", [True, False])
def test_two_devices_learn_as_one(labels, deterministic_sums):
    devices = tf.config.list_logical_devices("CPU")
    if len(devices) < 2:
        pytest.skip("needs two logical CPU devices")

    def trained(names):
        strategy = tf.distribute.MirroredStrategy(
            names, cross_device_ops=tf.distribute.ReductionToOneDevice()
        )
        with strategy.scope():
            model = network()
            for layer in (model.get_layer("drop"),):
                layer.rate = 0.0
            model.get_layer("norm").trainable = False
            qmodel = msq_tf.quantize_model(
                model, msq_tf.MSQConfig(start_bits=8)
            )
            msq_tf.distill(qmodel, model, weight=2.0)
            qmodel.compile(keras.optimizers.SGD(0.1), LOSS if labels else None)
        history = qmodel.fit(
            X,
            Y if labels else None,
            epochs=2,
            shuffle=False,
            verbose=0,
            callbacks=[search()],
        ).history
        return qmodel, history

    one, alone = trained([devices[0].name])
    two, both = trained([d.name for d in devices[:2]])
    assert two.distribute_strategy.num_replicas_in_sync == 2
    assert one.bits == two.bits
    for name, values in alone.items():
        np.testing.assert_allclose(both[name], values, rtol=1e-4, atol=1e-6)
    for a, b in zip(weights(one), weights(two), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_batches_count_by_their_size():
    qmodel = prepared()
    qmodel.compile(keras.optimizers.SGD(0.0))
    log = qmodel.fit(X, batch_size=40, shuffle=False, verbose=0).history
    # The last one has 24 samples.
    np.testing.assert_allclose(log["msq_distillation"], log["loss"], rtol=1e-5)


def test_a_call_outside_of_the_replicas_is_no_step():
    if len(tf.config.list_logical_devices("CPU")) < 2:
        pytest.skip("needs two logical CPU devices")
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        qmodel = prepared()
        qmodel.compile("sgd")
    assert qmodel(X, training=True).shape == (64, 3)
    assert "msq_distillation" not in qmodel.get_metrics_result()


def test_what_cannot_teach():
    model = network()
    qmodel = msq_tf.quantize_model(model)
    other = network()
    for wrong, match in (
        ("float.keras", "Keras 3 model.*Received: teacher='float.keras'"),
        (qmodel, "its own teacher"),
        (keras.Sequential([L.Dense(3)]), "unbuilt"),
        (
            keras.Sequential(
                [
                    keras.Input((4, 2), batch_size=2),
                    L.LSTM(3, stateful=True),
                ]
            ),
            "keeps states",
        ),
    ):
        with pytest.raises(ValueError, match=match):
            msq_tf.distill(qmodel, wrong)
    with pytest.raises(ValueError, match="quantize_model.*Functional"):
        msq_tf.distill(model, other)
    for options in (
        {"weight": -1.0},
        {"temperature": 0.0},
        {"outputs": "classes"},
    ):
        with pytest.raises(ValueError, match=f"Received: {[*options][0]}="):
            msq_tf.distill(qmodel, other, **options)
    own = network(OwnStep)
    with pytest.raises(ValueError, match="OwnStep.train_step"):
        msq_tf.distill(msq_tf.quantize_model(own), own)
    narrow = keras.Sequential([keras.Input((8,)), L.Dense(2)])
    msq_tf.distill(qmodel, narrow)
    qmodel.compile("sgd")
    with pytest.raises(ValueError, match=r"\[\[3\]\]. Received: \[\[2\]\]"):
        qmodel.evaluate(X, verbose=0)
