"""Exports for devices, from the Keras model to the files beside the file."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf
from tests.tflite_export.devices.files import SHAPE
from tests.tflite_export.devices.files import images
from tests.tflite_export.samples import quantized
from tflite_export import ExportError
from tflite_export import export
from tflite_export import inspect_file
from tflite_export.devices import ethos_u
from tflite_export.devices import micro
from tflite_export.targets import lint

L = keras.layers


def model(granularity=None) -> msq_tf.MSQModel:
    """A network with a depthwise convolution that has 4 bits."""
    x = inputs = keras.Input(SHAPE, name="image")
    x = L.Conv2D(8, 3, padding="same", use_bias=False, name="conv")(x)
    x = L.ReLU()(L.BatchNormalization()(x))
    x = L.DepthwiseConv2D(3, padding="same", use_bias=False, name="dw")(x)
    x = L.ReLU(6.0)(L.BatchNormalization()(x))
    x = L.GlobalAveragePooling2D()(x)
    base = keras.Model(inputs, L.Dense(4, name="dense")(x))
    config = {} if granularity is None else {"granularity": granularity}
    result = quantized(base, **config)
    result.set_bits({"conv": 8, "dw": 4, "dense": 4})
    return result


@pytest.fixture(scope="module")
def per_channel():
    return model()


@pytest.fixture(scope="module")
def per_tensor():
    return model(msq_tf.PerTensor())


def types(path) -> dict[str, str]:
    """Of the trained weights; other tensors have numbers."""
    found = inspect_file(path).tensors
    return {t.name: t.type for t in found if "#" not in t.name}


@pytest.mark.slow
def test_mcu(per_channel, per_tensor, tmp_path):
    path = tmp_path / "m.tflite"
    report = export(
        per_channel,
        path,
        "mcu",
        images(16),
        device_options={"name": "net"},
    )
    assert report.device["max_units"] <= 1
    assert report.device["arena_bytes"] % 16 == 0
    # Scales per channel: 4 bits for the convolution, 8 for the dense layer.
    assert types(path) == {"conv": "INT8", "dw": "INT4", "dense": "INT8"}
    assert {p.name for p in tmp_path.iterdir()} == {
        "m.tflite",
        "net.cc",
        "net.h",
    }
    size = f"g_net_size = {report.file_bytes};"
    assert size in (tmp_path / "net.cc").read_text()
    export(per_tensor, path, "mcu", images(16))
    assert types(path) == {"conv": "INT8", "dw": "INT4", "dense": "INT4"}
    assert not lint.severe(lint.check(path.read_bytes(), "mcu"))


def test_ethos_u(per_channel, tmp_path):
    path = tmp_path / "m.tflite"
    report = export(
        per_channel,
        path,
        "ethos_u",
        images(16),
        device_options={"accelerators": ["ethos-u55-128", "ethos-u85-256"]},
    )
    rows = report.device["accelerators"]
    assert [row["cpu_operators"] for row in rows.values()] == [[], []]
    assert set(types(path).values()) == {"INT8"}
    ports = inspect_file(path).inputs + inspect_file(path).outputs
    assert {port.type for port in ports} == {"INT8"}
    for name in rows:
        compiled = tmp_path / f"m_{name}.tflite"
        assert compiled.stat().st_size == rows[name]["compiled_bytes"]
    assert "ethos-u85-256" in str(report)


def test_vela_gets_fewer_bytes_for_fewer_bits(per_channel):
    # The whole of a network that is more than overhead: the benchmarks.
    table = ethos_u.known_accelerators()["ethos-u55-256"]
    sizes = []
    for bits in (8, 4, 2):
        data = wide_layer(bits)
        figures, _ = ethos_u.compile_file(data, "ethos-u55-256", table)
        sizes.append(figures["bits_per_weight"])
    assert sizes[0] < 8.5 and sizes[1] < 4.5 and sizes[2] < 2.5


def wide_layer(bits: int) -> bytes:
    """An int8 file with codes of n bits; nothing but one layer."""
    from tests.tflite_export.devices.files import one_op
    from tflite_export.flatbuffer import model as fb

    data, _, _ = one_op("FULLY_CONNECTED", "INT8", "per_tensor")
    model = fb.load(data)
    x, w, y, b = model.subgraphs[0].tensors
    x.shape, w.shape, y.shape, b.shape = [1, 256], [128, 256], [1, 128], [128]
    top = 2 ** (bits - 1) - 1
    codes = np.random.default_rng(0).integers(-top, top + 1, (128, 256))
    model.buffers[w.buffer].data = codes.astype(np.int8).view(np.uint8).ravel()
    model.buffers[b.buffer].data = np.zeros(128 * 4, np.uint8)
    return fb.dump(model)


def test_edgetpu(per_channel, per_tensor, tmp_path):
    path = tmp_path / "m.tflite"
    report = export(per_tensor, path, "edgetpu", images(16))
    assert report.device["compiler_was_run"] is False
    assert any("was not run" in note for note in report.notes)
    assert "FULLY_CONNECTED" in report.tensors[-1].ops
    # Its compiler wants dense layers with one scale; others are convolutions.
    report = export(per_channel, path, "edgetpu", images(16))
    assert report.tensors[-1].ops == ("CONV_2D",)


def test_a_failing_tool_leaves_older_files(per_channel, tmp_path, monkeypatch):
    path = tmp_path / "m.tflite"
    path.write_bytes(b"older")
    monkeypatch.setattr(ethos_u, "is_installed", lambda: False)
    with pytest.raises(ExportError, match="pip install .ethos-u-vela"):
        export(per_channel, path, "ethos_u", images(16))
    monkeypatch.setattr(micro, "is_installed", lambda: False)
    with pytest.raises(ExportError, match="pip install .tflite-micro"):
        export(per_channel, path, "mcu", images(16))
    assert path.read_bytes() == b"older"
    assert [p.name for p in tmp_path.iterdir()] == ["m.tflite"]


def test_options_are_checked_before_any_work(tmp_path):
    with pytest.raises(ValueError, match="Unknown options.*'mcu'.*allow_cpu"):
        export(
            model(),
            tmp_path / "m.tflite",
            "mcu",
            images(16),
            device_options={"allow_cpu": True},
        )


@pytest.mark.slow
def test_one_unit_of_4_bits_with_a_bias_on_a_microcontroller(tmp_path):
    """XNNPACK of TensorFlow can't prepare it; TFLite Micro runs it."""
    bias = keras.initializers.Constant(0.1)
    head = L.Dense(1, bias_initializer=bias, name="head")
    base = keras.Sequential([keras.Input((16,)), head])
    qmodel = quantized(base)
    qmodel.set_bits({"head": 4})
    x = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
    path = tmp_path / "m.tflite"
    report = export(qmodel, path, "mcu", x)
    assert types(path)["head"] == "INT4"
    assert any("LiteRT in any way" in note for note in report.notes)


class Chosen(L.Layer):
    """One of two, as a sampling layer in inference."""

    def call(self, both):
        return both[0]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["edgetpu", "mcu", "cpu_int8"])
def test_two_trained_grids_behind_each_other(target, tmp_path):
    inputs = keras.Input((8,))
    x = Chosen()([L.Dense(4)(inputs), L.Dense(4, name="other")(inputs)])
    base = keras.Model(inputs, L.Dense(2)(x))
    x = np.random.default_rng(0).normal(size=(32, 8)).astype(np.float32)
    with pytest.warns(UserWarning, match="other"):
        qmodel = msq_tf.quantize_model(
            base, msq_tf.MSQConfig(activation_bits=8)
        )
    for scale in (1.0, 0.7):
        qmodel(scale * x, training=True)
    report = export(qmodel, tmp_path / "m.tflite", target, x)
    assert any("with its trained ranges" in note for note in report.notes)
