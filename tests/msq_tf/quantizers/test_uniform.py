"""Laws of the quantizer, and a float64 reference for every formula."""

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf

from msq_tf.quantizers import uniform

weights = hnp.arrays(
    np.float32,
    st.integers(1, 40),
    elements=st.floats(-8, 8, width=32, allow_subnormal=False),
)
bit_widths = st.integers(2, 8)
quantizers = st.sampled_from(uniform.QUANTIZERS)
laws = hypothesis.settings(deadline=None, max_examples=60)


def levels(magnitude_bits, quantizer):
    top = 2.0**magnitude_bits
    return top if quantizer == "round_clamp" else top - 1


def quantize(w, bits, lsb=0, quantizer="round_clamp", scale=None):
    w = tf.constant(w)
    if scale is None:
        scale = uniform.max_scale(w)
    result = uniform.quantize(w, scale, bits, lsb, quantizer)
    return [tensor.numpy() for tensor in result] + [scale.numpy()]


def reference(w, scale, bits, lsb, quantizer):
    """The formulas of the module docstring in float64 numpy.

    The step is rounded to float32, as a file stores it.
    """
    m = bits - 1
    step = np.float32(scale / np.float32(levels(m, quantizer)))
    x = (w / step).astype(np.float64)
    codes = np.clip(np.round(x), -(2**m - 1), 2**m - 1)
    ratio = np.float32(levels(m - lsb, quantizer)) / np.float32(
        levels(m, quantizer)
    )
    coarse = np.round((w / step * ratio).astype(np.float64))
    return codes * step, codes, np.round(x) - 2**lsb * coarse


@laws
@hypothesis.given(weights, bit_widths, st.integers(0, 6), quantizers)
def test_matches_the_float64_reference(w, bits, lsb, quantizer):
    lsb = min(lsb, bits - 2)
    value, codes, low, scale = quantize(w, bits, lsb, quantizer)
    want_value, want_codes, want_low = reference(w, scale, bits, lsb, quantizer)
    np.testing.assert_array_equal(codes, want_codes)
    np.testing.assert_array_equal(low, want_low)
    np.testing.assert_allclose(value, want_value, rtol=1e-7)


@laws
@hypothesis.given(weights, bit_widths, quantizers)
def test_value_is_code_times_step_bit_for_bit(w, bits, quantizer):
    value, codes, _, scale = quantize(w, bits, 0, quantizer)
    step = uniform.step_size(tf.constant(scale), bits, quantizer).numpy()
    np.testing.assert_array_equal(value, codes * step)
    assert np.abs(codes).max() <= 2 ** (bits - 1) - 1


@laws
@hypothesis.given(weights, bit_widths, quantizers)
def test_is_idempotent_at_a_fixed_scale(w, bits, quantizer):
    value, codes, _, scale = quantize(w, bits, 0, quantizer)
    again, codes_again, _, _ = quantize(
        value, bits, 0, quantizer, tf.constant(scale)
    )
    np.testing.assert_array_equal(codes_again, codes)
    np.testing.assert_array_equal(again, value)


@laws
@hypothesis.given(weights, bit_widths, quantizers)
def test_is_monotone(w, bits, quantizer):
    codes = quantize(np.sort(w), bits, 0, quantizer)[1]
    assert (np.diff(codes) >= 0).all()


@laws
@hypothesis.given(weights, bit_widths, st.integers(0, 6), quantizers)
def test_is_odd(w, bits, lsb, quantizer):
    lsb = min(lsb, bits - 2)
    plus = quantize(w, bits, lsb, quantizer)
    minus = quantize(-w, bits, lsb, quantizer)
    for a, b in zip(plus[:3], minus[:3], strict=True):
        np.testing.assert_array_equal(a, -b)


@laws
@hypothesis.given(weights, bit_widths)
def test_error_is_half_a_step_and_one_where_clamped(w, bits):
    value, codes, _, scale = quantize(w, bits)
    step = scale / 2 ** (bits - 1)
    clamped = np.abs(codes) == 2 ** (bits - 1) - 1
    bound = np.where(clamped, 1.0, 0.5) * step
    assert (np.abs(value - w) <= bound * (1 + 1e-5)).all()


@laws
@hypothesis.given(weights, st.integers(3, 8), st.integers(1, 6))
def test_lsb_of_a_pruned_code_is_zero(w, bits, lsb):
    """Values of the lower precision have no low bits at the higher."""
    lsb = min(lsb, bits - 2)
    _, _, _, scale = quantize(w, bits)
    pruned = quantize(w, bits - lsb, 0, scale=tf.constant(scale))[0]
    low = quantize(pruned, bits, lsb, scale=tf.constant(scale))[2]
    np.testing.assert_array_equal(low, 0)


@laws
@hypothesis.given(weights, st.integers(3, 8), st.integers(1, 6))
def test_dropping_zero_lsbs_changes_no_unsaturated_value(w, bits, lsb):
    lsb = min(lsb, bits - 2)
    value, codes, low, scale = quantize(w, bits, lsb)
    after, after_codes, _, _ = quantize(
        w, bits - lsb, 0, scale=tf.constant(scale)
    )
    free = (
        (low == 0)
        & (np.abs(codes) < 2 ** (bits - 1) - 1)
        & (np.abs(after_codes) < 2 ** (bits - lsb - 1) - 1)
    )
    np.testing.assert_array_equal(after[free], value[free])


