"""Bytes of weights whose container depends on what is around them."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest

import msq_tf
from msq_tf.rules import storage
from msq_tf.rules.records import LayerStats
from msq_tf.search import device_costs
from msq_tf.sensitivity.statistics import layer_outlines
from tflite_export import export
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
    assert qmodel.search.file_facts.containers[0] == (8, 4)
    assert qmodel.bits["first"] >= 4 and qmodel.bits["before"] >= 4
    assert qmodel.average_bits <= 3.5


def odd_network():
    """Weights of all sorts of rows, columns and axes."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 16))
    x = L.Conv2D(6, 1, activation="relu", name="pixel")(inputs)
    x = L.Conv2D(10, 1, activation="relu", name="pixel_even")(x)
    x = L.Conv2D(12, 1, strides=2, activation="relu", name="strided")(x)
    x = L.Conv2D(7, 1, activation="relu", name="pixel_of_four")(x)
    x = L.Conv2D(16, 1, activation="relu", name="pixel_odd")(x)
    x = L.Conv2D(1, 1, activation="relu", name="pixel_to_one")(x)
    x = L.Dense(64, use_bias=False, name="folded")(L.Flatten()(x))
    norm = L.BatchNormalization(name="norm")
    x = L.ReLU()(norm(x))
    x = L.Dense(50, activation="relu", name="dense")(x)
    x = L.Dense(7, activation="relu", name="dense_even")(x)
    x = L.Dense(64, activation="relu", name="dense_odd")(x)
    x = L.Reshape((4, 16))(x)
    x = L.EinsumDense("abc,cde->abde", (4, 2, 10), name="heads")(x)
    x = L.EinsumDense("abde,dec->abc", (4, 14), name="merged")(x)
    model = keras.Model(inputs, L.Dense(1, name="last")(L.Flatten()(x)))
    rng = np.random.default_rng(1)
    norm.set_weights([rng.uniform(0.5, 2, w.shape) for w in norm.get_weights()])
    return model


@pytest.mark.parametrize("one_scale", [False, True])
@pytest.mark.parametrize("name", ["mcu", "cpu_int8", "web"])
def test_searches_count_what_the_exporter_writes(name, one_scale, tmp_path):
    dense = msq_tf.PerTensor() if one_scale else None
    qmodel = msq_tf.quantize_model(
        odd_network(),
        msq_tf.MSQConfig(
            activation_bits=8, dense_granularity=dense, targets=(name,)
        ),
    )
    x = np.random.default_rng(0).normal(size=(16, 6, 6, 16)).astype("f")
    msq_tf.calibrate(qmodel, x)
    rule = msq_tf.BudgetRule(target_bits=4, device=name)
    device_costs.find(rule, qmodel)
    for bits in (4, 2):
        qmodel.set_bits(dict.fromkeys(qmodel.paths, bits))
        report = export(
            qmodel,
            tmp_path / "m.tflite",
            target=name,
            representative_data=x,
            verbose=False,
        )
        found = {t.name: t.container_bits for t in report.tensors}
        outlines = layer_outlines(qmodel)
        assert found == {o.path: rule.stored(o, bits) for o in outlines}
        low = {path for path, stored in found.items() if stored < 8}
        if name == "mcu":
            # One scale is one no more where a normalization was folded in.
            assert ("dense" in low, "folded" in low) == (one_scale, False)
        else:
            assert found["dense_even"] == 4 and "last" not in low


def test_the_file_is_asked_once(monkeypatch):
    asked = []

    def stored(model, device, inputs):
        asked.append(device)
        return dict.fromkeys(model.paths, (8, 4))

    monkeypatch.setattr("tflite_export.predicting.stored_bits", stored)
    config = msq_tf.MSQConfig(dense_granularity=msq_tf.PerTensor())
    qmodel = msq_tf.quantize_model(network(), config)
    for name in ("mcu", "mcu", "min_size", "mcu"):
        rule = msq_tf.BudgetRule(target_bits=4, device=name)
        device_costs.find(rule, qmodel)
        assert bool(qmodel.search.file_facts.containers) == (name == "mcu")
    assert asked == ["mcu", "mcu"]


def test_scales_that_cost_bits_are_named():
    """Dense layers with scales per channel have 8 bits on `mcu`."""
    qmodel = msq_tf.quantize_model(network())
    qmodel.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(64, 64)).astype("f")

    def fit(rule):
        search = msq_tf.MSQCallback(rule)
        qmodel.fit(x, x[:, :4], epochs=3, verbose=0, callbacks=[search])

    words = r"4 of 4 weights, 'first'.*dense_granularity=PerTensor\(\)"
    with pytest.raises(ValueError, match=words):
        fit(msq_tf.BudgetRule(target_bits=4, device="mcu"))
    rule = msq_tf.ToleranceRule(
        monitor=lambda model: 0.5, mode="max", device="mcu"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="one size only.*" + words):
            fit(rule)
