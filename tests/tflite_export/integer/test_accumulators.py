"""Scales and biases that accumulators have room for, and what that changes."""

from __future__ import annotations

import pathlib

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest

import msq_tf
from tests.tflite_export.integer import one_operator
from tflite_export import ExportError
from tflite_export import export
from tflite_export import targets
from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer import packing
from tflite_export.integer import accumulators
from tflite_export.runtime import interpreter

laws = hypothesis.settings(deadline=None, max_examples=200)
exponents = st.floats(-40, 12)


@st.composite
def channels(draw):
    """One channel with its use, from sane to absurd."""
    int16 = draw(st.booleans())
    span = 65535 if int16 else 255
    count = draw(st.integers(1, 40))
    seed = draw(st.integers(0, 1000))
    top = draw(st.sampled_from([1, 7, 127]))
    rows = np.random.default_rng(seed).integers(-top, top + 1, (1, count))
    zero = 0 if int16 else draw(st.integers(-128, 127))
    half = (span + 1) // 2
    bias = draw(st.sampled_from([0.0, 1.0, -1.0])) * 10.0 ** draw(
        st.floats(-12, 12)
    )
    use = accumulators.Use(
        op="CONV_2D",
        input_scale=float(np.float32(10.0 ** draw(st.floats(-6, 3)))),
        output_scale=float(np.float32(10.0 ** draw(st.floats(-6, 3)))),
        inputs=(-half - zero, half - 1 - zero),
        output_span=span,
        bias=np.array([bias], np.float32),
    )
    bits = 47 if int16 else draw(st.sampled_from([28, 32]))
    scale = np.array([2.0 ** draw(exponents)], np.float32)
    return rows, scale, use, (1 << (bits - 1)) - 1, zero


def outputs(rows, scale, use, bias, zero, x):
    """Codes of the output in exact arithmetic."""
    sums = rows[0] @ x
    values = (sums * float(scale) * use.input_scale) + bias
    half = (use.output_span + 1) // 2
    codes = np.round(values / use.output_scale) + zero
    return np.clip(codes, -half, half - 1), values / use.output_scale


@laws
@hypothesis.given(channels(), st.integers(0, 10))
def test_fitted_channels_fit_and_change_no_more_than_they_say(case, seed):
    rows, scale, use, room, zero = case
    fitted = accumulators.fit(rows, scale, scale < 0, [use], room)
    bias = accumulators.bias(rows, fitted, use)
    unit = use.input_scale * fitted.steps[0]
    whole = np.round(bias[0] / unit)
    assert abs(whole) <= room
    low, high = use.inputs
    x = np.random.default_rng(seed).integers(low, high + 1, (rows.size, 20))
    x[:, 0], x[:, 1] = low, high
    x[:, 2] = np.where(rows[0] > 0, high, low)
    x[:, 3] = np.where(rows[0] > 0, low, high)
    # Biases are rounded to the accumulator's units, here as in the file.
    trained = np.round(float(use.bias[0]) / unit) * unit
    want, real = outputs(rows, scale[0], use, trained, zero, x)
    sums = rows[0] @ x + whole
    half = (use.output_span + 1) // 2
    exact = sums * use.factor(fitted.scale)[0]
    got = np.clip(np.round(exact) + zero, -half, half - 1)
    inside = np.clip(exact + zero, -half, half - 1)
    apart = np.abs(inside - np.clip(real + zero, -half, half - 1))
    rounding = 1e-3 + 1e-9 * np.abs(real).max()
    if fitted.scale[0] < fitted.steps[0]:
        np.testing.assert_array_equal(got, want)
    else:
        assert apart.max() <= fitted.change[0] + rounding
    if fitted.scale[0] == scale[0]:
        assert fitted.change[0] == 0.0


def test_channels_that_fit_are_left_alone():
    rows = np.array([[3, -2], [1, 1]])
    use = accumulators.Use(
        "CONV_2D", 0.02, 0.05, (0, 255), 255, np.array([0.5, -3.0])
    )
    scale = np.array([0.01, 0.02], np.float32)
    fitted = accumulators.fit(rows, scale, scale < 0, [use], 2**31 - 1)
    np.testing.assert_array_equal(fitted.scale, scale)
    np.testing.assert_array_equal(fitted.steps, scale)
    assert not fitted.change.any()
    np.testing.assert_array_equal(
        accumulators.bias(rows, fitted, use), use.bias
    )


@pytest.mark.parametrize("kernels", list(interpreter.KERNELS))
@pytest.mark.parametrize(
    ("op", "weights", "activations", "name"),
    [
        ("FULLY_CONNECTED", "INT2", "INT8", "cpu_int8"),
        ("FULLY_CONNECTED", "INT4", "INT8", "cpu_int8"),
        ("FULLY_CONNECTED", "INT8", "INT8", "cpu_int8"),
        ("CONV_2D", "INT8", "INT8", "cpu_int8"),
        ("CONV_2D", "INT8", "INT16", "cpu_int16"),
        ("FULLY_CONNECTED", "INT8", "INT16", "cpu_int16"),
    ],
)
def test_accumulators_are_as_long_as_the_table_says(
    op, weights, activations, name, kernels
):
    bits = targets.load(name).accumulator_bits(op, weights)
    top = 30_000 if activations == "INT16" else 100
    for exponent in (bits - 12, bits - 4, bits - 1.01):
        error = one_operator.biased(
            op, weights, activations, int(2.0**exponent), top, kernels
        )
        assert error <= 1, exponent


