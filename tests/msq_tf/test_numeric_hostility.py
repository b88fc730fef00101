"""Weights at the ends of what numbers can be: laws hold, or a clear refusal."""

from __future__ import annotations

import hypothesis
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import msq_tf
from msq_tf.keras3 import learned_scales
from msq_tf.quantizers import uniform
from msq_tf.quantizers.uniform import LEAST_SCALE
from msq_tf.quantizers.uniform import QUANTIZERS

F32 = np.finfo(np.float32)
MAGNITUDES = (
    0.0,
    float(F32.smallest_subnormal),
    1e-40,
    float(F32.tiny),
    1e-30,
    LEAST_SCALE,
    float(np.nextafter(np.float32(LEAST_SCALE), np.float32(1))),
    1e-20,
    1.0,
    0.5,
    127 / 128,
    1e20,
    1e30,
    1e38,
    float(F32.max),
)
# Whole weights that the issue of numbers is about, and any mixture of them.
elements = st.sampled_from([sign * m for m in MAGNITUDES for sign in (1, -1)])
shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6)
weights = hnp.arrays(np.float32, shapes, elements=elements)
widths = st.integers(2, 8)
laws = hypothesis.settings(max_examples=150, deadline=None)


def quantize(w, bits, quantizer="round_clamp", axes=(-1,), scale=None, lsb=0):
    w = tf.constant(w)
    scale = uniform.max_scale(w, axes) if scale is None else scale
    found = uniform.quantize(w, scale, bits, lsb, quantizer)
    return *(x.numpy() for x in found), scale


@laws
@hypothesis.given(
    weights, widths, st.sampled_from(QUANTIZERS), st.sampled_from([(-1,), None])
)
def test_laws(w, bits, quantizer, axes):
    value, codes, _, scale = quantize(w, bits, quantizer, axes)
    limit = 2 ** (bits - 1) - 1
    step = uniform.step_size(scale, bits, quantizer).numpy()
    assert np.isfinite(scale).all() and (scale.numpy() > 0).all()
    assert np.isfinite(step).all() and (step >= F32.tiny).all()
    np.testing.assert_array_equal(codes, np.round(codes))
    assert (np.abs(codes) <= limit).all()
    assert np.isfinite(value).all()
    np.testing.assert_array_equal(value, codes.astype(np.float32) * step)
    # The sign is kept or gone, and what was zero stays zero.
    assert (np.sign(value) * np.sign(w) >= 0).all()
    np.testing.assert_array_equal(value[w == 0], 0)
    again, codes_again, *_ = quantize(value, bits, quantizer, axes, scale)
    np.testing.assert_array_equal(codes_again, codes)
    np.testing.assert_array_equal(again, value)


@laws
@hypothesis.given(weights, st.integers(3, 8), st.integers(1, 6))
def test_low_bits_are_finite_integers(w, bits, lsb):
    lsb = min(lsb, bits - 2)
    low = quantize(w, bits, lsb=lsb)[2]
    np.testing.assert_array_equal(low, np.round(low))
    assert (np.abs(low) <= 2 ** (lsb - 1)).all()


@laws
@hypothesis.given(weights, widths)
def test_a_dead_channel_has_the_scale_of_the_others(w, bits):
    w = np.concatenate([w, np.zeros((len(w), 1), np.float32)], axis=1)
    value, codes, _, scale = quantize(w, bits)
    np.testing.assert_array_equal(value[:, -1], 0)
    live = np.minimum(np.abs(w).max(axis=0), 2.0**127).astype(np.float64)
    live = live[live > LEAST_SCALE]
    dead = float(scale[0, -1])
    if live.size:
        # As close to the others as rounding leaves it.
        assert live.min() * (1 - 1e-5) <= dead <= live.max() * (1 + 1e-5)
    else:
        assert dead == 1.0


@laws
@hypothesis.given(
    hnp.arrays(
        np.float32, st.tuples(st.just(1), st.integers(1, 6)), elements=elements
    ),
    widths,
)
def test_channels_of_one_element(w, bits):
    """One element is the largest: its code is the last, or it is dead."""
    value, codes, _, _ = quantize(w, bits)
    limit = 2 ** (bits - 1) - 1
    live = np.abs(w) > np.float32(LEAST_SCALE)
    np.testing.assert_array_equal(codes[live], np.sign(w[live]) * limit)


