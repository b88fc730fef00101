"""CSQ: the start, and the budget."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.baselines import csq
from train.models import builders


@pytest.fixture
def model():
    return csq.CSQModel(builders.build("resnet8", (8, 8, 1), 4), target=3.0)


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
