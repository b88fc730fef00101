from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from tests.tflite_export.devices.files import files
from tests.tflite_export.devices.files import images
from tests.tflite_export.devices.files import one_op
from tflite_export import float_tflite
from tflite_export.inspect import compare
from tflite_export.runtime import interpreter


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "_SECONDS", 0.05)
    for name, data in files().items():
        (tmp_path / f"{name}.tflite").write_bytes(data)
    return tmp_path


def test_a_file_and_itself(paths):
    path = paths / "int8.tflite"
    result = compare.compare_files(path, path)
    [output] = result.outputs
    assert output.max_abs_error == 0 and output.units == 0
    assert output.agreement == 1
    assert result.inputs == "random" and result.rounds >= 20
    assert result.files[0].bytes == path.stat().st_size
    assert result.files[0].latency_ms >= result.files[0].fastest_ms > 0


def test_float_and_int8_on_given_inputs(paths):
    result = compare.compare_files(
        paths / "float.tflite", paths / "int8.tflite", images(6)
    )
    [output] = result.outputs
    assert 0 < output.max_abs_error < 0.05 and output.units < 12
    assert result.inputs == "given" and result.samples == 6
    assert json.loads(result.to_json())["samples"] == 6
    assert "second / first" in str(result)


def test_inputs_by_name(paths):
    path = paths / "float.tflite"
    [name] = interpreter.Session(path.read_bytes(), "xnnpack").input_names
    result = compare.compare_files(path, path, {name: images(2)})
    assert result.samples == 2
    with pytest.raises(ValueError, match="Expected inputs"):
        compare.compare_files(path, path, {"no": images(2)})


@pytest.mark.parametrize(
    "inputs, message",
    [
        ([np.zeros(3), np.zeros(3)], "Expected 1 inputs"),
        (np.zeros((2, 5)), "don't fit the input.*Expected.*Received"),
        (images(0), "don't fit the input"),
    ],
)
def test_bad_inputs(paths, inputs, message):
    path = paths / "float.tflite"
    with pytest.raises(ValueError, match=message):
        compare.compare_files(path, path, inputs)


@pytest.mark.slow
def test_files_of_other_numbers_of_outputs(tmp_path):
    x = keras.Input((3,))
    one, two = keras.layers.Dense(2)(x), keras.layers.Dense(4)(x)
    for name, outputs in (("one", one), ("two", [one, two])):
        data = float_tflite(keras.Model(x, outputs))
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match="Expected two files.*Received: 1 and"):
        compare.compare_files(tmp_path / "one", tmp_path / "two")


def test_files_that_do_not_compare(paths):
    other = paths / "one.tflite"
    other.write_bytes(one_op("FULLY_CONNECTED", "INT8", "per_tensor")[0])
    with pytest.raises(ValueError, match="don't take the same inputs"):
        compare.compare_files(paths / "int8.tflite", other)
    with pytest.raises(ValueError, match="can't be read"):
        compare.compare_files(other, paths / "no.tflite")
    other.write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"one\.tflite: "):
        compare.compare_files(other, other)
