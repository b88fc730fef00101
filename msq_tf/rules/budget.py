"""BudgetRule: from a size to a plan of widths, and down to it step by step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence
from typing import ClassVar
from typing import NamedTuple

from msq_tf.arguments import check_integer
from msq_tf.rules import allocation
from msq_tf.rules.allocation import Option
from msq_tf.rules.records import EPSILON
from msq_tf.rules.records import Candidate
from msq_tf.rules.records import Change
from msq_tf.rules.records import Decision
from msq_tf.rules.records import LayerStats
from msq_tf.rules.records import RuleState
from msq_tf.rules.records import SearchStats
from msq_tf.rules.sized import EXPONENT
from msq_tf.rules.sized import SizedRule


@dataclasses.dataclass(frozen=True)
class BudgetRule(SizedRule):
    """Follows a size budget and drops the cheapest bits first (ours).

    The budget falls from the starting size to the target along a cubic, as
    in the pruning schedules of Zhu and Gupta (arXiv 1710.01878):

        budget(p) = target + (start - target) * (1 - p)**3

    with p the share of the search phase that is over. At every decision the
    rule plans the whole way: the widths of all layers that meet the target at
    least predicted loss, see `allocation.allocate`. While the model is above
    the budget, one layer drops to its next width in the plan: the layer where
    this costs the least predicted loss per byte saved. A layer with a
    sensitivity of at most the mean may drop two widths in one decision, any
    other layer one. The search ends at its target, or below it by less than one
    layer's step.

    Bits may come back: with `growth`, the rule measures on held-out batches by
    how much a wider width of a layer lowers the loss. If this is more than what
    the plan pays to save those bytes elsewhere, the layer gets the wider width
    and keeps it.

    Exactly one target has to be given. All count stored bits, the sign
    included, over the quantizable weights; skipped ones count 32 bits.

    Attributes:
        target_compression: 32 divided by the average stored bits to reach.
        target_bits: Average stored bits to reach.
        target_bytes: Bytes to reach: of the packed weights without scales and
            metadata, or, with `device`, of the whole file.
        begin: Share of the training before the first decision.
        end: Share of the training by which the search should be over;
            fine-tuning at the bits of the search takes the rest.
        most: Number of widths, 1 or 2, that a layer of at most the mean
            sensitivity may drop in one decision; any other layer drops one.
        allowed_bits: Widths that a layer may have; `range(2, 9)` allows all.
            `None` stands for the widths that pay on `device`, or without a
            device for those that a packed file stores: 8, 4 and 2 bits. There,
            codes of 3 bits take 4, and codes of 5 to 7 take 8. A layer's
            `min_bits` is allowed, too.
        device: Name of an export target, such as `"min_size"`, for
            Qualcomm's NPU with a SoC behind it if only one counts, such as
            `"qualcomm_npu:SM8650"`. The search then uses only widths that pay
            there and counts bytes as its files store them; `target_bytes` is
            the size of the whole file.
        growth: How often a search may give a layer a wider width again; 0 for
            never.
        stages: Number of sizes on the way, evenly spaced by their ratio, the
            target the last. Each gets an equal share of the training after
            `begin`: bits fall in its first part, of which `end` is the share,
            and fine-tuning takes the rest. With a `ParetoCheckpoint` one run
            leaves a model of every size.

    Raises:
        ValueError: If not exactly one target is given, or a value is out of
            its range.

    Example:
    ```python
    rule = msq_tf.BudgetRule(target_compression=8.0, device="min_size")
    ```
    """

    growth: int = 0
    stages: int = 1

    # Its plan needs no cleared bits, and clearing them gained no accuracy.
    lsb_strength: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("growth", self.growth, 0)
        check_integer("stages", self.stages, 1)

    @property
    def uses_growth(self) -> bool:
        return self.growth > 0

    def widths(self, layer: LayerStats) -> tuple[int, ...]:
        if layer.grown:  # what was given back stays
            return ()
        return self.narrower(layer, layer.bits)

    def wider(self, layer: LayerStats) -> int | None:
        above = [
            width
            for width in (*self.allowed(layer), layer.start_bits)
            if layer.bits < width <= layer.start_bits
        ]
        return min(above) if above and self.growth else None

    def budget(self, progress: float, state: RuleState) -> float:
        """Average stored bits allowed at `progress` (0 to 1) of training."""
        if self.stages == 1:
            phase = (progress - self.begin) / (self.end - self.begin)
            return _cubic(phase, state.start_bits, state.target_bits)
        stage, part = self._stage(progress)
        return _cubic(
            part / self.end,
            self._level(stage - 1, state),
            self._level(stage, state),
        )

    def span(self) -> tuple[float, float]:
        if self.stages == 1:
            return super().span()
        stage = (1.0 - self.begin) / self.stages
        return stage * self.end, 1.0 - stage * (1.0 - self.end)

    def _stage(self, progress: float) -> tuple[int, float]:
        """The number of the stage, from 0, and how much of it is over."""
        share = (progress - self.begin) / (1.0 - self.begin) * self.stages
        # Rounding must not put the end of a stage before it.
        stage = min(max(int(share + 1e-9), 0), self.stages - 1)
        return stage, share - stage

    def _level(self, stage: int, state: RuleState) -> float:
        """Average stored bits after a stage; before the first, the start."""
        ratio = state.target_bits / state.start_bits
        return float(state.start_bits * ratio ** ((stage + 1) / self.stages))

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
        whole = state
        if self.stages > 1:
            # The best plan for this stage's size, of which models are kept.
            stage, _ = self._stage(stats.progress)
            state = state._replace(target_bits=self._level(stage, whole))
        stats, grown = self._grow(stats, state, whole)
        options = self.options(stats)
        plan = self._plan(stats, state, options)
        if plan is None:  # `start` and `_grow` have made sure
            raise ValueError(
                "The target has become unreachable. Expected the widths that "
                f"the search began with. Received: {stats.layers}"
            )
        steps = _steps(options, plan)
        most = self._most(stats)
        excess = self._excess(stats, self.budget(stats.progress, whole))
        taken: dict[str, int] = {}
        while excess > 0:
            # A layer's first step comes before its second.
            open_steps = (
                s
                for s in steps
                if s.number == taken.get(s.path, 0) + 1 <= most[s.path]
            )
            step = next(open_steps, None)
            if step is None:
                break
            taken[step.path] = step.number
            excess -= step.freed
        following = None
        for step in steps:
            if step.number == taken.get(step.path, 0) + 1:
                row = options[step.path]
                cost = row[step.number].cost - row[0].cost
                following = Candidate(step.path, step.bits, cost)
                break
        changes = list(grown)
        for path, count in taken.items():
            now, new = options[path][0], options[path][count]
            cost = new.cost - now.cost
            changes.append(
                Change(
                    path,
                    now.bits,
                    new.bits,
                    f"predicted loss {cost:+.2e} for "
                    f"{(now.stored - new.stored) / 8:,.0f} bytes, the cheapest"
                    + (", two widths at once" if count == 2 else ""),
                    cost,
                    following,
                )
            )
        after = self.after(stats, whole, changes)._replace(
            grown=state.grown + len(grown)
        )
        pulls = {} if after.done else _pulls(options, plan, taken)
        return Decision(tuple(changes), pulls), after

    def options(self, stats: SearchStats) -> dict[str, list[Option]]:
        """Every width that each layer may have, its width now first."""
        return {
            layer.path: self.row(layer, (layer.bits, *self.widths(layer)))
            for layer in stats.layers
        }

    def _excess(self, stats: SearchStats, budget: float) -> float:
        """Stored bits above a budget; rounding is not excess."""
        return max(self.average(stats) - budget - EPSILON, 0.0) * stats.size

    def _plan(
        self,
        stats: SearchStats,
        state: RuleState,
        options: Mapping[str, Sequence[Option]],
    ) -> dict[str, int] | None:
        return allocation.allocate(
            options, self._excess(stats, state.target_bits), EXPONENT
        )

    def _grow(
        self, stats: SearchStats, state: RuleState, whole: RuleState
    ) -> tuple[SearchStats, list[Change]]:
        """Gives back what was costly to lose, while the budget allows.

        A layer grows where its gain on held-out batches is more than what
        the plan then pays elsewhere, the target kept: that of the stage, and
        of `whole`, as what has grown stays.
        """
        changes: list[Change] = []
        while len(changes) + state.grown < self.growth:
            options = self.options(stats)
            plan = self._plan(stats, state, options)
            if plan is None:
                break
            before = allocation.predicted_cost(options, plan)
            best: tuple[float, SearchStats, Change] | None = None
            for layer in stats.layers:
                width = self.wider(layer)
                if width is None or layer.grown or layer.gain <= 0.0:
                    continue
                raised = dataclasses.replace(layer, bits=width, grown=1)
                other = dataclasses.replace(
                    stats,
                    layers=[raised if s is layer else s for s in stats.layers],
                )
                options = self.options(other)
                plan = self._plan(other, state, options)
                if plan is None or self._plan(other, whole, options) is None:
                    continue
                paid = allocation.predicted_cost(options, plan) - before
                worth = layer.gain - max(paid, 0.0)
                if worth > 0.0 and (best is None or worth > best[0]):
                    reason = (
                        f"held-out loss {-layer.gain:+.2e}, paid elsewhere "
                        f"{paid:+.2e}: bits come back"
                    )
                    change = Change(
                        layer.path, layer.bits, width, reason, -layer.gain
                    )
                    best = (worth, other, change)
            if best is None:
                break
            stats = best[1]
            changes.append(best[2])
        return stats, changes


def _cubic(phase: float, start: float, target: float) -> float:
    left = 1.0 - min(max(phase, 0.0), 1.0)
    return target + (start - target) * left**3


class _Step(NamedTuple):
    """One width less for one layer; ordered by price, largest first.

    `less` is the stored bits that it frees, negative; `number` counts the
    layer's steps in the plan from 1.
    """

    price: float
    less: float
    path: str
    number: int
    bits: int

    @property
    def freed(self) -> float:
        return -self.less


def _steps(
    options: Mapping[str, Sequence[Option]], plan: Mapping[str, int]
) -> list[_Step]:
    """All steps of a plan, one width each, cheapest first."""
    steps = []
    for path, last in plan.items():
        row = options[path]
        for number in range(1, last + 1):
            before, after = row[number - 1], row[number]
            freed = before.stored - after.stored
            cost = max(after.cost - before.cost, 0.0)
            price = cost / freed if freed else 0.0
            steps.append(_Step(price, -freed, path, number, after.bits))
    return sorted(steps)


def _pulls(
    options: Mapping[str, Sequence[Option]],
    plan: Mapping[str, int],
    taken: Mapping[str, int],
) -> dict[str, int]:
    """Low bits to pull: of the layers that the plan drops next.

    Pulling every layer would also disturb those whose bits stay.
    """
    pulls = {}
    for path, last in plan.items():
        now = taken.get(path, 0)
        if last > now:
            row = options[path]
            pulls[path] = row[now].bits - row[now + 1].bits
    return pulls
