"""ThresholdRule: the paper's rule, drop low bits once they are zero."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from msq_tf.arguments import check_number
from msq_tf.rules.records import EPSILON
from msq_tf.rules.records import Change
from msq_tf.rules.records import Decision
from msq_tf.rules.records import LayerStats
from msq_tf.rules.records import RuleState
from msq_tf.rules.records import SearchStats
from msq_tf.rules.records import mean_sensitivity
from msq_tf.rules.rule import Rule


@dataclasses.dataclass(frozen=True)
class ThresholdRule(Rule):
    """The paper's rule (MSQ, Hessian-aware pruning).

    At every interval, each layer with a share of nonzero LSBs of at most
    `alpha` drops LSBs: two bits if its sensitivity `Omega` is at most the mean
    over layers, one bit if it is above; until the target is reached.

    The share starts near 0.50 for one bit and 0.75 for two, and gradient noise
    keeps it there at high precisions. With too small an `alpha` or too weak a
    penalty, the search may never reach the target; then training ends with a
    warning. `BudgetRule` always reaches its target.

    Exactly one target has to be given. All count stored bits, the sign
    included, over the quantizable weights; skipped ones count 32 bits.

    Attributes:
        target_compression: 32 divided by the average stored bits to reach.
        target_bits: Average stored bits to reach.
        target_bytes: Bytes of the packed weights to reach, without scales and
            metadata.
        begin: Share of the training before the first decision.
        end: Share of the training by which the search ends, whether the
            target is reached or not.
        most: Number of widths, 1 or 2, that a layer of at most the mean
            sensitivity may drop in one decision; any other layer drops one.
        alpha: Largest share of nonzero LSBs at which bits are dropped, from
            0 to 1.

    Raises:
        ValueError: If not exactly one target is given, or a value is out of
            its range.

    Example:
    ```python
    rule = msq_tf.ThresholdRule(target_compression=8.0, alpha=0.3)
    ```
    """

    alpha: float = 0.3

    uses_cost: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("alpha", self.alpha, 0, 1)

    def widths(self, layer: LayerStats) -> tuple[int, ...]:
        return tuple(range(layer.bits - 1, layer.min_bits - 1, -1))

    def due(
        self, progress: float, average_bits: float, state: RuleState
    ) -> bool:
        del average_bits
        return not state.done and self.begin <= progress <= self.end

    def decide(
        self, stats: SearchStats, state: RuleState
    ) -> tuple[Decision, RuleState]:
        mean = mean_sensitivity(stats.layers)
        excess = (self.average(stats) - state.target_bits) * stats.size
        changes = []
        lsb = {}
        # Least sensitive first: the target may be reached on the way.
        for layer in sorted(stats.layers, key=lambda s: s.sensitivity):
            widths = self.widths(layer)
            if not widths:
                continue
            below = layer.sensitivity <= mean
            new = widths[: self.most][-1] if below else widths[0]
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
                k = min(k, len(widths))
            if k:
                lsb[layer.path] = k
        after = self.after(stats, state, changes)
        return Decision(tuple(changes), {} if after.done else lsb), after
