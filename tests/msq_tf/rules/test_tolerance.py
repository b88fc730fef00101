"""What a ToleranceRule plans, counts and refuses."""

import dataclasses

import hypothesis
import pytest
from hypothesis import strategies as st

import msq_tf
from msq_tf.rules.records import RuleState
from tests.msq_tf.rule_samples import apply
from tests.msq_tf.rule_samples import layer
from tests.msq_tf.rule_samples import stats


def samples():
    return st.lists(
        st.tuples(st.integers(16, 100_000), st.floats(0.0, 100.0)),
        min_size=1,
        max_size=8,
    )


def made(drawn):
    return stats(
        *(layer(f"w{i}", n, cost=cost) for i, (n, cost) in enumerate(drawn))
    )


@hypothesis.given(samples())
def test_the_ladder_falls_in_size_and_rises_in_cost(drawn):
    rule, now = msq_tf.ToleranceRule(), made(drawn)
    ladder = rule.ladder(now)
    assert ladder[0].average == 8.0
    assert ladder[-1].average == pytest.approx(2.0)
    for before, after in zip(ladder, ladder[1:], strict=False):
        assert after.average < before.average
        assert after.budget < before.budget
        assert after.cost >= before.cost or before is ladder[0]


def test_there_is_a_size_in_a_gap():
    """The small weight costs more a bit, and no even step is as short."""
    drawn = [("large", 5000, 1.0), ("larger", 9000, 2.0), ("small", 300, 0.5)]
    now = stats(*(layer(path, n, cost=cost) for path, n, cost in drawn))
    averages = [rung.average for rung in msq_tf.ToleranceRule().ladder(now)]
    both = 8.0 - (4 * 5000 + 4 * 300) / now.size
    assert any(abs(average - both) < 1e-6 for average in averages)


@hypothesis.given(samples(), st.data())
def test_any_size_is_reached_from_any_other(drawn, data):
    rule, now = msq_tf.ToleranceRule(), made(drawn)
    ladder = rule.ladder(now)
    state = rule.start(now)
    for _ in range(4):
        rung = data.draw(st.sampled_from(ladder))
        # The costs are those of the start, whatever the bits are now.
        state = state._replace(target_bits=rung.budget)
        while True:
            decision, state = rule.decide(now, state)
            for change in decision.changes:
                # 8, 4, 2: one at a time, or two where that is cheap.
                assert change.old / change.new <= 4
            now = dataclasses.replace(now, layers=apply(now.layers, decision))
            if not rule.due(0.5, rule.average(now), state):
                break
        assert rule.average(now) == pytest.approx(rung.average)
        decision, state = rule.decide_at_once(now, state)
        assert not decision.changes
        assert not state.done


def test_bytes_are_those_of_the_device():
    now = stats(layer("a", 1000, kind="conv", channels=10))
    rule = msq_tf.ToleranceRule(device="min_size")
    assert rule.bytes_at(now, 8.0) > 1000
    assert msq_tf.ToleranceRule().bytes_at(now, 8.0) == 1000


@pytest.mark.parametrize(
    ("rule", "reference", "value", "drop"),
    [
        ({}, 0.91, 0.90, 1.0),
        ({}, 0.91, 0.92, -1.0),
        ({"unit": "metric"}, 91.0, 90.0, 1.0),
        ({"unit": "percent"}, 0.5, 0.45, 10.0),
        (
            {"monitor": "val_loss", "unit": "metric"},
            0.5,
            0.7,
            0.2,
        ),
        ({"monitor": "val_loss", "unit": "percent"}, -2.0, -1.9, 5.0),
        ({}, 0.9, float("nan"), float("inf")),
        ({}, 0.9, float("-inf"), float("inf")),
        ({}, 0.9, float("inf"), float("inf")),
    ],
)
def test_points(rule, reference, value, drop):
    made = msq_tf.ToleranceRule(**rule)
    assert made.drop(value, reference) == pytest.approx(drop)


