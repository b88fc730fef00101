"""BSQ: rounding and adjusting planes, and a model that trains on them."""

from __future__ import annotations

import hypothesis
import keras
import numpy as np
import pytest
from hypothesis import strategies as st

from benchmarks.baselines import bsq
from benchmarks.baselines import planes
from train.models import builders

CODES = st.lists(st.integers(-255, 255), min_size=1, max_size=20)


@hypothesis.given(CODES, st.floats(0.01, 10.0))
def test_adjustment_keeps_every_value(codes, scale):
    weight = bsq.Adjusted(np.array(codes), scale, 8)
    after = bsq.adjust(weight)
    np.testing.assert_allclose(after.values, weight.values, rtol=1e-12)
    assert np.abs(after.codes).max() < 2**after.planes
    if after.planes:
        # Nothing is left to drop.
        assert np.abs(after.codes).max() >= 2 ** (after.planes - 1)
        assert after.planes == 1 or (after.codes & 1).any()


@hypothesis.given(CODES, st.integers(1, 8))
def test_planes_give_the_codes_back(codes, count):
    codes = np.clip(codes, -(2**count) + 1, 2**count - 1)
    positive, negative = planes.to_planes(codes, count)
    assert not (positive * negative).any()
    found = bsq.requantize(positive, negative, 3.0, count)
    np.testing.assert_array_equal(found.codes, codes)
    assert found.planes == count


def test_a_weight_that_outgrew_its_bits_gets_one_more():
    positive = np.zeros((2, planes.MAX_PLANES), np.float32)
    positive[0, :3] = 1.4  # above the largest code of three planes
    negative = np.zeros_like(positive)
    before = (positive * planes.bit_weights(3)).sum(-1) * 2.0
    found = bsq.requantize(positive, negative, 2.0, 3)
    assert found.planes == 4
    step = 2.0 / 7.0
    assert np.abs(found.values - before).max() <= step / 2 + 1e-6
    # At eight planes it is cut off.
    positive[0] = 1.4
    found = bsq.requantize(positive, negative, 2.0, 8)
    assert found.planes == 8
    assert found.codes.max() == 255


def test_a_layer_of_zeros_has_no_bits():
    found = bsq.adjust(bsq.Adjusted(np.zeros(5, np.int64), 1.0, 8))
    assert found.planes == 0
    assert not found.values.any()


@pytest.fixture
def base():
    return builders.build("resnet8", (8, 8, 1), 4)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 8, 8, 1)).astype(np.float32)
    return x, rng.integers(0, 4, 64)


def test_a_model_starts_at_eight_bit_values_of_the_float_model(base, data):
    before = base.predict(data[0], verbose=0)
    model = bsq.BSQModel(base)
    for value, kernel in zip(model.values(), model.kernels, strict=True):
        w = kernel.numpy()
        step = np.abs(w).max() / 255
        assert np.abs(value.numpy() - w).max() <= step / 2 * 1.001
    after = model.predict(data[0], verbose=0)
    assert np.abs(after - before).max() < 0.05 * np.abs(before).max()


def test_sixteen_trainable_parameters_a_weight(base):
    model = bsq.BSQModel(base)
    weights = sum(model.sizes)
    planes_of = sum(int(np.prod(v.shape)) for v in model.positive)
    assert planes_of == 8 * weights
    trained = {id(v) for v in model.trainable_variables}
    assert not any(id(kernel) in trained for kernel in model.kernels)
    assert all(id(v) in trained for v in (*model.positive, *model.negative))


def test_training_drops_bits_and_adjusting_keeps_the_outputs(base, data):
    # Far stronger than for accuracy: there are twelve steps.
    model = bsq.BSQModel(base, alpha=30.0)
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(
        *data,
        epochs=6,
        batch_size=32,
        verbose=0,
        callbacks=[bsq.AdjustPrecision(3)],
    )
    assert model.average_bits < 9.0
    assert model.optimizer.iterations.numpy() == 12
    for variable in model.positive:
        assert variable.numpy().min() >= 0.0
    before = model.predict(data[0], verbose=0)
    # Exact bits already: nothing moves.
    model.adjust_precision()
    after = model.predict(data[0], verbose=0)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)
    for value, count in zip(model.values(), model.planes.values(), strict=True):
        assert np.unique(np.abs(value.numpy())).size <= max(2**count, 1)
