"""A file's grid as a layer: its numbers, and when it stands aside."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from msq_tf.keras3 import lifting
from msq_tf.keras3.activation_grid import ActivationGrid
from msq_tf.keras3.overlay import Overlay


def test_the_numbers_of_a_grid():
    grid = ActivationGrid(0.5, 2)
    x = tf.constant([-9.0, -1.0, -0.3, 0.0, 0.24, 0.26, 126.5, 999.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = grid(x)
    np.testing.assert_allclose(
        y, [-1.0, -1.0, -0.5, 0.0, 0.0, 0.5, 126.5, 126.5], atol=1e-5
    )
    np.testing.assert_array_equal(tape.gradient(y, x), [0, 1, 1, 1, 1, 1, 1, 0])


def test_halves_of_signed_codes_go_away_from_zero():
    # Code 128 is that of zero, and halves lie on both sides of it.
    x = np.float32([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.4, -0.4])
    np.testing.assert_allclose(
        ActivationGrid(1.0, 128, half_away=True)(x),
        [-3, -2, -1, 1, 2, 3, 0, 0],
        atol=1e-4,
    )


@pytest.mark.parametrize(
    "arguments",
    [(0.0, 1), (float("nan"), 1), (1.0, 256), (1.0, 1, 16), (1.0, 0, 4)],
)
def test_no_grid(arguments):
    with pytest.raises(ValueError, match="Received"):
        ActivationGrid(*arguments)


def test_16_bits_have_no_lowest_code():
    y = ActivationGrid(1.0, 0, 16)(np.float32([-40000.0, -1.6, 40000.0]))
    np.testing.assert_array_equal(y, [-32767.0, -2.0, 32767.0])


def test_it_is_saved(tmp_path):
    inputs = keras.Input((3,))
    grid = ActivationGrid(0.25, 7, half_away=True, name="grid")
    model = keras.Model(inputs, grid(inputs))
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.get_layer("grid").get_config() == grid.get_config()


def test_it_stands_aside_while_weights_are_laid_over():
    grid = ActivationGrid(1.0, 128)
    x = tf.constant([0.3, 1.2])
    with Overlay([]):
        assert grid(x) is x
        with lifting.lifted(False):
            np.testing.assert_array_equal(grid(x), [0.0, 1.0])
    with lifting.lifted():
        assert grid(x) is x
    np.testing.assert_array_equal(grid(x), [0.0, 1.0])


def on_grid():
    """A network of two kernels, as of an integer file."""
    inputs = keras.Input((4,))
    x = ActivationGrid(0.03125, 128, name="given")(inputs)
    x = keras.layers.Dense(8, activation="relu", name="hidden")(x)
    x = ActivationGrid(0.0625, 0, name="inner")(x)
    x = keras.layers.Dense(2)(x)
    return keras.Model(inputs, ActivationGrid(0.5, 100, name="end")(x))


def test_sites_take_its_range():
    model = on_grid()
    qmodel = msq_tf.quantize_model(model, msq_tf.MSQConfig(activation_bits=8))
    found = {
        x.path: (x.low, x.high)
        for x in qmodel.activation_quantizers.trained_ranges()
    }
    ends = [model.get_layer(n).range for n in ("given", "inner", "end")]
    np.testing.assert_allclose(list(found.values()), ends)


def test_a_teacher_keeps_its_grids():
    teacher, student = on_grid(), on_grid()
    qmodel = msq_tf.quantize_model(student)
    msq_tf.distill(qmodel, teacher)
    qmodel.compile("adam")
    x = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    outputs = qmodel._teacher.outputs(x)
    np.testing.assert_array_equal(outputs, teacher(x))
    # Outputs of the student are no multiples of a step.
    steps = qmodel.predict(x, verbose=0) / 0.5
    assert np.abs(steps - np.round(steps)).max() > 0.01


def test_channels_pass():
    qmodel = msq_tf.quantize_model(on_grid())
    smaller = msq_tf.remove_channels(qmodel, {"hidden": [6, 7]})
    kinds = [type(layer) for layer in smaller.base.layers]
    assert kinds.count(ActivationGrid) == 3
    assert smaller.base.get_layer("hidden").units == 6
