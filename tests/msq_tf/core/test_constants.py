"""Tensors that TensorFlow does not copy."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from msq_tf.core.constants import constant


@given(
    arrays.arrays(
        st.sampled_from(["f4", "f8", "i1", "i4"]),
        arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    )
)
def test_it_is_the_array(array):
    tensor = constant(array)
    assert tensor.dtype == array.dtype and tensor.shape == array.shape
    np.testing.assert_array_equal(tensor.numpy(), array)


def test_it_does_not_change_with_the_array():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    tensor = constant(array.T)
    array[...] = 0.0
    np.testing.assert_array_equal(tensor[:, 0], [0, 1, 2, 3])


@pytest.mark.parametrize("jit", [False, True])
def test_functions_take_it(jit):
    weights = constant(np.ones((1000, 3), np.float32))

    @tf.function(jit_compile=jit)
    def product(x):
        return x @ weights

    np.testing.assert_array_equal(product(tf.ones((2, 1000))), 1000.0)
