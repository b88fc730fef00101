"""Ranges of activations start at those of data."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf

L = keras.layers
X = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)


def prepared(activation_bits=8):
    model = keras.Sequential(
        [
            keras.Input((8,)),
            L.Dense(6, activation="relu", name="hidden"),
            L.BatchNormalization(name="norm"),
            L.Dropout(0.5),
            L.Dense(3, name="head"),
        ]
    )
    config = msq_tf.MSQConfig(activation_bits=activation_bits)
    return msq_tf.quantize_model(model, config)


@pytest.mark.parametrize("kind", ["array", "dataset"])
def test_ranges_are_those_of_the_data(kind):
    qmodel = prepared()
    before = [v.numpy() for v in qmodel.base.variables]
    x = X
    if kind == "dataset":
        x = tf.data.Dataset.from_tensor_slices((X, X)).batch(16)
    msq_tf.calibrate(qmodel, x, batch_size=16)
    ranges = {r.path: r for r in qmodel.activation_quantizers.trained_ranges()}
    with qmodel.quantized_scope():
        outputs = qmodel.base(X, training=False).numpy()
    last = ranges[list(ranges)[-1]]
    assert last.low == pytest.approx(outputs.min(), rel=1e-6)
    assert last.high == pytest.approx(outputs.max(), rel=1e-6)
    first = ranges[list(ranges)[0]]
    assert (first.low, first.high) == (X.min(), X.max())
    for a, b in zip(before, qmodel.base.variables, strict=True):
        np.testing.assert_array_equal(a, b.numpy())


@pytest.mark.slow
def test_training_goes_on_from_there():
    qmodel = prepared()
    msq_tf.calibrate(qmodel, 100.0 * X)
    qmodel.compile("sgd", "mse")
    qmodel.fit(X, X[:, :3], verbose=0)
    first = qmodel.activation_quantizers.trained_ranges()[0]
    assert first.high > 10.0 * X.max()


def test_a_model_of_one_batch_size():
    inputs = keras.Input((8,), batch_size=16)
    x = L.Dense(4)(keras.ops.reshape(inputs, (16, 8)))
    config = msq_tf.MSQConfig(activation_bits=8)
    qmodel = msq_tf.quantize_model(keras.Model(inputs, x), config)
    msq_tf.calibrate(qmodel, X)
    assert qmodel.activation_quantizers.trained_ranges()
    with pytest.raises(ValueError, match="Expected 16.*Received: x with 8"):
        msq_tf.calibrate(qmodel, X[:8])


def test_what_cannot_be_calibrated():
    with pytest.raises(ValueError, match="activation_bits=8"):
        msq_tf.calibrate(prepared(None), X)
    with pytest.raises(ValueError, match="no sample"):
        msq_tf.calibrate(prepared(), X[:0])
    with pytest.raises(ValueError, match="not finite.*nan"):
        msq_tf.calibrate(prepared(), np.full_like(X, np.nan))
