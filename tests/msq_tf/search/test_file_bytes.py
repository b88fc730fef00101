"""Bytes of small files, of which most are no codes, are counted."""

from __future__ import annotations

import contextlib
import re

import keras
import numpy as np
import pytest

import msq_tf
from msq_tf.rules import storage
from tflite_export import export
from tflite_export import predicting
from tflite_export.errors import ExportError

L = keras.layers
X = np.random.default_rng(0).normal(size=(64, 6, 8)).astype(np.float32)
Y = X.mean((1, 2))


def dense(wide=32):
    return keras.Sequential(
        [
            keras.Input(X.shape[1:]),
            L.Flatten(),
            L.Dense(wide, activation="relu"),
            L.Dense(1),
        ]
    )


def attention():
    x = inputs = keras.Input(X.shape[1:])
    x = L.LayerNormalization()(x + L.MultiHeadAttention(2, 4)(x, x))
    return keras.Model(inputs, L.Dense(1)(L.GlobalAveragePooling1D()(x)))


def convolutions():
    return keras.Sequential(
        [
            keras.Input(X.shape[1:]),
            L.Conv1D(8, 3, use_bias=False),
            L.BatchNormalization(),
            L.ReLU(),
            L.Flatten(),
            L.Dense(1),
        ]
    )


def recurrent():
    return keras.Sequential([keras.Input(X.shape[1:]), L.LSTM(24), L.Dense(1)])


def gates():
    return keras.Sequential(
        [
            keras.Input(X.shape[1:]),
            L.Bidirectional(L.LSTM(16, return_sequences=True)),
            L.GRU(24),
            L.Dense(1),
        ]
    )


class Subclassed(keras.Model):
    """Tells nothing of its inputs."""

    def __init__(self):
        super().__init__()
        self.flat = L.Flatten()
        self.hidden = L.Dense(32, activation="relu")
        self.last = L.Dense(1)

    def call(self, x):
        return self.last(self.hidden(self.flat(x)))


def subclassed():
    model = Subclassed()
    model(X[:1])
    return model


def open_length():
    return keras.Sequential(
        [
            keras.Input((None, X.shape[2])),
            L.Conv1D(16, 3, activation="relu"),
            L.GlobalAveragePooling1D(),
            L.Dense(1),
        ]
    )


NETWORKS = (
    dense,
    attention,
    convolutions,
    recurrent,
    gates,
    subclassed,
    open_length,
)


def searched(model, rule):
    keras.utils.set_random_seed(0)
    qmodel = msq_tf.quantize_model(model)
    qmodel.compile("adam", "mse")
    search = msq_tf.MSQCallback(rule)
    qmodel.fit(X, Y, epochs=4, verbose=0, callbacks=[search])
    return qmodel


def exported(qmodel, path, device):
    export(
        qmodel, path, target=device, representative_data=X[:8], verbose=False
    )
    return path.stat().st_size


@pytest.mark.first(2)
@pytest.mark.parametrize("device", ["min_size", "cpu_int8"])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_file_has_the_bytes_that_were_promised(network, device, tmp_path):
    rule = msq_tf.BudgetRule(target_bytes=30_000, device=device)
    qmodel = searched(network(), rule)
    codes = sum(
        size * rule.stored(weight, bits) / 8
        for weight, size, bits in zip(
            msq_tf.sensitivity.statistics.layer_outlines(qmodel),
            qmodel.sizes,
            qmodel.bits.values(),
            strict=True,
        )
    )
    expected = codes + qmodel.search.file_facts.overhead
    size = exported(qmodel, tmp_path / "m.tflite", device)
    # Padding, and constants that happen to be equal.
    assert size - 16 <= expected <= size + 64


def test_the_least_size_that_is_named_is_reached(tmp_path):
    with pytest.raises(ValueError, match="Expected target_bytes of") as refused:
        searched(dense(), msq_tf.BudgetRule(target_bytes=10, device="min_size"))
    (least,) = re.findall(r"of at least ([\d,]+)\.", str(refused.value))
    least = int(least.replace(",", ""))
    rule = msq_tf.BudgetRule(target_bytes=least, device="min_size")
    # What was estimated from larger networks is more than the whole file.
    assert least < 0.75 * storage.device("min_size").overhead(
        msq_tf.sensitivity.statistics.layer_outlines(
            msq_tf.quantize_model(dense())
        )
    ) + sum(msq_tf.quantize_model(dense()).sizes)
    qmodel = searched(dense(), rule)
    assert set(qmodel.bits.values()) == {2}
    assert exported(qmodel, tmp_path / "m.tflite", "min_size") <= least


def test_zero_biases_count_as_those_that_are_trained():
    qmodel = msq_tf.quantize_model(dense())
    before = predicting.file_overhead(qmodel, "min_size")
    bias = qmodel.base.layers[-1].bias
    assert not np.any(bias)
    for layer in qmodel.base.layers[1:]:
        layer.bias.assign(np.linspace(1.0, 2.0, layer.bias.shape[0]))
    assert predicting.file_overhead(qmodel, "min_size") == before


@pytest.mark.parametrize("why", ["large", "unknown"])
def test_what_no_file_tells_is_estimated(why, monkeypatch):
    def fails(*_):
        raise ExportError("No such file")

    monkeypatch.setattr(predicting, "file_overhead", fails)
    if why == "large":
        monkeypatch.setattr(storage, "_LARGE", 10)
    rule = msq_tf.BudgetRule(target_bytes=5000, device="min_size")
    told = pytest.warns(UserWarning, match="are estimated.*No such file")
    with contextlib.nullcontext() if why == "large" else told:
        qmodel = searched(dense(), rule)
    assert qmodel.search.file_facts.overhead is None
    assert qmodel.search.rule_state.done


def test_other_targets_ask_no_file():
    layers = msq_tf.sensitivity.statistics.layer_outlines(
        msq_tf.quantize_model(dense())
    )
    for rule, asks in (
        (msq_tf.BudgetRule(target_bytes=5000, device="mcu"), True),
        (msq_tf.ToleranceRule(device="min_size"), True),
        (msq_tf.BudgetRule(target_compression=8, device="mcu"), False),
        (msq_tf.BudgetRule(target_bytes=5000), False),
        (msq_tf.BudgetRule(target_bytes=5000, device="ethos_u"), False),
        (msq_tf.BudgetRule(target_bytes=5000, device="qualcomm_npu"), False),
    ):
        assert rule.uses_file_overhead(layers) is asks


@pytest.mark.slow
@pytest.mark.parametrize("network", [subclassed, open_length])
def test_a_device_is_asked_with_the_shapes_of_the_data(network):
    device = "ethos_u:ethos-u55-128"
    rule = msq_tf.BudgetRule(target_latency=1.0, device=device)
    qmodel = searched(network(), rule)
    # That of trained weights, of which Vela stores some in fewer bytes.
    expected = predicting.device_costs(
        qmodel, device, representative_data=X[:1]
    )
    found = qmodel.search.device_costs.latency_at(qmodel.bits)
    assert 0.0 < found <= 1.0
    assert found == pytest.approx(expected.latency_at(qmodel.bits), rel=0.05)
