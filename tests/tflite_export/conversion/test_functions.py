"""Functions by others: their numbers, and the files that have them."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tests.tflite_export.samples import quantized
from tflite_export import ExportError
from tflite_export import export
from tflite_export import inspect_file
from tflite_export import run
from tflite_export.conversion.lowering import lowered

L = keras.layers
OPS = keras.ops
# Where each function is defined, and what float64 says of it.
FUNCTIONS = {
    "acos": (math.acos, -1.0, 1.0),
    "acosh": (math.acosh, 1.0, 1e6),
    "asin": (math.asin, -1.0, 1.0),
    "asinh": (math.asinh, -1e6, 1e6),
    "atan": (math.atan, -1e6, 1e6),
    "atanh": (math.atanh, -0.999, 0.999),
    "cosh": (math.cosh, -80.0, 80.0),
    "erf": (math.erf, -1e6, 1e6),
    "sinh": (math.sinh, -80.0, 80.0),
    "tan": (math.tan, -1.5, 1.5),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@given(data=st.data())
@settings(max_examples=60)
def test_is_the_function_to_the_rounding(name, data):
    exact, low, high = FUNCTIONS[name]
    x = np.float32(data.draw(st.floats(low, high)))
    original = getattr(tf.math, name)
    with lowered(erf=True):
        assert getattr(tf.math, name) is not original
        got = float(getattr(tf.math, name)(tf.constant(x)))
    assert getattr(tf.math, name) is original
    want = exact(float(np.clip(x, low, high)))
    # Near a zero of acos and acosh the argument's own rounding counts.
    assert abs(got - want) <= 8e-7 * max(abs(want), 1e-30) + 1e-7 * (
        name in {"acos", "acosh"}
    )


@given(
    values=st.lists(st.integers(-3, 3), min_size=6, max_size=6),
    axis=st.sampled_from([0, 1, -1, None]),
    keepdims=st.booleans(),
)
def test_the_first_extreme_is_that_of_keras(values, axis, keepdims):
    x = np.array(values, np.float32).reshape(2, 3)
    for name in ("argmax", "argmin"):
        want = getattr(OPS, name)(x, axis=axis, keepdims=keepdims)
        with lowered():
            got = getattr(OPS, name)(x, axis=axis, keepdims=keepdims)
        assert got.dtype == want.dtype and got.shape == want.shape
        np.testing.assert_array_equal(got, want)


def test_products_of_stretches_are_cumulative():
    x = np.random.default_rng(0).normal(size=(2, 7, 3)).astype(np.float32)
    for axis in (0, 1, -1):
        with lowered():
            got = tf.math.cumprod(x, axis)
        np.testing.assert_allclose(got, np.cumprod(x, axis), rtol=1e-6)


def test_diagonals_are_looked_up():
    x = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    with lowered():
        got = tf.linalg.diag_part(x)
    np.testing.assert_array_equal(got, tf.linalg.diag_part(x))


def between(function):
    inputs = keras.Input((6, 4))
    x = L.Dense(4, name="dense")(inputs)
    return keras.Model(inputs, function(x))


def exported(model, path, target="min_size", count=16):
    shape = (count, *model.input_shape[1:])
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    qmodel = quantized(model)
    export(qmodel, path, target=target, representative_data=x)
    return qmodel, x


@pytest.mark.parametrize("target", ["min_size", "cpu_int8"])
def test_a_class_is_an_output(target, tmp_path):
    path = tmp_path / "m.tflite"
    model = between(lambda x: OPS.argmax(L.Flatten()(x), axis=-1))
    qmodel, x = exported(model, path, target)
    got = run(path, x)
    assert got.dtype == np.int32
    want = np.asarray(qmodel(x))
    # Codes of int8 may be equal where floats differ a little.
    share = 1.0 if target == "min_size" else 0.9
    assert (got == want).mean() >= share
    operators = [op.split()[0] for op in inspect_file(path).ops]
    assert "ARG_MAX" in operators
    assert not {"SELECT_V2", "LOGICAL_AND"} & set(operators)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("GELU", lambda x: 0.5 * x * (1 + OPS.erf(x / np.float32(2**0.5)))),
        ("DIV", lambda x: OPS.erf(x)),
    ],
)
def test_gelu_stays_one_operator(name, function, tmp_path):
    path = tmp_path / "m.tflite"
    qmodel, x = exported(between(function), path)
    assert name in [op.split()[0] for op in inspect_file(path).ops]
    np.testing.assert_allclose(run(path, x), qmodel(x), atol=1e-5)


def test_what_no_operator_computes_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"Received: tf\.NextAfter"):
        exported(between(lambda x: OPS.nextafter(x, x + 1)), tmp_path / "m")
    assert not list(tmp_path.iterdir())