def test_four_bit_sums_wrap_at_2_to_the_27():
    """The day this fails the table may say more."""
    processor = pathlib.Path("/proc/cpuinfo")
    if not processor.exists() or "vnni" not in processor.read_text():
        pytest.skip("XNNPACK's kernels for processors without VNNI don't wrap")
    wrong = one_operator.biased(
        "FULLY_CONNECTED", "INT4", "INT8", 2**27 + 2**16, 100, "xnnpack"
    )
    assert wrong > 50


@pytest.mark.parametrize("op", ["FULLY_CONNECTED", "CONV_2D"])
def test_factors_of_256_are_too_large_for_xnnpack(op):
    for factor in (100.0, 255.75):
        for kernels in interpreter.KERNELS:
            assert one_operator.scaled(op, factor, kernels) <= 1
    with pytest.raises(RuntimeError, match="failed to prepare"):
        one_operator.scaled(op, 256.0, "xnnpack")


def quiet_model(gamma, beta, bits, kernel=1):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 8))
    x = keras.layers.Conv2D(16, kernel, use_bias=False, name="c")(inputs)
    norm = keras.layers.BatchNormalization()
    x = keras.layers.Conv2D(4, 1, name="d")(norm(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    qmodel = msq_tf.quantize_model(keras.Model(inputs, x))
    qmodel.set_bits(dict.fromkeys(qmodel.bits, bits))
    norm.gamma.assign(np.broadcast_to(gamma, 16))
    norm.beta.assign(np.broadcast_to(beta, 16))
    return qmodel


def images():
    rng = np.random.default_rng(0)
    return rng.normal(size=(16, 4, 4, 8)).astype(np.float32)


def stored_codes(path, layer):
    model = fb.load(path.read_bytes())
    for tensor in model.subgraphs[0].tensors:
        if fb.name(tensor) == layer:
            shape = fb.shape(tensor)
            bits = targets.CONTAINERS[fb.type_name(tensor)]
            raw = fb.raw_data(model, tensor)
            count = int(np.prod(shape))
            return packing.unpack(raw, bits, count).reshape(shape)
    raise AssertionError(layer)


EXTREMES = {
    "tiny": 5e-6,
    "zero": 0.0,
    "negative": -1e-12,
    "all": np.array([0.0, 1e-12, -1e-12, 5e-6, 1.0, 1e3, -1e3, 1e-3] * 2),
}


@pytest.mark.first(2)
@pytest.mark.parametrize(
    ("bits", "target"),
    [
        (2, "cpu_int8"),
        (4, "cpu_int8"),
        (8, "cpu_int8"),
        (4, "cpu_int16"),
        (4, "edgetpu"),
    ],
)
@pytest.mark.parametrize("name", EXTREMES)
def test_codes_of_quiet_channels_are_in_the_file(name, bits, target, tmp_path):
    qmodel = quiet_model(EXTREMES[name], np.linspace(-2, 2, 16), bits)
    path = tmp_path / "m.tflite"
    report = export(qmodel, path, target, representative_data=images())
    conv = report.tensors[0]
    assert conv.silenced == 0 and conv.change < 0.125
    kept = np.abs(stored_codes(path, "c"))
    trained = np.abs(qmodel.quantized_weights()[0].codes)
    np.testing.assert_array_equal(
        kept.reshape(16, -1), trained.reshape(-1, 16).T
    )
    assert ("their codes are the trained ones" in str(report)) == bool(
        conv.rescaled
    )


def test_the_case_of_a_trial(tmp_path):
    """XNNPACK made -91 of -128 of a bias of -200,621,695 units."""
    report = export(
        quiet_model(5e-6, -2.0, 4),
        tmp_path / "m.tflite",
        "cpu_int8",
        representative_data=images(),
    )
    assert report.tensors[0].container == "INT4"
    assert report.tensors[0].rescaled == 16


def wide_dense(kernel, bits, count=2000):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((count,))
    layer = keras.layers.Dense(4, name="d")
    qmodel = msq_tf.quantize_model(keras.Model(inputs, layer(inputs)))
    layer.kernel.assign(np.full((count, 4), kernel))
    layer.bias.assign([6.0, 5.0, -4.0, 1.0])
    qmodel.set_bits({"d": bits})
    return qmodel


def exported(qmodel, path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, *qmodel.base.inputs[0].shape[1:])).astype(
        np.float32
    )
    return export(qmodel, path, "cpu_int8", representative_data=x)


def test_a_wider_container_where_the_narrow_one_has_no_room(tmp_path):
    report = exported(wide_dense(1e-9, 4), tmp_path / "m.tflite")
    (dense,) = report.tensors
    assert dense.container == "INT8" and not dense.silenced
    assert 0.0 < dense.change < 0.5


def test_codes_are_zeros_only_where_nothing_else_is_left(tmp_path):
    report = exported(wide_dense(1e-9, 8), tmp_path / "m.tflite")
    (dense,) = report.tensors
    assert dense.silenced == 2 and dense.rescaled == 2
    assert "codes of 2 of 4 channels are zeros in the file" in str(report)


def test_what_fits_nowhere_is_refused_by_channel(tmp_path):
    with pytest.raises(ExportError, match="'d', channel 0: beside its bias"):
        exported(wide_dense(5e-6, 8, 8000), tmp_path / "m.tflite")
