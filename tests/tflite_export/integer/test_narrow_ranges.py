"""Trained ranges that the converter would widen."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf
from tests.tflite_export.integer import networks
from tflite_export import export
from tflite_export.conversion import float_file
from tflite_export.conversion.source import Source
from tflite_export.conversion.source import from_model
from tflite_export.flatbuffer import model as fb
from tflite_export.integer import trained_grids

L = keras.layers


def network(size):
    draw = keras.initializers.RandomNormal(stddev=size)
    x = inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, kernel_initializer=draw)(x)
    x = L.Conv2D(4, 1, activation="relu6")(L.AveragePooling2D(2)(x))
    return keras.Model(inputs, L.Dense(2)(L.Flatten()(x)))


def trained(size, bits):
    keras.utils.set_random_seed(0)
    model = network(size)
    config = msq_tf.MSQConfig(activation_bits=bits)
    return networks.see(
        msq_tf.quantize_model(model, config), networks.samples(model)
    )


@pytest.mark.slow
@pytest.mark.parametrize("size", [3e-8, 1e-13])
@pytest.mark.parametrize("bits", [8, 16])
def test_narrow_ranges_are_the_grids(bits, size, tmp_path):
    qmodel = trained(size, bits)
    path = tmp_path / "m.tflite"
    report = export(
        qmodel,
        path,
        f"cpu_int{bits}",
        representative_data=networks.samples(qmodel.base),
    )
    assert all(check.ran for check in report.checks)
    units = {t.quantization.scale[0] for t in integers(path.read_bytes())}
    for low, high, narrow in qmodel.site_ranges():
        unit = (high - low) / (2**bits - 1 - narrow)
        assert min(abs(np.log(found / unit)) for found in units) < 1e-5


def integers(data):
    model = fb.read(data)
    for op in model.subgraphs[0].operators:
        for index in fb.outputs(op):
            tensor = model.subgraphs[0].tensors[index]
            if fb.type_name(tensor) in ("INT8", "INT16"):
                yield tensor


@pytest.mark.slow
@pytest.mark.parametrize("bits", [8, 16])
def test_own_grids_are_those_of_the_converter(bits, monkeypatch):
    """Where it widens nothing, there are two ways to one grid."""
    qmodel = trained(1.0, bits)
    source = from_model(qmodel)
    source = Source(source.base, qmodel, source.structure, True)
    data = float_file.to_float_file(source).data
    found = []
    for widened in (0.0, float("inf")):
        monkeypatch.setattr(trained_grids, "_WIDENED", widened)
        mode = f"int{bits}"
        found.append(
            trained_grids.take_pairs(fb.load(data), mode, source.site_ranges)
        )
    assert found[0] == found[1]
    assert len(found[0]) == len(qmodel.activations.sites)


def squashed(squash):
    draw = keras.initializers.RandomNormal(stddev=1e-13)
    inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, kernel_initializer=draw)(inputs)
    y = L.Conv2D(4, 3)(inputs)
    x = L.Concatenate()([L.Activation(squash)(x), y])
    return keras.Model(inputs, L.Dense(2)(L.Flatten()(x)))


@pytest.mark.first(1)
@pytest.mark.parametrize("bits", [None, 16])
@pytest.mark.parametrize("squash", ["sigmoid", "tanh"])
def test_tiny_inputs_of_16_bit_tables(squash, bits, tmp_path):
    """The kernels' multiplier of a unit below 3.8e-14 is 0."""
    keras.utils.set_random_seed(0)
    model = squashed(squash)
    data = networks.samples(model)
    config = msq_tf.MSQConfig(activation_bits=bits)
    qmodel = msq_tf.quantize_model(model, config)
    if bits:
        networks.see(qmodel, data)
    path = tmp_path / "m.tflite"
    report = export(qmodel, path, "cpu_int16", representative_data=data)
    assert all(check.ran for check in report.checks)
