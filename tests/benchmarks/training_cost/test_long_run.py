"""A run of some hundred steps: no leak, no retrace."""

from __future__ import annotations

import json

import pytest

from benchmarks.training_cost import long_run
from msq_tf.rules.records import LayerStats
from msq_tf.rules.records import RuleState
from msq_tf.rules.records import SearchStats


def test_the_pendulum_swings():
    rule = long_run.Pendulum(target_bits=2.0, end=1.0)
    layers = [LayerStats(path=name, size=1, bits=8) for name in "ab"]
    state, seen = RuleState(), []
    for step in range(5):
        decision, state = rule.decide(SearchStats(layers, step=step), state)
        seen += [(c.path, c.new) for c in decision.changes]
    assert seen == [("a", 4), ("b", 4), ("a", 8), ("b", 8), ("a", 4)]
    assert state.decisions == 5 and not state.done
    assert rule.due(0.5, 8.0, state) and not rule.due(1.0, 8.0, state)


@pytest.mark.slow
def test_some_hundred_steps():
    found = long_run.measure(steps=600)
    assert found["steps"] == 600
    # One after every 20 steps, but for the last.
    assert 28 <= found["decisions"] <= 30
    assert found["traces_at_start"] == found["traces_at_end"]
    # The allocator settles; 10,000 steps are what shows a leak.
    assert found["memory"]["end_mib"] - found["memory"]["start_mib"] < 16
    assert found["time"]["step_ms"]["end"] > 0


def test_the_page_tells_what_was_found(root):
    path = root / "benchmarks" / "results" / "long_run.json"
    content = json.loads(path.read_text())
    results = content["results"]
    assert results["steps"] == 10_000 and results["decisions"] >= 499
    assert results["traces_at_start"] == results["traces_at_end"]
    results["traces_at_end"] += 3
    assert "| +3 |" in long_run.markdown(content)
