"""Differences at the output that single units inside explain, or not."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest

import msq_tf
from tests.tflite_export import samples as made
from tests.tflite_export.integer import networks
from tflite_export import ExportError
from tflite_export import export
from tflite_export import targets
from tflite_export.data.effort import MOST_AT_ONCE
from tflite_export.flatbuffer import model as fb
from tflite_export.runtime import ports
from tflite_export.verification import amplification
from tflite_export.verification import float_twin
from tflite_export.verification import integer_outputs

TARGET = targets.load("cpu_int8")


@pytest.fixture(scope="module")
def model():
    """More samples than are compared at once."""
    qmodel = made.quantized(networks.residual())
    x = np.random.default_rng(0).normal(size=(20, 8, 8, 4))
    return qmodel, x.astype(np.float32)


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    qmodel, x = model
    path = tmp_path_factory.mktemp("amplified") / "m.tflite"
    export(qmodel, path, target="cpu_int8", representative_data=x)
    data = path.read_bytes()
    return data, [p.quantize(x) for p in ports.inputs(data)]


def spoiled_probe(real):
    """A copy that shows its tensors and computes with one other weight."""

    def probe(data):
        model = fb.load(real(data))
        graph = model.subgraphs[0]
        op = next(
            op
            for op in reversed(graph.operators)
            if fb.op_name(model, op) == "FULLY_CONNECTED"
        )
        weight = graph.tensors[fb.inputs(op)[1]]
        codes = np.array(model.buffers[weight.buffer].data, np.uint8)
        codes[:8] ^= 0x33
        model.buffers[weight.buffer].data = codes
        return fb.dump(model)

    return probe


@pytest.mark.slow
def test_a_right_file_is_explained_on_all_of_its_samples(file, monkeypatch):
    data, inputs = file
    seen = []
    real = amplification.differences

    def spy(data, chunk, kernels):
        seen.append(len(chunk[0]))
        return real(data, chunk, kernels)

    monkeypatch.setattr(amplification, "differences", spy)
    # The builtin kernels round twice.
    monkeypatch.setattr(amplification, "MOST_ON_AVERAGE", 1.0)
    text = amplification.explain(data, inputs, "builtin", TARGET)
    assert "values inside are off by a unit" in text
    assert sum(seen) == len(inputs[0]) > MOST_AT_ONCE


@pytest.mark.slow
def test_other_tensors_than_those_of_the_file_explain_nothing(
    file, monkeypatch
):
    data, inputs = file
    monkeypatch.setattr(amplification, "MOST_ON_AVERAGE", 1.0)
    monkeypatch.setattr(float_twin, "probe", spoiled_probe(float_twin.probe))
    assert amplification.explain(data, inputs, "builtin", TARGET) is None


def test_an_operator_beyond_its_limit_explains_nothing(file, monkeypatch):
    data, inputs = file
    strict = {
        name: dataclasses.replace(row, units={"int8": -1})
        for name, row in TARGET.operators.items()
    }
    target = dataclasses.replace(TARGET, operators=strict)
    monkeypatch.setattr(amplification, "MOST_ON_AVERAGE", 1.0)
    assert amplification.explain(data, inputs, "builtin", target) is None


def test_units_that_are_off_too_often_explain_nothing(file, monkeypatch):
    data, inputs = file
    monkeypatch.setattr(amplification, "MOST_ON_AVERAGE", 1.0)
    assert amplification.explain(data, inputs, "builtin", TARGET)
    monkeypatch.setattr(amplification, "MOST_ON_AVERAGE", 1e-4)
    assert amplification.explain(data, inputs, "builtin", TARGET) is None


def test_exact_operators_explain_nothing(file, monkeypatch):
    data, inputs = file
    monkeypatch.setattr(amplification, "MOST_ON_AVERAGE", 1.0)
    assert (
        amplification.explain(data, inputs, "builtin", TARGET, range(999))
        is None
    )


def test_a_limit_of_the_users_own_holds(model, tmp_path):
    qmodel, x = model
    with pytest.raises(ExportError, match="at most max_units=-1"):
        export(
            qmodel,
            tmp_path / "m",
            target="cpu_int8",
            representative_data=x,
            max_units=-1,
        )


@pytest.mark.slow
def test_a_deep_network(tmp_path):
    """Thirty layers of random weights: a tie inside, units at the output."""
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((12, 12, 3))
    for _ in range(30):
        x = keras.layers.Conv2D(16, 3, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization(momentum=0.0)(x)
        x = keras.layers.ReLU()(x)
    model = keras.Model(inputs, keras.layers.Dense(6)(x))
    x = np.random.default_rng(0).normal(size=(16, 12, 12, 3))
    x = x.astype(np.float32)
    model(x, training=True)
    report = export(
        msq_tf.quantize_model(model),
        tmp_path / "m",
        target="cpu_int8",
        representative_data=x,
    )
    (check_of_xnnpack,) = (c for c in report.checks if c.kernels == "xnnpack")
    assert check_of_xnnpack.operator_units <= 1
    assert check_of_xnnpack.max_units > integer_outputs.END_UNITS["int8"]
    assert "xnnpack" in next(n for n in report.notes if "amplifies" in n)
