"""The arena of TFLite Micro as a budget, and operations."""

import keras
import pytest

import msq_tf
import tflite_export
from tflite_export.costs.mcu import _arena
from tflite_export.predicting import files_of


@pytest.fixture(scope="module")
def qmodel():
    keras.utils.set_random_seed(0)
    return msq_tf.quantize_model(
        keras.Sequential(
            [
                keras.Input((8, 8, 4)),
                keras.layers.Conv2D(16, 3, activation="relu", name="a"),
                keras.layers.Conv2D(32, 3, activation="relu", name="b"),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(4, name="head"),
            ]
        )
    )


@pytest.fixture(scope="module")
def costs(qmodel):
    return tflite_export.device_costs(qmodel, "mcu", macs_per_ms=1000.0)


@pytest.mark.slow
def test_arenas_are_those_that_are_measured(qmodel, costs):
    for bits in (
        {"a": 8, "b": 8, "head": 8},
        {"a": 4, "b": 8, "head": 8},
        {"a": 4, "b": 4, "head": 4},
    ):
        with files_of(qmodel, "mcu") as files:
            measured = _arena(files.at(bits), files.inputs)
        assert costs.ram_at(bits) >= measured
        assert costs.ram_at(bits) == pytest.approx(measured, rel=0.05)


@pytest.mark.slow
def test_unpacked_codes_take_ram(costs):
    # 16 x 3 x 3 x 32 codes of `b`, in bytes.
    assert costs.ram["b"][4] > costs.ram["b"][8]
    assert costs.ram["b"][8] == costs.rest_ram


def test_milliseconds_are_operations(costs):
    # 6 x 6 pixels of 16 channels, each of 3 x 3 x 4 products.
    assert costs.latency["a"][8] == pytest.approx(36 * 16 * 36 / 1000)
    assert costs.latency["a"][4] == pytest.approx((36 * 16 + 16) * 36 / 1000)


def test_without_a_speed_there_is_no_latency(qmodel):
    costs = tflite_export.device_costs(qmodel, "mcu")
    assert costs.knows_ram and not costs.knows_latency
    with pytest.raises(ValueError, match="macs_per_ms.*Received: "):
        msq_tf.BudgetRule(target_latency=1.0, costs=costs)
