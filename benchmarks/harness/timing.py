"""Interleaved timings, whose ratios hold while a machine's speed drifts."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np


def interleaved(
    functions: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 3
) -> dict[str, list[float]]:
    """Times functions in turn, in random order, in this process.

    What ran before leaves caches and memory behind: in a fixed order the same
    model would always find those of the same neighbour.

    Args:
        functions: What to time, by name. Each has to end synchronously.
        rounds: Timed calls of each.
        warmup: Calls of each before that.

    Returns:
        Seconds of every call by name; entries of one index are of one round.
    """
    names = list(functions)
    order = random.Random(0)
    for _ in range(warmup):
        for name in names:
            functions[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in order.sample(names, len(names)):
            start = time.perf_counter()
            functions[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: Mapping[str, list[float]], a: str, b: str) -> float:
    """Median over rounds of the time of `a` divided by that of `b`."""
    return statistics.median(
        x / y for x, y in zip(seconds[a], seconds[b], strict=True)
    )


def milliseconds(seconds: list[float]) -> float:
    """Median in milliseconds."""
    return 1e3 * statistics.median(seconds)


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Exponent of a power law, by least squares on the logarithms.

    1 where values are proportional to sizes; below it where a constant part
    is left in them.

    Args:
        sizes: Positive sizes, at least two different ones.
        values: Positive measurements.

    Raises:
        ValueError: If there are fewer than two sizes, or anything is not
            positive.
    """
    if len(set(sizes)) < 2 or min(*sizes, *values) <= 0:
        raise ValueError(
            "A power law needs two sizes and positive values. Received: "
            f"sizes={list(sizes)}, values={list(values)}"
        )
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])
