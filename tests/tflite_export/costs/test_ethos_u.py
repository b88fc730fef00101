"""Budgets of milliseconds and RAM by Vela's estimate."""

import keras
import numpy as np
import pytest

import msq_tf
import tflite_export
from tflite_export.devices import ethos_u
from tflite_export.errors import ExportError
from tflite_export.predicting import files_of

NPU = "ethos-u55-128"
DEVICE = f"ethos_u:{NPU}"


def network():
    """A keyword spotter whose later layers wait for their weights."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((12, 10, 1)),
            layers.Conv2D(
                24, 3, strides=2, padding="same", use_bias=False, name="stem"
            ),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D(3, padding="same", name="dw"),
            layers.Conv2D(64, 1, activation="relu", name="pw"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(192, activation="relu", name="wide"),
            layers.Dense(4, name="logits"),
        ]
    )


@pytest.fixture(scope="module")
def qmodel():
    return msq_tf.quantize_model(network())


@pytest.fixture(scope="module")
def costs(qmodel):
    return tflite_export.device_costs(qmodel, DEVICE)


def compiled_by_vela(qmodel, bits):
    with files_of(qmodel, "ethos_u") as files:
        data = files.at(bits).data
    return ethos_u.compile_file(data, NPU, ethos_u.known_accelerators()[NPU])[0]


@pytest.mark.slow
def test_sums_are_what_vela_says(qmodel, costs):
    rng = np.random.default_rng(0)
    mixed = {path: int(rng.integers(2, 9)) for path in qmodel.paths}
    for bits in (mixed, dict.fromkeys(mixed, 8), dict.fromkeys(mixed, 2)):
        figures = compiled_by_vela(qmodel, bits)
        assert costs.latency_at(bits) == pytest.approx(
            figures["estimated_ms"], rel=0.03
        )
        assert costs.ram_at(bits) == pytest.approx(
            figures["sram_bytes"], rel=0.1
        )
    assert "Vela 5" in costs.source


def test_fewer_bits_are_faster_where_weights_are_waited_for(costs):
    wide = costs.latency["wide"]
    assert wide[2] < 0.6 * wide[8]
    assert set(costs.latency["dw"]) == set(range(2, 9))


@pytest.mark.slow
def test_the_model_stays_as_it_was(qmodel):
    before = qmodel.get_weights()
    tflite_export.device_costs(qmodel, DEVICE)
    for now, then in zip(qmodel.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert set(qmodel.bits.values()) == {8}


@pytest.mark.slow
def test_a_training_ends_within_velas_estimate(costs, tmp_path):
    qmodel = msq_tf.quantize_model(network())
    qmodel.compile(
        keras.optimizers.Adam(0.003),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(128, 12, 10, 1)).astype(np.float32)
    y = rng.integers(0, 4, 128)
    start = costs.latency_at(qmodel.bits)
    least = costs.latency_at(dict.fromkeys(qmodel.paths, 2))
    budget = least + 0.4 * (start - least)
    rule = msq_tf.BudgetRule(
        target_latency=budget, target_compression=5.0, device=DEVICE
    )
    # Nothing is given: the callback asks the exporter.
    qmodel.fit(
        x,
        y,
        batch_size=32,
        epochs=3,
        verbose=0,
        callbacks=[msq_tf.MSQCallback(rule, hessian=False)],
    )
    assert qmodel.compression >= 5.0
    report = tflite_export.export(
        qmodel,
        tmp_path / "m.tflite",
        target="ethos_u",
        representative_data=x[:16],
        device_options={"accelerators": [NPU]},
    )
    estimated = report.device["accelerators"][NPU]["estimated_ms"]
    predicted = qmodel.search.device_costs.latency_at(qmodel.bits)
    assert predicted <= budget
    assert estimated == pytest.approx(predicted, rel=0.03)
    assert estimated < 0.95 * start


def test_what_the_device_lacks_is_refused_before_a_training():
    inputs = keras.Input((8, 16))
    x = keras.layers.LayerNormalization()(inputs)
    x = keras.layers.Dense(16)(x)
    qmodel = msq_tf.quantize_model(keras.Model(inputs, x))
    with pytest.raises(ExportError, match="layer normalization"):
        tflite_export.device_costs(qmodel, DEVICE)


def test_devices_that_nothing_predicts_are_refused(qmodel):
    for name in ("ethos_u", "edgetpu", "ethos_u:u99", 3):
        with pytest.raises(ValueError, match="ethos-u55-128.*Received: "):
            tflite_export.device_costs(qmodel, name)
    with pytest.raises(ValueError, match="quantize_model.*Received: "):
        tflite_export.device_costs(network(), DEVICE)
