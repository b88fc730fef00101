"""What an export would refuse is refused before a training."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf
import tflite_export
from tests.tflite_export.samples import quantized

L = keras.layers


def network(middle):
    inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, activation="relu")(inputs)
    x = L.Flatten()(middle(x))
    return keras.Model(inputs, L.Dense(2)(x))


@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize("target", ["min_size", "cpu_int8", "mcu", "edgetpu"])
def test_an_untrained_model_that_can_be_exported(target, bits, tmp_path):
    qmodel = msq_tf.quantize_model(
        network(L.BatchNormalization()), msq_tf.MSQConfig(activation_bits=bits)
    )
    before = [np.array(v) for v in qmodel.weights]
    tflite_export.check(qmodel, target)
    for old, new in zip(before, qmodel.weights, strict=True):
        np.testing.assert_array_equal(old, new)


def test_an_operator_that_no_layer_tells_of():
    qmodel = quantized(network(lambda x: keras.ops.cumsum(x, axis=1)))
    tflite_export.check(qmodel, "cpu_int8")
    with pytest.raises(ValueError, match="CUMSUM"):
        tflite_export.check(qmodel, "mcu")


def test_ranges_of_another_width():
    qmodel = msq_tf.quantize_model(
        network(L.ReLU()), msq_tf.MSQConfig(activation_bits=16)
    )
    with pytest.raises(ValueError, match="activation_bits=8.*Received"):
        tflite_export.check(qmodel, "cpu_int8")
    tflite_export.check(qmodel, "cpu_int16")


def test_what_is_no_model_or_target():
    with pytest.raises(ValueError, match="quantize_model.*Received: model="):
        tflite_export.check(network(L.ReLU()))
    with pytest.raises(ValueError, match="Received: .*phone"):
        tflite_export.check(quantized(network(L.ReLU())), "phone")