@laws
@hypothesis.given(
    st.floats(LEAST_SCALE, 2.0**127, width=32),
    widths,
    st.integers(-127, 127),
)
def test_codes_at_the_rim(scale, bits, code):
    """Values on the grid and beside its boundaries, whatever the scale."""
    limit = 2 ** (bits - 1) - 1
    code = int(np.clip(code, -limit, limit))
    scale = tf.constant([[scale]], tf.float32)
    step = uniform.step_size(scale, bits).numpy()[0, 0]
    inside = np.float32(code) * step
    rim = (np.float32(code) + np.float32(0.5)) * step
    w = np.array([[inside, np.nextafter(rim, np.float32(0))]], np.float32)
    _, codes, _, _ = quantize(w, bits, axes=None, scale=scale)
    assert codes[0, 0] == code
    assert abs(codes[0, 1]) <= limit


@pytest.mark.slow
@hypothesis.settings(laws, max_examples=15)
@hypothesis.given(weights, widths, st.sampled_from(QUANTIZERS))
def test_learned_scales_start_at_finite_numbers(w, bits, quantizer):
    fitted = learned_scales.fitted_scale(tf.constant(w), (-1,), bits, quantizer)
    assert np.isfinite(fitted).all() and (fitted.numpy() > 0).all()
    value, codes, *_ = (
        x.numpy()
        for x in learned_scales.quantize(
            tf.constant(w), fitted, bits, 0, quantizer
        )
    )
    assert np.isfinite(value).all()
    assert (np.abs(codes) <= 2 ** (bits - 1) - 1).all()


def network(kernel, shape=(3, 3, 2, 4)):
    """A convolution whose kernel repeats the given numbers, and a head."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 3, use_bias=False, name="conv"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, name="head"),
        ]
    )
    model.layers[0].kernel.assign(np.resize(kernel, shape))
    return model


@pytest.mark.slow
@hypothesis.settings(laws, max_examples=25)
@hypothesis.given(
    weights,
    widths,
    st.sampled_from([msq_tf.PerChannel(), msq_tf.PerTensor()]),
    st.sampled_from(["max", "learned"]),
)
def test_laws_of_a_whole_model(kernel, bits, granularity, scale):
    model = network(kernel)
    config = msq_tf.MSQConfig(granularity=granularity, scale=scale)
    qmodel = msq_tf.quantize_model(model, config)
    qmodel.set_bits({"conv": bits})
    conv, _ = qmodel.quantized_weights()
    assert np.abs(conv.codes.astype(int)).max() <= 2 ** (bits - 1) - 1
    assert (conv.step > 0).all() and np.isfinite(conv.values).all()
    used, _ = qmodel.quantized_values()
    np.testing.assert_array_equal(used, conv.values)
    baked = msq_tf.bake(qmodel)
    np.testing.assert_array_equal(baked.layers[0].kernel, conv.values)
    # Floats may overflow behind the weights, in both alike.
    x = np.linspace(-1, 1, 72, dtype=np.float32).reshape(1, 6, 6, 2)
    np.testing.assert_array_equal(baked(x), qmodel(x))
    assert np.isfinite(msq_tf.precision_report(qmodel).average_bits)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_named(value):
    kernel = np.ones(72)
    kernel[5] = value
    message = "Weight 'conv' is not finite.*1 of 72 values"
    with pytest.raises(ValueError, match=message):
        msq_tf.quantize_model(network(kernel))
    model = network(1.0)
    qmodel = msq_tf.quantize_model(model)
    model.layers[0].kernel.assign(kernel.reshape(3, 3, 2, 4))
    for act in (qmodel.quantized_weights, lambda: msq_tf.bake(qmodel)):
        with pytest.raises(ValueError, match=message):
            act()


@pytest.mark.first(1)
@pytest.mark.parametrize("value", [0.0, 1e-40, 1e-30, 1e-20, 0.5, 1e20, 1e30])
def test_a_step_of_training_or_a_reason(value):
    """Training goes on with finite weights, or statistics say why not."""
    rng = np.random.default_rng(0)
    qmodel = msq_tf.quantize_model(network(value * rng.normal(size=72)))
    qmodel.compile(
        keras.optimizers.SGD(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    x = rng.normal(size=(16, 6, 6, 2)).astype(np.float32)
    y = rng.integers(0, 3, 16)
    rule = msq_tf.BudgetRule(target_compression=8)
    try:
        qmodel.fit(
            x, y, epochs=2, verbose=0, callbacks=[msq_tf.MSQCallback(rule)]
        )
        weights = qmodel.quantized_weights()
    except ValueError as error:
        assert value > 1 and "finite" in str(error)
        return
    assert all(np.isfinite(weight.values).all() for weight in weights)
    assert qmodel.compression >= 8
