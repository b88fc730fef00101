"""Fixtures for tests of `msq_tf.tfmot`, which run in a process of their own.

TFMOT makes `tf.keras` tf_keras for the whole process.
"""

from __future__ import annotations

import importlib.util

import pytest


@pytest.fixture(autouse=True)
def seeded_too(seeded) -> None:
    """tf_keras draws from a generator of its own."""
    if importlib.util.find_spec("tf_keras") is not None:
        import tf_keras

        tf_keras.utils.set_random_seed(0)


@pytest.fixture(scope="module")
def data():
    from tests.tfmot.samples import tiny_data

    return tiny_data()
