"""Scales of small squared error: exact sums, and errors near the least."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies
from hypothesis.extra import numpy as arrays

from msq_tf.quantizers import batched
from msq_tf.quantizers import mse_scale
from msq_tf.quantizers import uniform

DRAWS = {
    "normal": lambda rng, n: rng.normal(size=n),
    "laplace": lambda rng, n: rng.laplace(size=n),
    "uniform": lambda rng, n: rng.uniform(-1, 1, n),
}
WEIGHTS = arrays.arrays(
    np.float32,
    strategies.tuples(strategies.integers(1, 9), strategies.integers(1, 4)),
    elements=strategies.floats(-(2.0**20), 2.0**20, width=32),
)

laws = hypothesis.settings(deadline=None, max_examples=50)


def reference(w: np.ndarray, bits: int) -> np.ndarray:
    """The module's formula in float64, over the first axis."""
    magnitude = np.abs(w.astype(np.float64))
    largest = magnitude.max(0)
    c1, c2, c3 = mse_scale.COEFFICIENTS[bits]
    counted = magnitude > largest * mse_scale.ZERO_SHARE
    root = np.sqrt((magnitude**2).mean(0, where=counted))
    mean = magnitude.mean(0, where=counted)
    clip = np.maximum(c1 * root - c2 * mean, c3 * root)
    clip = np.clip(clip, largest * mse_scale.LEAST_SHARE, largest)
    return clip * 2.0 ** (bits - 1) / (2.0 ** (bits - 1) - 1)


def error(w: np.ndarray, scale: np.ndarray, bits: int) -> float:
    value = uniform.quantize(tf.constant(w), tf.constant(scale), bits).value
    return float(np.mean((value.numpy() - w) ** 2))


def least_error(w: np.ndarray, bits: int) -> float:
    """The smallest error of sixty scales."""
    largest = np.abs(w).max(0, keepdims=True)
    return min(
        error(w, largest * np.float32(share), bits)
        for share in np.geomspace(0.05, 2.0, 60)
    )


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("draw", DRAWS)
def test_the_error_is_near_the_least_of_all_scales(draw, bits):
    w = DRAWS[draw](np.random.default_rng(0), (4000, 1)).astype(np.float32)
    found = mse_scale.mse_scale(tf.constant(w), bits, (1,)).numpy()
    np.testing.assert_allclose(found[0], reference(w, bits), rtol=1e-6)
    largest = np.abs(w).max(0, keepdims=True)
    least = least_error(w, bits)
    assert error(w, found, bits) < 1.05 * least
    # What it is for.
    assert error(w, found, bits) <= error(w, largest, bits)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_weights_that_are_alike(bits):
    """Training at two bits leads to weights of nearly one magnitude."""
    rng = np.random.default_rng(0)
    signs = np.sign(rng.normal(size=(400, 1))).astype(np.float32)
    scale = mse_scale.mse_scale(tf.constant(0.3 * signs), bits, (1,)).numpy()
    assert error(0.3 * signs, scale, bits) < 1e-6
    w = signs * rng.uniform(0.5, 1.0, (400, 1)).astype(np.float32)
    found = mse_scale.mse_scale(tf.constant(w), bits, (1,)).numpy()
    largest = np.abs(w).max(0, keepdims=True)
    least = least_error(w, bits)
    assert error(w, found, bits) < 2.0 * least
    assert error(w, found, bits) <= error(w, largest, bits)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("zeros", [0.0, 1e-6])
def test_pruned_weights_have_the_scale_of_what_is_left(zeros, bits):
    rng = np.random.default_rng(0)
    left = rng.normal(size=(400, 2)).astype(np.float32)
    pruned = np.full((4000, 2), zeros, np.float32)
    pruned[::10] = left
    for axes in ((1,), None):
        # Fewer weights are counted in finer units.
        np.testing.assert_allclose(
            mse_scale.mse_scale(tf.constant(pruned), bits, axes),
            mse_scale.mse_scale(tf.constant(left), bits, axes),
            rtol=3e-7,
        )


@pytest.mark.first(3)
@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("size", [6, 300, 40_000, 1_000_000])
def test_a_scale_follows_its_weights_in_small_steps(size, bits):
    """Else two ways to sum one gradient end in two trainings."""
    rng = np.random.default_rng(size)
    start, way = rng.normal(size=(2, size)).astype(np.float32)
    scales = [
        mse_scale.mse_scale(tf.constant(start + share * way), bits).numpy()
        for share in np.linspace(0.0, 1e-3, 50, dtype=np.float32)
    ]
    # The largest weight moves by 2e-5 of itself in one of them.
    steps = np.abs(np.diff(scales, axis=0)) / scales[0]
    assert 0.0 < steps.max() < 5e-5


