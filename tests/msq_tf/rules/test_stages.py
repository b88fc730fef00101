"""A BudgetRule with several sizes on its way."""

import dataclasses
import itertools
import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import msq_tf
from tests.msq_tf.rule_samples import any_width
from tests.msq_tf.rule_samples import apply
from tests.msq_tf.rule_samples import layer
from tests.msq_tf.rule_samples import stats

_STEPS = 200


@hypothesis.given(
    st.lists(
        st.tuples(st.integers(16, 10_000), st.floats(0.0, 10.0)),
        min_size=1,
        max_size=6,
    ),
    st.integers(1, 5) | st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.floats(0.0, 0.5),
    st.floats(0.1, 1.0),
)
def test_every_stage_ends_at_its_size(drawn, stages, begin, end):
    shares = [1] * stages if isinstance(stages, int) else stages
    if len(shares) == 1 and end <= begin:
        end = begin + 0.1
    hypothesis.assume(begin < end)
    rule = any_width(target_bits=2.5, stages=stages, begin=begin, end=end)
    now = stats(
        *(layer(f"w{i}", n, cost=cost) for i, (n, cost) in enumerate(drawn))
    )
    state = rule.start(now)
    level = rule.start(now).start_bits
    largest = max(n for n, _ in drawn)
    for step in range(_STEPS + 1):
        progress = step / _STEPS
        before = rule.average(now)
        if rule.due(progress, before, state):
            decision, state = rule.decide(
                dataclasses.replace(now, progress=progress, step=step), state
            )
            now = dataclasses.replace(now, layers=apply(now.layers, decision))
        share = (progress - begin) / (1.0 - begin)
        ends = [n / sum(shares) for n in itertools.accumulate(shares)]
        over = [stage_end for stage_end in ends if stage_end <= share + 1e-9]
        if over and share - over[-1] < 1.5 / _STEPS / (1.0 - begin):
            level = 8.0 * (2.5 / 8.0) ** (len(over) / len(ends))
            # No lower than by a step of the largest layer.
            assert rule.average(now) <= 8.0
            assert rule.average(now) >= level - 6 * largest / now.size - 1e-6
    assert level <= 8.0
    assert rule.average(now) <= 2.5 + 1e-5 or end > 0.9


def test_the_sizes_are_evenly_spaced():
    rule = any_width(target_bits=2.0, stages=4)
    state = rule.start(stats(layer("a")))
    for stage in range(1, 5):
        at = stage / 4 - 0.01
        assert rule.budget(at, state) == pytest.approx(8 * 0.25 ** (stage / 4))
    assert rule.budget(0.0, state) == 8.0
    assert rule.span() == pytest.approx((0.05, 0.8))


def test_one_stage_is_what_it_was():
    plain, one = any_width(target_bits=4), any_width(target_bits=4, stages=1)
    state = plain.start(stats(layer("a")))
    assert one == plain
    for progress in (0.0, 0.05, 0.1, 0.2, 1.0):
        assert one.budget(progress, state) == plain.budget(progress, state)


def test_shares_are_of_what_follows_the_beginning():
    rule = any_width(target_bits=2.0, stages=(1, 1, 2, 4), begin=0.1)
    state = rule.start(stats(layer("a")))
    for stage, over in enumerate((1, 2, 4, 8), 1):
        at = 0.1 + 0.9 * over / 8 - 0.01
        assert rule.budget(at, state) == pytest.approx(8 * 0.25 ** (stage / 4))
    # Bits fall in a fifth of each, the last of which takes 0.45.
    assert rule.span() == pytest.approx((0.045, 0.64))


@hypothesis.given(st.integers(1, 6), st.floats(0.01, 100.0), st.floats(0, 1))
def test_equal_shares_are_a_number(stages, share, progress):
    number = any_width(target_bits=2.0, stages=stages)
    shares = any_width(target_bits=2.0, stages=[share] * stages)
    state = number.start(stats(layer("a")))
    assert shares.stages == (share,) * stages
    assert number.span() == pytest.approx(shares.span())
    # A step is taken on either side of where a stage ends.
    hypothesis.assume(abs(progress * stages - round(progress * stages)) > 1e-6)
    assert shares.budget(progress, state) == pytest.approx(
        number.budget(progress, state), abs=1e-6
    )


@pytest.mark.parametrize(
    "stages",
    [
        *(0, -1, 1.5, True, None, "5"),
        *((), (1, 0), (1, -1), (1, "2"), (1, math.inf), (1, True)),
        *((1e308, 1e308), (10**400, 1), {5, 1}, {1: 2}, b"12", np.array(5)),
    ],
)
def test_wrong_stages(stages):
    with pytest.raises(ValueError, match="`stages`.*Received: "):
        msq_tf.BudgetRule(target_bits=4, stages=stages)


@hypothesis.given(
    st.lists(
        st.tuples(st.integers(16, 10_000), st.floats(0.0, 10.0)),
        min_size=2,
        max_size=6,
    ),
    st.integers(1, 5),
)
def test_what_grows_in_a_stage_leaves_the_last_size_reachable(drawn, stages):
    rule = any_width(target_bits=2.5, stages=stages, growth=3)
    now = stats(
        *(
            dataclasses.replace(layer(f"w{i}", n, cost=cost), gain=100.0)
            for i, (n, cost) in enumerate(drawn)
        )
    )
    state = rule.start(now)
    for step in range(101):
        if rule.due(step / 100, rule.average(now), state):
            decision, state = rule.decide(
                dataclasses.replace(now, progress=step / 100, step=step), state
            )
            layers = [
                dataclasses.replace(after, grown=1)
                if after.bits > before.bits
                else after
                for before, after in zip(
                    now.layers, apply(now.layers, decision), strict=True
                )
            ]
            now = dataclasses.replace(now, layers=layers)
        # As `MSQCallback` asks for it, at the start of every epoch.
        rule.start(now)
