"""Budgets of milliseconds and RAM: met, or refused before a training."""

from __future__ import annotations

import dataclasses
import itertools
import math

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis import settings

import msq_tf
from msq_tf.rules import DeviceCosts
from msq_tf.rules import device_budgets
from msq_tf.rules.rule import changed
from tests.msq_tf.rule_samples import layer
from tests.msq_tf.rule_samples import stats

WIDTHS = range(2, 9)
NPU = "ethos_u:ethos-u55-128"


def costs(latency, ram=None, **kwargs):
    """Costs of a device that gives a width to anything."""
    return DeviceCosts("board", "made up", latency, ram=ram or {}, **kwargs)


def falling(path, at_8, at_2):
    """Milliseconds on a line between two widths."""
    slope = (at_8 - at_2) / 6
    return {path: {w: at_2 + slope * (w - 2) for w in WIDTHS}}


@st.composite
def networks(draw):
    """Layers, what they take on a device, and what else it has to do."""
    layers, latency, ram = [], {}, {}
    for i in range(draw(st.integers(1, 3))):
        path = f"w{i}"
        layers.append(
            layer(path, draw(st.integers(1, 400)), cost=draw(st.floats(0, 9)))
        )
        figures = st.lists(st.integers(1, 99), min_size=7, max_size=7)
        row = draw(figures)
        if draw(st.booleans()):
            row.sort()  # fewer bits are faster; else it goes up and down
        latency[path] = dict(zip(WIDTHS, map(float, row), strict=True))
        ram[path] = dict(zip(WIDTHS, map(float, draw(figures)), strict=True))
    rest = draw(st.integers(0, 50))
    return layers, costs(latency, ram, rest_latency=rest, rest_ram=1.0)


SHARES = st.integers(0, 20).map(lambda n: n / 20)


@settings(max_examples=80, deadline=None)
@given(networks(), SHARES, SHARES, SHARES, st.booleans(), st.booleans())
def test_all_budgets_are_met_or_refused(
    network, size, time, room, sized, crowded
):
    layers, known = network
    total = sum(entry.size for entry in layers)
    span = [
        known.rest_latency + sum(f(r.values()) for r in known.latency.values())
        for f in (min, max)
    ]
    rule = msq_tf.BudgetRule(
        target_latency=span[0] - 1 + time * (span[1] - span[0] + 2),
        target_ram=max(1, round(room * 99)) if crowded else None,
        target_bits=2 + 6 * size if sized else None,
        allowed_bits=WIDTHS,
        costs=known,
    )

    def keeps(bits):
        average = sum(s.size * b for s, b in zip(layers, bits, strict=True))
        by_path = {s.path: b for s, b in zip(layers, bits, strict=True)}
        return (
            known.latency_at(by_path) <= rule.target_latency * (1 + 1e-6)
            and (not crowded or known.ram_at(by_path) <= rule.target_ram)
            and (not sized or average / total <= rule.target_bits + 1e-6)
        )

    possible = any(
        keeps(bits) for bits in itertools.product(WIDTHS, repeat=len(layers))
    )
    now = known.of(stats(*layers))
    if not possible:
        with pytest.raises(ValueError, match="Expected .*Received: "):
            rule.start(now)
        return
    state = rule.start(now)
    while not state.done:
        assert rule.due_now(now, state)
        decision, state = rule.decide(now, state)
        assert decision.changes
        now = changed(now, decision.changes)
    assert keeps([s.bits for s in now.layers])


def test_the_least_latency_is_named():
    known = costs(falling("a", 4.0, 1.0), rest_latency=0.5)
    now = known.of(stats(layer("a")))
    rule = msq_tf.BudgetRule(target_latency=1.0, costs=known)
    with pytest.raises(
        ValueError, match=r"at least 1\.500 ms.*Received: target_latency=1"
    ):
        rule.start(now)
    named = dataclasses.replace(rule, target_latency=1.5)
    assert not named.start(now).done


def test_budgets_that_exclude_each_other_are_named_together():
    """Fewer bits are slower here, as packed weights of some kernels are."""
    known = costs(falling("a", 1.0, 4.0))
    now = known.of(stats(layer("a")))
    for target in ({"target_latency": 1.0}, {"target_bits": 2.0}):
        rule = msq_tf.BudgetRule(
            costs=known, **{"target_latency": 9.0, **target}
        )
        rule.start(now)
    rule = msq_tf.BudgetRule(target_latency=1.0, target_bits=2, costs=known)
    with pytest.raises(
        ValueError, match="all budgets at once.*at least 4.000 ms.*target_bits"
    ):
        rule.start(now)


def test_ram_is_named():
    known = costs(
        falling("a", 1.0, 1.0), {"a": dict.fromkeys(WIDTHS, 70.0)}, rest_ram=90
    )
    now = known.of(stats(layer("a")))
    rule = msq_tf.BudgetRule(target_ram=80, costs=known)
    with pytest.raises(ValueError, match="without quantized.*at least 90 byte"):
        rule.start(now)
    assert dataclasses.replace(rule, target_ram=90).start(now).done


