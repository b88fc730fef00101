"""What `export` promises beyond single layers."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from tests.tflite_export.samples import dense_model
from tests.tflite_export.samples import quantized
from tflite_export import ExportError
from tflite_export import export
from tflite_export import exporting
from tflite_export import float_file
from tflite_export import float_tflite
from tflite_export import inspect_file
from tflite_export import run
from tflite_export.matching import records
from tflite_export.runtime import tensorflow_runtime
from tflite_export.verification import float_outputs
from tflite_export.verification import readback

X = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32)


@pytest.fixture
def model():
    return dense_model()


def files(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_works_on_anything_that_knows_its_codes(model, tmp_path):
    report = export(model, tmp_path / "m.tflite", representative_data=X)
    assert files(tmp_path) == ["m.tflite"]
    assert [(t.name, t.bits, t.container) for t in report.tensors] == [
        ("a", 4, "INT4"),
        ("b", 4, "INT4"),
    ]
    assert report.ideal_bytes == (48 + 24) // 2
    assert report.average_bits == 4 and report.paper_bits == 3
    assert report.entropy_bytes < report.ideal_bytes < report.file_bytes
    assert report.deflated_bytes < report.file_bytes
    assert {c.kernels for c in report.checks} == {
        "xnnpack",
        "builtin",
        "reference",
    }
    assert all(c.ran and c.relative_error < 1e-5 for c in report.checks)


def test_report_as_text_and_json(model, tmp_path):
    report = export(model, tmp_path / "m.tflite")
    text = str(report)
    for part in ("FULLY_CONNECTED", "INT4", "random inputs", "xnnpack"):
        assert part in text
    assert json.loads(report.to_json()) == json.loads(
        json.dumps(dataclasses.asdict(report))
    )


def test_same_model_gives_same_bytes(model, tmp_path):
    for name in "ab":
        export(model, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_file_has_a_signature_and_names(model, tmp_path):
    export(model, tmp_path / "m.tflite")
    info = inspect_file(tmp_path / "m.tflite")
    assert info.signatures == ("serving_default",)
    assert [(p.name, p.shape) for p in info.inputs] == [("x", (-1, 6))]
    assert [p.name for p in info.outputs] == ["output"]
    assert sorted(t.name for t in info.tensors) == ["a", "b"]
    assert [t.used_bits for t in info.tensors] == [4, 4]
    assert "INT4" in str(info) and json.loads(info.to_json())


def test_fixed_batch(model, tmp_path):
    export(model, tmp_path / "m.tflite", batch_size=4)
    path = tmp_path / "m.tflite"
    assert inspect_file(path).inputs[0].shape == (4, 6)
    assert run(path, X).shape == (9, 3)


@pytest.mark.first(2)
@pytest.mark.parametrize(
    "data",
    [
        X,
        tf.constant(X),
        {"x": X},
        [X[:4], X[4:]],
        (batch for batch in (X[:4], X[4:])),
        tf.data.Dataset.from_tensor_slices((X, X)).batch(4),
    ],
    ids=["array", "tensor", "dict", "list", "generator", "dataset"],
)
def test_kinds_of_data(model, tmp_path, data):
    report = export(
        model, tmp_path / "m.tflite", representative_data=data, samples=7
    )
    assert report.inputs == "given"
    assert [c.samples for c in report.checks] == [7, 7, 7]


@pytest.mark.parametrize(
    "data, message",
    [
        (X[:, :5], "doesn't fit the input 'x'"),
        ({"y": X}, "lacks inputs"),
        (np.array(["a text"] * 4), "holds texts.*preprocessor"),
        ({"text": ["a text"] * 4}, "holds texts.*preprocessor"),
        ([], "no sample"),
        (7, "Expected representative_data"),
    ],
)
def test_bad_data(model, tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        export(model, tmp_path / "m.tflite", representative_data=data)
    assert files(tmp_path) == []


def test_subclassed_model(tmp_path):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = keras.layers.Dense(4)
            self.second = keras.layers.Dense(2)

        def call(self, x):
            return self.second(keras.ops.relu(self.first(x)))

    net = Net()
    net(X)
    qmodel = quantized(net)
    with pytest.raises(ValueError, match="inputs of a subclassed model"):
        export(qmodel, tmp_path / "m.tflite")
    export(qmodel, tmp_path / "m.tflite", representative_data=X)
    spec = tf.TensorSpec((None, 6), tf.float32)
    export(qmodel, tmp_path / "n.tflite", input_signature=spec)
    assert files(tmp_path) == ["m.tflite", "n.tflite"]


def test_constants_of_the_models_own_code_stay_float(tmp_path):
    basis = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    inputs = keras.Input((6,))
    x = keras.ops.matmul(inputs, basis)
    qmodel = quantized(keras.Model(inputs, keras.layers.Dense(3)(x)))
    report = export(qmodel, tmp_path / "m.tflite")
    (kept,) = report.float_tensors
    assert kept.name == "(constant)" and "code" in kept.reason


def test_skipped_layers_stay_float_and_count_as_32_bits(tmp_path):
    inputs = keras.Input((6,))
    x = keras.layers.Dense(6, name="kept")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(6, name="done")(x))
    qmodel = msq_tf.quantize_model(model, filters=["done"])
    report = export(qmodel, tmp_path / "m.tflite")
    assert [t.name for t in report.float_tensors] == ["kept"]
    assert report.average_bits == (8 + 32) / 2


def test_duplicate_and_passed_through_outputs(tmp_path):
    inputs = keras.Input((6,), name="x")
    y = keras.layers.Dense(3)(inputs)
    model = keras.Model(inputs, {"y": y, "again": y, "same": inputs})
    export(quantized(model), tmp_path / "m.tflite", representative_data=X)
    outputs = run(tmp_path / "m.tflite", X)
    assert sorted(outputs) == ["again", "same", "y"]
    np.testing.assert_array_equal(outputs["same"], X)


def test_unknown_target(model, tmp_path):
    with pytest.raises(ValueError, match="Expected one of cpu_float, .*min_"):
        export(model, tmp_path / "m.tflite", target="edge_gpu")
    assert files(tmp_path) == []


def test_output_that_can_not_be_written(model, tmp_path):
    with pytest.raises(ValueError, match="no such folder to write to"):
        export(model, tmp_path / "no" / "m.tflite")
    with pytest.raises(ValueError, match="a directory"):
        export(model, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="no such folder to write to"):
        export(model, tmp_path / "file" / "m.tflite")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_directory_without_permission(model, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match="directory can't be written"):
        export(model, tmp_path / "m.tflite")


def test_plain_models_are_for_float_file(tmp_path):
    plain = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="float_file"):
        export(plain, tmp_path / "m.tflite")
    size = float_file(plain, tmp_path / "f.tflite")
    data = (tmp_path / "f.tflite").read_bytes()
    assert data == float_tflite(plain) and len(data) == size
    np.testing.assert_allclose(run(data, X), plain(X), rtol=1e-5, atol=1e-6)


def test_unbuilt_model(tmp_path):
    unbuilt = keras.Sequential([keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="built keras.Model"):
        float_tflite(unbuilt)


def expect_failure(model, folder, message, **options):
    """An export that fails leaves an older file as it was."""
    path = folder / "m.tflite"
    path.write_bytes(b"older")
    with pytest.raises(ExportError, match=message):
        export(model, path, representative_data=X, **options)
    assert files(folder) == ["m.tflite"]
    assert path.read_bytes() == b"older"


def test_wrong_codes_in_the_file(model, tmp_path, monkeypatch):
    honest = records.packing.pack

    def off_by_one(codes, bits):
        codes = codes.copy()
        codes.flat[5] -= np.sign(codes.flat[5])
        return honest(codes, bits)

    monkeypatch.setattr(records.packing, "pack", off_by_one)
    expect_failure(
        model, tmp_path, "'a': .*as INT4. Received: 1 of 48 that differ"
    )


def test_wrong_scale_in_the_file(model, tmp_path, monkeypatch):
    honest = records.edit.quantization
    monkeypatch.setattr(
        records.edit,
        "quantization",
        lambda scale, axis: honest(scale * 1.001, axis=axis),
    )
    expect_failure(
        model, tmp_path, "'a': weights .* differ.*Received: .* of 48"
    )


def test_wrong_operator_version(model, tmp_path, monkeypatch):
    monkeypatch.setattr(readback, "_DEQUANTIZE_VERSIONS", {4: 9})
    expect_failure(
        model, tmp_path, "'a': DEQUANTIZE .* Expected 9. Received: 6"
    )


def test_wrong_numbers_name_kernels_figure_and_operator(
    model, tmp_path, monkeypatch
):
    honest = float_outputs._expected

    def shifted(*args):
        chunks, batches = honest(*args)
        return chunks, [[y + 1 for y in batch] for batch in batches]

    monkeypatch.setattr(float_outputs, "_expected", shifted)
    expect_failure(
        model, tmp_path, "on the xnnpack kernels.*Received: 1, that is"
    )


def test_first_different_operator_is_found(model, tmp_path):
    base = float_tflite(model)
    other = dense_model()
    other.weights[1] = dataclasses.replace(
        other.weights[1], step=other.weights[1].step * 2
    )
    text = float_outputs._first_difference(
        float_tflite(other), base, "builtin", [X], 1, 1e-4
    )
    assert "FULLY_CONNECTED" in text and "'output'" in text


def test_nan_output(model, tmp_path):
    model.base.layers[-1].bias.assign([0, np.nan, 0])
    expect_failure(model, tmp_path, "holds NaN.*b/bias")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"bits": 3}, "at most 3 at 3 bits. Received: 7"),
        ({"step": np.full((1, 8), np.nan, np.float32)}, "not all positive"),
    ],
)
def test_impossible_weights(model, tmp_path, change, message):
    model.weights[0] = dataclasses.replace(model.weights[0], **change)
    expect_failure(model, tmp_path, message)


def test_operator_without_evidence(model, tmp_path, monkeypatch):
    target = exporting.targets.load("min_size")
    cells = tuple(c for c in target.cells if c.weights != "INT4")
    poorer = dataclasses.replace(target, cells=cells)
    monkeypatch.setattr(exporting.targets, "load", lambda name: poorer)
    expect_failure(model, tmp_path, "'a': .* no evidence that FULLY_CONN")


def test_kernels_that_can_not_run_are_reported(model, tmp_path, monkeypatch):
    honest = float_outputs.interpreter.Session

    def partial(data, kernels, **options):
        if kernels == "reference":
            raise RuntimeError("Didn't find op for builtin opcode")
        return honest(data, kernels, **options)

    monkeypatch.setattr(float_outputs.interpreter, "Session", partial)
    report = export(model, tmp_path / "m.tflite")
    (check,) = [c for c in report.checks if not c.ran]
    assert check.kernels == "reference" and "Didn't find op" in check.reason
    assert "cannot run" in str(report)


def test_unsupported_operator_is_named(tmp_path):
    inputs = keras.Input((6,))
    x = keras.layers.Dense(4)(inputs)
    outputs = keras.layers.Lambda(tf.math.digamma)(x)
    qmodel = quantized(keras.Model(inputs, outputs))
    with pytest.raises(ExportError, match="tf.Digamma"):
        export(qmodel, tmp_path / "m.tflite")
    assert files(tmp_path) == []


def test_inputs_that_show_nothing_are_remarked(model, tmp_path):
    same = np.ones((4, 6), np.float32)
    report = export(
        model, tmp_path / "m.tflite", "cpu_float", representative_data=same
    )
    (note,) = report.notes
    assert "'output' is the same for all 4" in note
    assert note in " ".join(str(report).split())


def test_weight_that_is_changed_before_use(tmp_path):
    inputs = keras.Input((6,))
    layer = keras.layers.Dense(4, name="centered")
    layer.build((None, 6))

    class Centered(keras.layers.Layer):
        def __init__(self):
            super().__init__(name="outer")
            self.inner = layer

        def call(self, x):
            kernel = self.inner.kernel
            return keras.ops.matmul(x, kernel - keras.ops.mean(kernel, axis=0))

    qmodel = quantized(keras.Model(inputs, Centered()(inputs)))
    report = export(qmodel, tmp_path / "m.tflite")
    (tensor,) = report.tensors
    assert tensor.name == "outer/centered" and tensor.exact_scale
    # The change is computed while the file runs.
    assert set(tensor.ops) == {"MEAN", "SUB"}


def test_text_inputs(model, tmp_path):
    spec = tf.TensorSpec((None, 6), tf.string)
    with pytest.raises(ValueError, match="is text"):
        export(model, tmp_path / "m.tflite", input_signature=spec)


def test_what_tensorflow_cannot_load_is_refused():
    with pytest.raises(ExportError, match="own interpreter can't load"):
        tensorflow_runtime.load_everywhere(b"TFL3 and nothing more")


@pytest.mark.parametrize(("version", "refused"), [("2.20.1", 0), ("2.21.0", 1)])
def test_an_old_tensorflow_may_lack_operators(monkeypatch, version, refused):
    def lacking(model_content, **options):
        raise ValueError(
            "Didn't find op for builtin opcode 'DEQUANTIZE' version '7'."
        )

    monkeypatch.setattr(tf.lite, "Interpreter", lacking)
    monkeypatch.setattr(tf, "__version__", version)
    expected = pytest.raises(ExportError, match="DEQUANTIZE")
    with expected if refused else contextlib.nullcontext():
        tensorflow_runtime.load_everywhere(b"TFL3 and so on")
