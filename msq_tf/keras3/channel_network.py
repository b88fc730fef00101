"""A network as a plan of channels sees it: what can go, and its cost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from msq_tf.keras3.channels import Channels
from msq_tf.keras3.model import MSQModel
from msq_tf.rules.budget import BudgetRule
from msq_tf.rules.channel_plan import Axis
from msq_tf.rules.channel_plan import Group
from msq_tf.rules.channel_plan import Network
from msq_tf.search.controller import search_stats
from msq_tf.sensitivity.finite import check_layers
from msq_tf.sensitivity.statistics import StatisticsGatherer

# Shares of a group that are tried, in eighths.
_EIGHTHS = range(1, 8)
# Kernels of packed weights and of vectors take channels by fours.
_TOGETHER = 4


@dataclasses.dataclass(frozen=True)
class Made:
    """Channels that can go together: one number, or several tied weights.

    Attributes:
        paths: The weights that make them.
        order: Numbers of channels, what goes first in front.
        where: The place of each on the axis of the first weight.
        count: How many there are.
    """

    paths: tuple[str, ...]
    order: list[int]
    where: dict[int, int]
    count: int


class Choices:
    """The groups of channels of a model that can go, and in which order.

    Args:
        own: The channels of the model.
        qmodel: The model.
        curvatures: Hessian traces of its weights, and their errors.
        most: Share of a group that may go, at most.

    Attributes:
        own: As given.
        curvatures: As given.
        groups: A `Made` for each group.
    """

    def __init__(
        self,
        own: Channels,
        qmodel: MSQModel,
        curvatures: tuple[np.ndarray, np.ndarray],
        most: float,
    ):
        self.own = own
        self._most = most
        self.curvatures = curvatures
        saliency = self._saliency(qmodel)
        self.groups: list[Made] = []
        for paths, roots in own.removable().items():
            order = sorted(roots, key=lambda root: saliency.get(root, 0.0))
            self.groups.append(Made(paths, order, roots, len(roots)))

    def _saliency(self, qmodel: MSQModel) -> dict[int, float]:
        """Trace per element times squared size, of all weights of a channel."""
        traces = np.maximum(self.curvatures[0], 0.0)
        found: dict[int, float] = {}
        for kernel, value, trace in zip(
            qmodel.kernels, qmodel.quantized_values(), traces, strict=True
        ):
            squares = np.square(value.numpy())
            # Where nothing is known of curvatures, weights count by their own
            # size.
            unit = trace / squares.size
            if not traces.any():
                unit = 1.0 / max(float(squares.sum()), 1e-30)
            for axis, ids in self.own.along(kernel):
                others = tuple(i for i in range(squares.ndim) if i != axis)
                sums = squares.sum(others)
                for root, part in zip(
                    self.own.flow.ids.roots(ids), sums, strict=True
                ):
                    root = int(root)
                    found[root] = found.get(root, 0.0) + unit * float(part)
        return found

    def removed(self, g: int) -> list[int]:
        """Numbers of channels of a group that may go, in rising order."""
        count = self.groups[g].count
        together = _TOGETHER if count % _TOGETHER == 0 else 1
        found = {0}
        for eighths in _EIGHTHS:
            left = math.ceil(count * (8 - eighths) / 8 / together) * together
            if count - left <= self._most * count and left > 0:
                found.add(count - left)
        return sorted(found)

    def numbers(self, g: int, removed: int) -> set[int]:
        """The numbers of the channels of a group that go first."""
        return set(self.groups[g].order[:removed])

    def places(self, g: int, removed: int) -> tuple[int, ...]:
        """Places of these among the channels of the group's first weight."""
        where = self.groups[g].where
        return tuple(sorted(where[root] for root in self.numbers(g, removed)))


def network_of(
    qmodel: MSQModel,
    rule: BudgetRule,
    gatherer: StatisticsGatherer,
    choices: Choices,
) -> Network:
    """Measures what widths and channels cost, each on the same batches.

    Args:
        qmodel: The model.
        rule: Says which widths are candidates.
        gatherer: Takes the costs.
        choices: The channels that may go.
    """
    trace, error = choices.curvatures
    costs = gatherer.costs(rule, trace)
    layers = gatherer.layers(rule, trace, error, costs)
    check_layers(layers)
    own = choices.own
    tried = [
        (g, removed)
        for g in range(len(choices.groups))
        for removed in choices.removed(g)[1:]
    ]

    def without(g: int, removed: int) -> Callable[..., list[tf.Tensor]]:
        masks = own.masks(choices.numbers(g, removed), qmodel.kernels)
        return lambda values: [
            value if mask is None else value * mask
            for value, mask in zip(values, masks, strict=True)
        ]

    damages = gatherer.damages([without(*pair) for pair in tried])
    groups = []
    for g in range(len(choices.groups)):
        cost = [0.0]
        for (other, _), damage in zip(tried, damages, strict=True):
            if other == g:
                # More channels never cost less; noise may say otherwise.
                cost.append(max(float(damage), cost[-1]))
        groups.append(Group(choices.removed(g), cost))
    group_of = {
        root: g for g, made in enumerate(choices.groups) for root in made.order
    }
    return Network(
        search_stats(qmodel, layers),
        groups,
        [_axes(own, kernel, group_of) for kernel in qmodel.kernels],
        [
            (int(np.prod(variable.shape)), _axes(own, variable, group_of))
            for variable in own.floats
        ],
    )


def _axes(
    own: Channels, variable: Any, group_of: Mapping[int, int]
) -> list[Axis]:
    """The axes of a variable, as plans see them."""
    axes = []
    for axis, ids in own.along(variable):
        of_group: dict[int, list[int]] = {}
        for root in map(int, own.flow.ids.roots(ids)):
            if root in group_of:
                of_group.setdefault(group_of[root], []).append(root)
        places = {g: len(r) / len(set(r)) for g, r in of_group.items()}
        axes.append(Axis(len(ids), places, own.makes(variable, axis)))
    return axes
