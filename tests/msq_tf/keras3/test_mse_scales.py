"""Models whose scales are a statistic of the weights and of the width."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf
from msq_tf.quantizers import mse_scale
from msq_tf.quantizers import uniform
from tests.msq_tf.samples import quantized

BITS = {"conv": 4, "dw": 3, "head": 2}


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 8, 8, 1)).astype(np.float32)
    return x, rng.integers(0, 4, 32)


def all_at(qmodel, bits):
    qmodel.set_bits(dict.fromkeys(qmodel.paths, bits))


def test_wide_weights_are_those_of_the_largest_magnitude():
    one, other = quantized(), quantized(scale="max")
    for bits in (8, 5):
        all_at(one, bits), all_at(other, bits)
        for a, b in zip(
            one.quantized_weights(), other.quantized_weights(), strict=True
        ):
            np.testing.assert_array_equal(a.codes, b.codes)
            np.testing.assert_array_equal(a.step, b.step)
    for bits in (4, 2):
        all_at(one, bits), all_at(other, bits)
        steps = [
            [weight.step for weight in model.quantized_weights()]
            for model in (one, other)
        ]
        assert all((a != b).any() for a, b in zip(*steps, strict=True))


@pytest.mark.slow
def test_everything_computes_with_one_scale(data):
    """Layers in training and prediction, records, reports and costs."""
    x, y = data
    qmodel = quantized(scale="mse")
    qmodel.set_bits(BITS)
    qmodel.fit(x, y, batch_size=16, verbose=0)
    at = qmodel.scales_at_widths()
    for i, (weight, kernel) in enumerate(
        zip(qmodel.quantized_weights(), qmodel.kernels, strict=True)
    ):
        scale = at(i, weight.bits)
        step = uniform.step_size(scale, weight.bits).numpy()
        np.testing.assert_array_equal(weight.step, step)
        axes = tuple(a for a, n in enumerate(scale.shape) if n > 1)
        alone = mse_scale.mse_scale(
            kernel.value, weight.bits, axes or None
        ).numpy()
        np.testing.assert_array_equal(scale, alone)
        np.testing.assert_array_equal(
            weight.values, qmodel.quantized_values()[i]
        )
    baked = msq_tf.bake(qmodel)
    np.testing.assert_array_equal(
        baked.predict(x, verbose=0), qmodel.predict(x, verbose=0)
    )


@pytest.mark.first(1)
@pytest.mark.parametrize("scale", ["max", "mse", "held"])
def test_it_is_saved_with_the_model(scale, data, tmp_path):
    qmodel = quantized(scale=scale)
    qmodel.set_bits(BITS)
    before = qmodel.predict(data[0], verbose=0)
    qmodel.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras", compile=False)
    assert loaded.scale == scale
    np.testing.assert_array_equal(loaded.predict(data[0], verbose=0), before)


def test_a_fall_to_two_bits_hurts_less(data):
    """Squared errors of the values, for every weight."""
    errors = []
    for scale in ("held", "max"):
        qmodel = quantized(scale=scale)
        all_at(qmodel, 2)
        errors.append(
            [
                float(np.mean((weight.values - kernel.numpy()) ** 2))
                for weight, kernel in zip(
                    qmodel.quantized_weights(), qmodel.kernels, strict=True
                )
            ]
        )
    assert all(a < b for a, b in zip(*errors, strict=True))
