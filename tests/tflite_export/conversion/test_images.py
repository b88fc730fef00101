"""Images taken apart, resized and blurred: no operator computes a kernel."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tests.tflite_export.samples import quantized
from tflite_export import export
from tflite_export import inspect_file
from tflite_export import run
from tflite_export.conversion.lowering import lowered

L = keras.layers
OPS = keras.ops


@given(
    size=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    shape=st.tuples(st.integers(3, 7), st.integers(3, 7), st.integers(1, 2)),
    apart=st.booleans(),
    padding=st.sampled_from(["valid", "same"]),
)
@settings(max_examples=40)
def test_patches_are_those_of_keras_and_tensorflow(size, shape, apart, padding):
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    strides = size if apart else (1, 1)
    want = OPS.image.extract_patches(x, size, strides, padding=padding)
    given_ = ([1, *size, 1], [1, *strides, 1], [1, 1, 1, 1], padding.upper())
    other = tf.image.extract_patches(x, *given_)
    with lowered():
        got = OPS.image.extract_patches(x, size, strides, padding=padding)
        also = tf.image.extract_patches(x, *given_)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(also, other)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(
    "method", ["bicubic", "lanczos3", "lanczos5", "gaussian", "area"]
)
def test_filters_are_two_matrices(method, antialias):
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 3)).astype(np.float32)
    for size in ((14, 9), (3, 4), (7, 6), (7, 12)):
        want = tf.image.resize(x, size, method, antialias=antialias)
        with lowered():
            got = tf.image.resize(x, size, method, antialias=antialias)
        np.testing.assert_allclose(got, want, atol=2e-6)


def of_images(function):
    inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(3, 3, padding="same", name="conv")(inputs)
    return keras.Model(inputs, function(x))


CASES = {
    "patches": lambda x: OPS.image.extract_patches(x, 4),
    "overlapping": lambda x: OPS.image.extract_patches(x, 4, strides=2),
    "bicubic": lambda x: OPS.image.resize(x, (16, 5), interpolation="bicubic"),
    "blur": lambda x: OPS.image.gaussian_blur(x, (3, 3), (1.0, 1.0)),
}


@pytest.mark.parametrize("target", ["min_size", "cpu_int8"])
@pytest.mark.parametrize("name", CASES)
def test_files_compute_no_kernels(name, target, tmp_path):
    if name == "blur" and not hasattr(OPS.image, "gaussian_blur"):
        pytest.skip("this Keras does not blur images")
    x = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype(np.float32)
    qmodel = quantized(of_images(CASES[name]))
    path = tmp_path / "m.tflite"
    export(qmodel, path, target=target, representative_data=x)
    want = np.asarray(qmodel(x))
    atol = 1e-5 if target == "min_size" else 0.05 * np.ptp(want)
    np.testing.assert_allclose(run(path, x), want, atol=atol)
    operators = {op.split()[0] for op in inspect_file(path).ops}
    assert not operators & {"EXP", "MATRIX_DIAG", "POW", "RANGE", "TILE"}
    if name == "patches":
        assert {"RESHAPE", "TRANSPOSE"} <= operators
