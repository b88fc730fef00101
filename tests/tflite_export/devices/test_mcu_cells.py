"""What TFLite Micro computes, type by type: the evidence of `mcu.json`."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tflite_export.devices.files import one_op
from tflite_export import targets
from tflite_export.devices import micro
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.targets import lint

OPS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


@pytest.mark.first(1)
@pytest.mark.parametrize("weights", ["INT8", "INT4", "INT2"])
@pytest.mark.parametrize("op", OPS)
def test_cell(op, weights):
    target = targets.load("mcu")
    for granularity in targets.GRANULARITIES:
        data, x, exact = one_op(op, weights, granularity)
        try:
            got = micro.run(data, [x]).outputs[0]
            runs = np.abs(got.astype(int) - exact).max() <= 1
        except ExportError:
            runs = False
        assert target.allows(op, weights, granularity) == runs, granularity
        assert runs == (not lint.severe(lint.check(data, "mcu")))


def test_a_depthwise_convolution_without_bias_ends_the_process():
    data, x, _ = one_op("DEPTHWISE_CONV_2D", "INT8", "per_channel", bias=False)
    with pytest.raises(ExportError, match="signal 11"):
        micro.run(data, [x])
    [finding] = lint.check(data, "mcu")
    assert str(finding) == "DEPTHWISE_CONV_2D (operator 0): has no bias"


def test_relu6_does_not_rescale():
    """So it has no row; behind another grid it is a table."""
    model = fb.load(one_op("CONV_2D", "INT8", "per_tensor")[0])
    graph = model.subgraphs[0]
    for index in (*fb.inputs(graph), *fb.outputs(graph)):
        graph.tensors[index].shape = np.array([1, 8], np.int32)
    source, result = fb.inputs(graph)[0], fb.outputs(graph)[0]
    for index, scale in ((source, 0.1), (result, 0.05)):
        graph.tensors[index].quantization = edit.quantization(
            np.float32([scale])
        )
    graph.operators = [edit.new_operator(model, "RELU6", 2, [source], [result])]
    data = fb.dump(model)
    x = np.array([[-20, 0, 5, 10, 20, 30, 60, 100]], np.int8)
    got = micro.run(data, [x]).outputs[0].astype(int)
    right = np.clip(np.round(np.clip(x * 0.1, 0, 6) / 0.05), -128, 127)
    assert np.abs(got - right).max() > 1
    [finding] = lint.check(data, "mcu")
    assert finding.rule == "one_grid"
    assert "RELU6" not in targets.load("mcu").operators
