"""Bytes of weights whose container depends on what is around them."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf
from msq_tf.rules import storage
from msq_tf.rules.records import LayerStats
from tflite_export.predicting import stored_bits

L = keras.layers
DEVICE = "qualcomm_npu:SM8650"


def network():
    """Two dense layers that the NPU can't store in 2 bits, and one it can."""
    inputs = keras.Input((64,))
    x = L.Dense(64, activation="relu", name="first")(inputs)
    x = L.Dense(64, name="before")(x)
    x = L.LeakyReLU(name="leaky")(x)
    x = L.Dense(64, activation="relu", name="free")(x)
    return keras.Model(inputs, L.Dense(4, name="last")(x))


def test_what_a_weight_may_have_counts_before_its_kind():
    device = storage.device(DEVICE)
    assert device.by_weight
    assert not storage.device("qualcomm_npu").by_weight
    assert not storage.device("min_size").by_weight
    free = LayerStats("a", 100, 8, kind="dense")
    bound = LayerStats("b", 100, 8, kind="dense", containers=(8, 4))
    assert device.containers(free) == (8, 4, 2)
    rule = msq_tf.BudgetRule(target_bits=4, device=DEVICE)
    assert rule.stored(free, 2) == 2 and rule.stored(bound, 2) == 4
    assert rule.narrower(bound, 8) == (4,)


def test_the_exporter_says_what_each_weight_has():
    found = stored_bits(msq_tf.quantize_model(network()), DEVICE)
    assert found == {
        "first": (8, 4),
        "before": (8, 4),
        "free": (8, 4, 2),
        "last": (8, 4, 2),
    }
    with pytest.raises(ValueError, match="Received: "):
        stored_bits(msq_tf.quantize_model(network()), "nowhere")


@pytest.mark.slow
def test_a_search_counts_them():
    qmodel = msq_tf.quantize_model(network())
    qmodel.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(64, 64)).astype("f")
    rule = msq_tf.BudgetRule(target_bits=2.9, device=DEVICE)
    with pytest.raises(ValueError, match="target_bits of at least 3"):
        qmodel.fit(x, x[:, :4], verbose=0, callbacks=[msq_tf.MSQCallback(rule)])
    rule = msq_tf.BudgetRule(target_bits=3.5, device=DEVICE)
    qmodel.fit(
        x, x[:, :4], epochs=4, verbose=0, callbacks=[msq_tf.MSQCallback(rule)]
    )
    assert qmodel.search.containers[0] == (8, 4)
    assert qmodel.bits["first"] >= 4 and qmodel.bits["before"] >= 4
    assert qmodel.average_bits <= 3.5
