"""plan_channels: weighs removed channels against removed bits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from msq_tf.arguments import check_integer
from msq_tf.arguments import check_number
from msq_tf.core.batches import Batch
from msq_tf.core.batches import samples_in
from msq_tf.core.batches import take_samples
from msq_tf.keras3.channel_network import Choices
from msq_tf.keras3.channel_network import network_of
from msq_tf.keras3.channels import Channels
from msq_tf.keras3.channels import check_model
from msq_tf.keras3.model import MSQModel
from msq_tf.rules import channel_plan
from msq_tf.rules.budget import BudgetRule
from msq_tf.rules.channel_plan import Network
from msq_tf.sensitivity.statistics import AUTO
from msq_tf.sensitivity.statistics import NoSecondDerivativeError
from msq_tf.sensitivity.statistics import StatisticsGatherer

# A batch of Hessian probes is smaller: a product keeps more than a gradient.
_PROBED_SHARE = 8


@dataclasses.dataclass(frozen=True)
class ChannelChange:
    """Channels that a plan removes together.

    Attributes:
        paths: The weights that compute them, as in `ChannelGroup`.
        removed: Number of channels that go.
        channels: Number of channels before.
        cost: Predicted increase of the loss by their removal alone.
        freed: Bytes of their codes at the planned widths.
    """

    paths: tuple[str, ...]
    removed: int
    channels: int
    cost: float
    freed: float


@dataclasses.dataclass(frozen=True)
class ChannelPlan:
    """A plan of channels to remove, and its costs.

    Attributes:
        channels: The argument for `remove_channels`.
        changes: A `ChannelChange` for each group that loses channels.
        rule: The rule for the smaller model, with the target of the given rule
            in bytes.
        cost: Predicted cost of channels and widths together.
        cost_by_widths: Predicted cost with widths alone; infinite if widths
            alone can't reach the target.
    """

    channels: Mapping[str, tuple[int, ...]]
    changes: tuple[ChannelChange, ...]
    rule: BudgetRule
    cost: float
    cost_by_widths: float

    def __str__(self) -> str:
        if not self.changes:
            return "No channels go: widths alone cost less."
        lines = [
            f"{', '.join(change.paths)}: {change.removed} of "
            f"{change.channels} channels, predicted loss {change.cost:+.2e} "
            f"for {change.freed:,.0f} bytes"
            for change in self.changes
        ]
        by_widths = f"{self.cost_by_widths:.2e}"
        if math.isinf(self.cost_by_widths):
            by_widths = "not to be had"
        lines.append(
            f"With widths {self.cost:.2e}, by widths alone {by_widths}."
        )
        return "\n".join(lines)


def plan_channels(
    qmodel: MSQModel,
    rule: BudgetRule,
    data: Any,
    *,
    most: float = 0.5,
    samples: int = 256,
    batch_size: int = 32,
    seed: int = 0,
) -> ChannelPlan:
    """Plans which channels to remove so that a target costs least.

    The cost of a channel and the cost of a bit are the same measure, how far
    the outputs move, as in the search itself. In a group, the first channels to
    go are those with the least trace of the Hessian times the squared size of
    their weights. For every number of channels, the function plans the widths
    that then meet the target; the cheapest combination wins. The model does not
    change.

    Call it before the search, on a trained model. Then call `remove_channels`
    and train the smaller model with the rule of the plan, which has the same
    target in bytes.

    Args:
        qmodel: Made by `quantize_model` of a Functional or Sequential model,
            compiled.
        rule: A `BudgetRule` with the target of the search.
        data: As in `MSQCallback`.
        most: Largest share of the channels of a group that may go.
        samples: Largest number of samples of `data` to use.
        batch_size: Largest number of samples per batch.
        seed: Seed of the probes of the traces.

    Returns:
        The plan; `print` shows it.

    Raises:
        ValueError: If the model is of another kind or not compiled, `rule` is
            no `BudgetRule`, channels and widths together can't reach the
            target, an argument is out of its range, or a weight or the loss is
            not finite.

    Example:
    ```python
    rule = msq_tf.BudgetRule(target_bytes=20_000, device="min_size")
    plan = msq_tf.plan_channels(qmodel, rule, (x, y))
    smaller = msq_tf.remove_channels(qmodel, plan.channels)
    smaller.compile(optimizer, loss)
    smaller.fit(x, y, epochs=10, callbacks=[msq_tf.MSQCallback(plan.rule)])
    ```
    """
    check_model("plan_channels", qmodel)
    if not isinstance(rule, BudgetRule):
        raise ValueError(
            "`rule` must be a BudgetRule, which plans with costs. Received: "
            f"rule={rule!r}"
        )
    check_number("most", most, 0.0, 1.0)
    check_integer("samples", samples, 1)
    check_integer("batch_size", batch_size, 1)
    check_integer("seed", seed)
    if not qmodel.compiled or not qmodel.has_loss:
        raise ValueError(
            "`plan_channels` measures on the loss of the model. Expected "
            "`compile(loss=...)` before. Received: a model without a loss"
        )
    own = Channels(qmodel)
    size = qmodel.fixed_batch_size or batch_size
    taken = take_samples(data, max(samples, size), size)
    taken = taken.prepared(qmodel.statistics_batch)
    batches = taken.batches(samples, size)
    gatherer = StatisticsGatherer(qmodel, batches, AUTO)
    with qmodel.state_kept():
        weights = _curvatures(qmodel, gatherer, taken.batches, seed)
        choices = Choices(own, qmodel, weights, most)
        network = network_of(qmodel, rule, gatherer, choices)
    stats = network.stats
    target = channel_plan.target_bits(rule, stats)
    chosen, found = channel_plan.choose(rule, network, target)
    if found is None:
        raise ValueError(
            f"The target cannot be reached with {most:.0%} of the channels of "
            "each group gone and the narrowest widths. Expected a larger "
            f"target, or more of `most`. Received: {rule!r}"
        )
    alone = channel_plan.outcome(rule, network, [0] * len(chosen), target)
    changes = tuple(
        ChannelChange(
            choices.groups[g].paths,
            network.groups[g].removed[i],
            choices.groups[g].count,
            network.groups[g].cost[i],
            _freed(rule, network, chosen, g, found.widths),
        )
        for g, i in enumerate(chosen)
        if i
    )
    gone = {
        change.paths[0]: choices.places(g, change.removed)
        for change, g in zip(
            changes, [g for g, i in enumerate(chosen) if i], strict=True
        )
    }
    return ChannelPlan(
        gone,
        changes,
        dataclasses.replace(
            rule,
            target_compression=None,
            target_bits=None,
            target_bytes=math.floor(target / 8.0 + 1e-6),
        ),
        found.cost,
        math.inf if alone is None else alone.cost,
    )


def _curvatures(
    qmodel: MSQModel,
    gatherer: StatisticsGatherer,
    batches: Callable[[int, int], list[Batch]],
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Hessian traces and their errors; zeros where there are none."""
    (first, *_) = gatherer.batches
    size = samples_in(first)
    if qmodel.fixed_batch_size is None:
        size = max(1, size // _PROBED_SHARE)
    try:
        found = gatherer.traces(
            batches(len(gatherer.batches) * size, size),
            max_probes=4,
            min_probes=2,
            tolerance=0.1,
            seed=seed,
        )
    except NoSecondDerivativeError:
        none = np.zeros(len(qmodel.paths))
        return none, none
    return found.trace, found.error


def _freed(
    rule: BudgetRule,
    network: Network,
    chosen: Sequence[int],
    g: int,
    widths: Mapping[str, int],
) -> float:
    """Bytes that come with the channels of one group, the others gone."""

    def stored(choice: Sequence[int]) -> float:
        stats = network.without(choice)
        codes = sum(
            layer.size * rule.stored(layer, widths[layer.path])
            for layer in stats.layers
        )
        return codes / 8.0 + 4.0 * stats.float_size + rule.overhead(stats)

    return stored([*chosen[:g], 0, *chosen[g + 1 :]]) - stored(chosen)
