"""Searches for milliseconds and RAM in `fit`, with made-up figures."""

import dataclasses

import keras
import numpy as np
import pytest

import msq_tf
from tests.msq_tf import samples
from tests.msq_tf.samples import fit

WIDTHS = range(2, 9)
# The kernels of `tiny_model`, and what they take at 8 bits and at 2.
LATENCY = {"conv": (4.0, 1.0), "dw": (2.0, 2.0), "head": (3.0, 1.5)}


def costs(**kwargs):
    rows = {
        path: {w: least + (most - least) * (w - 2) / 6 for w in WIDTHS}
        for path, (most, least) in LATENCY.items()
    }
    return msq_tf.DeviceCosts("board", "made up", rows, 1.0, **kwargs)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(128, 8, 8, 1)).astype(np.float32)
    return x, rng.integers(0, 4, 128)


def search(latency, **kwargs):
    given = kwargs.pop("costs", costs())
    rule = msq_tf.BudgetRule(
        target_latency=latency, allowed_bits=WIDTHS, costs=given, **kwargs
    )
    return msq_tf.MSQCallback(rule, hessian=False)


@pytest.mark.slow
def test_a_training_ends_within_its_budgets(data, capsys):
    qmodel = samples.new_model()
    fit(qmodel, data, search(6.5, target_bits=6), verbose=2)
    known = qmodel.search.device_costs
    assert known == costs()
    assert known.latency_at(qmodel.bits) <= 6.5
    assert qmodel.average_bits <= 6
    said = " ".join(capsys.readouterr().out.split())
    assert "MSQ: 10 ms on the device at the widths now, 5.5 ms at" in said
    assert "of 6.5 ms; target reached" in said
    reasons = [change.reason for change in qmodel.history_of_bits()]
    assert all("ms, the cheapest" in reason for reason in reasons)


@pytest.mark.slow
def test_a_latency_alone_leaves_what_costs_no_time(data):
    qmodel = samples.new_model()
    fit(qmodel, data, search(6.5))
    assert qmodel.bits["dw"] == 8
    assert costs().latency_at(qmodel.bits) <= 6.5


def test_what_no_width_meets_is_refused_before_the_first_step(data):
    qmodel = samples.new_model()
    before = qmodel.get_weights()
    with pytest.raises(ValueError, match="at least 5.500 ms"):
        fit(qmodel, data, search(5.0))
    for now, then in zip(qmodel.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.slow
def test_another_budget_begins_another_search(data):
    qmodel = samples.new_model()
    fit(qmodel, data, search(8.0))
    first = costs().latency_at(qmodel.bits)
    assert 6.0 < first <= 8.0
    fit(qmodel, data, search(6.0))
    assert costs().latency_at(qmodel.bits) <= 6.0


@pytest.mark.slow
def test_figures_are_saved_with_the_model(data, tmp_path, monkeypatch):
    """A search that is resumed goes on with those that it began with."""
    plain, other = (
        msq_tf.quantize_model(samples.tiny_model()) for _ in range(2)
    )
    plain.search.device_costs = costs()
    plain.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert again.search.device_costs == costs()
    plain.save_weights(tmp_path / "m.weights.h5")
    other.search.device_costs = costs(rest_ram=7.0)
    other.load_weights(tmp_path / "m.weights.h5")
    assert other.search.device_costs == costs()
    # Nothing is asked of the device again.
    samples.compile_model(again)
    kept = dataclasses.replace(costs(), device="ethos_u:ethos-u55-128")
    again.search.device_costs = kept
    monkeypatch.setattr("tflite_export.device_costs", None, raising=False)
    rule = msq_tf.BudgetRule(
        target_latency=6.5, device="ethos_u:ethos-u55-128", allowed_bits=WIDTHS
    )
    fit(again, data, msq_tf.MSQCallback(rule, hessian=False), epochs=1)
    assert again.search.device_costs == kept


@pytest.mark.slow
def test_an_interrupted_search_decides_what_the_whole_one_does(data, tmp_path):
    whole = samples.new_model()
    fit(whole, data, search(6.0, end=0.8), epochs=4)
    parts = samples.new_model()

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    backup = keras.callbacks.BackupAndRestore(tmp_path / "b")
    with pytest.raises(KeyboardInterrupt):
        fit(parts, data, search(6.0, end=0.8), backup, Stop(), epochs=4)
    parts = samples.new_model()
    backup = keras.callbacks.BackupAndRestore(tmp_path / "b")
    fit(parts, data, search(6.0, end=0.8), backup, epochs=4)
    assert parts.history_of_bits() == whole.history_of_bits()


def test_set_bits_forgets_them():
    qmodel = samples.new_model()
    qmodel.search.device_costs = costs()
    qmodel.set_bits(dict.fromkeys(qmodel.paths, 4))
    assert qmodel.search.device_costs is None
