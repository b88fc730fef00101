"""Integer files of whole models."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from msq_tf.core.config import PerTensor
from tests.tflite_export import samples as made
from tests.tflite_export.integer import networks
from tflite_export import ExportError
from tflite_export import export
from tflite_export import inspect_file
from tflite_export import run
from tflite_export import targets
from tflite_export.integer import quantize_graph
from tflite_export.runtime import interpreter
from tflite_export.verification import integer_outputs

MODELS = (
    networks.residual,
    networks.elementwise,
    networks.moving,
    networks.up,
)


def quantized(build, bits=None, **config):
    keras.utils.set_random_seed(0)
    qmodel = made.quantized(build(), **config)
    if bits is not None:
        qmodel.set_bits(dict.fromkeys(qmodel.bits, bits))
    return qmodel


@pytest.fixture(scope="module")
def residual():
    """A model with its inputs; not to be changed."""
    qmodel = quantized(networks.residual, 4)
    return qmodel, networks.samples(qmodel.base)


@pytest.mark.first(1)
@pytest.mark.parametrize("target", ["cpu_int8", "cpu_int16"])
@pytest.mark.parametrize("build", MODELS, ids=lambda f: f.__name__)
def test_calibrated(build, target, tmp_path):
    if build is networks.elementwise and target == "cpu_int16":
        pytest.skip("no such kernels")
    qmodel = quantized(build)
    x = networks.samples(qmodel.base)
    report = export(
        qmodel, tmp_path / "m", target=target, representative_data=x
    )
    assert {c.kernels for c in report.checks if c.ran} >= {"xnnpack", "builtin"}
    assert all(o.units <= 1 for o in report.operators)
    assert {t.name for t in report.tensors} == set(qmodel.bits)
    assert "0 tensors on trained ranges" in report.activations
    ports = inspect_file(tmp_path / "m")
    assert ports.inputs[0].type == ports.outputs[0].type == "FLOAT32"
    assert "units" in str(report) and report.to_json()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bits", "target"), [(8, "cpu_int8"), (16, "cpu_int16")]
)
def test_trained_ranges_are_the_files(bits, target, tmp_path):
    qmodel = quantized(networks.residual, activation_bits=bits)
    x = networks.samples(qmodel.base)
    networks.see(qmodel, x)
    # Data on half the scale would calibrate other ranges.
    report = export(
        qmodel, tmp_path / "m", target=target, representative_data=x / 2
    )
    assert "on trained ranges, 0 on" in report.activations
    assert any("with its trained ranges" in note for note in report.notes)
    found = {}
    model = quantize_graph.fb.load((tmp_path / "m").read_bytes())
    for tensor in model.subgraphs[0].tensors:
        q = tensor.quantization
        if q is not None and len(q.scale) == 1:
            found[float(q.scale[0])] = int(q.zeroPoint[0])
    steps = 255 if bits == 8 else 65534
    for trained in qmodel.activation_quantizers.trained_ranges():
        scale = np.float32((trained.high - trained.low) / steps)
        near = min(found, key=lambda s: abs(s - scale))
        assert near == pytest.approx(scale, rel=1e-6)
        if bits == 8:
            assert found[near] == round(-128 - trained.low / scale)
        else:
            assert found[near] == 0
    with qmodel.integer_scope():
        keras_output = np.asarray(qmodel.base(x, training=False))
    np.testing.assert_allclose(
        run(tmp_path / "m", x), keras_output, atol=2.1 * max(found)
    )


@pytest.mark.slow
def test_without_data_trained_ranges_do(tmp_path):
    qmodel = quantized(networks.residual, activation_bits=8)
    networks.see(qmodel, networks.samples(qmodel.base))
    report = export(qmodel, tmp_path / "m", target="cpu_int8")
    assert report.inputs == "random"


def test_neither_ranges_nor_data(residual, tmp_path):
    with pytest.raises(ExportError, match="Expected representative_data"):
        export(residual[0], tmp_path / "m", target="cpu_int8")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        (4, "4-bit activations: no runtime stores"),
        (16, "has 8 bits. Expected MSQConfig"),
    ],
)
def test_other_activation_widths(bits, message, tmp_path):
    qmodel = quantized(networks.residual, activation_bits=bits)
    with pytest.raises(ExportError, match=message):
        export(qmodel, tmp_path / "m", target="cpu_int8")


@pytest.mark.first(1)
@pytest.mark.parametrize("bits", [2, 3, 4, 5])
def test_small_codes_of_1x1_convolutions(bits, tmp_path, monkeypatch):
    qmodel = quantized(networks.residual, bits)
    x = networks.samples(qmodel.base)
    report = export(
        qmodel, tmp_path / "m", target="cpu_int8", representative_data=x
    )
    stored = [(t.ops[0], t.container) for t in report.tensors]
    small = {2: "INT2", 3: "INT4", 4: "INT4"}.get(bits, "INT8")
    dense = "FULLY_CONNECTED" if bits < 5 else "CONV_2D"
    # The last layer has 6 inputs, no multiple of 4.
    last = {2: "INT4"}.get(bits, small)
    assert stored == [
        ("CONV_2D", "INT8"),
        (dense, small),
        ("DEPTHWISE_CONV_2D", "INT8"),
        (dense, small),
        ("CONV_2D", "INT8"),
        ("FULLY_CONNECTED", last),
    ]
    assert report.checks[0].partitions == 1
    monkeypatch.setenv("COLUMNS", "80")
    heads = [line for line in str(report).splitlines() if "kernels  " in line]
    assert heads[0].split()[-2:] == ["class", "partitions"]
    session = interpreter.Session((tmp_path / "m").read_bytes(), "xnnpack")
    assert session.not_delegated() == []
    assert (report.file_bytes < report.int8_file_bytes) == (bits < 5)


@pytest.mark.parametrize("bits", [2, 4])
def test_one_output_channel(bits, tmp_path):
    """One scale is one per tensor, on which XNNPACK fails below INT8."""
    x = inputs = keras.Input((4, 4, 8))
    x = keras.layers.Conv2D(1, 1, name="map")(x)
    x = keras.layers.Dense(1, name="head")(keras.layers.Flatten()(x))
    qmodel = msq_tf.quantize_model(keras.Model(inputs, x))
    qmodel.set_bits(dict.fromkeys(qmodel.bits, bits))
    report = export(
        qmodel,
        tmp_path / "m",
        target="cpu_int8",
        representative_data=networks.samples(qmodel.base),
    )
    assert {(t.name, t.container, t.granularity) for t in report.tensors} == {
        ("map", "INT8", "per_tensor"),
        ("head", "INT8", "per_tensor"),
    }


def test_integer_inputs_and_outputs(residual, tmp_path):
    qmodel, x = residual
    export(
        qmodel,
        tmp_path / "m",
        target="cpu_int8",
        representative_data=x,
        integer_io=True,
    )
    info = inspect_file(tmp_path / "m")
    assert (info.inputs[0].type, info.outputs[0].type) == ("INT8", "INT8")
    assert (info.inputs[0].name, info.outputs[0].name) == ("input", "output")
    assert "QUANTIZE 1" not in info.ops


@pytest.mark.parametrize("target", ["cpu_int8", "cpu_int16"])
def test_two_ranges_of_one_tensor(target, tmp_path):
    """Ranges of the model's own are taken over, too."""
    bits = int(target.removeprefix("cpu_int"))

    def fake(low, high):
        return keras.layers.Lambda(
            lambda x: tf.quantization.fake_quant_with_min_max_args(
                x, low, high, bits, narrow_range=bits == 16
            )
        )

    x = inputs = keras.Input((4, 4, 2))
    x = keras.layers.Conv2D(3, 1)(x)
    low = -1.0 if bits == 16 else 0.0
    wide, narrow = fake(-2.0, 2.0)(x), fake(low, 1.0)(x)
    outputs = keras.layers.Concatenate()([wide, narrow])
    model = keras.Model(inputs, fake(-2.0, 2.0)(outputs))
    qmodel = msq_tf.quantize_model(model)
    x = networks.samples(model)
    report = export(
        qmodel, tmp_path / "m", target=target, representative_data=x
    )
    assert report.activations.split(": ")[1].startswith("3 tensors")
    np.testing.assert_allclose(
        run(tmp_path / "m", x),
        np.asarray(qmodel(x, training=False)),
        atol=2 * 4.0 / (2**bits - 1),
    )


