from __future__ import annotations

import os

import pytest

from tests.tflite_export.devices.files import files
from tests.tflite_export.devices.files import images
from tests.tflite_export.devices.files import one_op
from tflite_export.devices import tosa
from tflite_export.devices.widen import widened
from tflite_export.errors import ExportError


@pytest.fixture
def tools(root, monkeypatch):
    if tosa.ENVIRONMENT not in os.environ:
        monkeypatch.chdir(root)
    if tosa.absent():
        pytest.skip(tosa.absent())


def test_int8_is_exact_to_the_bit(tools):
    result = tosa.verify(files()["int8"], [images(3)])
    assert result["units"]["reference"] == 0
    assert result["units"]["xnnpack"] <= 1
    assert result["samples"] == 3


@pytest.mark.parametrize("op", ["CONV_2D", "DEPTHWISE_CONV_2D"])
def test_packed_weights_run_in_wider_containers(tools, op):
    data, x, exact = one_op(op, "INT4", "per_channel")
    got = tosa.run(widened(data), [x])[0]
    assert abs(got.astype(int) - exact).max() <= 1
    assert max(tosa.verify(data, [x])["units"].values()) <= 1


def test_a_failing_tool_is_an_error_with_its_words(tools):
    data, x, _ = one_op("DEPTHWISE_CONV_2D", "INT4", "per_channel")
    with pytest.raises(ExportError, match="could not allocate op RESHAPE"):
        tosa.run(data, [x])


def test_other_results_are_an_error(tools, monkeypatch):
    right = tosa.run
    monkeypatch.setattr(
        tosa, "run", lambda *given: [right(*given)[0].astype(int) - 3]
    )
    with pytest.raises(ExportError, match="kernels .* by . units"):
        tosa.verify(files()["int8"], [images(2)])


def test_without_the_tools(monkeypatch, tmp_path):
    monkeypatch.setenv(tosa.ENVIRONMENT, str(tmp_path))
    assert "make setup-tosa" in tosa.absent()
    with pytest.raises(ExportError, match="make setup-tosa"):
        tosa.run(files()["int8"], [images(1)])
    result = tosa.verify(files()["int8"], [images(1)])
    assert "make setup-tosa" in result["skipped"]
