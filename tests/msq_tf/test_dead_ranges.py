"""Ranges of what is zero, was zero, or becomes zero."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from msq_tf.keras3.activations import ActivationQuantizers


def trained(batches, bits=8, ranges="ema"):
    """Low and high end after some batches of one site."""
    quantizers = ActivationQuantizers(["site"], bits, ranges)
    for batch in batches:
        quantizers(tf.constant(batch, tf.float32), index=0, training=True)
    (found,) = quantizers.trained_ranges()
    return found.low, found.high


@pytest.mark.parametrize("ranges", ["ema", "learned"])
def test_zeros_have_a_range_that_kernels_take(ranges):
    assert trained([np.zeros(3)], ranges=ranges) == (0.0, 1.0)
    assert trained([np.zeros(3)], 16, ranges) == (-1.0, 1.0)


def test_a_relu_that_died_keeps_its_range():
    assert trained([[0.0, 3.0]] + [np.zeros(2)] * 9) == (0.0, 3.0)


@pytest.mark.parametrize("ranges", ["ema", "learned"])
def test_one_that_wakes_up_takes_what_it_sees(ranges):
    assert trained([np.zeros(2), [0.0, 3.0]], ranges=ranges) == (0.0, 3.0)


def test_averages_are_as_before_otherwise():
    low, high = trained([[-1.0, 2.0], [-3.0, 4.0]])
    assert low == pytest.approx(0.95 * -1 + 0.05 * -3)
    assert high == pytest.approx(0.95 * 2 + 0.05 * 4)


@pytest.mark.parametrize("size", [1e-14, 1e-9, 1e-6, 1.0, 1e9, 1e30])
def test_live_ranges_stay_what_they_are(size):
    low, high = trained([[-size, 2 * size]])
    assert (low, high) == pytest.approx((-size, 2 * size))


@pytest.mark.parametrize("size", [1e-45, 1e-39, 1e-30, 1e-17])
def test_what_a_converter_takes_for_none_is_none(size):
    assert trained([[0.0, size]]) == (0.0, 1.0)


def test_untrained_models_run_on_zeros():
    quantizers = ActivationQuantizers(["site"], 8)
    value = quantizers(tf.zeros(4), index=0)
    np.testing.assert_array_equal(value, np.zeros(4))


def test_nothing_but_nan_is_no_training():
    with pytest.raises(ValueError, match="no finite data"):
        trained([[0.0, np.nan]])


def test_learned_ends_may_cross():
    quantizers = ActivationQuantizers(["site"], 8, "learned")
    quantizers(tf.constant([0.0, 1.0]), index=0, training=True)
    quantizers.high[0].assign(-2.0)
    (found,) = quantizers.trained_ranges()
    assert (found.low, found.high) == (0.0, 1.0)
    assert np.isfinite(keras.ops.convert_to_numpy(quantizers.high[0]))
