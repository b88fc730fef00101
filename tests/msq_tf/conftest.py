"""Fixtures of models and data."""

import keras
import numpy as np
import pytest

from tests.msq_tf.samples import Subclassed
from tests.msq_tf.samples import compile_model
from tests.msq_tf.samples import tiny_model
from tests.msq_tf.samples import zoo_model


@pytest.fixture
def zoo():
    keras.utils.set_random_seed(0)
    return zoo_model()


@pytest.fixture
def zoo_data():
    rng = np.random.default_rng(0)
    return (
        [
            rng.normal(size=(16, 12, 12, 4)).astype(np.float32),
            rng.integers(0, 11, (16, 5)).astype(np.int32),
        ],
        rng.integers(0, 3, 16),
    )


@pytest.fixture
def tiny():
    keras.utils.set_random_seed(3)
    return tiny_model()


@pytest.fixture
def tiny_data():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(128, 8, 8, 1)).astype(np.float32)
    quadrants = x.reshape(128, 2, 4, 2, 4).mean((2, 4)).reshape(128, 4)
    return x, quadrants.argmax(-1)


@pytest.fixture
def compiled():
    """A function that compiles a model for classification by logits."""
    return compile_model


@pytest.fixture
def subclassed():
    keras.utils.set_random_seed(0)
    model = Subclassed(name="sub")
    model(np.zeros((1, 7), np.int32))
    return model