def test_per_tensor_tables(tmp_path):
    qmodel = quantized(networks.tokens, granularity=PerTensor())
    x = networks.samples(qmodel.base)
    report = export(
        qmodel, tmp_path / "m", target="cpu_int8", representative_data=x
    )
    assert ("GATHER",) in {t.ops for t in report.tensors}


@pytest.mark.parametrize("mode", ["int8", "int16"])
def test_tables_with_a_scale_per_channel(mode, tmp_path):
    """Codes are looked up; their scales are a convolution, or in float."""
    qmodel = quantized(networks.tokens)
    report = export(
        qmodel,
        tmp_path / "m",
        target=f"cpu_{mode}",
        representative_data=networks.samples(qmodel.base),
    )
    [table] = [t for t in report.tensors if "GATHER" in t.ops]
    assert table.unfolded == (mode == "int8")
    assert not any("not trained with MSQ" in note for note in report.notes)


def test_skipped_weights_are_rounded_and_named(tmp_path):
    base = networks.residual()
    qmodel = msq_tf.quantize_model(
        base,
        msq_tf.MSQConfig(overrides={"dense.*": msq_tf.LayerConfig(skip=True)}),
    )
    report = export(
        qmodel,
        tmp_path / "m",
        target="cpu_int8",
        representative_data=networks.samples(base),
    )
    assert any("rounded to 8 bits" in note for note in report.notes)


