"""All sizes from one search: what stands in the table."""

from __future__ import annotations

import math

import pytest

from benchmarks.accuracy import front
from benchmarks.accuracy.study import FRONT
from benchmarks.accuracy.study import SIZES


def test_sizes_are_those_of_the_stages():
    (row,) = FRONT.rows
    bits = [32 / size.target for size in SIZES.rows]
    assert len(bits) == len(row.stages) and bits[-1] == pytest.approx(2.0)
    ratios = [b / a for a, b in zip([8.0, *bits], bits, strict=False)]
    assert ratios == pytest.approx([0.25 ** (1 / len(bits))] * len(bits))
    assert FRONT.epochs == 2.5 * SIZES.epochs
    assert FRONT.epochs == sum(row.stages)


def test_the_best_model_that_is_small_enough_counts():
    models = [
        {"compression": 5.0, "accuracy": 0.9},
        {"compression": 8.0, "accuracy": 0.8},
        {"compression": 16.0, "accuracy": 0.85},
    ]
    assert front.at_size(models, 5.0) == 0.9
    assert front.at_size(models, 6.0) == 0.85
    assert math.isnan(front.at_size(models, 17.0))


def test_differences_are_seed_by_seed():
    fronts = [
        {
            "seed": seed,
            "processor_seconds": 50,
            "front": [{"compression": 16.0, "accuracy": 0.80 + seed / 100}],
        }
        for seed in (0, 1)
    ]
    sizes = [
        {
            "row": {"name": SIZES.rows[0].name},
            "seed": seed,
            "accuracy": 0.82,
            "processor_seconds": 20,
        }
        for seed in (0, 1, 2)
    ]
    assert front.rows(fronts, sizes) == [
        ("5.28x", "82.00", "80.50", "-1.50", "-2.00..-1.00")
    ]
    assert front.times(fronts, sizes) == 2.5
