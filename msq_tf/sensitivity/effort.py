"""How much work the statistics of a search may take: a tenth of its run.

Work is counted, not timed, so that a run decides the same whatever else the
machine does. The unit is one sample that passes forward through the network:
a training step, forward and backward, takes three of a sample, a
Hessian-vector product eight (`docs/sensitivity.md` has both counted).
"""

from __future__ import annotations

import dataclasses
import math

FORWARD = 1
STEP = 3
PROBE = 8

# Less than a tenth: graphs are traced besides, and in small batches a sample
# takes longer.
SHARE = 0.08
# Parts of that share. Costs are what the order of layers comes from.
_COSTS = 0.7
_TRACES = 0.15
_LOSSES = 0.1
# A first measurement leaves this part to those that follow where the loss
# falls.
_LATER = 1 / 3
# Costs of fewer samples than this order layers badly; traces are noisier than
# that anyway, and say only who may drop two widths at once.
FEWEST = 16
_FEWEST_TRACED = 4
# Estimates of the traces in a search, at most.
_ESTIMATES = 4


@dataclasses.dataclass(frozen=True)
class Run:
    """The length of a training run, with its `decisions`, about."""

    steps: int
    batch_size: int
    decisions: int

    @property
    def work(self) -> float:
        """Forward passes of one sample that the training takes."""
        return float(STEP * self.steps * self.batch_size)


@dataclasses.dataclass(frozen=True)
class Effort:
    """The work that the statistics of one run may take.

    With `growth` gains are measured besides costs, and share their work.
    Methods take how many samples are available, and give how many to use.
    """

    run: Run
    growth: bool = False

    def _part(self, share: float) -> float:
        return SHARE * share * self.run.work

    def losses(self, available: int) -> int:
        """Samples to take the loss on, at each decision."""
        most = self._part(_LOSSES) / self.run.decisions
        return _bounded(most, FEWEST, available)

    def costs(self, candidates: int, spent: float, available: int) -> int:
        """Samples to measure the costs of all candidates on; 0 for no more.

        Args:
            candidates: Number of pairs of a weight and a width.
            spent: Forward passes of one sample that earlier costs took.
            available: Samples at hand.
        """
        left = self._part(_COSTS * (0.5 if self.growth else 1.0)) - spent
        # The unchanged model is one more.
        most = left * (1.0 - _LATER) / (candidates + 1)
        if spent and most < FEWEST:
            return 0
        return _bounded(most, FEWEST, available)

    def gains(self, candidates: int, available: int) -> int:
        """Samples to measure gains of wider widths on, at each decision."""
        most = self._part(_COSTS / 2) / self.run.decisions / (candidates + 1)
        return _bounded(most, FEWEST, available)

    def every(self, wanted: int, probes: int) -> int:
        """Decisions between two estimates of the traces, `wanted` or more.

        `probes` is the most products with the Hessian in an estimate.
        """
        least = PROBE * probes * _FEWEST_TRACED
        estimates = int(self._part(_TRACES) / least)
        estimates = min(max(estimates, 1), _ESTIMATES)
        return max(wanted, math.ceil(self.run.decisions / estimates))

    def traces(self, every: int, probes: int, available: int) -> int:
        """Samples that each probe of a trace goes through, see `every`."""
        estimates = math.ceil(self.run.decisions / every)
        most = self._part(_TRACES) / (PROBE * estimates * probes)
        return _bounded(most, _FEWEST_TRACED, available)


def _bounded(most: float, fewest: int, available: int) -> int:
    return min(max(int(most), fewest), available)
