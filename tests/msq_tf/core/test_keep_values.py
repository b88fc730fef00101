"""Weights that get more bits begin at the values that they had."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest

import msq_tf

L = keras.layers


def trained(bits, **options):
    """A model whose latent weights are anywhere between two values."""
    keras.utils.set_random_seed(1)
    base = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            L.Conv2D(5, 3, use_bias=False),
            L.DepthwiseConv2D(3, use_bias=False),
            L.Flatten(),
            L.Dense(4, use_bias=False),
        ]
    )
    qmodel = msq_tf.quantize_model(base, msq_tf.MSQConfig(**options))
    qmodel.set_bits(dict.fromkeys(qmodel.paths, bits))
    rng = np.random.default_rng(bits)
    for kernel, record in zip(
        qmodel.kernels, qmodel.quantized_weights(), strict=True
    ):
        off = rng.uniform(-0.4, 0.4, kernel.shape)
        step = np.broadcast_to(record.step, kernel.shape)
        kernel.assign(kernel.numpy() + off * step)
    return qmodel


def widen(qmodel, bits):
    trained_at = list(qmodel.bits.values())
    qmodel.search.bits.assign(bits)
    qmodel.keep_values(trained_at)
    qmodel.hold_scales()


def values(qmodel):
    return [record.values for record in qmodel.quantized_weights()]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"granularity": msq_tf.PerTensor()},
        {"scale": "max"},
        {"scale": "mse"},
        {"scale": "learned"},
        {"quantizer": "dorefa"},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("bits", "more"), list(itertools.combinations((2, 3, 4, 6, 8), 2))
)
def test_a_value_moves_by_half_a_new_step_at_most(options, bits, more):
    qmodel = trained(bits, **options)
    before = values(qmodel)
    widen(qmodel, [more] * 3)
    for old, record in zip(before, qmodel.quantized_weights(), strict=True):
        off = np.abs(record.values - old)
        assert np.all(off <= 0.501 * np.broadcast_to(record.step, off.shape))
        if bits == 2:
            assert np.all(off <= 1e-3 * record.step)


def test_other_weights_stay_to_the_bit():
    qmodel = trained(4)
    latent = [kernel.numpy().copy() for kernel in qmodel.kernels]
    widen(qmodel, [2, 4, 8])
    now = [kernel.numpy() for kernel in qmodel.kernels]
    assert np.array_equal(now[0], latent[0])
    assert np.array_equal(now[1], latent[1])
    assert not np.array_equal(now[2], latent[2])


def test_a_frozen_weight_is_what_it_was_before_training():
    """More bits bring back what fewer ones cost."""
    qmodel = trained(2)
    qmodel.base.layers[0].trainable = False
    latent = qmodel.kernels[0].numpy().copy()
    two = values(qmodel)[0]
    widen(qmodel, [8, 8, 8])
    assert np.array_equal(qmodel.kernels[0].numpy(), latent)
    off = np.abs(values(qmodel)[0] - latent).max()
    assert off < 0.1 * np.abs(two - latent).max()


def test_channels_of_zeros_stay():
    qmodel = trained(2)
    kernel = qmodel.kernels[0].numpy()
    kernel[..., 1] = 0.0
    qmodel.kernels[0].assign(kernel)
    widen(qmodel, [8, 8, 8])
    assert not values(qmodel)[0][..., 1].any()
    assert np.isfinite(qmodel.kernels[0].numpy()).all()
