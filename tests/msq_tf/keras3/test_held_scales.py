"""Scales that are taken with a width, and stay while the weights train."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

import msq_tf
from msq_tf.quantizers import mse_scale
from msq_tf.quantizers import uniform
from tests.msq_tf.samples import quantized
from tests.msq_tf.samples import tiny_model

BITS = {"conv": 4, "dw": 3, "head": 2}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 8, 8, 1)).astype(np.float32)
    return x, rng.integers(0, 4, 32)


def scales(qmodel):
    return [scale.numpy() for scale in qmodel.scales()]


def statistics(qmodel):
    """What the weights have today, at their bits."""
    found = []
    for weight, kernel, scale in zip(
        qmodel.planned_weights, qmodel.kernels, qmodel.scales(), strict=True
    ):
        axes = tuple(a for a, n in enumerate(scale.shape) if n > 1)
        bits = qmodel.bits[weight.path]
        found.append(
            mse_scale.mse_scale(kernel.value, bits, axes or None).numpy()
        )
    return found


def assert_all_equal(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def move(qmodel, factor):
    for kernel in qmodel.kernels:
        kernel.assign(kernel * factor)


def test_it_is_the_default_and_adds_nothing_to_train():
    qmodel = quantized()
    assert qmodel.scale == qmodel.get_config()["scale"] == "held"
    assert len(qmodel.trainable_variables) == len(
        tiny_model().trainable_variables
    )


def test_training_moves_weights_and_no_scale(data):
    qmodel = quantized()
    qmodel.set_bits(BITS)
    taken = scales(qmodel)
    assert_all_equal(taken, statistics(qmodel))
    before = [kernel.numpy() for kernel in qmodel.kernels]
    qmodel.fit(*data, batch_size=8, epochs=2, verbose=0)
    for kernel, old in zip(qmodel.kernels, before, strict=True):
        assert (kernel.numpy() != old).any()
    assert_all_equal(taken, scales(qmodel))
    assert any(
        (a != b).any() for a, b in zip(taken, statistics(qmodel), strict=True)
    )


@pytest.mark.slow
def test_everything_computes_with_held_scales(data):
    qmodel = quantized()
    qmodel.set_bits(BITS)
    qmodel.fit(*data, batch_size=16, verbose=0)
    at = qmodel.scales_at_widths()
    other = [weight.bits % 3 + 2 for weight in qmodel.quantized_weights()]
    elsewhere = [at(i, bits).numpy() for i, bits in enumerate(other)]
    for i, weight in enumerate(qmodel.quantized_weights()):
        step = uniform.step_size(at(i, weight.bits), weight.bits).numpy()
        np.testing.assert_array_equal(weight.step, step)
        np.testing.assert_array_equal(
            weight.values, qmodel.quantized_values()[i]
        )
    baked = msq_tf.bake(qmodel)
    np.testing.assert_array_equal(
        baked.predict(data[0], verbose=0), qmodel.predict(data[0], verbose=0)
    )
    # What a candidate was judged by is what it gets.
    qmodel.set_bits(dict(zip(qmodel.paths, other, strict=True)))
    assert_all_equal(elsewhere, scales(qmodel))


@pytest.mark.slow
def test_a_change_takes_the_scale_of_that_weight_alone(data):
    qmodel = quantized()
    qmodel.set_bits(BITS)
    qmodel.fit(*data, batch_size=8, verbose=0)
    old = scales(qmodel)
    widths = np.array(qmodel.search.bits.numpy())
    widths[1] = 2
    qmodel.search.bits.assign(widths)
    qmodel.hold_scales()
    new, now = scales(qmodel), statistics(qmodel)
    assert_all_equal([new[0], new[2]], [old[0], old[2]])
    np.testing.assert_array_equal(new[1], now[1])
    qmodel.set_bits(BITS)  # takes all anew
    assert_all_equal(scales(qmodel), statistics(qmodel))


@pytest.mark.slow
def test_a_search_ends_with_scales_of_its_changes(data):
    qmodel = quantized()
    rule = msq_tf.BudgetRule(target_compression=12.0, end=0.5)
    qmodel.fit(
        *data,
        batch_size=8,
        epochs=4,
        verbose=0,
        callbacks=[msq_tf.MSQCallback(rule, interval=1)],
    )
    assert min(qmodel.bits.values()) == 2
    np.testing.assert_array_equal(
        qmodel.held_scales.widths(), qmodel.search.bits.numpy()
    )


@pytest.mark.parametrize("start_bits", [2, 8])
def test_weights_that_come_later_are_followed(start_bits):
    """A scale of the weights before would round all of them to zero."""
    qmodel = quantized(start_bits=start_bits)
    qmodel.set_bits(dict.fromkeys(qmodel.paths, 2))
    taken = scales(qmodel)
    move(qmodel, 1.5)
    assert_all_equal(scales(qmodel), taken)
    move(qmodel, 100.0)
    for scale, now in zip(scales(qmodel), statistics(qmodel), strict=True):
        np.testing.assert_array_equal(scale, now / mse_scale.SLACK)


@given(
    held=st.floats(2.0**-40, 2.0**40, width=32),
    now=st.floats(2.0**-40, 2.0**40, width=32),
)
def test_near(held, now):
    found = mse_scale.near(tf.constant(held), tf.constant(now)).numpy()
    low, high = np.float32(now) / 2, np.float32(now) * 2
    assert found == min(max(np.float32(held), low), high)


def test_what_is_not_finite_shows():
    held = tf.constant([1.0, 1.0])
    found = mse_scale.near(held, tf.constant([np.inf, np.nan])).numpy()
    assert not np.isfinite(found).any()


@pytest.mark.slow
@pytest.mark.parametrize("end", ["m.keras", "m.weights.h5"])
def test_files_have_them(end, data, tmp_path):
    qmodel = quantized()
    qmodel.set_bits(BITS)
    qmodel.fit(*data, batch_size=8, verbose=0)
    if end == "m.keras":
        qmodel.save(tmp_path / end)
        loaded = keras.models.load_model(tmp_path / end)
    else:
        qmodel.save_weights(tmp_path / end)
        loaded = msq_tf.quantize_model(tiny_model())
        loaded.load_weights(tmp_path / end)
    assert_all_equal(scales(loaded), scales(qmodel))
    assert_all_equal(
        [loaded.predict(data[0], verbose=0)],
        [qmodel.predict(data[0], verbose=0)],
    )


def test_weights_of_before_follow(data, tmp_path):
    """A file without held scales has those of its weights."""
    old = quantized(scale="mse")
    old.set_bits(BITS)
    old.save_weights(tmp_path / "old.weights.h5")
    new = quantized()
    new.set_bits(dict.fromkeys(new.paths, 2))
    new.load_weights(tmp_path / "old.weights.h5")
    assert new.bits == BITS
    assert_all_equal(
        [new.predict(data[0], verbose=0)], [old.predict(data[0], verbose=0)]
    )
    move(new, 1.5)
    assert_all_equal(scales(new), statistics(new))
    new.set_bits(BITS)
    taken = scales(new)
    move(new, 1.5)
    assert_all_equal(scales(new), taken)


def test_a_part_of_a_network_has_the_same_scales(data):
    """A loop of one's own that calls layers by themselves."""
    qmodel = quantized()
    qmodel.set_bits(BITS)
    move(qmodel, 1.5)
    part = qmodel._weights.subset([2, 0])
    some = part.scales(qmodel.search.bits.numpy()[[2, 0]])
    every = scales(qmodel)
    assert_all_equal(some, [every[2], every[0]])
