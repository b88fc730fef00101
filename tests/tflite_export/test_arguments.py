"""What is no argument at all: a message for each, before any work."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tflite_export
from tests.tflite_export.samples import quantized


@pytest.fixture(scope="module")
def model():
    inputs = keras.Input((6,), name="x")
    return quantized(keras.Model(inputs, keras.layers.Dense(3)(inputs)))


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "m.tflite"
    tflite_export.export(model, path)
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        {"target": ["mcu", "min_size"]},
        {"target": None},
        {"samples": "64"},
        {"batch_size": 0},
        {"integer_io": "yes"},
        {"max_units": "2"},
        {"max_relative_error": "1e-4"},
        {"min_agreement": 97},
        {"device_options": "x"},
        {"save_failure_to": 3},
        {"verbose": "no"},
        {"input_signature": 3},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_of_export(model, tmp_path, arguments):
    with pytest.raises(ValueError, match="Received: "):
        tflite_export.export(model, tmp_path / "m.tflite", **arguments)
    assert not list(tmp_path.iterdir())


def test_paths(model):
    for path in (None, 3, ""):
        with pytest.raises(ValueError, match="`path`.*Received"):
            tflite_export.export(model, path)
        with pytest.raises(ValueError, match="`path`.*Received"):
            tflite_export.inspect_file(path)


@pytest.mark.parametrize(
    "inputs",
    [
        np.zeros((2, 5), np.float32),
        np.zeros(6, np.float32),
        3.0,
        "x",
        None,
        np.array([["a"] * 6]),
        {"y": np.zeros((2, 6))},
        {1: np.zeros((2, 6))},
        [],
    ],
)
def test_samples_that_do_not_fit_a_file(file, inputs):
    with pytest.raises(ValueError, match="fit the .*Expected.*Received"):
        tflite_export.run(file, inputs)


@pytest.mark.parametrize(
    "arguments", [{"kernels": ["xnnpack"]}, {"batch_size": "2"}]
)
def test_of_run(file, arguments):
    with pytest.raises(ValueError, match="Expected|integer.*Received"):
        tflite_export.run(file, np.zeros((2, 6), np.float32), **arguments)
