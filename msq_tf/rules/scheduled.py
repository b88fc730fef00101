"""Budgets of size, latency and RAM that fall while a model trains."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import numbers
from collections.abc import Mapping
from collections.abc import Sequence
from collections.abc import Set
from typing import Any

from msq_tf.arguments import is_number
from msq_tf.rules import descent
from msq_tf.rules import device_budgets
from msq_tf.rules import storage
from msq_tf.rules.allocation import Option
from msq_tf.rules.device_budgets import Goal
from msq_tf.rules.device_costs import DeviceCosts
from msq_tf.rules.records import EPSILON
from msq_tf.rules.records import Change
from msq_tf.rules.records import RuleState
from msq_tf.rules.records import SearchStats
from msq_tf.rules.rule import changed
from msq_tf.rules.sized import SizedRule


@dataclasses.dataclass(frozen=True)
class ScheduledRule(SizedRule):
    """Base of rules with budgets that fall along a cubic.

    Attributes:
        stages: Number of sizes on the way, or the shares of the training that
            they get; see `BudgetRule`.
        target_latency: Milliseconds to reach; see `BudgetRule`.
        target_ram: Bytes of RAM to keep to; see `BudgetRule`.
        costs: What the model takes on a device; see `BudgetRule`.
    """

    stages: int | Sequence[float] = 1
    target_latency: float | None = None
    target_ram: int | None = None
    costs: DeviceCosts | None = dataclasses.field(
        default=None, repr=False, hash=False
    )

    def __post_init__(self) -> None:
        if not self.is_joint:
            super().__post_init__()
        elif len(self.targets()) > 1:
            raise ValueError(
                "Expected at most one of `target_compression`, `target_bits` "
                "and `target_bytes`, beside `target_latency` and `target_ram`. "
                f"Received: {self.targets()}"
            )
        else:
            self._check_phase()
            self._check_widths()
        device_budgets.check_arguments(
            self.target_latency, self.target_ram, self.costs, self.device
        )
        own = self.costs.device if self.costs is not None else None
        if self.device is None and own in storage.DEVICES:
            object.__setattr__(self, "device", own)
        object.__setattr__(self, "stages", _stages(self.stages))

    @property
    def has_stages(self) -> bool:
        """Whether there are sizes on the way."""
        return len(self._stage_ends) > 1

    @property
    def is_joint(self) -> bool:
        """Whether there are budgets besides one of size."""
        return self.target_latency is not None or self.target_ram is not None

    @property
    def uses_costs_of_device(self) -> bool:
        return self.is_joint or self.costs is not None

    def budget(self, progress: float, state: RuleState) -> float:
        """Average stored bits allowed at `progress` (0 to 1) of training."""
        return self._fallen(progress, state.start_bits, state.target_bits)

    @property
    def _stage_ends(self) -> tuple[float, ...]:
        """Shares of what follows `begin` that are over after each stage."""
        if isinstance(self.stages, int):
            return tuple((n + 1) / self.stages for n in range(self.stages))
        passed = tuple(itertools.accumulate(self.stages))
        return tuple(end / passed[-1] for end in passed)

    def _fallen(self, progress: float, start: float, target: float) -> float:
        """How far a budget has fallen from `start` on its way to `target`."""
        if not self.has_stages:
            phase = (progress - self.begin) / (self.end - self.begin)
            return descent.cubic(phase, start, target)
        stage, part = self._stage(progress)
        return descent.cubic(
            part / self.end,
            self._level(stage - 1, start, target),
            self._level(stage, start, target),
        )

    def span(self) -> tuple[float, float]:
        if not self.has_stages:
            return super().span()
        ends = self._stage_ends
        rest = 1.0 - self.begin
        mean, last = rest / len(ends), rest * (ends[-1] - ends[-2])
        return mean * self.end, 1.0 - last * (1.0 - self.end)

    def _stage(self, progress: float) -> tuple[int, float]:
        """The number of the stage, from 0, and how much of it is over."""
        share = (progress - self.begin) / (1.0 - self.begin)
        ends = self._stage_ends
        # Rounding must not put the end of a stage before it.
        stage = sum(share + 1e-9 >= end for end in ends[:-1])
        begin = ends[stage - 1] if stage else 0.0
        return stage, (share - begin) / max(ends[stage] - begin, EPSILON)

    def _level(self, stage: int, start: float, target: float) -> float:
        """A budget after a stage; before the first, the start."""
        ratio = target / start
        return float(start * ratio ** ((stage + 1) / len(self._stage_ends)))

    def due(
        self, progress: float, average_bits: float, state: RuleState
    ) -> bool:
        if state.done or progress < self.begin:
            return False
        above = average_bits > self.budget(progress, state) + EPSILON
        return above or not state.decisions

    def due_now(self, stats: SearchStats, state: RuleState) -> bool:
        if not self.is_joint:
            return super().due_now(stats, state)
        if state.done or stats.progress < self.begin:
            return False
        goal = self._goal(stats, state, stats.progress)
        return not state.decisions or not self._keeps(stats, goal)

    def options(self, stats: SearchStats) -> dict[str, list[Option]]:
        """Every width that each layer may have, its width now first."""
        return {
            layer.path: self.row(layer, (layer.bits, *self.widths(layer)))
            for layer in stats.layers
        }

    def start(self, stats: SearchStats) -> RuleState:
        state = super().start(stats)
        if not self.is_joint:
            return state
        if not all(layer.latency for layer in stats.layers):
            raise ValueError(
                "Nothing is known of the device. Expected statistics with "
                "latencies, as `DeviceCosts.of` makes them. Received: those "
                "of a model alone"
            )
        goal = self._goal(stats, state)
        size = ", ".join(f"{k}={v:g}" for k, v in self.targets().items())
        device_budgets.check_reachable(stats, self.options(stats), goal, size)
        return state._replace(done=float(self._keeps(stats, goal)))

    def average_target(self, stats: SearchStats) -> float:
        if self.is_joint and not self.targets():
            return self.start_average(stats)  # no size to reach
        return super().average_target(stats)

    def after(
        self, stats: SearchStats, state: RuleState, changes: Sequence[Change]
    ) -> RuleState:
        after = super().after(stats, state, changes)
        if self.is_joint:
            stats = changed(stats, changes)
            done = self._keeps(stats, self._goal(stats, state))
            after = after._replace(done=float(done))
        return after

    def words(self, stats: SearchStats) -> str:
        words = []
        if self.target_latency is not None:
            words.append(f"{stats.latency:.4g} of {self.target_latency:.4g} ms")
        if self.target_ram is not None:
            words.append(
                f"{stats.ram:,.0f} of {self.target_ram:,} bytes of RAM"
            )
        return ", ".join(words)

    def forecast(self, stats: SearchStats) -> str:
        if self.target_latency is None and self.target_ram is None:
            return ""
        fastest = stats.rest_latency + sum(
            min(option.latency for option in row)
            for row in self.options(stats).values()
        )
        said = []
        if self.target_latency is not None:
            said.append(
                f"{stats.latency:.4g} ms on {self.device or 'the device'} at "
                f"the widths now, {fastest:.4g} ms at the fastest; the budget "
                f"is {self.target_latency:.4g} ms"
            )
        if self.target_ram is not None:
            said.append(
                f"{stats.ram:,.0f} bytes of RAM; the budget is "
                f"{self.target_ram:,}"
            )
        return "; ".join(said)

    def missed(self, stats: SearchStats, state: RuleState) -> str:
        if not self.is_joint:
            return super().missed(stats, state)
        had = [self.words(stats)]
        if self.targets():
            had.append(super().missed(stats, state))
        return f"{', '.join(had)}: not all of its budgets are kept"

    def _excess(self, stats: SearchStats, budget: float) -> float:
        """Stored bits above a budget; rounding is not excess."""
        return max(self.average(stats) - budget - EPSILON, 0.0) * stats.size

    def _goal(
        self,
        stats: SearchStats,
        state: RuleState,
        progress: float | None = None,
        stage: int | None = None,
    ) -> Goal:
        """The budgets at the end, after a stage, or at some progress."""

        def at(start: float, target: float) -> float:
            if stage is not None:
                return self._level(stage, start, target)
            if progress is not None:
                return self._fallen(progress, start, target)
            return target

        bits = latency = ram = math.inf
        if self.targets():
            bits = at(state.start_bits, state.target_bits)
        if self.target_latency is not None:
            wide = [
                dataclasses.replace(s, bits=s.start_bits) for s in stats.layers
            ]
            start = dataclasses.replace(stats, layers=wide).latency
            target = float(self.target_latency)
            latency = at(start, target) if start > target else target
        # It is the most at any time, so there is no way to go to it.
        before = progress is not None and progress < self.span()[1]
        if self.target_ram is not None and not before:
            ram = float(self.target_ram)
        return Goal(bits, latency, ram)

    def _keeps(self, stats: SearchStats, goal: Goal) -> bool:
        return not (
            self._excess(stats, goal.bits)
            or goal.late(stats)
            or goal.crowded(stats)
        )


def _stages(given: Any) -> int | tuple[float, ...]:
    """`stages`, checked: a number of sizes, or their shares."""
    is_integer = isinstance(given, numbers.Integral)
    if is_integer and not isinstance(given, bool) and given >= 1:
        return int(given)
    shares: tuple[Any, ...] = ()
    # What has no order, or stands for something else.
    if not isinstance(given, str | bytes | Mapping | Set):
        with contextlib.suppress(TypeError):
            shares = tuple(given)
    right = all(is_number(share) and share > 0 for share in shares)
    if not shares or not right or not math.isfinite(sum(map(float, shares))):
        raise ValueError(
            "`stages` must be an integer of at least 1, the number of sizes, "
            "or the shares of the training that they get, such as "
            "(1, 1, 1, 2, 5): positive numbers. Received: "
            f"stages={given!r}"
        )
    return tuple(map(float, shares))
