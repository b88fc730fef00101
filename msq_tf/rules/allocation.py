"""The widths that fit a budget at least predicted loss.

The model of the cost: predicted increases of the loss add up over weights.
Steps along the lower convex hull of each weight's (stored bits, cost) points,
in the order of cost per bit freed, are optimal for every budget that they meet
exactly. But bits that the last step frees beyond the budget are worth nothing.
So a second attempt charges steps for this, exchanges improve both results, and
the cheaper one counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple


class Option(NamedTuple):
    """One width that a weight may have.

    Attributes:
        bits: The width.
        stored: Stored bits of all its elements at that width.
        cost: Predicted increase of the loss over one and the same reference,
            which the width now may be above already.
        latency: Milliseconds at that width, for `joint.allocate_within`.
    """

    bits: int
    stored: float
    cost: float
    latency: float = 0.0


Options = Mapping[str, Sequence[Option]]


def allocate(
    options: Options, excess: float, exponent: float = 1.0
) -> dict[str, int] | None:
    """Chooses a width for every weight.

    Args:
        options: Widths of each weight, widest first; the first is its width
            now.
        excess: Stored bits to free, in all.
        exponent: Power to which costs are raised before they are added. Below
            1, one large cost counts less than many small ones of that sum.

    Returns:
        The index of the chosen option of each weight; `None` where even the
        lowest widths do not free enough.
    """
    curves = {path: monotone(row, exponent) for path, row in options.items()}
    found = []
    for charged in (False, True):
        chosen = _descend(curves, excess, charged)
        if chosen is None:
            return None
        _exchange(curves, chosen, _freed(curves, chosen) - excess)
        found.append(chosen)
    return min(found, key=lambda chosen: predicted_cost(curves, chosen))


def _descend(
    curves: Options, excess: float, charged: bool
) -> dict[str, int] | None:
    """Takes the cheapest steps until enough is free."""
    chosen = dict.fromkeys(curves, 0)
    hulls = {path: corners(row) for path, row in curves.items()}
    free = excess
    while free > 0:
        best: tuple[tuple[float, float], str, int] | None = None
        for path, hull in hulls.items():
            now = chosen[path]
            after = next((i for i in hull if i > now), None)
            if after is None:
                continue
            row = curves[path]
            freed = row[now].stored - row[after].stored
            price = (row[after].cost - row[now].cost) / freed
            if charged and freed > free:
                price *= (freed / max(free, 1.0)) ** 2
            rank = (price, -freed)
            if best is None or rank < best[0]:
                best = (rank, path, after)
        if best is None:
            return None
        _, path, after = best
        free -= curves[path][chosen[path]].stored - curves[path][after].stored
        chosen[path] = after
    return chosen


def _freed(options: Options, chosen: Mapping[str, int]) -> float:
    return sum(
        options[path][0].stored - options[path][index].stored
        for path, index in chosen.items()
    )


def predicted_cost(options: Options, chosen: Mapping[str, int]) -> float:
    """Predicted increase of the loss from the widths now to the chosen."""
    return sum(
        options[path][index].cost - options[path][0].cost
        for path, index in chosen.items()
    )


def monotone(row: Sequence[Option], exponent: float) -> list[Option]:
    """Narrower never costs less: what noise says otherwise is evened out."""
    result: list[Option] = []
    least = 0.0
    for option in row:
        least = max(least, max(option.cost, 0.0) ** exponent)
        result.append(option._replace(cost=least))
    return result


def corners(row: Sequence[Option]) -> list[int]:
    """Indices of the lower convex hull of cost over stored bits."""
    hull: list[int] = []
    for i, point in enumerate(row):
        if hull and row[hull[-1]].stored <= point.stored:
            continue  # a width that frees nothing
        while len(hull) > 1:
            a, b = row[hull[-2]], row[hull[-1]]
            if (b.cost - a.cost) * (a.stored - point.stored) < (
                point.cost - a.cost
            ) * (a.stored - b.stored):
                break
            hull.pop()
        hull.append(i)
    return hull


def _exchange(
    curves: Mapping[str, Sequence[Option]],
    chosen: dict[str, int],
    slack: float,
) -> None:
    """Raises weights by a width, or raises one for lowering another.

    Each exchange lowers the total cost and keeps to the budget, so this ends.
    """
    while True:
        best_gain, best = 0.0, None
        falls = [_fall(curves[path], chosen[path]) for path in chosen]
        lowered = [(0.0, 0.0, "")] + [
            (-fall[0], fall[1], path)
            for path, fall in zip(chosen, falls, strict=True)
            if fall is not None
        ]
        for path, index in chosen.items():
            if not index:
                continue
            row = curves[path]
            gain = row[index].cost - row[index - 1].cost
            needs = row[index - 1].stored - row[index].stored
            if gain <= best_gain:
                continue
            for loss, freed, other in lowered:
                if (
                    other != path
                    and needs <= slack + freed
                    and gain + loss > best_gain
                ):
                    best_gain = gain + loss
                    best = (path, other, slack + freed - needs)
        # Rounding must not keep the search alive.
        if best is None or best_gain <= 1e-12:
            return
        path, other, slack = best
        chosen[path] -= 1
        if other:
            chosen[other] += 1


def _fall(row: Sequence[Option], index: int) -> tuple[float, float] | None:
    """Cost of the next width, and the stored bits that it frees."""
    if index + 1 >= len(row):
        return None
    now, after = row[index], row[index + 1]
    return after.cost - now.cost, now.stored - after.stored


def total_cost(
    options: Options, chosen: Mapping[str, int], exponent: float = 1.0
) -> float:
    """The sum that `allocate` makes of a choice's costs, evened and raised."""
    return sum(
        monotone(options[path][: index + 1], exponent)[-1].cost
        for path, index in chosen.items()
    )