@pytest.mark.parametrize("quantizer", uniform.QUANTIZERS)
@pytest.mark.parametrize("bits", [5, 6, 7, 8])
def test_wide_weights_keep_their_largest_magnitude(bits, quantizer):
    w = tf.constant(np.random.default_rng(0).normal(size=(50, 3)), tf.float32)
    found = mse_scale.mse_scale(w, bits, (1,), quantizer)
    np.testing.assert_array_equal(found, uniform.max_scale(w, (1,)))


@pytest.mark.slow
@laws
@hypothesis.given(WEIGHTS, strategies.integers(2, 8), strategies.randoms())
def test_the_order_of_weights_changes_no_bit(w, bits, random):
    order = list(range(len(w)))
    random.shuffle(order)
    for axes in ((1,), None):
        one = mse_scale.mse_scale(tf.constant(w), bits, axes).numpy()
        other = mse_scale.mse_scale(tf.constant(w[order]), bits, axes).numpy()
        np.testing.assert_array_equal(one, other)
        assert np.all(one > 0) and np.all(np.isfinite(one))


@pytest.mark.slow
@laws
@hypothesis.given(
    strategies.lists(WEIGHTS, min_size=1, max_size=3), strategies.data()
)
def test_all_weights_at_once_are_the_same_to_the_bit(weights, data):
    bits = [data.draw(strategies.integers(2, 8)) for _ in weights]
    axes = [(1,) if i % 2 else None for i in range(len(weights))]
    layout = batched.ScaleLayout([w.shape for w in weights], axes)
    tensors = [tf.constant(w) for w in weights]
    found = layout.split(
        layout.scales(
            tensors, tf.constant(bits), uniform.ROUND_CLAMP, uniform.MSE
        )
    )
    for w, scale, width, own in zip(tensors, found, bits, axes, strict=True):
        alone = mse_scale.mse_scale(w, width, own)
        np.testing.assert_array_equal(scale, alone)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_graph_computes_the_same_bits(compiled):
    rng = np.random.default_rng(0)
    w = tf.constant(rng.standard_t(3, (3, 3, 40, 16)), tf.float32)

    @tf.function(jit_compile=compiled)
    def inside(w, bits):
        return mse_scale.mse_scale(w, bits, (3,))

    for bits in range(2, 9):
        eager = mse_scale.mse_scale(w, bits, (3,))
        np.testing.assert_array_equal(inside(w, tf.constant(bits)), eager)


def test_extremes():
    dead = tf.zeros((4, 2))
    assert mse_scale.mse_scale(dead, 2).numpy() == 1.0
    huge = tf.fill((4, 2), 3e38)
    assert np.all(np.isfinite(mse_scale.mse_scale(huge, 2)))
    lost = mse_scale.mse_scale(
        tf.constant([[1.0, np.inf], [0.5, 2.0]]), 3, (1,)
    )
    assert np.isfinite(lost).tolist() == [[True, False]]
    # One large weight among many of nearly nothing.
    lone = tf.constant([[1.0]] + [[1e-3]] * 5000)
    scale = mse_scale.mse_scale(lone, 2).numpy()
    assert scale == 2.0 * mse_scale.LEAST_SHARE


def test_there_is_no_gradient():
    w = tf.constant([[0.1], [-0.7], [0.3]])
    with tf.GradientTape() as tape:
        tape.watch(w)
        scale = mse_scale.mse_scale(w, 2)
    assert tape.gradient(scale, w) is None


@pytest.mark.first(1)
@pytest.mark.parametrize("axes", [None, (0,), (1,), (0, 1)])
def test_parts_of_a_large_weight_have_its_moments_to_the_bit(axes, monkeypatch):
    rng = np.random.default_rng(0)
    w = rng.standard_t(3, size=(70, 30)).astype(np.float32)
    w[::3, ::2] = 0.0
    w = tf.constant(w)
    whole = mse_scale.mse_scale(w, 2, axes)
    monkeypatch.setattr(mse_scale, "_PART", 100)
    traced = tf.function(lambda: mse_scale.mse_scale(w, 2, axes))
    for found in (mse_scale.mse_scale(w, 2, axes), traced()):
        np.testing.assert_array_equal(found, whole)
    cuts = mse_scale._cuts((70, 30), [0])
    assert len(cuts) > 1
    assert [c[0] for c in cuts[1:]] == [c[1] for c in cuts[:-1]]
    assert (cuts[0][0], cuts[-1][1]) == (0, 70)
