"""Dense layers on more than two axes are one operator each."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.tflite_export.samples import quantized
from tflite_export import export
from tflite_export import float_tflite
from tflite_export import inspect_file
from tflite_export import run
from tflite_export.flatbuffer import model as fb

L = keras.layers


def operators(data):
    model = fb.load(data)
    return [fb.op_name(model, op) for op in model.subgraphs[0].operators]


def biased(model):
    """Biases that the converter can't drop."""
    rng = np.random.default_rng(2)
    for variable in model.variables:
        if "bias" in variable.name:
            variable.assign(rng.normal(size=variable.shape))
    return model


def built(inputs, outputs):
    return biased(keras.Model(inputs, outputs))


def dense(shape):
    inputs = keras.Input(shape)
    return built(inputs, L.Dense(5, activation="relu")(inputs))


def heads():
    """Features are split into heads, each with biases of its own."""
    inputs = keras.Input((6, 8))
    layer = L.EinsumDense(
        "abc,cde->abde", output_shape=(None, 2, 3), bias_axes="de"
    )
    return built(inputs, layer(inputs))


def shared_bias():
    """One bias a head, for all of its features."""
    inputs = keras.Input((6, 8))
    layer = L.EinsumDense(
        "abc,cde->abde", output_shape=(None, 2, 3), bias_axes="d"
    )
    return built(inputs, layer(inputs))


def positions():
    """What is added differs along the rows, so it is no bias."""
    inputs = keras.Input((6, 8))
    x = L.Dense(4, use_bias=False)(inputs)
    return built(inputs, x + np.arange(24, dtype="f").reshape(6, 4))


def two_readers():
    inputs = keras.Input((6, 8))
    x = L.Dense(4, use_bias=False)(inputs)
    return built(inputs, [x + np.arange(4, dtype="f"), x])


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (dense((6, 8)), ["FULLY_CONNECTED"]),
        (dense((3, 2, 8)), ["FULLY_CONNECTED"]),
        (heads(), ["FULLY_CONNECTED", "RESHAPE"]),
        (shared_bias(), ["FULLY_CONNECTED", "RESHAPE"]),
        (positions(), ["FULLY_CONNECTED", "ADD"]),
        (two_readers(), ["FULLY_CONNECTED", "ADD"]),
    ],
    ids=["dense", "image", "heads", "shared_bias", "positions", "two_readers"],
)
def test_one_operator(model, expected, tmp_path):
    assert operators(float_tflite(model)) == expected
    x = np.random.default_rng(0).normal(size=(3, *model.input_shape[1:]))
    x = x.astype(np.float32)
    outputs = keras.tree.flatten(model(x))
    path = tmp_path / "m.tflite"
    path.write_bytes(float_tflite(model))
    got = keras.tree.flatten(run(path, x, batch_size=2))
    assert [y.shape for y in got] == [y.shape for y in outputs]
    for y, wanted in zip(got, outputs, strict=True):
        np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_an_open_length_beside_an_open_batch_stays_as_it_is(tmp_path):
    inputs = keras.Input((None, 8))
    model = built(inputs, L.Dense(5)(inputs))
    # With TensorFlow 2.20 and Keras 3.12 the converter leaves none.
    shaped = "SHAPE" in operators(float_tflite(model))
    assert shaped or keras.__version__ < "3.15"
    qmodel = quantized(model)
    x = np.random.default_rng(0).normal(size=(3, 4, 8)).astype(np.float32)
    path = tmp_path / "m.tflite"
    export(qmodel, path, representative_data=x)
    found = {n.split()[0] for n in inspect_file(path).ops}
    assert ("SHAPE" in found) == shaped
