"""BSQ: planes of codes, and a model that trains on them."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from benchmarks.baselines import bsq
from benchmarks.baselines import planes
from benchmarks.harness.networks import compiled
from train.models import builders

CODES = st.lists(st.integers(-255, 255), min_size=1, max_size=20)


@hypothesis.given(CODES, st.integers(1, 8))
def test_planes_give_the_codes_back(codes, count):
    codes = np.clip(codes, -(2**count) + 1, 2**count - 1)
    positive, negative = planes.to_planes(codes, count)
    assert not (positive * negative).any()
    real = ((positive - negative) * planes.bit_weights(count)).sum(-1)
    found = np.round(real * (2.0**count - 1.0))
    np.testing.assert_array_equal(found, codes)


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


@pytest.mark.slow
def test_training_pulls_planes_to_zero(base, data):
    # Far stronger than for accuracy: there are eight steps.
    model = compiled(bsq.BSQModel(base, alpha=30.0), 0.1)
    before = model.penalty().numpy()
    model.fit(*data, epochs=4, batch_size=32, verbose=0)
    assert model.penalty().numpy() < before
    for variable in model.positive:
        assert 0.0 <= variable.numpy().min() <= variable.numpy().max() <= 2.0
