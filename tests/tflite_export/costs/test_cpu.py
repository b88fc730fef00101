"""Latencies of processors, from tables."""

import keras
import numpy as np
import pytest

import msq_tf
import tflite_export
from tflite_export.costs import cpu
from tflite_export.errors import ExportError
from tflite_export.latency import operators
from tflite_export.latency import timing
from tflite_export.latency.table import LatencyTable
from tflite_export.predicting import files_of


def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((12, 12, 8)),
            keras.layers.Conv2D(16, 3, activation="relu", name="conv"),
            keras.layers.Conv2D(64, 1, activation="relu", name="pw"),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu", name="wide"),
            keras.layers.Dense(8, name="logits"),
        ]
    )


@pytest.fixture(scope="module")
def qmodel():
    return msq_tf.quantize_model(network())


def test_the_table_of_the_package_predicts(qmodel):
    costs = tflite_export.device_costs(qmodel, "cpu_int8")
    assert LatencyTable.load().processor in costs.source
    assert "one thread" in costs.source
    for path in qmodel.paths:
        row = costs.latency[path]
        assert set(row) == set(range(2, 9))
        assert row[8] == row[7] == row[5] and row[4] == row[3]
        assert row[8] > 0
    # Convolutions of more than a pixel have 8-bit kernels alone.
    assert len(set(costs.latency["conv"].values())) == 1
    assert len(set(costs.latency["wide"].values())) > 1
    assert not costs.knows_ram


@pytest.mark.slow
def test_measuring_here_fills_a_table(qmodel, tmp_path):
    path = tmp_path / "mine.json"
    first = tflite_export.device_costs(
        qmodel, "cpu_int8", latency_table=path, measure=True
    )
    rows = LatencyTable.load(path).rows
    again = tflite_export.device_costs(qmodel, "cpu_int8", latency_table=path)
    bits = dict.fromkeys(qmodel.paths, 4)
    # Four digits are kept.
    assert again.latency_at(bits) == pytest.approx(
        first.latency_at(bits), rel=0.01
    )
    with files_of(qmodel, "min_size", batch_size=1) as files:
        table = LatencyTable.load(path)
        assert table.measure(files.at(bits).data, 0.01) > 0
        assert len(table.rows) > len(rows)


def test_measured_files_are_what_their_parts_add_up_to(qmodel, monkeypatch):
    """Whatever operators take alone, and what does not change stays equal."""

    def milliseconds(data, seconds, sessions=1):
        # Whole files are the larger ones, and loaded several times.
        return 5.0 * (sessions > 1) + len(data) / 1e5

    monkeypatch.setattr(timing, "milliseconds", milliseconds)
    known = LatencyTable.of_this_machine()
    with files_of(qmodel, "cpu_int8", batch_size=1) as files:
        whole = {}
        for width in (8, 4, 2):
            data = files.at(dict.fromkeys(qmodel.paths, width)).data
            known.measure(data)
            whole[width] = known.whole(operators.split(data), 1.0)
            assert whole[width] == 5.0 + len(data) / 1e5
        costs = cpu.look_up(files, "cpu_int8", qmodel.paths, known)
    for width, ms in whole.items():
        found = costs.latency_at(dict.fromkeys(qmodel.paths, width))
        assert found == pytest.approx(ms)
    assert len(set(costs.latency["conv"].values())) == 1
    assert len(set(costs.latency["wide"].values())) == 3
    assert min(ms for r in costs.latency.values() for ms in r.values()) >= 0


def test_a_table_that_knows_nothing_of_it_is_refused(qmodel, tmp_path):
    LatencyTable("board", "2026-01-01", "LiteRT", 0.01).save(
        tmp_path / "t.json"
    )
    with pytest.raises(ExportError, match="no operator like.*table of board"):
        tflite_export.device_costs(
            qmodel, "cpu_int8", latency_table=tmp_path / "t.json"
        )


def test_wrong_arguments_are_refused(qmodel, tmp_path):
    device = "ethos_u:ethos-u55-128"
    for arguments in (
        {"device": device, "measure": True},
        {"device": device, "latency_table": "t.json"},
        {"device": "cpu_int8", "macs_per_ms": 9.0},
        {"device": "cpu_int8", "measure": 3},
        {"device": "cpu_int8", "latency_table": 3},
        {"device": "mcu", "macs_per_ms": -1},
    ):
        with pytest.raises(ValueError, match="Received: "):
            tflite_export.device_costs(qmodel, **arguments)


@pytest.mark.slow
def test_loops_are_refused():
    inputs = keras.Input((6, 4))
    outputs = keras.layers.Dense(3)(keras.layers.GRU(5)(inputs))
    qmodel = msq_tf.quantize_model(keras.Model(inputs, outputs))
    with pytest.raises(ExportError, match="unroll=True.*Received: "):
        tflite_export.device_costs(qmodel, "min_size")


@pytest.mark.slow
def test_a_search_ends_within_a_latency_of_a_processor(qmodel):
    costs = tflite_export.device_costs(qmodel, "cpu_int8")
    fresh = msq_tf.quantize_model(network())
    fresh.compile("adam", "mse")
    start = costs.latency_at(fresh.bits)
    least = costs.latency_at(dict.fromkeys(fresh.paths, 2))
    rule = msq_tf.BudgetRule(
        target_latency=(start + least) / 2, device="cpu_int8"
    )
    x = np.random.default_rng(0).normal(size=(64, 12, 12, 8))
    fresh.fit(
        x,
        np.zeros((64, 8)),
        epochs=3,
        verbose=0,
        callbacks=[msq_tf.MSQCallback(rule, hessian=False)],
    )
    assert costs.latency_at(fresh.bits) <= (start + least) / 2
    assert fresh.bits["conv"] == 8