@pytest.mark.parametrize(
    ("rule", "reference", "drop"),
    [
        ({}, 0.9, 45.0),
        ({"unit": "percent"}, 0.9, 50.0),
        ({"unit": "metric", "mode": "max"}, 30.0, 15.0),
        ({"max_drop": 50.0}, 0.9, float("inf")),
        ({"monitor": "val_loss", "unit": "metric"}, 0.3, float("inf")),
        ({"unit": "metric", "mode": "max"}, -3.0, float("inf")),
    ],
)
def test_half_of_a_metric_is_lost_where_training_breaks_a_model(
    rule, reference, drop
):
    made = msq_tf.ToleranceRule(**rule)
    assert made.diverged(reference) == pytest.approx(drop)


def test_a_point_that_float32_makes_larger_is_a_point():
    rule = msq_tf.ToleranceRule(max_drop=1.0)
    assert rule.keeps(rule.drop(0.9000000954, 0.9100000858))
    assert rule.keeps(rule.drop(0.8999999, 0.9099999))
    assert not rule.keeps(rule.drop(0.8998, 0.91))
    assert msq_tf.ToleranceRule(max_drop=0.0).keeps(0.0)


@pytest.mark.parametrize(
    ("arguments", "reference"),
    [
        ({"monitor": "val_loss"}, 0.5),
        ({"monitor": "val_accuracy"}, 91.0),
        ({"monitor": "val_mae"}, 0.1),
        ({"unit": "percent"}, 0.0),
    ],
)
def test_a_unit_that_does_not_follow_has_to_be_given(arguments, reference):
    with pytest.raises(ValueError, match=r"unit='metric'.*Received: "):
        msq_tf.ToleranceRule(**arguments).unit_for(reference)


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_drop": -0.1},
        {"max_drop": float("nan")},
        {"max_drop": "1"},
        {"max_drop": None},
        {"reference": float("inf")},
        {"monitor": "accuracy"},
        {"monitor": 3},
        {"monitor": "val_depth"},
        {"monitor": lambda model: 0.0},
        {"mode": "up"},
        {"unit": "dB"},
        {"device": "toaster"},
        {"allowed_bits": ()},
        {"target_bits": 4.0},
        {"target_compression": 8.0},
        {"target_bytes": 1000},
    ],
)
def test_wrong_arguments(arguments):
    with pytest.raises(ValueError, match="Received: "):
        msq_tf.ToleranceRule(**arguments)


def test_a_number_by_place_is_no_target():
    with pytest.raises(ValueError, match=r"ToleranceRule\(max_drop=1.0\)"):
        msq_tf.ToleranceRule(1.0)


def test_the_mode_follows_from_the_name():
    def word_error(model):
        return 0.0

    assert msq_tf.ToleranceRule().mode == "max"
    assert msq_tf.ToleranceRule(monitor="val_loss").mode == "min"
    assert msq_tf.ToleranceRule(monitor=word_error).mode == "min"
    assert msq_tf.ToleranceRule(monitor="val_depth", mode="max").mode == "max"


def test_a_sensitive_layer_drops_one_width_at_a_time():
    now = stats(
        layer("a", cost=0.0, sensitivity=2.0), layer("b", sensitivity=0.0)
    )
    rule = msq_tf.ToleranceRule()
    state = rule.start(now)._replace(target_bits=2.0)
    decision, _ = rule.decide(now, state)
    assert {c.path: c.new for c in decision.changes} == {"a": 4, "b": 2}
    decision, _ = rule.decide_at_once(now, state)
    assert {c.path: c.new for c in decision.changes} == {"a": 2, "b": 2}


def test_it_is_due_on_the_way_down_alone():
    rule = msq_tf.ToleranceRule()
    state = RuleState(started=1.0, target_bits=4.0)
    assert rule.due(0.5, 8.0, state)
    assert not rule.due(0.5, 4.0, state)
    assert not rule.due(0.5, 8.0, state._replace(done=1.0))
