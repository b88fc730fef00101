from __future__ import annotations

import copy
import dataclasses
import os

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import msq_tf
from tests.tflite_export.devices.files import files
from tests.tflite_export.devices.files import images
from tests.tflite_export.devices.files import one_op
from tflite_export import export
from tflite_export import targets
from tflite_export.devices import tosa
from tflite_export.devices import tosa_check
from tflite_export.devices.tosa_rewrites import saturated
from tflite_export.devices.widen import widened
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.runtime import interpreter
from tflite_export.runtime import ports

TARGET = targets.load("cpu_int8")


@pytest.fixture
def tools(root, monkeypatch):
    if tosa.ENVIRONMENT not in os.environ:
        monkeypatch.chdir(root)
    if tosa.absent():
        pytest.skip(tosa.absent())


def verify(samples):
    return tosa_check.verify(files()["int8"], [samples], TARGET)


def test_int8_is_exact_to_the_bit(tools):
    result = verify(images(3))
    assert result["units"]["reference"] == 0
    assert result["units"]["xnnpack"] <= 1
    assert result["samples"] == 3


@pytest.mark.parametrize("op", ["CONV_2D", "DEPTHWISE_CONV_2D"])
def test_packed_weights_run_in_wider_containers(tools, op):
    data, x, exact = one_op(op, "INT4", "per_channel")
    got = tosa.run(widened(data), [x])[0]
    assert abs(got.astype(int) - exact).max() <= 1
    assert max(tosa_check.verify(data, [x], TARGET)["units"].values()) <= 1


def test_a_failing_tool_is_an_error_with_its_words(tools):
    data, x, _ = one_op("DEPTHWISE_CONV_2D", "INT4", "per_channel")
    with pytest.raises(ExportError, match="could not allocate op RESHAPE"):
        tosa.run(data, [x])


def test_other_results_are_an_error(tools, monkeypatch):
    right = tosa.run
    monkeypatch.setattr(
        tosa, "run", lambda *given: [right(*given)[0].astype(int) - 3]
    )
    with pytest.raises(ExportError, match="kernels .*Received: [0-9]"):
        verify(images(2))


def test_without_the_tools(monkeypatch, tmp_path):
    monkeypatch.setenv(tosa.ENVIRONMENT, str(tmp_path))
    assert f"pip install {tosa.CONVERTER} {tosa.TOOLS} in" in tosa.absent()
    with pytest.raises(ExportError, match="make setup-tosa"):
        tosa.run(files()["int8"], [images(1)])
    result = verify(images(1))
    assert "make setup-tosa" in result["skipped"]


def test_the_packages_are_those_that_are_tested(root):
    pinned = (root / "requirements-tosa.txt").read_text().splitlines()
    for name in (tosa.CONVERTER, tosa.TOOLS):
        assert any(line.startswith(f"{name}==") for line in pinned)


def one_quantize(kind: str) -> bytes:
    """A file of one QUANTIZE to a grid of 0.5 whose zero is at 3."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs = 3, [graph]
    model.buffers, model.operatorCodes = [schema.BufferT()], []
    graph.tensors = []
    source = edit.new_tensor(graph, "FLOAT32", shape=(1, 7))
    result = edit.new_tensor(graph, kind, shape=(1, 7))
    graph.tensors[source].name = b"x"
    graph.tensors[result].name = b"y"
    graph.tensors[result].quantization = edit.quantization(np.array(0.5), 3)
    graph.operators = [
        edit.new_operator(
            model, "QUANTIZE", 1, [source], [result], "QuantizeOptions"
        )
    ]
    graph.inputs, graph.outputs = [source], [result]
    return fb.dump(model)


def two_quantizes() -> bytes:
    """A file that quantizes an example and three rows."""
    model = fb.load(one_quantize("INT8"))
    graph = model.subgraphs[0]
    (op,) = graph.operators
    read, written = fb.inputs(op)[0], fb.outputs(op)[0]
    source = edit.new_tensor(graph, "FLOAT32", shape=(3, 2))
    result = edit.new_tensor(graph, "INT8", shape=(3, 2))
    graph.tensors[result].quantization = edit.quantization(np.array(0.5), 3)
    second = edit.conversion(model, "QUANTIZE", "INT8", source, result)
    graph.operators.append(second)
    graph.inputs, graph.outputs = [read, source], [written, result]
    return fb.dump(model)


def one_cast(zero: int) -> bytes:
    """A file that gives the codes of an input."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs = 3, [graph]
    model.buffers, model.operatorCodes = [schema.BufferT()], []
    graph.tensors = []
    source = edit.new_tensor(graph, "INT8", shape=(1, 5))
    result = edit.new_tensor(graph, "INT32", shape=(1, 5))
    graph.tensors[source].name = b"x"
    graph.tensors[result].name = b"y"
    graph.tensors[source].quantization = edit.quantization(np.array(0.5), zero)
    cast = edit.new_operator(model, "CAST", 1, [source], [result])
    cast.builtinOptionsType = schema.BuiltinOptions.CastOptions
    cast.builtinOptions = schema.CastOptionsT()
    cast.builtinOptions.inDataType = schema.TensorType.INT8
    cast.builtinOptions.outDataType = schema.TensorType.INT32
    graph.operators = [cast]
    graph.inputs, graph.outputs = [source], [result]
    return fb.dump(model)


@pytest.mark.parametrize("zero", [-128, 0, 5])
def test_codes_are_cast_as_they_are(tools, zero):
    """The converter to TOSA subtracts the zero point, if it is not mended."""
    data = one_cast(zero)
    x = np.array([[-128, -103, 0, 3, 127]], np.int8)
    (wanted,) = interpreter.Session(data, "reference")([x])
    assert wanted.tolist() == x.tolist() == tosa.run(data, [x])[0].tolist()


