"""LSBRegularizer: its value, its gradient's direction and its errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from msq_tf.quantizers import uniform


def test_value_is_the_distance_to_the_coarser_grid_in_bins():
    regularizer = msq_tf.LSBRegularizer(0.5, bits=4, lsb=1, channel_axes=None)
    # Scale 1, step 1/8: codes 8 (saturated, at rest), 3, -2, 5.
    w = np.array([1.0, 0.375, -0.25, 0.625], np.float32)
    np.testing.assert_allclose(
        regularizer(w), 0.5 * 2 * (1 / 8) * (2 / 8), rtol=1e-6
    )


@pytest.mark.first(1)
@pytest.mark.parametrize("axes", [None, (-1,)])
@pytest.mark.parametrize("lsb", [1, 2, 4])
def test_gradient_descent_moves_every_weight_to_the_coarser_grid(axes, lsb):
    """Sum of nonzero LSBs falls to zero, whatever the size of the scale."""
    rng = np.random.default_rng(0)
    w = tf.Variable(rng.normal(size=(50, 6)).astype(np.float32) * 1e-3)
    regularizer = msq_tf.LSBRegularizer(1.0, 8, lsb, axes)
    # 0.01 of a coarse bin per step; nothing is farther than half a bin.
    for _ in range(60):
        with tf.GradientTape() as tape:
            penalty = regularizer(w)
        w.assign_sub(0.01 * tape.gradient(penalty, w))
    scale = uniform.max_scale(tf.convert_to_tensor(w), axes)
    low = uniform.quantize(tf.convert_to_tensor(w), scale, 8, lsb).lsb
    assert np.mean(low.numpy() != 0) < 0.05


def test_works_inside_a_keras_layer_and_comes_back_from_its_config():
    layer = keras.layers.Dense(
        3, kernel_regularizer=msq_tf.LSBRegularizer(0.1, bits=6, lsb=2)
    )
    copy = keras.layers.Dense.from_config(layer.get_config())
    assert copy.kernel_regularizer.get_config() == (
        layer.kernel_regularizer.get_config()
    )
    layer.build((None, 4))
    assert float(layer.losses[0]) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strength": -1.0}, "`strength` must be"),
        ({"strength": float("nan")}, "`strength` must be"),
        ({"strength": 1.0, "bits": 2}, "`bits` must be"),
        ({"strength": 1.0, "bits": 9}, "`bits` must be"),
        ({"strength": 1.0, "bits": 4, "lsb": 3}, "`lsb` must be"),
        ({"strength": 1.0, "lsb": 0}, "`lsb` must be"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"(?s){message}.*Received"):
        msq_tf.LSBRegularizer(**arguments)
