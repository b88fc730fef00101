"""The way to a plan of widths: budgets on the way, steps, what to pull."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

from msq_tf.rules.allocation import Option


def cubic(phase: float, start: float, target: float) -> float:
    """Computes the rest of a fall from `start` to `target`, as in pruning."""
    left = 1.0 - min(max(phase, 0.0), 1.0)
    return target + (start - target) * left**3


class Worth(NamedTuple):
    """Prices of bits and milliseconds, so that the two add up."""

    bit: float = 1.0
    millisecond: float = 0.0

    def of(self, freed: float, saved: float) -> float:
        """The worth of stored bits and milliseconds that are saved."""
        return self.bit * freed + self.millisecond * saved


class Step(NamedTuple):
    """One width less for one layer; ordered by price, largest first.

    `less` is the stored bits that it frees, negative; `number` counts the
    layer's steps in the plan from 1; `saved` is in milliseconds.
    """

    price: float
    less: float
    path: str
    number: int
    bits: int
    saved: float

    @property
    def freed(self) -> float:
        return -self.less


def steps(
    options: Mapping[str, Sequence[Option]],
    plan: Mapping[str, int],
    worth: Worth,
) -> list[Step]:
    """All steps of a plan, one width each, cheapest first."""
    found = []
    for path, last in plan.items():
        row = options[path]
        for number in range(1, last + 1):
            before, after = row[number - 1], row[number]
            freed = before.stored - after.stored
            saved = before.latency - after.latency
            cost = max(after.cost - before.cost, 0.0)
            paid = worth.of(freed, saved)
            price = cost / paid if paid > 0 else 0.0
            found.append(Step(price, -freed, path, number, after.bits, saved))
    return sorted(found)


def pulls(
    options: Mapping[str, Sequence[Option]],
    plan: Mapping[str, int],
    taken: Mapping[str, int],
) -> dict[str, int]:
    """Low bits to pull: of the layers that the plan drops next.

    Pulling every layer would also disturb those whose bits stay.
    """
    found = {}
    for path, last in plan.items():
        now = taken.get(path, 0)
        if last > now:
            row = options[path]
            found[path] = row[now].bits - row[now + 1].bits
    return found
