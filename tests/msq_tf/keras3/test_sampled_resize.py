"""Images resized without sampling at the centers of pixels."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from msq_tf.keras3.sampled_resize import SampledResize

ROW = tf.reshape(tf.constant([0.0, 1.0, 2.0, 3.0]), (1, 1, 4, 1))


@pytest.mark.parametrize(
    ("interpolation", "samples", "wanted"),
    [
        ("bilinear", "origin", [0, 4 / 7, 8 / 7, 12 / 7, 16 / 7, 20 / 7, 3]),
        ("bilinear", "corners", [0, 0.5, 1, 1.5, 2, 2.5, 3]),
        ("nearest", "origin", [0, 0, 1, 1, 2, 2, 3]),
        ("nearest", "corners", [0, 1, 1, 2, 2, 3, 3]),
    ],
)
def test_where_it_samples(interpolation, samples, wanted):
    layer = SampledResize(1, 7, interpolation, samples)
    np.testing.assert_allclose(np.ravel(layer(ROW)), wanted, atol=1e-6)
    with tf.GradientTape() as tape:
        tape.watch(ROW)
        total = tf.reduce_sum(layer(ROW))
    assert np.sum(tape.gradient(total, ROW)) == pytest.approx(7.0)


@pytest.mark.parametrize(
    "arguments",
    [(0, 1), (1, 2.5), (1, 1, "cubic"), (1, 1, "nearest", "centers")],
)
def test_no_such_layer(arguments):
    with pytest.raises(ValueError, match="Received"):
        SampledResize(*arguments)
