"""`predict` and `evaluate` hold quantized values, and the right ones."""

from __future__ import annotations

import threading
from concurrent import futures

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf


class AfterABatch(keras.callbacks.Callback):
    """Calls a function after the first batch."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def on_predict_batch_end(self, batch, logs=None):
        if batch == 0:
            self.function()

    on_test_batch_end = on_predict_batch_end


@pytest.fixture
def qmodel(tiny, compiled):
    qmodel = compiled(msq_tf.quantize_model(tiny))
    qmodel.set_bits(dict.fromkeys(qmodel.paths, 3))
    return qmodel


@pytest.fixture
def computed(monkeypatch):
    """Counts how often a batch computes values, in graphs too."""
    times = tf.Variable(0)
    compute = msq_tf.MSQModel._values_to_hold

    def count(self):
        times.assign_add(1)
        return compute(self)

    monkeypatch.setattr(msq_tf.MSQModel, "_values_to_hold", count)
    return times


@pytest.mark.slow
def test_predictions_are_those_of_the_quantized_weights(qmodel, tiny_data):
    x, y = tiny_data
    want = qmodel(x, training=False).numpy()
    for _ in range(2):
        got = qmodel.predict(x, batch_size=2, verbose=0)
        np.testing.assert_allclose(got, want, atol=1e-6)
    once = qmodel.evaluate(x, y, batch_size=len(x), verbose=0)
    for _ in range(2):
        again = qmodel.evaluate(x, y, batch_size=2, verbose=0)
        np.testing.assert_allclose(again, once, rtol=1e-6)


@pytest.mark.first(1)
@pytest.mark.parametrize("call", ["predict", "evaluate"])
def test_values_are_computed_once_a_call(qmodel, computed, tiny_data, call):
    """Weights that move between batches count from the next call on."""
    x, y = tiny_data

    def run(**options):
        if call == "predict":
            return qmodel.predict(x, batch_size=2, verbose=0, **options)
        return qmodel.evaluate(x, y, batch_size=2, verbose=0, **options)

    def spoil():
        for kernel in qmodel.kernels:
            kernel.assign(tf.zeros_like(kernel))

    want = run()
    assert computed.numpy() == 1
    got = run(callbacks=[AfterABatch(spoil)])
    assert computed.numpy() == 2
    np.testing.assert_array_equal(got, want)
    assert np.abs(np.asarray(run()) - want).max() > 1e-3


def test_a_change_of_bits_or_weights_counts_in_the_next_call(qmodel, tiny_data):
    x, _ = tiny_data
    first = qmodel.predict(x, verbose=0)
    qmodel.set_bits(dict.fromkeys(qmodel.paths, 2))
    second = qmodel.predict(x, verbose=0)
    np.testing.assert_allclose(
        second, qmodel(x, training=False).numpy(), atol=1e-6
    )
    assert np.abs(second - first).max() > 0
    qmodel.kernels[0].assign(-qmodel.kernels[0])
    np.testing.assert_allclose(
        qmodel.predict(x, verbose=0),
        qmodel(x, training=False).numpy(),
        atol=1e-6,
    )


@pytest.mark.slow
def test_a_batch_alone_holds_nothing(qmodel, tiny_data):
    x, y = tiny_data
    qmodel.predict(x, verbose=0)
    for kernel in qmodel.kernels:
        kernel.assign(0.5 * kernel)
        np.testing.assert_allclose(
            qmodel.predict_on_batch(x),
            qmodel(x, training=False).numpy(),
            atol=1e-6,
        )
    qmodel.test_on_batch(x, y)


def test_a_call_in_a_call_has_its_own(qmodel, tiny_data):
    x, y = tiny_data
    before = qmodel.predict(x, verbose=0)
    inner = []

    def change():
        qmodel.set_bits(dict.fromkeys(qmodel.paths, 2))
        inner.append(qmodel.predict(x, verbose=0))
        # A plain call is of no call at all.
        inner.append(qmodel(x, training=False).numpy())

    outer = qmodel.predict(
        x, batch_size=2, verbose=0, callbacks=[AfterABatch(change)]
    )
    np.testing.assert_allclose(outer, before, atol=1e-6)
    np.testing.assert_allclose(inner[0], inner[1], atol=1e-6)
    assert np.abs(inner[0] - before).max() > 1e-3
    np.testing.assert_allclose(
        qmodel.predict(x, verbose=0), inner[0], atol=1e-6
    )


@pytest.mark.first(1)
@pytest.mark.parametrize("eagerly", [False, True])
def test_a_change_counts_in_another_thread(qmodel, tiny_data, eagerly):
    """One thread stays in the middle of `predict` while another evaluates."""
    x, y = tiny_data
    qmodel.compile(
        "sgd",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=eagerly,
    )
    three = qmodel.evaluate(x, y, verbose=0)
    want = qmodel.predict(x, batch_size=2, verbose=0)
    inside, go_on, got = threading.Event(), threading.Event(), []

    def wait():
        inside.set()
        assert go_on.wait(60.0)

    thread = threading.Thread(
        target=lambda: got.append(
            qmodel.predict(
                x, batch_size=2, verbose=0, callbacks=[AfterABatch(wait)]
            )
        )
    )
    thread.start()
    assert inside.wait(60.0)
    qmodel.set_bits(dict.fromkeys(qmodel.paths, 2))
    two = qmodel.evaluate(x, y, verbose=0)
    go_on.set()
    thread.join()
    assert two == pytest.approx(qmodel.evaluate(x, y, verbose=0), abs=1e-6)
    assert two != pytest.approx(three, abs=1e-4)
    np.testing.assert_array_equal(got[0], want)


@pytest.mark.slow
def test_many_threads_predict_at_once(qmodel, tiny_data):
    x, _ = tiny_data
    want = qmodel(x, training=False).numpy()

    def predict(_):
        return qmodel.predict(x, batch_size=2, verbose=0)

    with futures.ThreadPoolExecutor(4) as pool:
        for got in pool.map(predict, range(60)):
            np.testing.assert_allclose(got, want, atol=1e-6)


def test_a_call_that_fails_lets_go(qmodel, tiny_data):
    x, _ = tiny_data

    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        qmodel.predict(
            x, batch_size=2, verbose=0, callbacks=[AfterABatch(fail)]
        )
    qmodel.kernels[0].assign(-qmodel.kernels[0])
    np.testing.assert_allclose(
        qmodel.predict_on_batch(x),
        qmodel(x, training=False).numpy(),
        atol=1e-6,
    )


@pytest.mark.slow
def test_weights_that_a_callback_exchanges_first(qmodel, tiny_data):
    """`SwapEMAWeights` lays averages over the weights as a call begins."""
    x, y = tiny_data
    qmodel.compile(
        keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    for _ in range(3):
        qmodel.train_on_batch(x, y)  # `fit` would end with the averages
    swap = keras.callbacks.SwapEMAWeights()
    now = qmodel.evaluate(x, y, verbose=0)
    averaged = qmodel.evaluate(x, y, batch_size=2, verbose=0, callbacks=[swap])
    assert averaged != pytest.approx(now, abs=1e-4)
    assert qmodel.evaluate(x, y, verbose=0) == pytest.approx(now, abs=1e-6)
    qmodel.optimizer.finalize_variable_values(qmodel.trainable_variables)
    assert qmodel.evaluate(x, y, verbose=0) == pytest.approx(averaged, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"jit_compile": True}, {"run_eagerly": True}]
)
def test_other_ways_to_run(qmodel, tiny_data, options):
    x, y = tiny_data
    qmodel.compile(
        "sgd",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **options,
    )
    np.testing.assert_allclose(
        qmodel.predict(x, batch_size=2, verbose=0),
        qmodel(x, training=False).numpy(),
        atol=1e-5,
    )
    qmodel.evaluate(x, y, batch_size=2, verbose=0)


def test_several_steps_in_one_execution(qmodel, tiny_data):
    x, _ = tiny_data
    qmodel.compile(steps_per_execution=2)
    np.testing.assert_allclose(
        qmodel.predict(x, batch_size=2, verbose=0),
        qmodel(x, training=False).numpy(),
        atol=1e-6,
    )


@pytest.mark.slow
def test_under_a_strategy_nothing_is_held(tiny, tiny_data):
    x, _ = tiny_data
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        qmodel = msq_tf.quantize_model(keras.models.clone_model(tiny))
    np.testing.assert_allclose(
        qmodel.predict(x, batch_size=4, verbose=0),
        qmodel(x, training=False).numpy(),
        atol=1e-6,
    )


@pytest.mark.slow
def test_what_is_held_is_not_saved(qmodel, tiny_data, tmp_path):
    x, y = tiny_data
    qmodel.train_on_batch(x, y)
    want = qmodel.predict(x, verbose=0)
    qmodel.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert len(loaded.variables) == len(qmodel.variables)
    np.testing.assert_allclose(
        loaded.predict(x, batch_size=2, verbose=0), want, atol=1e-6
    )
