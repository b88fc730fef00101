"""Layer normalizations in integer files: float, on trained grids."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.tflite_export import samples as made
from tests.tflite_export.integer import networks
from tflite_export import ExportError
from tflite_export import export
from tflite_export.flatbuffer import model as fb

L = keras.layers


def block():
    """Two in a row, one read twice, one behind an addition, one at the end."""
    x = inputs = keras.Input((6, 8))
    x = L.Dense(8)(x)
    x = L.LayerNormalization()(L.LayerNormalization(center=False)(x))
    y = L.Dense(8, activation="relu")(x)
    x = L.RMSNormalization()(L.Add()([x, y]))
    return keras.Model(inputs, L.LayerNormalization(scale=False)(L.Dense(5)(x)))


def grouped():
    x = inputs = keras.Input((4, 4, 8))
    x = L.GroupNormalization(2)(L.Conv2D(8, 3, padding="same")(x))
    return keras.Model(inputs, L.Conv2D(3, 1)(x))


def types(path, name):
    """Types of what operators of one kind read and write, each once."""
    model = fb.load(path.read_bytes())
    graph = model.subgraphs[0]
    return {
        fb.type_name(graph.tensors[index])
        for op in graph.operators
        if fb.op_name(model, op) == name
        for index in (*fb.inputs(op), *fb.outputs(op))
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "bits"),
    [(block, 8), (block, 16), (grouped, 8)],
    ids=["block", "block16", "grouped"],
)
def test_the_file_computes_what_was_trained(build, bits, tmp_path):
    keras.utils.set_random_seed(1)
    qmodel = made.quantized(build(), activation_bits=bits)
    # Sums of few-bit codes often are ties, which each step may break anew.
    qmodel.set_bits(dict.fromkeys(qmodel.bits, 8))
    x = networks.samples(qmodel.base)
    networks.see(qmodel, x)
    path = tmp_path / "m.tflite"
    report = export(
        qmodel, path, target=f"cpu_int{bits}", representative_data=x
    )
    assert types(path, "RSQRT") == {"FLOAT32"}
    assert f"INT{bits}" in types(path, "DEQUANTIZE")
    if build is block:
        # No grid in the file is one that training does not know, so that the
        # export compared the file with Keras, unit by unit.
        assert any("with its trained ranges" in note for note in report.notes)
    assert all(check.ran for check in report.checks)


@pytest.mark.slow
def test_variances_far_apart(tmp_path):
    """In 8 bits a hundredth of the largest variance would be zero."""
    x = inputs = keras.Input((6, 8))
    x = L.LayerNormalization(epsilon=1e-6)(L.Dense(8)(x))
    qmodel = made.quantized(keras.Model(inputs, L.Dense(5)(x)))
    qmodel.set_bits(dict.fromkeys(qmodel.bits, 8))
    for variable in qmodel.base.variables:
        if variable.name == "bias":
            variable.assign(np.zeros(variable.shape))
    x = networks.samples(qmodel.base)
    x *= np.geomspace(0.1, 1.0, 6)[:, None]
    report = export(
        qmodel, tmp_path / "m", target="cpu_int8", representative_data=x
    )
    units = [n for n in report.notes if "float activations" in n][0]
    assert int(units.split("up to ")[1].split()[0]) <= 12


def test_devices_refuse_by_operator(tmp_path):
    qmodel = made.quantized(block())
    x = networks.samples(qmodel.base)
    with pytest.raises(ExportError, match="'mcu' has no policy.*RSQRT"):
        export(qmodel, tmp_path / "m", target="mcu", representative_data=x)
    assert not list(tmp_path.iterdir())


def test_a_root_of_something_else_is_float_where_no_grid_is_trained(tmp_path):
    """1 / sqrt(x) of a user's own is no normalization, but as delicate."""
    x = inputs = keras.Input((6,))
    x = keras.ops.rsqrt(L.Dense(4, activation="sigmoid")(x) + 1.0)
    qmodel = made.quantized(keras.Model(inputs, L.Dense(3)(x)))
    data = networks.samples(qmodel.base)
    path = tmp_path / "m"
    export(qmodel, path, target="cpu_int8", representative_data=data)
    assert types(path, "RSQRT") == {"FLOAT32"}
    assert "INT8" in types(path, "FULLY_CONNECTED")
