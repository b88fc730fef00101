"""Fourier transforms as products with matrices."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.tflite_export.samples import quantized
from tflite_export import export
from tflite_export.conversion.fourier import by_matrices

RE, IM = np.random.default_rng(0).normal(size=(2, 3, 6, 5)).astype("f")


def transformed(transform, real_only):
    """Both parts, and the operations of the graph."""

    @tf.function(autograph=False)
    def function(re, im):
        im = tf.zeros_like(re) if real_only else im
        found = transform(tf.complex(re, im))
        return tf.math.real(found), tf.math.imag(found)

    with by_matrices():
        traced = function.get_concrete_function(
            tf.TensorSpec((None, 6, 5)), tf.TensorSpec((None, 6, 5))
        )
    parts = traced(tf.constant(RE), tf.constant(IM))
    return parts, {op.type for op in traced.graph.get_operations()}


@pytest.mark.parametrize("real_only", [True, False])
@pytest.mark.parametrize(
    ("transform", "axes"),
    [
        (lambda x: tf.signal.fft(x), (-1,)),
        (lambda x: tf.signal.fft2d(x), (-2, -1)),
        (lambda x: tf.signal.fft(tf.signal.fft2d(x)), (-2, -1, -1)),
    ],
)
def test_equals_the_transform(transform, axes, real_only):
    parts, operations = transformed(transform, real_only)
    wanted = RE + (0 if real_only else 1j) * IM
    for axis in axes:
        wanted = np.fft.fft(wanted, axis=axis)
    np.testing.assert_allclose(parts[0], wanted.real, atol=2e-5)
    np.testing.assert_allclose(parts[1], wanted.imag, atol=2e-5)
    assert not operations & {"FFT", "FFT2D", "Complex"}


def test_what_it_does_not_know_gets_a_complex_tensor():
    parts, operations = transformed(
        lambda x: tf.signal.ifft2d(tf.signal.fft2d(x)), False
    )
    np.testing.assert_allclose(parts[0], RE, atol=2e-5)
    assert "IFFT2D" in operations


@pytest.mark.slow
def test_a_network_that_mixes_by_transforms(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 4))
    real, _ = keras.ops.fft2((inputs, keras.ops.zeros_like(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(3)(real))
    report = export(quantized(model), tmp_path / "m.tflite", "min_size")
    assert max(check.relative_error for check in report.checks) < 1e-5
