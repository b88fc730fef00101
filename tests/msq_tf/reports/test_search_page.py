"""A report as the page of a search."""

from __future__ import annotations

import dataclasses
import math

import keras
import numpy as np
import pytest

import msq_tf
from msq_tf.core.bit_history import BitChange
from msq_tf.page import charts
from msq_tf.reports import search_page
from msq_tf.reports.training_log import EpochPoint
from msq_tf.rules.records import Candidate
from tests.msq_tf.reports.test_code_use import quiet_model
from tests.msq_tf.samples import new_model

_NEXT = Candidate("head", 4, 2e-3)
_LAST = Candidate("head", 2, 5e-3)
CHANGES = (
    BitChange(10, 1.5, "conv", 8, 4, 1e-3, 0.5, 2e-2, 1e-3, _NEXT, "cheap"),
    BitChange(20, 2.5, "conv", 4, 2, 3e-3, 0.5, 2e-2, 1e-3, None),
    BitChange(20, 2.5, "head", 8, 4, math.nan, 0.5, 2e-2, 1e-3, _LAST),
)
POINTS = (
    EpochPoint(1.0, 900, 0.9),
    EpochPoint(2.0, 800, 0.88),
    EpochPoint(3.0, 500, 0.8),
)


@pytest.fixture
def report():
    qmodel = msq_tf.quantize_model(quiet_model())
    qmodel.set_bits({"conv": 2, "head": 4})
    return dataclasses.replace(
        msq_tf.precision_report(qmodel),
        changes=CHANGES,
        metric="val_accuracy",
        points=POINTS,
    )


def test_layers_have_their_codes_and_their_decisions(report):
    conv, head = search_page.side(report).layers
    assert (conv.bits, conv.type, conv.next_bits) == (2, "INT2", None)
    assert (head.bits, head.next_bits) == (4, 2)
    assert head.next_saves == head.stored_bytes - head.size * 2 // 8
    assert sum(count for _, count in conv.codes) == conv.size == 144
    assert {code for code, _ in conv.codes} <= {-1, 0, 1}
    assert (conv.dead, conv.channels) == (3, 8)
    assert "3 of 8 channels are all zero" in conv.remarks[0]
    assert conv.predicted == pytest.approx(4e-3)
    assert head.predicted is None
    assert len(conv.why) == 2 and "next in line: head → 4" in conv.why[0]
    assert conv.why[0].endswith("; why: cheap")
    assert len(head.why) == 2
    assert head.why[1].endswith("it was next in line: head → 2 (+5.0e-03)")


def test_a_layer_that_nothing_changed_says_what_was_next(report):
    changes = (CHANGES[0],)
    conv, head = search_page.side(
        dataclasses.replace(report, changes=changes)
    ).layers
    assert len(conv.why) == 1
    assert "no decision changed it" in head.why[0]
    assert "in step 10, it was next in line: head → 4" in head.why[1]


def test_damage_is_predicted_and_measured_epoch_by_epoch(report):
    search = search_page.search(report)
    assert [d.predicted for d in search.damage] == [1e-3, 3e-3]
    measured = [d.measured for d in search.damage]
    np.testing.assert_allclose(measured, [0.02, 0.08])
    falling = dataclasses.replace(report, metric="val_loss")
    other = search_page.search(falling)
    np.testing.assert_allclose(
        [d.measured for d in other.damage], [-0.02, -0.08]
    )
    assert other.metric == "validation loss"


def test_without_a_search_a_page_says_so():
    report = msq_tf.precision_report(msq_tf.quantize_model(quiet_model()))
    side = search_page.side(report)
    assert side.search is None
    assert side.missing["search"] == search_page.NO_SEARCH
    assert "no search has run" in side.layers[0].why[0]


def test_a_report_is_saved_as_a_page(report, monkeypatch, tmp_path):
    monkeypatch.setattr(charts, "javascript", lambda: "")
    path = tmp_path / "search.html"
    report.save(path)
    assert '"key":"conv"' in path.read_text()
    with pytest.raises(ValueError, match="`path`"):
        report.save(3)


@pytest.mark.slow
def test_a_page_is_written_every_epoch(monkeypatch, tmp_path):
    monkeypatch.setattr(charts, "javascript", lambda: "")
    monkeypatch.setattr(charts, "check_installed", lambda: None)
    path = tmp_path / "search.html"
    seen = []
    callback = msq_tf.ReportCallback(path)
    reader = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(path.read_text())
    )
    qmodel = new_model()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 8, 8, 1)).astype(np.float32)
    y = rng.integers(0, 4, 32)
    search = msq_tf.MSQCallback(
        msq_tf.BudgetRule(target_compression=6), hessian=False, verbose=0
    )
    qmodel.fit(x, y, epochs=2, verbose=0, callbacks=[search, callback, reader])
    assert len(seen) == 2 and seen[0] != seen[1]
    assert '"epoch":1.0' in seen[0] and '"epoch":2.0' in seen[1]
