"""Networks before any training: what folding leaves, and the table."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from benchmarks.accuracy import start


def biased(shape, classes):
    inputs = keras.Input(shape)
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Conv2D(4, 3, strides=2)(x)
    x = keras.layers.BatchNormalization(epsilon=0.1)(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(classes)(x))


@pytest.mark.parametrize("build", [start.depthwise, biased])
def test_folding_changes_kernels_and_no_output(build):
    keras.utils.set_random_seed(0)
    model = build((12, 12, 3), 4)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(
            rng.uniform(0.5, 2.0, variable.shape) * np.sign(variable + 1e-3)
        )
    x = rng.normal(size=(8, 12, 12, 3)).astype(np.float32)
    before, kernels = model.predict(x, verbose=0), model.layers[1].get_weights()
    start.fold(model)
    after = model.predict(x, verbose=0)
    np.testing.assert_allclose(
        after, before, atol=1e-4 * np.abs(before).max(), rtol=0
    )
    assert not np.allclose(model.layers[1].get_weights()[0], kernels[0])
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            np.testing.assert_array_equal(layer.moving_mean, 0.0)


def test_the_table_has_a_line_a_kind():
    shares = {str(bits): bits / 10 for bits in (2, 3, 4, 5, 6, 8)}
    text = start.markdown(
        {
            "environment": {
                "command": "python -m benchmarks start",
                "date": "2026-11-29",
                "cores": 2,
            },
            "results": {
                "absent": {"skipped": "the data set is not at hand"},
                "small": {
                    "images": 2000,
                    "accuracy": 0.875,
                    "agreement": {"channel, max": shares},
                },
            },
        }
    )
    assert "absent: the data set is not at hand; small 87.50%" in text
    line = "| small | channel, max | 20.0 | 30.0 | 40.0 | 50.0 | 60.0 | 80.0 |"
    assert line in text
