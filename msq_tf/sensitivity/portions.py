"""Batches for every statistic: as many samples as the run's length allows."""

from __future__ import annotations

from typing import NamedTuple

from msq_tf.core.batches import Batch
from msq_tf.core.batches import Samples
from msq_tf.core.batches import samples_in
from msq_tf.sensitivity.effort import FORWARD
from msq_tf.sensitivity.effort import PROBE
from msq_tf.sensitivity.effort import Effort

# A Hessian-vector product keeps four to six times what a gradient does.
_PROBED_SHARE = 8


class Sizes(NamedTuple):
    """Samples of a batch, of all replicas together.

    However many there are, they take the same statistics.

    Attributes:
        training: Of a training step.
        statistics: Of a forward pass for statistics, at most.
        fixed: Whether the model takes batches of that size only, or has
            another loss for a part of a batch.
    """

    training: int
    statistics: int
    fixed: bool = False


class Portions:
    """Samples in the portions in which a search's statistics take them.

    No batch is larger than one of the training, and those of Hessian probes
    are an eighth of that, so that statistics take no more memory than a step.
    Gains are measured on those held out. Arguments of methods are those of
    `Effort`.
    """

    def __init__(
        self,
        effort: Effort,
        sizes: Sizes,
        samples: Samples,
        held_out: Samples | None = None,
    ):
        self.effort = effort
        self._samples = samples
        self._held_out = held_out
        size = sizes.statistics
        self._probed = size
        if not sizes.fixed:
            self._probed = max(1, size // _PROBED_SHARE)
            # One size for all: a graph is traced for each.
            while size > effort.losses(len(samples)):
                size = (size + 1) // 2
        self.size = size

    def losses(self) -> list[Batch]:
        """Batches for the loss at a decision."""
        count = self.effort.losses(len(self._samples))
        return self._batches(self._samples, count)

    def costs(self, candidates: int, spent: float = 0.0) -> list[Batch]:
        """Batches for the costs of all candidates; none to measure none."""
        count = self.effort.costs(candidates, spent, len(self._samples))
        return self._batches(self._samples, count) if count else []

    def gains(self, candidates: int) -> list[Batch]:
        """Batches for gains of wider widths; none without held-out data."""
        if self._held_out is None:
            return []
        count = self.effort.gains(candidates, len(self._held_out))
        return self._batches(self._held_out, count)

    def traces(self, every: int, probes: int) -> list[Batch]:
        """Batches for Hessian traces."""
        count = self.effort.traces(every, probes, len(self._samples))
        return self._samples.batches(max(count, self._probed), self._probed)

    def _batches(self, samples: Samples, count: int) -> list[Batch]:
        return samples.batches(max(count, self.size), self.size)

    def work(
        self,
        candidates: int,
        growing: int,
        every: int,
        probes: int,
        costs: bool = True,
    ) -> float:
        """Forward passes of one sample that all statistics of a run take.

        Costs count once, probes as if none was spared; traces are not taken
        where `every` is 0.
        """
        decisions = self.effort.run.decisions
        total = FORWARD * decisions * float(_count(self.losses()))
        if costs:
            total += self.work_of_costs(candidates, self.costs(candidates))
        if growing:
            gains = self.gains(growing)
            total += decisions * self.work_of_costs(growing, gains)
        if every:
            estimates = -(-decisions // every)
            traced = _count(self.traces(every, probes))
            total += PROBE * estimates * probes * traced
        return total

    def work_of_costs(self, candidates: int, batches: list[Batch]) -> float:
        """Forward passes of one sample that costs take."""
        return float(FORWARD * (candidates + 1) * _count(batches))


def _count(batches: list[Batch]) -> int:
    return sum(samples_in(batch) for batch in batches)
