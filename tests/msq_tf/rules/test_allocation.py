"""Widths for a budget: laws, and comparison with trying every choice."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from msq_tf.rules import allocation
from msq_tf.rules.allocation import Option

# Of all that can be freed; far from the resolution of floats.
SHARES = st.integers(0, 1000).map(lambda n: n / 1000)


@st.composite
def problems(draw):
    options = {}
    for layer in range(draw(st.integers(1, 4))):
        size = draw(st.integers(1, 500))
        bits = draw(st.integers(2, 8))
        costs = draw(
            st.lists(st.floats(0.0, 1.0), min_size=bits - 2, max_size=bits - 2)
        )
        rows = zip(range(bits, 1, -1), [0.0, *sorted(costs)], strict=True)
        options[f"w{layer}"] = [
            Option(width, float(size * width), cost) for width, cost in rows
        ]
    return options


def freed(options, chosen):
    return sum(
        options[path][0].stored - options[path][index].stored
        for path, index in chosen.items()
    )


def best_cost(options, excess):
    """Least cost over all choices that free enough."""
    paths = list(options)
    costs = [
        allocation.predicted_cost(options, chosen)
        for indices in itertools.product(
            *(range(len(options[p])) for p in paths)
        )
        if freed(options, chosen := dict(zip(paths, indices, strict=True)))
        >= excess
    ]
    return min(costs, default=None)


@settings(max_examples=60, deadline=None)
@given(problems(), SHARES)
def test_the_budget_is_met_where_it_can_be(options, share):
    lowest = {path: len(row) - 1 for path, row in options.items()}
    excess = share * freed(options, lowest)
    chosen = allocation.allocate(options, excess)
    assert freed(options, chosen) >= excess
    assert allocation.allocate(options, freed(options, lowest) + 1) is None


@settings(max_examples=60, deadline=None)
@given(problems(), SHARES)
def test_no_single_width_could_be_kept(options, share):
    lowest = {path: len(row) - 1 for path, row in options.items()}
    excess = share * freed(options, lowest)
    chosen = allocation.allocate(options, excess)
    slack = freed(options, chosen) - excess
    for path, index in chosen.items():
        row = options[path]
        if index and row[index].cost - row[index - 1].cost > 1e-9:
            assert row[index - 1].stored - row[index].stored > slack


def test_convex_costs_are_allocated_best():
    # Errors of rounding, 4**-bits, times a sensitivity: the usual case.
    options = {
        path: [
            Option(b, size * b, weight * (4.0**-b - 4.0**-8))
            for b in range(8, 1, -1)
        ]
        for path, size, weight in (
            ("stem", 432.0, 40.0),
            ("block", 4608.0, 3.0),
            ("wide", 36864.0, 1.0),
            ("logits", 640.0, 9.0),
        )
    }
    total = sum(row[0].stored for row in options.values())
    for average in (6.0, 4.0, 3.0, 2.5):
        excess = total * (1 - average / 8)
        chosen = allocation.allocate(options, excess)
        cost = allocation.predicted_cost(options, chosen)
        assert cost <= 1.1 * best_cost(options, excess)


def test_a_small_excess_takes_a_small_step():
    options = {
        "small": [Option(5, 1080.0, 0.0), Option(4, 864.0, 0.0011)],
        "large": [Option(4, 4608.0, 0.0), Option(3, 3456.0, 0.0067)],
    }
    assert allocation.allocate(options, 216.0) == {"small": 1, "large": 0}
    # Not the cheapest per bit, yet all that is needed.
    options["large"][1] = Option(3, 3456.0, 0.002)
    assert allocation.allocate(options, 216.0) == {"small": 1, "large": 0}


def test_an_exponent_below_one_gathers_the_damage():
    options = {
        "wide": [
            Option(3, 300.0, 0.0),
            Option(2, 200.0, 1.2),
        ],
        **{
            f"small{i}": [Option(3, 75.0, 0.0), Option(2, 50.0, 0.27)]
            for i in range(4)
        },
    }
    spread = allocation.allocate(options, 100.0)
    assert spread == {"wide": 0} | {f"small{i}": 1 for i in range(4)}
    gathered = allocation.allocate(options, 100.0, exponent=0.75)
    assert gathered == {"wide": 1} | {f"small{i}": 0 for i in range(4)}
