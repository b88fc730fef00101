"""Grids, rows, weights and biases by themselves."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.tflite_export import samples as made
from tflite_export import ExportError
from tflite_export import targets
from tflite_export.conversion.float_file import to_float_file
from tflite_export.conversion.source import from_model
from tflite_export.flatbuffer import model as fb
from tflite_export.integer import grids
from tflite_export.integer import quantize_weights
from tflite_export.matching.match import match
from tflite_export.targets import operator_rows

USE = quantize_weights.Use(
    op="FULLY_CONNECTED",
    input_scale=0.1,
    output_scale=0.5,
    inputs=(0, 255),
    output_span=255,
    bias=np.ones(8, np.float32),
)


@pytest.mark.parametrize("mode", ["int8", "int16"])
@pytest.mark.parametrize(
    ("low", "high"), [(-1.0, 2.0), (0.5, 3.0), (-3.0, -1.0), (0.0, 0.0)]
)
def test_a_grid_covers_its_range_and_zero(mode, low, high):
    grid = grids.grid_of_range(mode, low, high)
    least, most = grid.range
    assert least - grid.scale <= low and high <= most + grid.scale
    assert grid.quantize(np.zeros(1))[0] == grid.zero_point
    assert mode == "int8" or grid.zero_point == 0
    values = np.linspace(min(low, 0), max(high, 0), 50)
    units = grid.quantize(values).astype(float) - grid.zero_point
    assert np.abs(units * grid.scale - values).max() <= 1.01 * grid.scale / 2


def test_roles():
    rows = targets.load("cpu_int8").operators
    concat = rows["CONCATENATION"]
    assert {concat.role(k) for k in range(5)} == {"same"}
    conv = rows["CONV_2D"]
    assert [conv.role(k) for k in range(4)] == [
        "activation",
        "weight",
        "bias",
        "integers",
    ]
    assert conv.version("int8", "INT4") == 7
    assert conv.version("int8", "INT8") == 3
    assert rows["HARD_SWISH"].version("int16") is None


def test_rows_of_a_target():
    rows = operator_rows.parse_rows(
        {
            "like": "_integer",
            "only": ["ADD", "MUL", "SUB"],
            "without": ["SUB"],
            "change": {"ADD": {"versions": {"int8": 9}}},
        },
        "here",
    )
    assert list(rows) == ["ADD", "MUL"]
    assert rows["ADD"].version("int8") == 9


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"like": "_integer", "only": ["NOPE"]}, "here: no rows for NOPE"),
        ({"change": {"X": {"output": "free"}}}, "row of X lacks"),
        (
            {"like": "_integer", "change": {"ADD": {"output": "odd"}}},
            "out of range",
        ),
        # More than one unit has to be explained.
        (
            {"like": "_integer", "change": {"PACK": {"units": {"int8": 3}}}},
            "out of range",
        ),
    ],
)
def test_bad_rows(table, message):
    with pytest.raises(ValueError, match=message):
        operator_rows.parse_rows(table, "here")


@pytest.fixture(scope="module")
def found():
    model = made.dense_model()
    file = to_float_file(from_model(model))
    return match(fb.load(file.data), model.weights, []).matches[0]


def test_equal_scales_may_be_written_per_channel(found):
    scale = np.full(8, 0.5, np.float32)
    fit = dataclasses.replace(found.fit, scale=scale)
    same = dataclasses.replace(found, fit=fit)
    weight = quantize_weights.trained_weight(
        same, [USE], 0, targets.load("cpu_int8")
    )
    assert (weight.container, weight.granularity) == ("INT4", "per_channel")
    assert weight.scale.shape == (8,)
    weight = quantize_weights.trained_weight(
        same, [USE], 0, targets.load("edgetpu")
    )
    assert (weight.container, weight.granularity) == ("INT8", "per_tensor")


def test_per_channel_scales_where_one_is_needed(found):
    with pytest.raises(ExportError, match="'a': .*granularity=PerTensor"):
        quantize_weights.trained_weight(
            found, [USE], 0, targets.load("edgetpu")
        )


def test_scales_along_another_axis(found):
    with pytest.raises(ExportError, match="along axis 1.*Received: .* axis 0"):
        quantize_weights.trained_weight(
            found, [USE], 1, targets.load("cpu_int8")
        )


def test_a_bias_beyond_all_that_weights_reach_may_be_smaller(found):
    scale = found.fit.scale.copy()
    scale[3] = 1e-7
    small = dataclasses.replace(
        found, fit=dataclasses.replace(found.fit, scale=scale)
    )
    use = dataclasses.replace(
        USE, output_scale=1e-3, bias=np.full(8, 1e3, np.float32)
    )
    target = targets.load("cpu_int8")
    weight = quantize_weights.trained_weight(small, [use], 0, target)
    np.testing.assert_array_equal(weight.codes, found.codes)
    channels = weight.channels
    assert channels.units == 0.0 and not channels.silenced
    bias = quantize_weights.fitting_bias(weight, use)
    units = quantize_weights.integer_bias(bias, weight.steps * 0.1, False, "a")
    rows = quantize_weights.channel_rows(weight.codes, 0)
    least = units - use.reach(rows)
    assert (least * use.factor(weight.scale) >= use.output_span).all()


def test_float_weights_are_rounded():
    value = np.array([[1.0, -0.5], [0.0, 0.0]], np.float32)
    target = targets.load("cpu_int8")
    use = dataclasses.replace(USE, op="CONV_2D", bias=None)
    weight = quantize_weights.float_weight(value, [use], 0, target)
    assert weight.codes.tolist() == [[127, -64], [0, 0]]
    assert weight.scale.tolist() == pytest.approx([1 / 127] * 2)
    other = dataclasses.replace(use, op="CONV_3D")
    assert quantize_weights.float_weight(value, [other], 0, target) is None
    dense = dataclasses.replace(use, op="FULLY_CONNECTED")
    whole = quantize_weights.float_weight(
        value, [dense], 0, targets.load("edgetpu")
    )
    assert whole.axis is None and whole.scale.shape == (1,)


def test_float_weights_are_rounded_on_scales_with_room_for_the_bias():
    value = np.full((2, 3), 1e-15, np.float32)
    use = dataclasses.replace(USE, op="CONV_2D", bias=np.array([90.0, 0.0]))
    weight = quantize_weights.float_weight(
        value, [use], 0, targets.load("cpu_int8")
    )
    assert weight.codes.tolist() == [[0] * 3, [127] * 3]
    bias = quantize_weights.fitting_bias(weight, use)
    units = quantize_weights.integer_bias(bias, weight.steps * 0.1, False, "a")
    assert units[0] * weight.scale[0] * 0.1 == pytest.approx(90.0)


def test_a_bias_has_to_fit():
    bias, scale = np.array([1e9], np.float32), np.array([0.1], np.float32)
    with pytest.raises(
        ExportError, match="'a': .* beside its bias.*Received: 1e.10"
    ):
        quantize_weights.integer_bias(bias, scale, wide=False, path="a")
    wide = quantize_weights.integer_bias(bias, scale, wide=True, path="a")
    assert wide.dtype == np.int64
