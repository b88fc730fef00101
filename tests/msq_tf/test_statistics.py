"""What is gathered for a rule, and what is told of a search."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from msq_tf.statistics import StatisticsGatherer
from tests.msq_tf.samples import EPOCHS
from tests.msq_tf.samples import budget
from tests.msq_tf.samples import fit
from tests.msq_tf.samples import new_model


@pytest.mark.parametrize("ranking", ["measured", "hessian"])
def test_both_rankings_and_no_hessian(ranking, tiny_data):
    qmodel = new_model()
    callback = msq_tf.MSQCallback(
        budget(), ranking=ranking, hessian=ranking == "measured"
    )
    # Without traces a Hessian ranking has nothing to rank by, but it must
    # still reach the target.
    fit(qmodel, tiny_data, callback)
    assert qmodel.compression >= 8.0


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
    with pytest.raises(ValueError, match="no second derivative.*hessian=Fal"):
        fit(qmodel, tiny_data, msq_tf.MSQCallback(budget()))
    fit(qmodel, tiny_data, msq_tf.MSQCallback(budget(), hessian=False))
    assert qmodel.compression >= 8.0


def test_statistics_leave_metrics_alone(tiny_data):
    qmodel = new_model()
    fit(qmodel, tiny_data, epochs=1)
    before = [v.numpy() for v in qmodel.metrics_variables]
    batch = tuple(map(tf.constant, tiny_data)) + (None,)
    gatherer = StatisticsGatherer(qmodel, [batch])
    estimate = gatherer.traces(max_probes=2)
    layers = gatherer.layers(
        budget(), estimate.trace, estimate.error, with_cost=True
    )
    for variable, old in zip(qmodel.metrics_variables, before, strict=True):
        np.testing.assert_array_equal(variable, old)
    assert [layer.path for layer in layers] == list(qmodel.paths)


def test_measured_cost_is_the_difference_of_losses(tiny_data):
    qmodel = new_model()
    batch = tuple(map(tf.constant, tiny_data)) + (None,)
    gatherer = StatisticsGatherer(qmodel, [batch])
    (stats, *_) = gatherer.layers(
        budget(), np.zeros(3), np.zeros(3), with_cost=True
    )

    def loss():
        return qmodel.evaluate(*tiny_data, batch_size=128, verbose=0)[0]

    before = loss()
    qmodel.set_bits({"conv": 6})
    assert stats.cost[6] == pytest.approx(loss() - before, abs=1e-6)
    # At 8 bits the codes are those of round(128 w / s), before the clamp.
    kernel = qmodel.kernels[0].numpy()
    codes = np.round(128 * kernel / np.abs(kernel).max((0, 1, 2)))
    assert stats.lsb_nonzero[1] == np.float32(np.mean(codes % 2 != 0))


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
