"""What is gathered for a rule, and what is told of a search."""

import contextlib
import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from msq_tf.sensitivity.statistics import StatisticsGatherer
from tests.msq_tf.samples import EPOCHS
from tests.msq_tf.samples import budget
from tests.msq_tf.samples import fit
from tests.msq_tf.samples import new_model


@pytest.mark.slow
@pytest.mark.parametrize("ranking", ["divergence", "measured", "hessian"])
def test_all_rankings_and_no_hessian(ranking, tiny_data):
    qmodel = new_model()
    callback = msq_tf.MSQCallback(
        budget(), ranking=ranking, hessian=ranking == "measured"
    )
    # Without traces a Hessian ranking has nothing to rank by, but it must
    # still reach the target.
    fit(qmodel, tiny_data, callback)
    assert qmodel.compression >= 8.0


@pytest.mark.slow
def test_an_operation_without_second_derivative(tiny_data):
    @tf.custom_gradient
    def once(x):
        def gradient(upstream):
            def unknown(_):
                raise LookupError("gradient registry has no entry")

            return tf.custom_gradient(lambda u: (u, unknown))(upstream)

        return x, gradient

    class Once(keras.layers.Layer):
        def call(self, x):
            return once(x)

    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(4),
            Once(),
        ]
    )
    qmodel = msq_tf.quantize_model(model)
    qmodel.compile(
        "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    ranked = msq_tf.MSQCallback(budget(), ranking="hessian")
    with pytest.raises(ValueError, match="no second derivative.*hessian=Fal"):
        fit(qmodel, tiny_data, ranked)
    with pytest.warns(UserWarning, match="no second derivative.*no entry"):
        fit(qmodel, tiny_data, msq_tf.MSQCallback(budget()))
    assert qmodel.compression >= 8.0


@pytest.mark.slow
def test_a_keras_activation_without_second_derivative(tiny_data):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(8, activation="softsign"),
            keras.layers.Dense(4),
        ]
    )
    bits = []
    for hessian in (True, False):
        keras.utils.set_random_seed(0)
        qmodel = msq_tf.quantize_model(keras.models.clone_model(model))
        qmodel.compile(
            "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
        callback = msq_tf.MSQCallback(budget(), hessian=hessian)
        with contextlib.ExitStack() as stack:
            if hessian:
                stack.enter_context(pytest.warns(match="SoftsignGrad"))
            fit(qmodel, tiny_data, callback)
        bits.append(qmodel.bits)
    assert bits[0] == bits[1]


@pytest.mark.slow
def test_ctc_has_no_second_derivative():
    """Said only while the graph of its loop runs."""
    x = np.random.default_rng(0).normal(size=(16, 8, 3)).astype(np.float32)
    y = np.random.default_rng(1).integers(1, 4, (16, 3))
    model = keras.Sequential([keras.Input((8, 3)), keras.layers.Dense(5)])
    qmodel = msq_tf.quantize_model(model)
    qmodel.compile("sgd", keras.losses.CTC())
    callback = msq_tf.MSQCallback(budget())
    with pytest.warns(match="no second derivative of this loss.*Received: .+"):
        qmodel.fit(x, y, 8, EPOCHS, verbose=0, callbacks=[callback])
    assert qmodel.compression >= 8.0


@pytest.mark.slow
def test_statistics_leave_metrics_alone(tiny_data):
    qmodel = new_model()
    fit(qmodel, tiny_data, epochs=1)
    before = [v.numpy() for v in qmodel.metrics_variables]
    batch = tuple(map(tf.constant, tiny_data)) + (None,)
    gatherer = StatisticsGatherer(qmodel, [batch])
    estimate = gatherer.traces(max_probes=2)
    costs = gatherer.costs(budget(), estimate.trace)
    layers = gatherer.layers(budget(), estimate.trace, estimate.error, costs)
    for variable, old in zip(qmodel.metrics_variables, before, strict=True):
        np.testing.assert_array_equal(variable, old)
    assert [layer.path for layer in layers] == list(qmodel.paths)


@pytest.fixture
def batch(tiny_data):
    return (*map(tf.constant, tiny_data), None)


def test_measured_cost_is_the_difference_of_losses(tiny_data, batch):
    qmodel = new_model()
    gatherer = StatisticsGatherer(qmodel, [batch], "measured")
    zeros = np.zeros(3)
    costs = gatherer.costs(budget(), zeros)
    (stats, *_) = gatherer.layers(budget(), zeros, zeros, costs)

    def loss():
        return qmodel.evaluate(*tiny_data, batch_size=128, verbose=0)[0]

    before = loss()
    qmodel.set_bits({"conv": 3})
    assert stats.cost[3] == pytest.approx(loss() - before, abs=1e-6)
    # At 8 bits the codes are those of round(128 w / s), before the clamp.
    kernel = qmodel.kernels[0].numpy()
    codes = np.round(128 * kernel / np.abs(kernel).max((0, 1, 2)))
    assert stats.lsb_nonzero[1] == np.float32(np.mean(codes % 2 != 0))


def test_divergence_cost_is_that_of_the_outputs(tiny_data, batch):
    qmodel = new_model()
    gatherer = StatisticsGatherer(qmodel, [batch])
    assert gatherer.ranking == "divergence"
    costs = gatherer.costs(budget(), np.zeros(3))

    def log_probabilities():
        logits = qmodel.predict(tiny_data[0], verbose=0).astype(np.float64)
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    before = log_probabilities()
    qmodel.set_bits({"conv": 2})
    after = log_probabilities()
    divergence = (np.exp(before) * (before - after)).sum(-1).mean()
    assert costs[0, 2] == pytest.approx(divergence, rel=1e-3, abs=1e-7)


def test_damages_of_changes_are_in_the_unit_of_costs(batch):
    qmodel = new_model()
    gatherer = StatisticsGatherer(qmodel, [batch])
    costs = gatherer.costs(budget(), np.zeros(3))
    before = [np.array(value) for value in qmodel.quantized_values()]
    qmodel.set_bits({qmodel.paths[1]: 2})
    narrow = qmodel.quantized_values()[1]
    qmodel.set_bits({qmodel.paths[1]: 8})
    same, changed = gatherer.damages(
        [lambda v: v, lambda v: [v[0], narrow, v[2]]]
    )
    assert same == 0.0
    assert changed == pytest.approx(costs[1, 2])
    for value, kept in zip(qmodel.quantized_values(), before, strict=True):
        np.testing.assert_array_equal(value, kept)


def test_costs_between_probed_widths_follow_the_squared_distance(batch):
    qmodel = new_model()
    gatherer = StatisticsGatherer(qmodel, [batch])
    costs = gatherer.costs(budget(), np.zeros(3))
    kernel = qmodel.quantized_weights()[0].values
    qmodel.set_bits({"conv": 6})
    distance = {6: ((qmodel.quantized_weights()[0].values - kernel) ** 2).sum()}
    qmodel.set_bits({"conv": 4})
    distance[4] = ((qmodel.quantized_weights()[0].values - kernel) ** 2).sum()
    assert costs[0, 6] == pytest.approx(
        costs[0, 4] * distance[6] / distance[4], rel=1e-4
    )
    assert costs[0, 8] == 0.0


def test_a_loss_of_the_users_own_is_measured(batch):
    def squared(y_true, y_pred):
        labels = keras.ops.one_hot(keras.ops.cast(y_true, "int32"), 4)
        return keras.ops.mean((labels - y_pred) ** 2)

    qmodel = new_model()
    qmodel.compile("sgd", squared)
    assert StatisticsGatherer(qmodel, [batch]).ranking == "measured"
    with pytest.raises(ValueError, match="no divergence.*Received.*squared"):
        StatisticsGatherer(qmodel, [batch], "divergence")


def test_gains_are_measured_on_held_out_batches(tiny_data, batch):
    qmodel = new_model()
    rule = dataclasses.replace(budget(), growth=1)
    qmodel.set_bits({"conv": 2})
    zeros = np.zeros(3)
    gatherer = StatisticsGatherer(qmodel, [batch], held_out=[batch])
    costs = gatherer.costs(rule, zeros)
    layers = gatherer.layers(rule, zeros, zeros, costs)

    def loss():
        return qmodel.evaluate(*tiny_data, batch_size=128, verbose=0)[0]

    before = loss()
    qmodel.set_bits({"conv": 3})
    assert layers[0].gain == pytest.approx(before - loss(), abs=1e-6)
    assert [layer.gain for layer in layers[1:]] == [0.0, 0.0]


def test_growth_without_held_out_data_is_refused(tiny_data):
    rule = dataclasses.replace(budget(), growth=1)
    with pytest.raises(ValueError, match="held-out data.*Received: neither"):
        fit(new_model(), tiny_data, msq_tf.MSQCallback(rule))


@pytest.mark.slow
def test_report_is_a_table_data_and_a_picture(tiny_data, tmp_path):
    qmodel = new_model()
    fit(qmodel, tiny_data, msq_tf.MSQCallback(budget()))
    report = msq_tf.precision_report(qmodel)
    text = str(report)
    assert "8 → " in text
    assert "DepthwiseConv2D" in text
    assert "sign counted" in text
    data = json.loads(report.to_json())
    assert {entry["path"]: entry["bits"] for entry in data["layers"]} == (
        qmodel.bits
    )
    assert data["packed_bytes"] == sum(
        -(-entry["size"] * entry["bits"] // 8) for entry in data["layers"]
    )
    assert data["epochs"] == EPOCHS
    for layer in report.layers:
        epochs, widths = zip(*layer.history, strict=True)
        assert list(epochs) == sorted(epochs)
        assert list(widths) == sorted(widths, reverse=True)
        assert widths[-1] == layer.bits
    report.plot(tmp_path / "bits.png")
    assert (tmp_path / "bits.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match="MSQModel.*Received"):
        msq_tf.precision_report(qmodel.base)
