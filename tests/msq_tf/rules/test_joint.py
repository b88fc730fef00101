"""Widths within a size and a latency: laws, and every choice tried."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from msq_tf.rules import joint
from msq_tf.rules.allocation import Option
from msq_tf.rules.joint import Limits

SHARES = st.integers(0, 1000).map(lambda n: n / 1000)


@st.composite
def problems(draw, most=4, conflicting=True):
    """Weights whose latencies fall with their bits, or go up and down."""
    options = {}
    for layer in range(draw(st.integers(1, most))):
        size = draw(st.integers(1, 500))
        bits = draw(st.integers(2, 8))
        count = bits - 1
        numbers = st.lists(st.integers(0, 1000), min_size=count, max_size=count)
        costs = [0, *sorted(draw(numbers))[1:]]
        latencies = draw(numbers)
        if not conflicting:
            latencies.sort(reverse=True)
        options[f"w{layer}"] = [
            Option(width, float(size * width), cost / 1000, latency / 1000)
            for width, cost, latency in zip(
                range(bits, 1, -1), costs, latencies, strict=True
            )
        ]
    return options


def sums(options, chosen):
    taken = [options[path][i] for path, i in chosen.items()]
    return sum(o.stored for o in taken), sum(o.latency for o in taken)


def cost(options, chosen):
    return sum(options[path][i].cost for path, i in chosen.items())


def choices(options):
    for indices in itertools.product(
        *(range(len(row)) for row in options.values())
    ):
        yield dict(zip(options, indices, strict=True))


def limits_at(options, size, time):
    """Limits at shares of what there is between the least and the most."""

    def between(values, share):
        least = sum(min(row) for row in values)
        most = sum(max(row) for row in values)
        return least + share * (most - least)

    rows = options.values()
    return Limits(
        between([[o.stored for o in row] for row in rows], size),
        between([[o.latency for o in row] for row in rows], time),
    )


@settings(max_examples=80, deadline=None)
@given(problems(), SHARES, SHARES)
def test_small_problems_are_solved_exactly(options, size, time):
    limits = limits_at(options, size, time)
    within = [c for c in choices(options) if limits.hold(*sums(options, c))]
    chosen = joint.allocate_within(options, limits)
    if not within:
        assert chosen is None
        return
    assert limits.hold(*sums(options, chosen))
    best = min(cost(options, c) for c in within)
    assert cost(options, chosen) == pytest.approx(best, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(problems(), SHARES)
def test_the_least_latency_is_that_of_the_fastest_choice(options, size):
    stored = limits_at(options, size, 1.0).stored
    within = [
        sums(options, c)[1]
        for c in choices(options)
        if Limits(stored).hold(*sums(options, c))
    ]
    found = joint.least_latency(options, stored)
    assert found == pytest.approx(min(within))
    assert joint.allocate_within(options, Limits(stored, found)) is not None
    assert joint.least_latency(options, -1.0) == math.inf


@settings(max_examples=15, deadline=None)
@given(problems(most=30, conflicting=False), SHARES, SHARES)
def test_what_the_narrowest_widths_keep_is_kept(options, size, time):
    """Of many weights, too, where not all choices can be followed."""
    limits = limits_at(options, size, time)
    chosen = joint.allocate_within(options, limits, 0.75)
    assert limits.hold(*sums(options, chosen))


def wide(count):
    """A network of weights like those of MobileNet, of two kinds."""
    options = {}
    for i in range(count):
        size = 1000.0 * (1 + i * 7919 % 97)
        speed = 1 + i * 31 % 11
        damage = (1 + i * 17 % 13) / size**0.5
        options[f"w{i}"] = [
            Option(
                bits,
                size * bits,
                damage * (4.0**-bits - 4.0**-8) * 100,
                size * (speed + bits) * 1e-6,
            )
            for bits in range(8, 1, -1)
        ]
    return options


@pytest.mark.first(1)
@pytest.mark.parametrize("size", [0.3, 0.6])
@pytest.mark.parametrize("time", [0.3, 0.6])
def test_plans_of_large_networks_are_near_a_bound(size, time):
    """Prices for bits and milliseconds bound what any choice can cost."""
    options = wide(60)
    limits = limits_at(options, size, time)
    chosen = joint.allocate_within(options, limits)
    assert limits.hold(*sums(options, chosen))
    scale = cost(options, {p: 6 for p in options})
    bound = 0.0
    prices = [10 ** (-k / 2) for k in range(20)]
    for a, b in itertools.product(prices, repeat=2):
        for x, y in ((a, b), (a, 0.0), (0.0, b)):
            per_bit = scale * x / limits.stored
            per_ms = scale * y / limits.latency
            least = sum(
                min(
                    o.cost + per_bit * o.stored + per_ms * o.latency
                    for o in row
                )
                for row in options.values()
            )
            bound = max(
                bound,
                least - per_bit * limits.stored - per_ms * limits.latency,
            )
    assert cost(options, chosen) >= bound
    assert cost(options, chosen) <= 1.25 * bound
