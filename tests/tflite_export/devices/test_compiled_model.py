"""`CompiledModel` beside the interpreter."""

import keras
import numpy as np
import pytest

import msq_tf
from tests.tflite_export.devices.test_web import IMAGES
from tests.tflite_export.devices.test_web import network
from tflite_export import ExportError
from tflite_export import export
from tflite_export import targets
from tflite_export.devices import compiled_model
from tflite_export.runtime import compiled


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "whole"),
    [
        ("cpu_float", True),
        ("min_size", False),
        ("cpu_int8", True),
        ("web", True),
    ],
)
def test_it_is_equal_to_the_bit(target, whole, tmp_path, capfd):
    report = export(
        network(targets.load(target).integer),
        tmp_path / "m.tflite",
        target,
        IMAGES,
        verbose=False,
    )
    found = report.device["compiled_model"]
    assert found["difference"] == 0.0
    assert found["fully_accelerated"] is whole
    assert found.get("left", []) == (
        []
        if whole
        else ["CONV_2D", "DEPTHWISE_CONV_2D", "DEQUANTIZE"]
        + ["FULLY_CONNECTED"]
    )
    assert "compiled model: fully accelerated" in str(report)
    # It has no setting of its log.
    assert "accelerator_registry" not in capfd.readouterr().err


@pytest.mark.slow
def test_16_bits_are_left_to_the_builtin_kernels(tmp_path):
    qmodel = msq_tf.quantize_model(
        keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)]),
        msq_tf.MSQConfig(activation_bits=16),
    )
    x = np.random.default_rng(0).normal(size=(8, 8)).astype("f")
    msq_tf.calibrate(qmodel, x)
    path = tmp_path / "m.tflite"
    report = export(
        qmodel, path, "cpu_int16", x, integer_io=True, verbose=False
    )
    found = report.device["compiled_model"]
    # Its Python interface has no int16; the bytes are the same.
    assert found["difference"] == 0.0 and not found["fully_accelerated"]


def test_devices_that_run_other_programs_have_none(tmp_path):
    pytest.importorskip("tflite_micro")
    report = export(
        network(), tmp_path / "m.tflite", "mcu", IMAGES, verbose=False
    )
    assert "compiled_model" not in report.device


@pytest.mark.slow
def test_what_differs_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "m.tflite"
    export(network(), path, "cpu_int8", IMAGES, verbose=False)
    real = compiled.run

    def run(data, batches, *names):
        return real(data, [[-x for x in batch] for batch in batches], *names)

    monkeypatch.setattr(compiled, "run", run)
    with pytest.raises(ExportError, match="CompiledModel .*something else"):
        compiled_model.verify(
            path.read_bytes(), [IMAGES], targets.load("cpu_int8")
        )


@pytest.mark.slow
def test_what_it_does_not_take_is_said(tmp_path, monkeypatch):
    path = tmp_path / "m.tflite"
    export(network(), path, "cpu_int8", IMAGES, verbose=False)

    def run(*_):
        raise RuntimeError("ERROR: [here]\n  not this one")

    monkeypatch.setattr(compiled, "run", run)
    found = compiled_model.verify(
        path.read_bytes(), [IMAGES], targets.load("cpu_int8")
    )
    assert found["skipped"].endswith("the file: ERROR: [here] not this one")


@pytest.mark.slow
def test_several_inputs_and_outputs_keep_their_order(tmp_path):
    a = keras.Input((3,), name="z_first")
    b = keras.Input((5,), dtype="int32", name="a_second")
    x = keras.layers.Flatten()(keras.layers.Embedding(7, 4)(b))
    outputs = [keras.layers.Dense(6)(x), keras.layers.Dense(2)(a)]
    qmodel = msq_tf.quantize_model(keras.Model([a, b], outputs))
    rng = np.random.default_rng(0)
    data = [
        rng.normal(size=(8, 3)).astype("f"),
        rng.integers(0, 7, (8, 5)).astype("int32"),
    ]
    path = tmp_path / "m.tflite"
    report = export(qmodel, path, "cpu_float", data, verbose=False)
    assert report.device["compiled_model"]["difference"] == 0.0


def test_two_open_axes(tmp_path):
    """It makes room by the file's shapes, and would write past their end."""
    layers = [keras.Input((None, 4)), keras.layers.Dense(64)]
    qmodel = msq_tf.quantize_model(keras.Sequential(layers))
    x = np.random.default_rng(0).normal(size=(8, 500, 4)).astype("f")
    report = export(
        qmodel, tmp_path / "m.tflite", "cpu_float", x, verbose=False
    )
    found = report.device["compiled_model"]
    assert found["difference"] == 0.0 and "128000" in found["fixed"]


@pytest.mark.slow
def test_a_length_that_follows_from_values_inside(tmp_path):
    inputs = keras.Input((None, 4))
    x = keras.layers.Conv1D(4, 3, dilation_rate=2)(inputs)
    outputs = keras.layers.Dense(3)(x)
    qmodel = msq_tf.quantize_model(keras.Model(inputs, outputs))
    data = np.random.default_rng(0).normal(size=(4, 12, 4)).astype("f")
    path = tmp_path / "m.tflite"
    report = export(qmodel, path, "min_size", data, verbose=False)
    found = report.device["compiled_model"]
    assert found["difference"] < 1e-5 and "12 bytes" in found["fixed"]
    report = export(
        qmodel,
        path,
        "min_size",
        data,
        input_signature=keras.InputSpec(shape=(None, 12, 4)),
        verbose=False,
    )
    found = report.device["compiled_model"]
    assert found["difference"] < 1e-5 and "fixed" not in found
