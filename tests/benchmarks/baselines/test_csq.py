"""CSQ: from smooth to exact bits, and the budget."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks.baselines import csq
from train.models import builders


@pytest.fixture
def model():
    return csq.CSQModel(builders.build("resnet8", (8, 8, 1), 4), target=3.0)


def compiled(model):
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def test_starts_near_the_float_weights(model):
    for value, kernel in zip(model.values(), model.kernels, strict=True):
        w = kernel.numpy()
        assert np.abs(value.numpy() - w).max() <= np.abs(w).max() * 0.01


def test_the_budget_pulls_both_ways(model):
    def slope():
        with tf.GradientTape() as tape:
            penalty = model.penalty()
        return tape.gradient(penalty, model.masks[0].value).numpy()

    assert (slope() > 0).all()  # eight planes of three: above the budget
    for mask in model.masks:
        mask.assign(np.array([1, 1, -1, -1, -1, -1, -1, -1], np.float32))
    assert (slope() < 0).all()


@pytest.mark.slow
def test_hardens_to_exact_bits(model):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 8, 8, 1)).astype(np.float32)
    compiled(model).fit(
        x,
        rng.integers(0, 4, 64),
        epochs=4,
        batch_size=32,
        verbose=0,
        callbacks=[csq.Anneal(harden_at=3)],
    )
    for value, scale, count in zip(
        model.values(), model.scales, model.planes.values(), strict=True
    ):
        codes = value.numpy() / scale.numpy() * 255.0
        np.testing.assert_allclose(codes, np.round(codes), atol=1e-3)
        codes = np.round(codes).astype(int)
        used = int(np.bitwise_or.reduce(np.abs(codes).ravel()))
        assert used < 256
        low = (used & -used).bit_length() - 1 if used else 0
        assert used.bit_length() - low <= count or not used


def test_stored_bits_span_the_bits_in_use(model):
    model.masks[0].assign(np.array([-1, 1, -1, 1, -1, -1, -1, -1], np.float32))
    first, second = list(model.bits.values())[:2]
    assert first == 4  # two in use, one between them, and the sign
    model.masks[1].assign(-np.ones(8, np.float32))
    assert list(model.bits.values())[1] == 0
    assert second == 0  # logits of zero are not in use


def test_temperature_rises_to_its_last_value(model):
    anneal = csq.Anneal(harden_at=4, last=200.0)
    anneal.set_model(model)
    seen = []
    for epoch in range(6):
        anneal.on_epoch_begin(epoch)
        seen.append((float(model.temperature), float(model.hard)))
    np.testing.assert_allclose(
        [t for t, _ in seen],
        [200.0 ** (min(e, 4) / 4) for e in range(6)],
        rtol=1e-5,
    )
    assert [h for _, h in seen] == [0, 0, 0, 0, 1, 1]