@pytest.mark.parametrize(
    ("quantizer", "k", "shares"),
    [
        ("round_clamp", 1, [0.25, 0.50, 0.25]),
        ("round_clamp", 2, [0.375, 0.25, 0.375]),
        ("dorefa", 1, [0.06, 0.44, 0.50]),
        ("dorefa", 2, [0.09, 0.17, 0.74]),
    ],
)
def test_lsb_signs_are_balanced_and_dorefas_are_not(quantizer, k, shares):
    """Shares of negative, zero and positive B_k at n=8, uniform x."""
    x = np.linspace(0, 1, 200_001, dtype=np.float32)
    low = uniform.lsb_on_unit(x, 8, k, quantizer).numpy()
    found = [(low < 0).mean(), (low == 0).mean(), (low > 0).mean()]
    np.testing.assert_allclose(found, shares, atol=0.006)


@laws
@hypothesis.given(
    hnp.arrays(
        np.float32,
        8,
        elements=st.floats(0, 1, width=32, allow_subnormal=False),
    ),
    st.integers(1, 8),
)
def test_unit_primitives(x, bits):
    top = 2.0**bits
    np.testing.assert_array_equal(
        uniform.round_clamp(x, bits).numpy(),
        np.minimum(np.round(top * x), top - 1) / top,
    )
    np.testing.assert_allclose(
        uniform.dorefa(x, bits).numpy(),
        np.round((top - 1) * x) / (top - 1),
        rtol=1e-6,
    )


@pytest.mark.parametrize("primitive", ["round_clamp", "dorefa"])
def test_unit_gradient_is_the_identity(primitive):
    x = tf.constant([0.1, 0.5, 0.99])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(getattr(uniform, primitive)(x, 3) * [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(tape.gradient(y, x), [1.0, 2.0, 3.0])


def test_gradients_are_straight_through():
    w = tf.constant([-0.9, 0.13, 0.5, 1.0])
    scale = tf.constant(1.0)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(w)
        q = uniform.quantize(w, scale, 4, 1)
        value = tf.reduce_sum(q.value * [1.0, 2.0, 3.0, 4.0])
        low = tf.reduce_sum(q.lsb)
    np.testing.assert_array_equal(tape.gradient(value, w), [1, 2, 3, 4])
    # d lsb / d w = 1 / step with step = 1/8: the coarse branch is constant.
    np.testing.assert_allclose(tape.gradient(low, w), [8.0] * 4)


def test_second_derivatives_exist():
    w = tf.Variable([0.3, -0.7])
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            value = uniform.quantize(w, tf.constant(1.0), 8).value
            loss = tf.reduce_sum(value**3)
        gradient = inner.gradient(loss, w)
    # 3 q**2 through the rounding: its own derivative is 6 q.
    np.testing.assert_allclose(outer.gradient(gradient, w), 6 * value)


def test_penalty_gradient_moves_to_the_nearest_coarse_value():
    w = tf.constant([0.30, 0.32, -0.30, 0.25])
    scale = tf.constant(1.0)
    with tf.GradientTape() as tape:
        tape.watch(w)
        low = uniform.quantize(w, scale, 5, 2).lsb
        penalty = uniform.lsb_penalty(low, scale, 5, 2)
    # Steps 1/16 and 1/4: codes 5, 5, -5, 4; nearest coarse value +-0.25.
    np.testing.assert_allclose(penalty, 3 * (1 / 16) * (1 / 4))
    np.testing.assert_allclose(
        tape.gradient(penalty, w), [0.25, 0.25, -0.25, 0.0]
    )


def test_the_top_bin_is_not_pulled():
    """The largest weight saturates at an odd code; it must stay at rest."""
    w = tf.constant([1.0, 0.5])
    low = uniform.quantize(w, tf.constant(1.0), 8, 1).lsb
    np.testing.assert_array_equal(low, [0.0, 0.0])


def test_scale_per_channel_and_per_tensor():
    w = np.array([[1.0, -4.0], [-2.0, 3.0]], np.float32)
    np.testing.assert_array_equal(
        uniform.max_scale(tf.constant(w), (-1,)), [[2.0, 4.0]]
    )
    np.testing.assert_array_equal(uniform.max_scale(tf.constant(w)), [[4.0]])


@pytest.mark.parametrize("dead", [0.0, 1e-37])
def test_a_dead_channel_takes_the_mean_scale(dead):
    w = tf.constant([[2.0, dead, 4.0], [1.0, -dead, 1.0]])
    np.testing.assert_array_equal(uniform.max_scale(w, (1,)), [[2.0, 3.0, 4.0]])
    scale = uniform.max_scale(w, (1,))
    codes = uniform.quantize(w, scale, 8).codes
    np.testing.assert_array_equal(codes[:, 1], [0.0, 0.0])


def test_an_all_zero_tensor_has_scale_one():
    scale = uniform.max_scale(tf.zeros((3, 2)), (1,))
    np.testing.assert_array_equal(scale, [[1.0, 1.0]])


def test_powers_of_two_are_exact():
    exponents = np.arange(31)
    np.testing.assert_array_equal(
        uniform.power_of_two(exponents), 2.0**exponents
    )


def test_bits_are_tensors_and_do_not_retrace():
    @tf.function
    def run(w, bits, lsb):
        return uniform.quantize(w, tf.constant(1.0), bits, lsb).value

    w = tf.constant([0.3, -0.6])
    for bits in range(2, 9):
        run(w, tf.constant(bits), tf.constant(0))
    assert run.experimental_get_tracing_count() == 1
