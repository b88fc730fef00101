"""BudgetRule: from budgets to a plan of widths, and down to it step by step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence
from typing import ClassVar

from msq_tf.arguments import check_integer
from msq_tf.rules import allocation
from msq_tf.rules import descent
from msq_tf.rules.allocation import Option
from msq_tf.rules.descent import Worth
from msq_tf.rules.device_budgets import Goal
from msq_tf.rules.records import Candidate
from msq_tf.rules.records import Change
from msq_tf.rules.records import Decision
from msq_tf.rules.records import LayerStats
from msq_tf.rules.records import RuleState
from msq_tf.rules.records import SearchStats
from msq_tf.rules.scheduled import ScheduledRule
from msq_tf.rules.sized import EXPONENT


@dataclasses.dataclass(frozen=True)
class BudgetRule(ScheduledRule):
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

    At least one target has to be given, of those of size at most one. These
    count stored bits, the sign included, over the quantizable weights; skipped
    ones count 32 bits. A budget of milliseconds or RAM may come with it, or
    stand alone: the plan then meets all of them, or `fit` refuses before the
    first step, and says what can be reached.

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
            target the last; or the share of the training after `begin` that
            each gets, such as `(1, 1, 1, 2, 5)`. A number gives all the same.
            Bits fall in the first part of a stage, of which `end` is the
            share, and fine-tuning takes the rest. With a `ParetoCheckpoint`
            one run leaves a model of every size.
        target_latency: Milliseconds of an inference to reach, as `device`
            predicts them: one of Ethos-U's accelerators, such as
            `"ethos_u:ethos-u55-128"` (Vela's estimate), `"cpu_int8"` or
            `"min_size"` (a table of measured operators, on one thread).
        target_ram: Bytes of RAM to keep to, without the weights: on an
            accelerator of Ethos-U, Vela's SRAM, and on `"mcu"` the arena.
        costs: What the model takes on a device, of
            `tflite_export.device_costs` or of measurements of your own.
            `None` stands for the former, for `device`, when training begins.

    Raises:
        ValueError: If no target is given, or two of size, or a value is out of
            its range, or `device` predicts no such budget.

    Example:
    ```python
    rule = msq_tf.BudgetRule(target_compression=8.0, device="min_size")
    rule = msq_tf.BudgetRule(
        target_bytes=60_000, target_latency=0.3, device="ethos_u:ethos-u55-128"
    )
    ```
    """

    growth: int = 0

    # Its plan needs no cleared bits, and clearing them gained no accuracy.
    lsb_strength: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("growth", self.growth, 0)

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

    def decide(
        self, stats: SearchStats, state: RuleState
    ) -> tuple[Decision, RuleState]:
        end = self._goal(stats, state)
        goal = end
        if self.has_stages:
            # The best plan for this stage's size, of which models are kept.
            stage, _ = self._stage(stats.progress)
            goal = self._goal(stats, state, stage=stage)
        stats, grown = self._grow(stats, state, goal, end)
        options = self.options(stats)
        plan = self._plan(stats, goal, options)
        if plan is None:  # `start` and `_grow` have made sure
            raise ValueError(
                "The target has become unreachable. Expected the widths that "
                f"the search began with. Received: {stats.layers}"
            )
        steps = descent.steps(options, plan, self._worth(stats, goal))
        taken = self._taken(stats, state, steps)
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
                    f"predicted loss {cost:+.2e} for {self._saved(now, new)}, "
                    "the cheapest"
                    + (", two widths at once" if count == 2 else ""),
                    cost,
                    following,
                )
            )
        after = self.after(stats, state, changes)._replace(
            grown=state.grown + len(grown)
        )
        pulls = {} if after.done else descent.pulls(options, plan, taken)
        return Decision(tuple(changes), pulls), after

    def _taken(
        self,
        stats: SearchStats,
        state: RuleState,
        steps: Sequence[descent.Step],
    ) -> dict[str, int]:
        """How many of its steps each layer takes now."""
        goal = self._goal(stats, state, stats.progress)
        most = self._most(stats)
        excess = self._excess(stats, goal.bits)
        late, crowded = goal.late(stats), goal.crowded(stats)
        ram = {layer.path: layer.ram for layer in stats.layers}
        taken: dict[str, int] = {}
        while excess > 0 or late > 0 or crowded:
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
            late -= step.saved
            if ram[step.path].get(step.bits, 0.0) <= goal.ram:
                crowded.discard(step.path)
        return taken

    def _saved(self, now: Option, new: Option) -> str:
        words = f"{(now.stored - new.stored) / 8:,.0f} bytes"
        if self.target_latency is not None:
            words += f" and {now.latency - new.latency:.3g} ms"
        return words

    def _worth(self, stats: SearchStats, goal: Goal) -> Worth:
        """What to pay for bits and milliseconds: by how many are needed."""
        late = goal.late(stats)
        if not late:
            return Worth()
        excess = self._excess(stats, goal.bits)
        return Worth(1.0 / excess if excess else 0.0, 1.0 / late)

    def _plan(
        self,
        stats: SearchStats,
        goal: Goal,
        options: Mapping[str, Sequence[Option]],
    ) -> dict[str, int] | None:
        if self.is_joint:
            return goal.plan(stats, options, EXPONENT)
        return allocation.allocate(
            options, self._excess(stats, goal.bits), EXPONENT
        )

    def _grow(
        self, stats: SearchStats, state: RuleState, goal: Goal, end: Goal
    ) -> tuple[SearchStats, list[Change]]:
        """Gives back what was costly to lose, while the budget allows.

        A layer grows where its gain on held-out batches is more than what
        the plan then pays elsewhere, the target kept: that of the stage, and
        that of the end, as what has grown stays.
        """
        changes: list[Change] = []
        while len(changes) + state.grown < self.growth:
            options = self.options(stats)
            plan = self._plan(stats, goal, options)
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
                plan = self._plan(other, goal, options)
                if plan is None or self._plan(other, end, options) is None:
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
