from __future__ import annotations

import pytest

from tests.tflite_export.devices.files import files
from tests.tflite_export.devices.files import one_op
from tflite_export import targets
from tflite_export.flatbuffer import model as fb
from tflite_export.targets import lint


def messages(data, target):
    return [str(finding) for finding in lint.check(data, target)]


@pytest.mark.parametrize("target", targets.names())
def test_int8_files(target):
    found = messages(files()["int8"], target)
    if targets.load(target).mode == "int16":
        assert any("computes in INT8, expected INT16" in x for x in found)
    elif target == "web":
        # Its tensors hold no int8.
        assert len(found) == 2 and all("is INT8" in text for text in found)
    else:
        assert not found


@pytest.mark.parametrize("target", targets.names())
def test_float_files_run_where_activations_are_float(target):
    found = lint.severe(lint.check(files()["float"], target))
    if not targets.load(target).integer:
        assert not found
        return
    assert any("CONV_2D (operator 0): computes in FLOAT32" in x for x in found)


def test_float_ports_of_integer_files():
    data = files()["float_ports"]
    assert messages(data, "cpu_int8") == []
    assert len(messages(data, "mcu")) == 2
    assert not lint.severe(lint.check(data, "mcu"))
    assert len(lint.severe(lint.check(data, "ethos_u"))) == 2


def test_known_faults_are_found_for_every_target():
    data, _, _ = one_op("CONV_2D", "INT2", "per_channel")
    for target in targets.names():
        found = lint.severe(lint.check(data, target))
        assert any("per channel INT2 weights (int8): FAIL" in x for x in found)


def test_weights_outside_the_table():
    data, _, _ = one_op("CONV_2D", "INT4", "per_channel")
    [text] = messages(data, "cpu_int8")
    assert text.endswith("INT4 weights are not in the target's table")
    assert messages(data, "mcu") == []


def test_dequantized_weights():
    model = fb.load(files()["float_ports"])
    graph = model.subgraphs[0]
    ops = {fb.op_name(model, op): op for op in graph.operators}
    # The weights of the convolution, unpacked at run time.
    ops["DEQUANTIZE"].inputs = [ops["CONV_2D"].inputs[1]]
    data = fb.dump(model)
    assert any("one scale for all channels" in x for x in messages(data, "mcu"))
    assert messages(data, "cpu_float") == []


def test_operators_of_one_family_are_named():
    model = fb.load(files()["int8"])
    for code in model.operatorCodes:
        if code.builtinCode == 0:
            # ADD becomes GATHER.
            code.builtinCode = code.deprecatedBuiltinCode = 36
    [text] = messages(fb.dump(model), "ethos_u")
    assert text == "GATHER (operator 3): runs on Ethos-U85 only"


def test_summary():
    assert "nothing" in lint.summary("mcu", [])
    text = lint.summary("mcu", lint.check(files()["float"], "mcu"))
    assert "refused" in text and "note" in text


def test_an_input_that_is_an_output():
    model = fb.load(files()["int8"])
    graph = model.subgraphs[0]
    graph.outputs = [*fb.outputs(graph), *fb.inputs(graph)]
    found = [
        finding
        for finding in lint.check(fb.dump(model), "web")
        if finding.rule == "computed outputs"
    ]
    assert len(found) == 1 and found[0].severe
    assert "is an output, too" in str(found[0])
    # The interpreter is right.
    assert not any("too:" in x for x in messages(fb.dump(model), "cpu_int8"))
