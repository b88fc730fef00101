from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.tflite_export.devices.files import files
from tests.tflite_export.devices.files import images
from tests.tflite_export.devices.files import one_op
from tflite_export import devices
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import model as fb
from tflite_export.targets import lint


def findings(change):
    """What is found in the int8 file after a change to it."""
    model = fb.load(files()["int8"])
    ops = {fb.op_name(model, op): op for op in model.subgraphs[0].operators}
    change(model, ops)
    return [str(f) for f in lint.check(fb.dump(model), "edgetpu")]


def tensor(model, op, position):
    return model.subgraphs[0].tensors[op.inputs[position]]


def output(model, op):
    return model.subgraphs[0].tensors[op.outputs[0]]


@pytest.mark.slow
def test_a_good_file_and_the_command():
    result = devices.finish("edgetpu", files()["int8"], "net", [images(1)])
    command = "edgetpu_compiler --show_operations net.tflite"
    assert result.figures["command"] == command
    assert result.figures["compiler_was_run"] is False
    assert result.figures["fits_on_chip"]
    assert "was not run" in result.notes[0] and command in result.notes[0]
    assert not result.files


def test_float_ports_are_noted():
    result = devices.finish("edgetpu", files()["float_ports"], "n", [images(1)])
    assert sum("FLOAT32" in note for note in result.notes) == 2


def test_float_operators_are_named():
    with pytest.raises(ExportError, match=r"CONV_2D \(operator 0\).*SOFTMAX"):
        devices.finish("edgetpu", files()["float"], "net", [])


def test_packed_and_per_channel_weights():
    for op, weights in (("CONV_2D", "INT4"), ("FULLY_CONNECTED", "INT8")):
        data, _, _ = one_op(op, weights, "per_channel")
        with pytest.raises(ExportError, match=f"per channel {weights}"):
            devices.finish("edgetpu", data, "net", [])


def test_parameters_beyond_the_cache_are_noted(monkeypatch):
    from tflite_export.devices import edgetpu

    monkeypatch.setattr(edgetpu, "_CACHE_BYTES", 100)
    result = devices.finish("edgetpu", files()["int8"], "net", [images(1)])
    assert "fetched at every run" in result.notes[-1]


def _open_axis(model, ops):
    tensor(model, ops["CONV_2D"], 0).shapeSignature = [-1, 8, 8, 3]


def test_open_axes_are_one_finding():
    """An open batch is open in every tensor."""

    def open_all(model, ops):
        for one in model.subgraphs[0].tensors[:3]:
            one.shapeSignature = [-1, *one.shape[1:]]

    found = [text for text in findings(open_all) if "open axis" in text]
    assert len(found) == 1 and "in 3 tensors" in found[0]


def _batch(model, ops):
    for one in model.subgraphs[0].tensors:
        computed = model.buffers[one.buffer].data is None
        if computed and len(one.shape) == 4 and one.shape[0] == 1:
            one.shape = [2, *one.shape[1:]]


def _two_graphs(model, ops):
    model.subgraphs.append(model.subgraphs[0])


def _dilation(model, ops):
    ops["CONV_2D"].builtinOptions.dilationWFactor = 2


def _fused(model, ops):
    ops["MAX_POOL_2D"].builtinOptions.fusedActivationFunction = 1


def _long_output(model, ops):
    output(model, ops["FULLY_CONNECTED"]).shape = [2, 4]


def _shuffled(model, ops):
    ops["FULLY_CONNECTED"].builtinOptions.weightsFormat = 1


def _long_softmax(model, ops):
    output(model, ops["SOFTMAX"]).shape = [1, 16_001]


def _flat_softmax(model, ops):
    output(model, ops["SOFTMAX"]).shape = [2, 4]


def _batch_mean(model, ops):
    place = tensor(model, ops["MEAN"], 1)
    axes = np.asarray([0, 2], np.int32)
    model.buffers[place.buffer].data = axes.view(np.uint8)


def _depth_mean(model, ops):
    place = tensor(model, ops["MEAN"], 1)
    axes = np.asarray([1, 3], np.int32)
    model.buffers[place.buffer].data = axes.view(np.uint8)
    tensor(model, ops["MEAN"], 0).shape = [1, 4, 4, 6]


def _unknown(model, ops):
    code = fb.op_code(model, ops["ADD"])
    code.builtinCode = schema.BuiltinOperator.FLOOR_MOD
    code.deprecatedBuiltinCode = code.builtinCode


def _sixteen_bits(model, ops):
    output(model, ops["ADD"]).type = schema.TensorType.INT16


def _computed_weight(model, ops):
    tensor(model, ops["CONV_2D"], 1).buffer = 0


@pytest.mark.parametrize(
    "change, message",
    [
        (_open_axis, "open axis"),
        (_batch, "only the 3 innermost axes may be longer than 1"),
        (_two_graphs, "2 subgraphs"),
        (_dilation, "dilations 1 and 2"),
        (_fused, "MAX_POOL_2D .*fused activation"),
        (_long_output, "FULLY_CONNECTED .*isn't one-dimensional"),
        (_shuffled, "shuffled format"),
        (_long_softmax, "more than 16,000"),
        (_flat_softmax, "SOFTMAX .*isn't one-dimensional"),
        (_batch_mean, "reduces the batch axis"),
        (_depth_mean, "6 channels, which is no multiple of 4"),
        (_unknown, "FLOOR_MOD .*not in the list"),
        (_sixteen_bits, "computes in INT16, expected INT8"),
        (_computed_weight, "computes its input 1 at run time"),
    ],
)
def test_rules(change, message):
    import re

    found = findings(change)
    assert any(re.search(message, text) for text in found), found