def test_floats_beyond_a_grid_stop_at_its_ends(tools):
    """The converter to TOSA lets them wrap around, if it is not mended."""
    x = np.array([[-1e4, -66.0, -65.5, 0.0, 62.0, 62.5, 1e4]], np.float32)
    wanted = [[-128, -128, -128, 3, 127, 127, 127]]
    assert tosa.run(one_quantize("INT8"), [x])[0].tolist() == wanted


def test_inputs_of_several_lengths(tools):
    """Not every input of a file has as many rows as there are samples."""
    x = np.arange(14, dtype=np.float32).reshape(2, 7)
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    first, second = tosa.run(two_quantizes(), [x, rows])
    np.testing.assert_array_equal(first, 2 * x + 3)
    np.testing.assert_array_equal(second, 2 * rows + 3)


def test_limits_change_nothing_for_litert():
    data = one_quantize("INT8")
    x = np.linspace(-100, 100, 7, dtype=np.float32)[None]
    (wanted,) = interpreter.Session(data, "reference")([x])
    (got,) = interpreter.Session(saturated(data), "reference")([x])
    np.testing.assert_array_equal(got, wanted)
    assert saturated(files()["int8"]) == fb.dump(fb.load(files()["int8"]))


def test_a_grid_beyond_float32_has_the_largest_float_for_an_end():
    """A file may say so; what it says is finite (fuzzing, case 70746)."""
    model = fb.load(one_quantize("INT8"))
    model.subgraphs[0].tensors[1].quantization.scale = [np.float32(3e38)]
    model = fb.load(saturated(fb.dump(model)))
    ends = [
        float(np.frombuffer(bytes(buffer.data), np.float32)[0])
        for buffer in model.buffers
        if buffer.data is not None and len(buffer.data) == 4
    ]
    most = float(np.finfo(np.float32).max)
    assert sorted(ends) == [-most, most]


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """Dense layers with scales per channel, which TOSA rounds otherwise."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((16,))
    for _ in range(12):
        x = keras.layers.Dense(32, activation="relu")(x)
    model = keras.Model(inputs, keras.layers.Dense(4)(x))
    x = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
    path = tmp_path_factory.mktemp("deep") / "m.tflite"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tosa, "folder", lambda: None)
        export(
            msq_tf.quantize_model(model),
            path,
            target="cpu_int8",
            representative_data=x,
        )
    return path.read_bytes(), x


@pytest.mark.slow
def test_single_units_inside_explain_an_output(tools, deep, monkeypatch):
    data, x = deep
    monkeypatch.setattr(tosa_check, "_UNITS", {"int8": -1.0})
    figures = tosa_check.verify(data, [x], TARGET)
    assert "off by a unit" in figures["amplified"]
    assert figures["samples"] == 4


def test_operators_beyond_their_limits_explain_nothing(
    tools, deep, monkeypatch
):
    data, x = deep
    monkeypatch.setattr(tosa_check, "_UNITS", {"int8": -1.0})
    strict = {
        name: dataclasses.replace(row, units={"int8": 0})
        for name, row in TARGET.operators.items()
    }
    target = dataclasses.replace(TARGET, operators=strict)
    with pytest.raises(ExportError, match="single units inside"):
        tosa_check.verify(data, [x], target)


@pytest.mark.slow
def test_units_that_are_off_too_often_explain_nothing(tools, deep, monkeypatch):
    data, x = deep
    monkeypatch.setattr(tosa_check, "_UNITS", {"int8": -1.0})
    monkeypatch.setattr(tosa_check.amplification, "MOST_ON_AVERAGE", 1e-6)
    with pytest.raises(ExportError, match="single units inside"):
        tosa_check.verify(data, [x], TARGET)


ONE_PIXEL = {
    "pooling": ((1, 1, 4), keras.layers.MaxPooling2D(1, 2)),
    "crop": ((4, 4, 4), keras.layers.Cropping2D(0)),
    "flip": ((1, 4), lambda x: keras.ops.flip(x, 1)),
    "split": ((4,), lambda x: keras.ops.split(x, 1, -1)[0]),
    "pooling of more": ((4, 4, 4), keras.layers.MaxPooling2D(2)),
    "flip of more": ((3, 4), lambda x: keras.ops.flip(x, 1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_PIXEL)
def test_operators_that_the_tools_fold(tools, name, tmp_path, monkeypatch):
    """What gives back what it reads, and what does the same twice."""
    shape, layer = ONE_PIXEL[name]
    keras.utils.set_random_seed(0)
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(keras.layers.Dense(4)(inputs)))
    x = np.random.default_rng(0).normal(size=(8, *shape)).astype("f")
    with monkeypatch.context() as patch:
        patch.setattr(tosa, "folder", lambda: None)
        export(
            msq_tf.quantize_model(model),
            tmp_path / "m",
            target="cpu_int8",
            representative_data=x,
            batch_size=1,
            integer_io=True,
        )
    model = fb.load((tmp_path / "m").read_bytes())
    graph = model.subgraphs[0]
    last = copy.deepcopy(graph.operators[-1])
    end = fb.outputs(last)[0]
    graph.tensors.append(copy.deepcopy(graph.tensors[end]))
    last.outputs = np.array([len(graph.tensors) - 1], np.int32)
    graph.operators.append(last)
    apart = tosa_check._apart(fb.dump(model))
    twice = [step.name for step in apart.steps].count(fb.op_name(model, last))
    assert twice == (2 if "of more" in name else 0)
    given = ports.quantized(
        apart.data, [np.ones(p.shape, "f") for p in ports.inputs(apart.data)]
    )
    found = tosa.run(apart.data, given)
    assert len(found) == len(apart.steps)
