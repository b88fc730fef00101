"""Learned scales in the ways to train that Keras has."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from tests.msq_tf.samples import compile_model
from tests.msq_tf.samples import fit
from tests.msq_tf.samples import tiny_model

CONFIG = msq_tf.MSQConfig(scale="learned")


def learned_model():
    keras.utils.set_random_seed(3)
    return compile_model(msq_tf.quantize_model(tiny_model(), CONFIG))


def scales_of(qmodel):
    return [v.numpy() for v in qmodel.learned_scales.scale]


@pytest.mark.slow
def test_jit_compiled_training_equals_the_plain_one(tiny_data):
    def train(jit):
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Flatten(), keras.layers.Dense(4)]
        model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
        qmodel = msq_tf.quantize_model(model, CONFIG)
        compile_model(qmodel, jit_compile=jit)
        qmodel.set_bits({path: 4 for path in qmodel.paths})
        fit(qmodel, tiny_data, epochs=1)
        return scales_of(qmodel)[0]

    np.testing.assert_allclose(train(True), train(False), rtol=1e-4)


def check_training(qmodel, data):
    before = scales_of(qmodel)
    fit(qmodel, data, epochs=1)
    for old, new in zip(before, qmodel.learned_scales.scale, strict=True):
        assert new.dtype == "float32"
        assert (old != new.numpy()).any()
    for value, record in zip(
        qmodel.quantized_values(), qmodel.quantized_weights(), strict=True
    ):
        np.testing.assert_array_equal(value, record.values)


@pytest.mark.slow
def test_under_mixed_float16(tiny_data):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        qmodel = learned_model()
    finally:
        keras.config.set_dtype_policy("float32")
    check_training(qmodel, tiny_data)


@pytest.mark.slow
def test_under_mirrored_strategy(tiny_data):
    devices = tf.config.list_logical_devices("CPU")
    if len(devices) < 2:
        pytest.skip("needs two logical CPU devices")
    # Collectives of two strategies in one process take each other's keys.
    strategy = tf.distribute.MirroredStrategy(
        [d.name for d in devices[:2]],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )
    with strategy.scope():
        qmodel = learned_model()
    check_training(qmodel, tiny_data)
