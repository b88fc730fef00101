"""The widths that fit a size and a latency at once at least predicted loss.

A choice of one width for each weight, with two sums to keep below limits, is a
knapsack problem with two constraints. Small ones are solved exactly: weight by
weight, all partial choices are kept of which none is better in loss, size and
latency at once. Where there are more of these than can be kept, some are left
out. A second way is then as good or better as a rule: one price for bits and
milliseconds together, for each of some ratios of the two, and steps in the
order of loss per price. Exchanges improve all results; the cheapest counts.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

from msq_tf.rules.allocation import Option
from msq_tf.rules.allocation import Options
from msq_tf.rules.allocation import corners
from msq_tf.rules.allocation import monotone

# Partial choices that are kept, fewer of many weights, for they are made anew
# for each weight.
_KEPT = 400
_LEAST_KEPT = 40
_MADE = 24_000
# Shares of the latency in the one price of bits and milliseconds.
_SHARES = (0.0, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 1.0)
# Sums of floats that differ by less are equal.
_ROUNDING = 1e-9


class Limits(NamedTuple):
    """The most that all weights may take together; infinite for no limit.

    Attributes:
        stored: Stored bits.
        latency: Milliseconds.
    """

    stored: float = math.inf
    latency: float = math.inf

    def hold(self, stored: float, latency: float) -> bool:
        """Whether sums are within both, but for rounding."""
        return stored <= self.stored + _slack(
            self.stored
        ) and latency <= self.latency + _slack(self.latency)


def _slack(limit: float) -> float:
    return _ROUNDING * abs(limit) if math.isfinite(limit) else 0.0


class _Partial(NamedTuple):
    """Widths of the first weights; ordered by what they take and cost."""

    stored: float
    latency: float
    cost: float
    indices: tuple[int, ...]


def allocate_within(
    options: Options, limits: Limits, exponent: float = 1.0
) -> dict[str, int] | None:
    """Chooses a width for every weight.

    Args:
        options: Widths of each weight, widest first.
        limits: What all together may take.
        exponent: Power to which costs are raised before they are added.

    Returns:
        The index of the chosen option of each weight; `None` if no choice was
        found that keeps the limits. One is found wherever narrower widths take
        less of both.
    """
    curves = {path: monotone(row, exponent) for path, row in options.items()}
    found = [_descend(curves, limits, share) for share in _SHARES]
    found.append(_grown(curves, limits))
    within = [chosen for chosen in found if chosen is not None]
    for chosen in within:
        _exchange(curves, chosen, limits)
    return min(within, key=lambda chosen: _cost(curves, chosen), default=None)


def least_latency(options: Options, stored: float = math.inf) -> float:
    """The fewest milliseconds of a choice that keeps a limit of bits.

    Infinite if no choice keeps it.
    """
    free = {
        path: [option._replace(cost=0.0) for option in row]
        for path, row in options.items()
    }
    partials = _partials(free, Limits(stored=stored))
    return min((p.latency for p in partials), default=math.inf)


def _cost(options: Options, chosen: Mapping[str, int]) -> float:
    return sum(options[path][i].cost for path, i in chosen.items())


def _sums(options: Options, chosen: Mapping[str, int]) -> tuple[float, float]:
    taken = [options[path][i] for path, i in chosen.items()]
    return sum(o.stored for o in taken), sum(o.latency for o in taken)


def _descend(
    options: Options, limits: Limits, share: float
) -> dict[str, int] | None:
    """Takes steps in the order of loss for a price, until both limits hold."""
    chosen = dict.fromkeys(options, 0)
    stored, latency = _sums(options, chosen)
    # In parts of what there is at first, so that the two can be added.
    per_bit = (1.0 - share) / stored if stored else 0.0
    per_ms = share / latency if latency else 0.0
    steps: list[tuple[float, int, str, int]] = []
    for path, row in options.items():
        priced = [
            o._replace(stored=per_bit * o.stored + per_ms * o.latency)
            for o in row
        ]
        hull = corners(priced)
        for before, after in itertools.pairwise(hull):
            freed = priced[before].stored - priced[after].stored
            worse = row[after].cost - row[before].cost
            steps.append((worse / freed, len(steps), path, after))
    # Along a hull, prices rise.
    for *_, path, after in sorted(steps):
        if limits.hold(stored, latency):
            break
        row, now = options[path], chosen[path]
        if after < now:  # rounding
            continue
        stored += row[after].stored - row[now].stored
        latency += row[after].latency - row[now].latency
        chosen[path] = after
    if not limits.hold(*_sums(options, chosen)):
        return None
    return chosen


def _grown(options: Options, limits: Limits) -> dict[str, int] | None:
    """The cheapest of the partial choices once they are whole."""
    partials = _partials(options, limits)
    if not partials:
        return None
    best = min(partials, key=lambda p: p.cost)
    return dict(zip(options, best.indices, strict=True))


def _partials(options: Options, limits: Limits) -> list[_Partial]:
    """Whole choices within limits of which none is better in everything."""
    rows = list(options.values())
    # What the weights that follow take at least.
    stored = sum(min(o.stored for o in row) for row in rows)
    latency = sum(min(o.latency for o in row) for row in rows)
    kept = max(_LEAST_KEPT, min(_KEPT, _MADE // max(len(rows), 1)))
    partials = [_Partial(0.0, 0.0, 0.0, ())]
    for row in rows:
        stored -= min(o.stored for o in row)
        latency -= min(o.latency for o in row)
        longer = [
            _Partial(
                p.stored + o.stored,
                p.latency + o.latency,
                p.cost + o.cost,
                (*p.indices, i),
            )
            for p in partials
            for i, o in enumerate(row)
            if limits.hold(
                p.stored + o.stored + stored, p.latency + o.latency + latency
            )
        ]
        partials = _thinned(_undominated(longer), kept)
    return partials


def _undominated(partials: Iterable[_Partial]) -> list[_Partial]:
    """Those that none other beats in size, latency and loss at once."""
    kept: list[_Partial] = []
    # Of those before in size: latencies rise, and least costs fall.
    latencies: list[float] = []
    costs: list[float] = []
    for p in sorted(partials):
        place = bisect_right(latencies, p.latency)
        if place and costs[place - 1] <= p.cost:
            continue
        kept.append(p)
        last = place
        while last < len(costs) and costs[last] >= p.cost:
            last += 1
        latencies[place:last] = [p.latency]
        costs[place:last] = [p.cost]
    return kept


def _thinned(partials: list[_Partial], most: int) -> list[_Partial]:
    """At most so many, evenly spread; the ends of all three sums stay."""
    if len(partials) <= most:
        return partials
    spread = [
        partials[round(i * (len(partials) - 1) / (most - 3))]
        for i in range(most - 2)
    ]
    fastest = min(partials, key=lambda p: (p.latency, p.stored))
    best = min(partials, key=lambda p: (p.cost, p.stored))
    return list(dict.fromkeys([*spread, fastest, best]))


def _exchange(
    options: Mapping[str, Sequence[Option]],
    chosen: dict[str, int],
    limits: Limits,
) -> None:
    """Raises weights by a width, or raises one for lowering another.

    Each exchange lowers the total cost and keeps the limits, so this ends.
    """
    while True:
        stored, latency = _sums(options, chosen)
        lowered = [(0.0, 0.0, 0.0, "")]
        for path, index in chosen.items():
            row = options[path]
            if index + 1 < len(row):
                lowered.append((*_change(row, index, index + 1), path))
        best_gain, best = 0.0, None
        for path, index in chosen.items():
            if not index:
                continue
            more, longer, worse = _change(options[path], index, index - 1)
            if -worse <= best_gain:
                continue
            for freed, faster, loss, other in lowered:
                gain = -worse - loss
                if (
                    other != path
                    and gain > best_gain
                    and limits.hold(
                        stored + more + freed, latency + longer + faster
                    )
                ):
                    best_gain, best = gain, (path, other)
        # Rounding must not keep the search alive.
        if best is None or best_gain <= 1e-12:
            return
        path, other = best
        chosen[path] -= 1
        if other:
            chosen[other] += 1


def _change(
    row: Sequence[Option], now: int, then: int
) -> tuple[float, float, float]:
    """What another width adds to bits, milliseconds and loss."""
    a, b = row[now], row[then]
    return b.stored - a.stored, b.latency - a.latency, b.cost - a.cost