def test_operators_without_a_policy_are_named(tmp_path):
    x = inputs = keras.Input((4, 4, 4, 2))
    x = keras.layers.Conv3D(2, 2)(x)
    outputs = keras.ops.cumsum(x, axis=1)
    qmodel = msq_tf.quantize_model(keras.Model(inputs, outputs))
    with pytest.raises(ExportError, match="no policy for .*CONV_3D.*, CUMSUM "):
        export(
            qmodel,
            tmp_path / "m",
            target="mcu",
            representative_data=networks.samples(qmodel.base),
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x * np.nan, "finite numbers"),
        (lambda x: x * 0, "different values"),
        (lambda x: x[:0], "no sample|Expected"),
        (lambda x: x.astype("U4"), "Expected the numbers"),
        (lambda x: x[:, :4], "doesn't fit"),
    ],
)
def test_bad_data(residual, change, message, tmp_path):
    qmodel, x = residual
    with pytest.raises(ValueError, match=message):
        export(
            qmodel,
            tmp_path / "m",
            target="cpu_int8",
            representative_data=change(x),
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("factor", "message"),
    [(255, "on another scale"), (10, "outside of the range of training")],
)
def test_data_on_another_scale(tmp_path, factor, message):
    qmodel = quantized(networks.residual, activation_bits=8)
    x = networks.samples(qmodel.base)
    networks.see(qmodel, x)
    with pytest.raises(ValueError, match=message):
        export(
            qmodel,
            tmp_path / "m",
            target="cpu_int8",
            representative_data=factor * np.abs(x),
        )


def test_wrong_operator_is_named_and_saved(residual, tmp_path, monkeypatch):
    qmodel, x = residual
    honest = quantize_graph.quantize_weights.integer_bias

    def shifted(bias, scale, wide, path):
        units = honest(bias, scale, wide, path)
        return units + (1 << 12) * (path.startswith("depthwise"))

    original = integer_outputs.float_twin.isolated

    def blind(data, recorded):
        # The simulation shall not know of the wrong bias.
        with monkeypatch.context() as patch:
            patch.setattr(
                quantize_graph.quantize_weights, "integer_bias", honest
            )
            return original(right, recorded)

    out = tmp_path / "m"
    export(qmodel, out, target="cpu_int8", representative_data=x)
    right = out.read_bytes()
    monkeypatch.setattr(
        quantize_graph.quantize_weights, "integer_bias", shifted
    )
    monkeypatch.setattr(integer_outputs.float_twin, "isolated", blind)
    with pytest.raises(ExportError, match="DEPTHWISE_CONV_2D .operator 3."):
        export(
            qmodel,
            out,
            target="cpu_int8",
            representative_data=x,
            save_failure_to=tmp_path / "bug",
        )
    assert out.read_bytes() == right
    saved = np.load(tmp_path / "bug.npz")
    assert saved["operator_input_0"].dtype == np.int8
    assert saved["got"].shape == saved["expected"].shape
    assert inspect_file(tmp_path / "bug.tflite").bytes > 0


def test_end_to_end_limit(residual, tmp_path):
    qmodel, x = residual
    with pytest.raises(ExportError, match="at most max_units=-1"):
        export(
            qmodel,
            tmp_path / "m",
            target="cpu_int8",
            representative_data=x,
            max_units=-1,
        )


def test_a_container_without_evidence(residual, tmp_path, monkeypatch):
    qmodel, x = residual
    target = targets.load("cpu_int8")
    poorer = dataclasses.replace(target, cells=target.cells[1:])
    monkeypatch.setattr(targets, "load", lambda name: poorer)
    with pytest.raises(ExportError, match="no evidence that CONV_2D"):
        export(qmodel, tmp_path / "m", target="x", representative_data=x)
