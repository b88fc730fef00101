"""Channels and widths planned together: laws, and against trying all."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

import msq_tf
from msq_tf.rules import channel_plan
from msq_tf.rules.channel_plan import Axis
from msq_tf.rules.channel_plan import Group
from msq_tf.rules.channel_plan import Network
from tests.msq_tf.rule_samples import any_width
from tests.msq_tf.rule_samples import layer
from tests.msq_tf.rule_samples import stats


def chain(costs, layer_cost=1.0, **kwargs):
    """Two layers, and between them eight channels of which half may go."""
    return Network(
        stats(
            layer("a", 8 * 10, cost=layer_cost, channels=8),
            layer("b", 8 * 20, cost=layer_cost, channels=4),
            **kwargs,
        ),
        [Group((0, 2, 4), (0.0, *costs))],
        [[Axis(8, {0: 1}, makes=True)], [Axis(8, {0: 1})]],
        [(16, [Axis(8, {0: 1})])] if kwargs else [],
    )


def test_a_channel_takes_what_makes_it_and_what_reads_it():
    network = chain((1.0, 2.0), float_size=16)
    left = network.without([2])
    assert [s.size for s in left.layers] == [40, 80]
    assert [s.channels for s in left.layers] == [4, 4]
    assert left.float_size == 8
    assert network.without([0]) == network.stats


def test_two_axes_of_a_weight_lose_by_themselves():
    network = Network(
        stats(layer("a", 6 * 8)),
        [Group((0, 3), (0.0, 1.0)), Group((0, 2), (0.0, 1.0))],
        [[Axis(6, {0: 1}), Axis(8, {1: 2}, makes=True)]],
        [],
    )
    assert network.without([1, 0]).layers[0].size == 3 * 8
    assert network.without([1, 1]).layers[0].size == 3 * 4


@pytest.mark.parametrize(
    ("costs", "chosen"),
    [((1e-6, 2e-6), [2]), ((1e-6, 1.0), [1]), ((1, 1), [0])],
)
def test_the_cheaper_of_channels_and_widths_goes(costs, chosen):
    network = chain(costs)
    rule = any_width(target_bits=4)
    target = channel_plan.target_bits(rule, network.stats)
    found, outcome = channel_plan.choose(rule, network, target)
    assert found == chosen
    stored = sum(s.size * outcome.widths[s.path] for s in outcome.stats.layers)
    assert stored <= target == 4 * 240


def test_a_target_that_widths_alone_do_not_reach():
    network = chain((1.0, 2.0))
    rule = msq_tf.BudgetRule(target_bytes=45, allowed_bits=(8, 2))
    target = channel_plan.target_bits(rule, network.stats)
    assert channel_plan.outcome(rule, network, [0], target) is None
    found, outcome = channel_plan.choose(rule, network, target)
    assert found == [1]  # the fewest that do
    assert set(outcome.widths.values()) == {2}
    rule = msq_tf.BudgetRule(target_bytes=20, allowed_bits=(8, 2))
    target = channel_plan.target_bits(rule, network.stats)
    assert channel_plan.choose(rule, network, target)[1] is None


def test_a_device_counts_scales_and_biases_of_channels():
    network = chain((1.0, 2.0))
    rule = msq_tf.BudgetRule(target_bytes=3000, device="min_size")
    target = channel_plan.target_bits(rule, network.stats)
    assert target == pytest.approx(8 * 3000)
    before, after = (rule.overhead(network.without([i])) for i in (0, 2))
    assert before - after == pytest.approx(4 * 11.54)


@st.composite
def networks(draw):
    """Three layers in a row with channels between them."""
    cost = st.floats(0.0, 0.1)
    widths = [draw(cost) for _ in range(3)]
    groups = [
        Group((0, 2, 4), (0.0, *sorted((draw(cost), draw(cost)))))
        for _ in range(2)
    ]
    one, other = Axis(8, {0: 1}), Axis(8, {1: 1})
    layers = [
        layer("a", 80, cost=widths[0]),
        layer("b", 64, cost=widths[1]),
        layer("c", 160, cost=widths[2]),
    ]
    return Network(stats(*layers), groups, [[one], [one, other], [other]], [])


@settings(max_examples=40, deadline=None)
@given(networks(), st.sampled_from([2.5, 3.0, 4.0, 6.0]))
def test_no_change_of_one_group_is_better(network, bits):
    rule = any_width(target_bits=bits)
    target = channel_plan.target_bits(rule, network.stats)
    chosen, best = channel_plan.choose(rule, network, target)
    none = channel_plan.outcome(rule, network, [0, 0], target)
    assert best.cost <= none.cost
    for tried in itertools.product(range(3), repeat=2):
        if sum(a != b for a, b in zip(tried, chosen, strict=True)) == 1:
            found = channel_plan.outcome(rule, network, tried, target)
            assert best.cost <= found.cost + 1e-9
