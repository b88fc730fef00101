"""How many samples a file is run on follows from what one takes."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tflite_export import float_tflite
from tflite_export.data import effort


def of(model, shape):
    return effort.effort(float_tflite(model), [np.zeros((3, *shape), "f")])


def test_products_and_values_are_counted():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(5),
        ]
    )
    found = of(model, (8, 8, 3))
    conv, dense = 6 * 6 * 4, 5
    assert found.products == conv * 27 + dense * conv
    # The reshape of Flatten gives values, too, and may have a shape to compute.
    assert conv + dense <= found.values <= 3 * conv


def test_open_axes_take_the_size_of_the_samples():
    def network(size):
        return keras.Sequential(
            [
                keras.Input((size, 2)),
                keras.layers.Conv1D(4, 3, padding="same"),
                keras.layers.GlobalAveragePooling1D(),
            ]
        )

    assert (
        of(network(None), (500, 2)).products
        == of(network(500), (500, 2)).products
    )


@pytest.mark.parametrize(
    ("values", "at_once"), [(1000, 16), (1 << 22, 8), (1 << 30, 1)]
)
def test_memory_bounds_what_runs_at_once(values, at_once):
    assert effort.Effort(values, 0).at_once(4) == at_once


def test_work_bounds_what_runs_in_all():
    small, large = effort.Effort(10**4, 10**6), effort.Effort(10**7, 10**10)
    assert small.samples(64) == 64
    assert large.samples(64) == 2
    assert large.samples(64, 1, 0.25) == 1
    assert large.samples(1) == 1


def test_what_follows_from_constants_alone_counts_for_nothing():
    table = keras.ops.convert_to_tensor(np.ones((50, 50), "f"))

    @keras.saving.register_keras_serializable("effort")
    class Shift(keras.layers.Layer):
        def call(self, x):
            return x + keras.ops.sum(table)

    inputs = keras.Input((4,))
    assert of(keras.Model(inputs, Shift()(inputs)), (4,)).values <= 8


def test_quick_kernels_run_all_samples_that_are_not_huge():
    assert effort.Effort(10**4, 10**6).quick(64) == 64
    large = effort.Effort(10**7, 10**10)
    assert large.quick(64) == 16
    assert large.quick(5) == 5
    # Whole batches, where that many are given.
    large = effort.Effort(10**7, 10**10, batch=12)
    assert large.quick(64) == 24
    assert large.quick(20) == 20
