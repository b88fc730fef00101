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


@pytest.mark.first(1)
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


@pytest.mark.slow
def test_an_operator_that_no_layer_tells_of():
    qmodel = quantized(network(lambda x: keras.ops.cumsum(x, axis=1)))
    tflite_export.check(qmodel, "cpu_int8")
    with pytest.raises(ValueError, match="CUMSUM"):
        tflite_export.check(qmodel, "mcu")


def test_a_model_for_one_kind_of_accelerator():
    """Long strides run on Ethos-U85, and on no other."""
    inputs = keras.Input((20, 20, 4))
    x = L.DepthwiseConv2D(3, strides=4)(L.Conv2D(4, 3)(inputs))
    qmodel = quantized(keras.Model(inputs, x))

    def check(names):
        options = {"accelerators": names} if names is not None else None
        tflite_export.check(qmodel, "ethos_u", device_options=options)

    check(["ethos-u85-256"])
    for names in (None, ["ethos-u55-128"], ["ethos-u85-256", "ethos-u65-256"]):
        with pytest.raises(tflite_export.ExportError, match="Ethos-U85 only"):
            check(names)
    with pytest.raises(ValueError, match="Received: accelerators="):
        check(["ethos-u95"])
    # Others run on none.
    qmodel = quantized(network(lambda x: keras.ops.cumsum(x, axis=1)))
    with pytest.raises(tflite_export.ExportError, match="CUMSUM"):
        check(["ethos-u85-256"])


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


@pytest.mark.slow
def test_the_same_data_as_an_export(tmp_path):
    """A folder of images, and batches of several sizes."""
    for number in range(3):
        pixels = np.full((8, 8, 3), 40 * number, np.uint8)
        keras.utils.save_img(tmp_path / f"{number}.png", pixels)
    qmodel = quantized(network(L.ReLU()))
    tflite_export.check(qmodel, "cpu_int8", str(tmp_path))
    inputs = keras.Input((None, 6))
    x = L.GlobalAveragePooling1D()(L.Conv1D(4, 3, padding="same")(inputs))
    qmodel = quantized(keras.Model(inputs, L.Dense(2)(x)))
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(4, n, 6)).astype("f") for n in (8, 12)]
    tflite_export.check(qmodel, "cpu_float", batches)
