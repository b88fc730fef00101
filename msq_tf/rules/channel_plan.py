"""The channels to remove so that a size costs least.

A removed channel saves all bits of its weights; a narrower width saves some
bits of each weight. The cost of both is the predicted increase of the loss. So
for every number of channels the function plans the widths that then meet the
target, and compares the total costs. It goes through the groups of channels in
turn, until no group does better with another number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence

from msq_tf.rules import allocation
from msq_tf.rules.budget import BudgetRule
from msq_tf.rules.records import SearchStats
from msq_tf.rules.sized import EXPONENT

# Rounding must not keep the search alive.
_GAIN = 1e-9


@dataclasses.dataclass(frozen=True)
class Axis:
    """An axis of a weight, and how much of it belongs to which group.

    Attributes:
        length: Places on it.
        places: Places that go with one channel of each group, on the average,
            by the number of the group.
        makes: Whether these are the output channels of the weight.
    """

    length: int
    places: Mapping[int, float]
    makes: bool = False


@dataclasses.dataclass(frozen=True)
class Group:
    """Channels that can go, the cheapest first.

    Attributes:
        removed: Numbers of channels that may go, in rising order, from 0.
        cost: Predicted increase of the loss for each of them.
    """

    removed: Sequence[int]
    cost: Sequence[float]


@dataclasses.dataclass(frozen=True)
class Network:
    """A network to plan for.

    Attributes:
        stats: Its quantized weights, with costs of widths.
        groups: Groups of channels that can go.
        axes: Axes with channels, of each quantized weight.
        floats: Elements and axes of each weight that stays in float.
    """

    stats: SearchStats
    groups: Sequence[Group]
    axes: Sequence[Sequence[Axis]]
    floats: Sequence[tuple[int, Sequence[Axis]]]

    def without(self, chosen: Sequence[int]) -> SearchStats:
        """Facts on it without some channels.

        Args:
            chosen: For each group the position in `removed`.
        """
        gone = [g.removed[i] for g, i in zip(self.groups, chosen, strict=True)]

        def left(axis: Axis) -> float:
            lost = sum(gone[g] * n for g, n in axis.places.items())
            return (axis.length - lost) / axis.length

        def share(axes: Sequence[Axis], makes: bool = False) -> float:
            result = 1.0
            for axis in axes:
                if axis.makes or not makes:
                    result *= left(axis)
            return result

        layers = tuple(
            dataclasses.replace(
                layer,
                size=round(layer.size * share(axes)),
                channels=round(layer.channels * share(axes, makes=True)),
            )
            for layer, axes in zip(self.stats.layers, self.axes, strict=True)
        )
        floats = sum(round(size * share(axes)) for size, axes in self.floats)
        return dataclasses.replace(self.stats, layers=layers, float_size=floats)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of a choice of channels.

    Attributes:
        cost: Of channels and widths together, as `allocation` adds costs up.
        widths: The planned width of each weight.
        stats: What is known of the network without the channels.
    """

    cost: float
    widths: Mapping[str, int]
    stats: SearchStats


def target_bits(rule: BudgetRule, stats: SearchStats) -> float:
    """All stored bits that a rule aims for, those besides codes included."""
    codes = rule.average_target(stats) * stats.size
    return codes + 8.0 * rule.overhead(stats)


def outcome(
    rule: BudgetRule, network: Network, chosen: Sequence[int], target: float
) -> Outcome | None:
    """Plans widths for a choice of channels.

    Args:
        rule: Says which widths there are and how they are stored.
        network: The network.
        chosen: For each group the position in `removed`.
        target: Stored bits to reach, see `target_bits`.

    Returns:
        The outcome; `None` where no widths reach the target.
    """
    stats = network.without(chosen)
    options = rule.options(stats)
    stored = sum(row[0].stored for row in options.values())
    stored += 32.0 * stats.float_size + 8.0 * rule.overhead(stats)
    plan = allocation.allocate(options, max(stored - target, 0.0), EXPONENT)
    if plan is None:
        return None
    costs = [
        options[path][i].cost - options[path][0].cost
        for path, i in plan.items()
    ]
    costs += [
        group.cost[i] for group, i in zip(network.groups, chosen, strict=True)
    ]
    return Outcome(
        sum(max(cost, 0.0) ** EXPONENT for cost in costs),
        {path: options[path][i].bits for path, i in plan.items()},
        stats,
    )


def choose(
    rule: BudgetRule, network: Network, target: float
) -> tuple[list[int], Outcome | None]:
    """Chooses how many channels of each group go.

    Args:
        rule: As of `outcome`.
        network: The network.
        target: Stored bits to reach, see `target_bits`.

    Returns:
        The position in `removed` for each group, and what it leads to;
        `None` where nothing that was tried reaches the target.
    """
    chosen = [0] * len(network.groups)
    best = outcome(rule, network, chosen, target)
    if best is None:
        # Widths alone don't do: from the other end.
        chosen = [len(group.removed) - 1 for group in network.groups]
        best = outcome(rule, network, chosen, target)
    moved = best is not None
    while moved:
        moved = False
        for g, group in enumerate(network.groups):
            for i in range(len(group.removed)):
                tried = [*chosen[:g], i, *chosen[g + 1 :]]
                found = outcome(rule, network, tried, target)
                if found and best and found.cost < best.cost - _GAIN:
                    chosen, best, moved = tried, found, True
    return chosen, best
