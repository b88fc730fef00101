"""Which layer loses bits, and when: pure functions of statistics.

A rule knows no Keras: names, counts and floats go in; new bits, with a reason
for each, come out. `MSQCallback` gathers the statistics and applies the
decision. The state is a tuple of floats that is saved with the model, so a
resumed search decides what the uninterrupted one would have.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence
from typing import ClassVar
from typing import NamedTuple

from msq_tf import devices
from msq_tf.history import Candidate
from msq_tf.round_clamp import MAX_BITS
from msq_tf.round_clamp import MIN_BITS
from msq_tf.search import EPSILON
from msq_tf.search import Change
from msq_tf.search import Decision
from msq_tf.search import LayerStats
from msq_tf.search import Rule
from msq_tf.search import RuleState
from msq_tf.search import SearchStats


@dataclasses.dataclass(frozen=True)
class ThresholdRule(Rule):
    """The paper's rule (MSQ, Hessian-aware pruning).

    At every interval a layer whose share of nonzero LSBs is at most `alpha`
    drops them: two bits where its sensitivity `Omega` is at most the mean
    over layers, one bit where it is above; until the target is reached.

    The share starts near 0.50 for one bit and 0.75 for two, and gradient
    noise keeps it there at high precisions: with too small an `alpha` or too
    weak a pull the target may never be reached. `BudgetRule` is the default
    for that reason.

    Attributes:
        alpha: Largest share of nonzero LSBs at which bits are dropped, from
            0 to 1.

    Example:
    ```python
    rule = msq_tf.ThresholdRule(target_compression=8.0, alpha=0.3)
    ```
    """

    alpha: float = 0.3

    uses_cost: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.alpha <= 1.0:
            raise ValueError(
                "`alpha` is a share. Expected a float from 0 to 1. "
                f"Received: alpha={self.alpha}"
            )

    def widths(self, layer: LayerStats) -> tuple[int, ...]:
        below = (layer.bits - 1, layer.bits - 2)
        return tuple(width for width in below if width >= layer.min_bits)

    def due(
        self, progress: float, average_bits: float, state: RuleState
    ) -> bool:
        del average_bits
        return not state.done and self.begin <= progress <= self.end

    def decide(
        self, stats: SearchStats, state: RuleState
    ) -> tuple[Decision, RuleState]:
        mean = _mean_sensitivity(stats.layers)
        excess = (self.average(stats) - state.target_bits) * stats.size
        changes = []
        lsb = {}
        # Least sensitive first: the target may be reached on the way.
        for layer in sorted(stats.layers, key=lambda s: s.sensitivity):
            widths = self.widths(layer)
            if not widths:
                continue
            below = layer.sensitivity <= mean
            new = widths[-1] if below else widths[0]
            k = layer.bits - new
            share = layer.lsb_nonzero[k]
            if share <= self.alpha and excess > EPSILON:
                excess -= k * layer.size
                changes.append(
                    Change(
                        layer.path,
                        layer.bits,
                        new,
                        f"nonzero LSBs {share:.3f} <= {self.alpha:g}, "
                        f"sensitivity {layer.sensitivity:.3g} "
                        f"{'<=' if below else '>'} mean {mean:.3g}",
                    )
                )
                widths = self.widths(dataclasses.replace(layer, bits=new))
                k = min(k, new - widths[-1]) if widths else 0
            if k:
                lsb[layer.path] = k
        after = self._after(stats, state, changes)
        return Decision(tuple(changes), {} if after.done else lsb), after


@dataclasses.dataclass(frozen=True)
class BudgetRule(Rule):
    """Follows a size budget and drops the cheapest bits first (ours).

    The budget falls from the starting size to the target along a cubic, as
    in the pruning schedules of Zhu and Gupta (arXiv 1710.01878):

        budget(p) = target + (start - target) * (1 - p)**3

    with p the share of the search phase that is over. While the model is
    above it, the layer whose next width costs least predicted loss per byte
    saved drops to it; a layer whose sensitivity is at most the mean may drop
    two widths in one decision. Only steps are taken that a plan for the whole
    way holds, from which steps that a larger one makes unnecessary are struck
    out: so the search ends close to its target, and never below it by more
    than the last layer's step.

    Attributes:
        allowed_bits: Widths a layer may take, for instance the containers
            `(8, 4, 2)` that a packed file stores. `None` allows all.
        device: Name of an export target, see `devices.DEVICES`. The search
            then uses only widths that pay there and counts bytes as its
            files store them; `target_bytes` is the size of the whole file.

    Example:
    ```python
    rule = msq_tf.BudgetRule(target_compression=8.0, allowed_bits=(8, 4, 2))
    ```
    """

    allowed_bits: tuple[int, ...] | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.device is not None:
            devices.device(self.device)
        if self.allowed_bits is None:
            return
        allowed = tuple(sorted({*self.allowed_bits}, reverse=True))
        if not allowed or not all(
            isinstance(width, int) and MIN_BITS <= width <= MAX_BITS
            for width in allowed
        ):
            raise ValueError(
                f"`allowed_bits` must be widths from {MIN_BITS} to "
                f"{MAX_BITS}. Received: allowed_bits={self.allowed_bits}"
            )
        object.__setattr__(self, "allowed_bits", allowed)

    def overhead(self, stats: SearchStats) -> float:
        if self.device is None:
            return 0.0
        return devices.device(self.device).overhead(stats.layers)

    def stored(self, layer: LayerStats, bits: int) -> int:
        if self.device is None:
            return bits
        return devices.device(self.device).stored(layer.kind, bits)

    def widths(self, layer: LayerStats) -> tuple[int, ...]:
        allowed: Sequence[int] = range(MAX_BITS, MIN_BITS - 1, -1)
        if self.device is not None:
            allowed = devices.device(self.device).widths[layer.kind]
        return tuple(
            width
            for width in allowed
            if layer.min_bits <= width < layer.bits
            and (self.allowed_bits is None or width in self.allowed_bits)
        )[:2]

    def budget(self, progress: float, state: RuleState) -> float:
        """Average stored bits allowed at `progress` (0 to 1) of training."""
        phase = (progress - self.begin) / (self.end - self.begin)
        left = 1.0 - min(max(phase, 0.0), 1.0)
        return state.target_bits + (state.start_bits - state.target_bits) * (
            left**3
        )

    def due(
        self, progress: float, average_bits: float, state: RuleState
    ) -> bool:
        if state.done or progress < self.begin:
            return False
        above = average_bits > self.budget(progress, state) + EPSILON
        return above or not state.decisions

    def decide(
        self, stats: SearchStats, state: RuleState
    ) -> tuple[Decision, RuleState]:
        plan = self._plan(stats, state.target_bits)
        budget = self.budget(stats.progress, state)
        steps = _counts(self._cheapest(stats, budget, plan))
        following = self._following(stats, plan, steps)
        changes = []
        for path, count in steps.items():
            layer = next(s for s in stats.layers if s.path == path)
            new = self.widths(layer)[count - 1]
            saved = layer.size * (
                self.stored(layer, layer.bits) - self.stored(layer, new)
            )
            changes.append(
                Change(
                    path,
                    layer.bits,
                    new,
                    f"predicted loss {layer.cost[new]:+.2e} for "
                    f"{saved / 8:,.0f} bytes, the cheapest"
                    + (", two widths at once" if count == 2 else ""),
                    layer.cost[new],
                    following,
                )
            )
        after = self._after(stats, state, changes)
        pulls = {} if after.done else self._pulls(stats, plan, steps)
        return Decision(tuple(changes), pulls), after

    def _plan(self, stats: SearchStats, target: float) -> dict[str, int]:
        """How many widths each layer would drop to come to the target.

        The cheapest steps, less those that a later, larger one made
        unnecessary, dearest first: so the search ends close to its target,
        also where one layer holds half of the model.
        """
        steps = self._cheapest(stats, target)
        freed = sum(step.freed for step in steps)
        slack = freed - (self.average(stats) - target) * stats.size
        counts = _counts(steps)
        for step in sorted(steps, key=lambda s: (-s.cost, -s.freed)):
            # Of two steps of a layer only the second can go alone.
            if step.freed <= slack and counts[step.path] == step.number:
                slack -= step.freed
                counts[step.path] -= 1
        return counts

    def _cheapest(
        self,
        stats: SearchStats,
        budget: float,
        plan: Mapping[str, int] | None = None,
    ) -> list[_Step]:
        """Steps to the budget, cheapest first, within a plan if given."""
        mean = _mean_sensitivity(stats.layers)
        excess = (self.average(stats) - budget) * stats.size
        steps: list[_Step] = []
        taken: dict[str, int] = {}
        while excess > EPSILON * stats.size:
            best: tuple[tuple[float, float, float], _Step] | None = None
            for layer in stats.layers:
                widths = self.widths(layer)
                n = taken.get(layer.path, 0)
                most = len(widths) if plan is None else plan.get(layer.path, 0)
                if n >= most or (n and layer.sensitivity > mean):
                    continue
                before = widths[n - 1] if n else layer.bits
                cost = layer.cost[widths[n]] - (
                    layer.cost[before] if n else 0.0
                )
                freed = layer.size * (
                    self.stored(layer, before) - self.stored(layer, widths[n])
                )
                # Bits beyond the budget are worth nothing, and charged for:
                # the last step stays small where a small one is enough.
                needed = min(freed, excess)
                price = max(cost, 0.0) / needed * (freed / needed)
                rank = (price, max(freed - excess, 0.0), -freed)
                if best is None or rank < best[0]:
                    best = (rank, _Step(layer.path, n + 1, freed, cost))
            if best is None:
                break
            step = best[1]
            excess -= step.freed
            taken[step.path] = step.number
            steps.append(step)
        return steps

    def _following(
        self,
        stats: SearchStats,
        plan: Mapping[str, int],
        steps: Mapping[str, int],
    ) -> Candidate | None:
        """The step of the plan that would have come next."""
        for step in self._cheapest(stats, 0.0, plan):
            if step.number > steps.get(step.path, 0):
                layer = next(s for s in stats.layers if s.path == step.path)
                width = self.widths(layer)[step.number - 1]
                return Candidate(step.path, width, layer.cost[width])
        return None

    def _pulls(
        self,
        stats: SearchStats,
        plan: Mapping[str, int],
        steps: Mapping[str, int],
    ) -> dict[str, int]:
        """Low bits to pull: of the layers that the plan drops next.

        Pulling every layer would also disturb those whose bits stay.
        """
        pulls = {}
        for layer in stats.layers:
            widths = (layer.bits, *self.widths(layer))
            now = steps.get(layer.path, 0)
            if plan.get(layer.path, 0) > now:
                pulls[layer.path] = widths[now] - widths[now + 1]
        return pulls


class _Step(NamedTuple):
    """One width less for one layer.

    Attributes:
        path: The layer.
        number: 1 for its first step of the decision, 2 for its second.
        freed: Stored bits that it frees, of all elements.
        cost: Predicted increase of the loss.
    """

    path: str
    number: int
    freed: float
    cost: float


def _counts(steps: Sequence[_Step]) -> dict[str, int]:
    return {step.path: step.number for step in steps}


def _mean_sensitivity(layers: Sequence[LayerStats]) -> float:
    return sum(layer.sensitivity for layer in layers) / len(layers)
