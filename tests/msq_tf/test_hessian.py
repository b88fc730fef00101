"""Block traces against the explicit Hessian."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from msq_tf.hessian import BlockHessian
from msq_tf.statistics import StatisticsGatherer


def explicit_traces(loss, values, batch):
    """Trace of each diagonal block by jacobians of the gradient."""
    traces = []
    for i in range(len(values)):
        with tf.GradientTape() as outer:
            outer.watch(values[i])
            with tf.GradientTape() as inner:
                inner.watch(values[i])
                result = loss(values, batch)
            gradient = inner.gradient(result, values[i])
            flat = tf.reshape(gradient, [-1])
        jacobian = outer.jacobian(flat, values[i])
        size = flat.shape[0]
        traces.append(
            np.trace(np.reshape(jacobian, (size, size)).astype(np.float64))
        )
    return np.array(traces)


def test_exact_for_a_quadratic():
    """Rademacher probes have no variance on a diagonal Hessian."""
    a, b = tf.constant([1.0, 2.0, 3.0]), tf.constant([[5.0]])

    def loss(values, scale):
        return scale * (
            tf.reduce_sum(a * values[0] ** 2)
            + tf.reduce_sum(b * values[1] ** 2)
        )

    estimate = BlockHessian(loss).traces(
        [tf.ones(3), tf.ones((1, 1))],
        [tf.constant(1.0), tf.constant(3.0)],
        max_probes=8,
    )
    np.testing.assert_allclose(estimate.trace, [24.0, 20.0])
    np.testing.assert_allclose(estimate.error, 0.0, atol=1e-6)
    assert estimate.converged
    assert estimate.probes == 2


def test_cross_terms_vanish_in_the_mean():
    rng = np.random.default_rng(0)
    full = rng.normal(size=(6, 6))
    full = tf.constant(full + full.T, tf.float32)

    def loss(values, _):
        w = tf.concat(values, 0)
        return 0.5 * tf.tensordot(w, tf.linalg.matvec(full, w), 1)

    estimate = BlockHessian(loss).traces(
        [tf.zeros(2), tf.zeros(4)], [tf.zeros(())], max_probes=400, tolerance=0
    )
    diagonal = np.diag(full.numpy())
    want = [diagonal[:2].sum(), diagonal[2:].sum()]
    assert (np.abs(estimate.trace - want) <= 3 * estimate.error).all()
    assert not estimate.converged
    assert estimate.probes == 400


def small_network():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(3, 3, activation="tanh", name="conv")(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.DepthwiseConv2D(2, activation="tanh", name="dw")(x)
    x = keras.layers.Reshape((9, 3))(x)
    x = keras.layers.MultiHeadAttention(2, 2, name="attention")(x, x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    outputs = keras.layers.Dense(3, name="head")(x)
    return keras.Model(inputs, outputs)


def test_agrees_with_the_explicit_hessian_through_the_overlay():
    qmodel = msq_tf.quantize_model(small_network())
    qmodel.compile(
        "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    rng = np.random.default_rng(2)
    batches = [
        (
            tf.constant(rng.normal(size=(8, 6, 6, 2)), tf.float32),
            tf.constant(rng.integers(0, 3, 8)),
            None,
        )
        for _ in range(2)
    ]
    values = qmodel.quantized_values()
    want = np.mean(
        [explicit_traces(qmodel.loss_at, values, b) for b in batches], axis=0
    )
    estimate = StatisticsGatherer(qmodel, batches).traces(
        max_probes=200, tolerance=0.0
    )
    assert qmodel.paths == (
        "conv",
        "dw",
        "attention/query",
        "attention/key",
        "attention/value",
        "attention/attention_output",
        "head",
    )
    error = np.maximum(estimate.error, 1e-7)
    assert (np.abs(estimate.trace - want) <= 3 * error).all()
    # The estimate says something: errors are small beside the traces.
    assert estimate.error.sum() < 0.5 * np.abs(want).sum()


def test_same_seed_same_probes():
    def loss(values, _):
        return tf.reduce_sum(values[0][:-1] * values[0][1:])

    hessian = BlockHessian(loss)
    options = {"max_probes": 3, "tolerance": 0.0}
    first, again, other = (
        hessian.traces([tf.ones(50)], [tf.zeros(())], seed=seed, **options)
        for seed in (7, 7, 8)
    )
    np.testing.assert_array_equal(first.trace, again.trace)
    assert first.trace != other.trace


def test_a_block_without_influence_has_trace_zero():
    estimate = BlockHessian(
        lambda values, _: tf.reduce_sum(values[0] ** 2) + 0.0
    ).traces([tf.ones(2), tf.ones(3)], [tf.zeros(())])
    np.testing.assert_allclose(estimate.trace, [4.0, 0.0])


def test_bad_arguments():
    hessian = BlockHessian(lambda values, _: tf.reduce_sum(values[0]))
    with pytest.raises(ValueError, match="at least one batch"):
        hessian.traces([tf.ones(2)], [])
    with pytest.raises(ValueError, match="Received: min_probes=5"):
        hessian.traces([tf.ones(2)], [()], min_probes=5, max_probes=4)
