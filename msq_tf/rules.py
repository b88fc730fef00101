"""Which layer loses bits, and when: pure functions of statistics.

A rule knows no Keras: names, counts and floats go in; new bits, with a reason
for each, come out. `MSQCallback` gathers the statistics and applies the
decision. The state is a tuple of floats that is saved with the model, so a
resumed search decides what the uninterrupted one would have.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence
from typing import ClassVar

from msq_tf.round_clamp import MAX_BITS
from msq_tf.round_clamp import MIN_BITS
from msq_tf.search import Change
from msq_tf.search import Decision
from msq_tf.search import LayerStats
from msq_tf.search import RuleState
from msq_tf.search import SearchStats

# Average bits are ratios of integers: equal up to this is equal.
_EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class Rule(abc.ABC):
    """Base of the rules: a target and a phase of the training.

    Exactly one target has to be given. All count stored bits, the sign
    included, over the quantizable weights (kernels and embeddings; weights
    that were skipped count 32 bits; biases and normalization do not count).

    Attributes:
        target_compression: 32 divided by the average stored bits.
        target_bits: Average stored bits.
        target_bytes: Bytes of the packed weights, without metadata.
        begin: Share of the training before the first decision.
        end: Share of the training by which the search should be over.
        uses_cost: Whether `decide` looks at `LayerStats.cost`.
    """

    target_compression: float | None = None
    target_bits: float | None = None
    target_bytes: int | None = None
    begin: float = 0.0
    end: float = 0.5

    uses_cost: ClassVar[bool] = True

    def __post_init__(self) -> None:
        targets = {
            name: getattr(self, name)
            for name in ("target_compression", "target_bits", "target_bytes")
            if getattr(self, name) is not None
        }
        if len(targets) != 1:
            raise ValueError(
                "Expected exactly one of `target_compression`, `target_bits` "
                f"and `target_bytes`. Received: {targets or 'none'}"
            )
        (name, value), *_ = targets.items()
        if not value > 0:
            raise ValueError(
                f"`{name}` must be positive. Received: {name}={value}"
            )
        if not 0.0 <= self.begin < self.end <= 1.0:
            raise ValueError(
                "The search phase must satisfy 0 <= begin < end <= 1 (shares "
                f"of the training). Received: begin={self.begin}, "
                f"end={self.end}"
            )

    def average_target(self, size: int) -> float:
        """The target as average stored bits over `size` elements."""
        if self.target_bits is not None:
            return float(self.target_bits)
        if self.target_bytes is not None:
            return 8.0 * self.target_bytes / size
        if self.target_compression is None:  # excluded in __post_init__
            raise ValueError("The rule has no target.")
        return 32.0 / self.target_compression

    @abc.abstractmethod
    def widths(self, bits: int, min_bits: int) -> tuple[int, ...]:
        """The widths a weight may take at one decision, widest first."""

    @abc.abstractmethod
    def due(
        self, progress: float, average_bits: float, state: RuleState
    ) -> bool:
        """Whether a decision is wanted now; cheap, asked at every interval."""

    @abc.abstractmethod
    def decide(
        self, stats: SearchStats, state: RuleState
    ) -> tuple[Decision, RuleState]:
        """Takes one decision. Pure."""

    def lowest(self, bits: int, min_bits: int) -> int:
        """The smallest width a weight can ever reach."""
        while widths := self.widths(bits, min_bits):
            bits = widths[-1]
        return bits

    def start(self, stats: SearchStats) -> RuleState:
        """The state at the start of a search.

        Raises:
            ValueError: If the target cannot be reached.
        """
        target = self.average_target(stats.size)
        floor = 32 * stats.float_size + sum(
            layer.size * self.lowest(layer.bits, layer.min_bits)
            for layer in stats.layers
        )
        lowest = floor / stats.size
        if lowest > target + _EPSILON:
            raise ValueError(
                "The target cannot be reached with these minimum bits, "
                "allowed widths and skipped layers. Expected a target of at "
                f"least {lowest:.4f} average stored bits (compression at "
                f"most {32 / lowest:.3f}, {-(-floor // 8)} bytes). Received: "
                f"{target:.4f} bits (compression {32 / target:.3f})"
            )
        average = stats.average_bits
        return RuleState(
            started=1.0,
            start_bits=average,
            target_bits=target,
            done=float(average <= target + _EPSILON),
        )

    def _after(
        self, stats: SearchStats, state: RuleState, changes: Sequence[Change]
    ) -> RuleState:
        saved = {c.path: c.old - c.new for c in changes}
        freed = sum(
            layer.size * saved.get(layer.path, 0) for layer in stats.layers
        )
        average = stats.average_bits - freed / stats.size
        return state._replace(
            decisions=state.decisions + 1.0,
            last_step=float(stats.step),
            done=float(average <= state.target_bits + _EPSILON),
        )


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

    def widths(self, bits: int, min_bits: int) -> tuple[int, ...]:
        return tuple(w for w in (bits - 1, bits - 2) if w >= min_bits)

    def due(
        self, progress: float, average_bits: float, state: RuleState
    ) -> bool:
        del average_bits
        return not state.done and self.begin <= progress <= self.end

    def decide(
        self, stats: SearchStats, state: RuleState
    ) -> tuple[Decision, RuleState]:
        mean = _mean_sensitivity(stats.layers)
        excess = (stats.average_bits - state.target_bits) * stats.size
        changes = []
        lsb = {}
        # Least sensitive first: the target may be reached on the way.
        for layer in sorted(stats.layers, key=lambda s: s.sensitivity):
            widths = self.widths(layer.bits, layer.min_bits)
            if not widths:
                continue
            below = layer.sensitivity <= mean
            new = widths[-1] if below else widths[0]
            k = layer.bits - new
            share = layer.lsb_nonzero[k]
            if share <= self.alpha and excess > _EPSILON:
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
                widths = self.widths(new, layer.min_bits)
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
    two widths in one decision. The model is never below the budget by more
    than the last layer's step.

    Attributes:
        allowed_bits: Widths a layer may take, for instance the containers
            `(8, 4, 2)` that a packed file stores. `None` allows all.

    Example:
    ```python
    rule = msq_tf.BudgetRule(target_compression=8.0, allowed_bits=(8, 4, 2))
    ```
    """

    allowed_bits: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
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

    def widths(self, bits: int, min_bits: int) -> tuple[int, ...]:
        allowed = self.allowed_bits or range(MAX_BITS, MIN_BITS - 1, -1)
        return tuple(w for w in allowed if min_bits <= w < bits)[:2]

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
        above = average_bits > self.budget(progress, state) + _EPSILON
        return above or not state.decisions

    def decide(
        self, stats: SearchStats, state: RuleState
    ) -> tuple[Decision, RuleState]:
        steps = self._cheapest(stats, self.budget(stats.progress, state))
        changes = []
        for path, count in steps.items():
            layer = next(s for s in stats.layers if s.path == path)
            new = self.widths(layer.bits, layer.min_bits)[count - 1]
            saved = layer.size * (layer.bits - new) / 8
            changes.append(
                Change(
                    path,
                    layer.bits,
                    new,
                    f"predicted loss {layer.cost[new]:+.2e} for "
                    f"{saved:,.0f} bytes, the cheapest"
                    + (", two widths at once" if count == 2 else ""),
                )
            )
        after = self._after(stats, state, changes)
        return Decision(tuple(changes), self._pulls(stats, after, steps)), after

    def _cheapest(self, stats: SearchStats, budget: float) -> dict[str, int]:
        """How many widths each layer drops, cheapest first, to the budget."""
        mean = _mean_sensitivity(stats.layers)
        excess = (stats.average_bits - budget) * stats.size
        taken: dict[str, int] = {}
        while excess > _EPSILON * stats.size:
            best: tuple[tuple[float, float, float], float, str] | None = None
            for layer in stats.layers:
                widths = self.widths(layer.bits, layer.min_bits)
                n = taken.get(layer.path, 0)
                if n >= len(widths) or (n and layer.sensitivity > mean):
                    continue
                before = widths[n - 1] if n else layer.bits
                cost = layer.cost[widths[n]] - (
                    layer.cost[before] if n else 0.0
                )
                freed = layer.size * (before - widths[n])
                # Bits beyond the budget are worth nothing, and charged for:
                # the last step stays small where a small one is enough.
                needed = min(freed, excess)
                price = max(cost, 0.0) / needed * (freed / needed)
                rank = (price, max(freed - excess, 0.0), -freed)
                if best is None or rank < best[0]:
                    best = (rank, freed, layer.path)
            if best is None:
                break
            _, dropped, path = best
            excess -= dropped
            taken[path] = taken.get(path, 0) + 1
        return taken

    def _pulls(
        self, stats: SearchStats, after: RuleState, steps: Mapping[str, int]
    ) -> dict[str, int]:
        """Low bits to pull: of the layers that today's costs would drop next.

        Pulling every layer would also disturb those whose bits stay.
        """
        if after.done:
            return {}
        pulls = {}
        planned = self._cheapest(stats, after.target_bits)
        for layer in stats.layers:
            widths = (
                layer.bits,
                *self.widths(layer.bits, layer.min_bits),
            )
            now = steps.get(layer.path, 0)
            if planned.get(layer.path, 0) > now:
                pulls[layer.path] = widths[now] - widths[now + 1]
        return pulls


def _mean_sensitivity(layers: Sequence[LayerStats]) -> float:
    return sum(layer.sensitivity for layer in layers) / len(layers)