def test_ram_may_forbid_a_narrow_width():
    """Codes of 4 bits are unpacked in RAM before some kernels read them."""
    known = costs(
        falling("a", 1.0, 1.0) | falling("b", 1.0, 1.0),
        {"a": {8: 50.0, 4: 90.0, 2: 90.0}, "b": {8: 50.0, 4: 60.0, 2: 60.0}},
    )
    now = known.of(stats(layer("a"), layer("b", cost=9.0)))
    rule = msq_tf.BudgetRule(target_bits=6, target_ram=60, costs=known)
    decision, state = rule.decide(now, rule.start(now))
    assert [(c.path, c.new) for c in decision.changes] == [("b", 4)]
    assert state.done


def test_the_way_is_a_cubic_in_milliseconds():
    known = costs(falling("a", 8.0, 2.0), rest_latency=1.0)
    rule = msq_tf.BudgetRule(
        target_latency=3.0, costs=known, allowed_bits=WIDTHS, end=0.5
    )
    first = known.of(stats(layer("a"), progress=0.0))
    state = rule.start(first)
    assert not rule.decide(first, state)[0].changes
    # 3 + 6 / 8 milliseconds are left; 3 bits take 4.
    half = known.of(stats(layer("a", bits=3), progress=0.25))
    assert rule.due_now(half, state._replace(decisions=1.0))
    assert not rule.due_now(
        known.of(stats(layer("a", bits=2), progress=0.25)),
        state._replace(decisions=1.0),
    )


def test_stages_have_latencies_between():
    known = costs(falling("a", 8.0, 2.0))
    rule = msq_tf.BudgetRule(
        target_latency=2.0, costs=known, allowed_bits=WIDTHS, stages=2
    )
    now = known.of(stats(layer("a"), progress=0.3))
    state = rule.start(now)
    decided = []
    while rule.due_now(now, state):
        decision, state = rule.decide(now, state)
        now = changed(now, decision.changes)
        decided += [c.new for c in decision.changes]
    # The root of 8 times 2 milliseconds is 4, what 4 bits take.
    assert now.latency == 4.0 and decided[-1] == 4 and not state.done


def test_fewer_milliseconds_are_bought_where_they_are_cheap():
    known = costs(falling("slow", 8.0, 2.0) | falling("free", 1.0, 1.0))
    now = known.of(
        stats(layer("slow", 100, cost=5.0), layer("free", 9000, cost=0.1))
    )
    rule = msq_tf.BudgetRule(
        target_latency=5.0, costs=known, allowed_bits=WIDTHS
    )
    state = rule.start(now)
    while not state.done:
        decision, state = rule.decide(now, state)
        assert {c.path for c in decision.changes} == {"slow"}
        assert "ms, the cheapest" in decision.changes[0].reason
        now = changed(now, decision.changes)


def test_costs_survive_a_file(tmp_path):
    known = costs(
        falling("a", 8.0, 2.0), {"a": {8: 1.0}}, rest_latency=1.5, rest_ram=3
    )
    known.save(tmp_path / "costs.json")
    assert DeviceCosts.load(tmp_path / "costs.json") == known
    assert known.latency_at({"a": 8}) == 9.5 and known.ram_at({"a": 8}) == 3
    # A budget, too.
    msq_tf.BudgetRule(target_ram=known.ram_at({"a": 8}), costs=known)
    for text in ("{}", "[1]", '{"latency": 3}', "nonsense"):
        with pytest.raises(ValueError, match="saved costs.*Received: "):
            DeviceCosts.from_json(text)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"target_latency": 1.0}, "needs a device.*ethos_u:ethos-u55-128"),
        ({"target_latency": 1.0, "device": "ethos_u"}, "ethos-u55-128"),
        ({"target_latency": 1.0, "device": "mcu"}, "macs_per_ms"),
        ({"target_ram": 999, "device": "cpu_int8"}, "needs a device.*'mcu'"),
        ({"target_latency": 1.0, "device": "gpu"}, "must name a target"),
        ({"target_latency": -1.0, "device": NPU}, "of at least 0"),
        ({"target_latency": math.nan, "device": NPU}, "target_latency"),
        ({"target_ram": 1.5, "device": NPU}, "integer"),
        ({"target_latency": 1.0, "costs": {"a": 1}}, "must be DeviceCosts"),
        (
            {"target_latency": 1.0, "target_bits": 4, "target_bytes": 9},
            "at most one",
        ),
        (
            {"target_latency": 1.0, "device": NPU, "costs": costs({})},
            "another device",
        ),
        ({"target_ram": 9, "costs": costs({})}, "no figures of RAM"),
    ],
)
def test_wrong_budgets_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words) as error:
        msq_tf.BudgetRule(**arguments)
    assert "Received: " in str(error.value)


def test_wrong_costs_are_refused():
    for wrong in (3, {"a": 3}, {"a": {1: 1.0}}, {"a": {8: -1}}, {3: {8: 1}}):
        with pytest.raises(ValueError, match="maps paths.*Received: "):
            costs(wrong)
    with pytest.raises(ValueError, match="another model.*Received: "):
        costs({"b": {8: 1.0}}).of(stats(layer("a")))
    with pytest.raises(ValueError, match="all widths.*Expected 2 bits"):
        costs({"a": {8: 1.0}}).of(stats(layer("a")))
    rule = msq_tf.BudgetRule(
        target_latency=1.0, costs=costs(falling("a", 2, 1))
    )
    with pytest.raises(ValueError, match="Nothing is known of the device"):
        rule.start(stats(layer("a")))


def test_the_devices_are_those_that_files_are_made_for():
    for name in (*device_budgets.LATENCY, *device_budgets.RAM):
        assert msq_tf.BudgetRule(target_bits=4, device=name).device == name
