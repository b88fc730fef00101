"""The outlook of a search for a tolerance: what sizes will lose by the end.

A metric that is measured in the middle of a training says little by itself. A
high learning rate costs points that come back; a size that was just taken has
not been trained at yet; and a thousand held-out examples are a sample. So many
curves are weighed by all that was measured. Each of them says

- what a size will lose by the end: `scale * cost**power`, with the cost that
  was predicted for its widths (`Rung.cost`);
- what training costs by itself: more at narrow widths, and less towards the
  end;
- what is not won back yet since a size was taken, of what it loses without any
  training, which was measured before.

Weights are likelihoods with heavy tails (Student's t), so that one odd
measurement decides nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# What the curves are made of; losses count in promises.
_SCALES = np.geomspace(0.03, 200.0, 16)
_POWERS = (0.35, 0.7, 1.4, 2.8)
_NOISES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
_RATES = (2.0, 5.0)
_NARROWS = (0.0, 1.0, 4.0)
# What training costs falls along a quarter of a cosine: from which share of
# the training on, and to which power. As the root of a rate on half a cosine,
# a bit slower or faster; or hardly before the end, as at 2 bits.
_FADES = ((0.0, 0.7), (0.0, 1.4), (0.7, 1.4))
_CURVES = np.array(
    [
        (*numbers, *fade)
        for *numbers, fade in itertools.product(
            _SCALES, _POWERS, _NOISES, _RATES, _NARROWS, _FADES
        )
    ]
)
# Before anything is measured: the share that is left by the end of what the
# smallest size loses without training, give or take this factor, as a
# logarithm. The least loss that is expected of it, in promises.
_LEFT = 0.03
_GIVE = 2.0
_LEAST = 0.1
# Standard deviations: of a measurement, in promises; as shares of what training
# costs, and of what is not won back.
_SAMPLE = 0.35
_OF_NOISE = 0.4
_OF_DEBT = 0.3
_FREEDOM = 3.0
# Losses that are larger, or no numbers, count as this many promises.
_MOST = 1000.0


class Outlook:
    """The losses of a ladder's sizes by the end, as far as they are known.

    Args:
        costs: Predicted cost of each size, the largest size first.
        before: Its loss without any training, in promises.
        epochs: Epochs of the training.
    """

    def __init__(
        self, costs: Sequence[float], before: Sequence[float], epochs: int
    ):
        self._epochs = epochs
        last = max(costs[-1], 1e-30)
        self._costs = np.asarray(costs, np.float64) / last
        scale, power, *others = _CURVES.T
        self._noise, self._rate, self._narrow = others[:3]
        self._until, self._fade = others[3:]
        self._end = scale[:, None] * self._costs ** power[:, None]
        limited = np.array([_limited(drop) for drop in before])
        # Of a size that is taken without training.
        self._fresh = np.maximum(limited - self._end, 0.0)
        self._debt = np.zeros(len(_CURVES))
        self._rung = 0
        likely = max(_LEFT * float(limited[-1]), _LEAST)
        self._weight = -((np.log(scale / likely) / _GIVE) ** 2) / 2
        # What was not won back after each epoch, and at which size.
        self._states = {0: (self._debt, 0)}

    def take(self, rung: int, back_to: int | None = None) -> None:
        """Goes to a size, with the weights of an epoch or as they are."""
        if back_to is not None:
            self._debt, self._rung = self._states[back_to]
        self._debt = self._owed(self._fresh[:, rung, None])[:, 0]
        self._rung = rung

    def see(self, epoch: int, drop: float) -> None:
        """Weighs the curves by what was measured after an epoch."""
        self._debt = self._debt * self._left(epoch)
        noise = self._costs_of_training(epoch)
        expected = self._end[:, self._rung] + self._debt + noise
        spread = np.sqrt(
            _SAMPLE**2 + (_OF_NOISE * noise) ** 2 + (_OF_DEBT * self._debt) ** 2
        )
        off = (_limited(drop) - expected) / spread
        self._weight = self._weight - np.log(spread)
        self._weight -= (_FREEDOM + 1) / 2 * np.log1p(off**2 / _FREEDOM)
        self._states[epoch] = self._debt, self._rung

    def chances(self, epoch: int) -> Floats:
        """Computes the chance of each size to keep the promise at the end.

        Args:
            epoch: Epochs of the training that are over.

        Returns:
            Shape (sizes,), from 0 to 1; for a size that is taken now.
        """
        owed = self._owed(self._fresh) * self._left_at_end(epoch)[:, None]
        expected = self._end + owed
        # The logistic function for the normal distribution.
        off = 1.7 * (1.0 - expected) / _SAMPLE
        chances: Floats = self._shares() @ (
            1.0 / (1.0 + np.exp(np.clip(-off, -50.0, 50.0)))
        )
        return chances

    def fades(self, epoch: int) -> float:
        """Computes what of the last measurement comes back by the end.

        In promises: what training cost, and what is not won back yet.
        """
        won_back = self._debt * (1.0 - self._left_at_end(epoch))
        passing = self._costs_of_training(epoch) + won_back
        return float(self._shares() @ passing)

    def _shares(self) -> Floats:
        weights = np.exp(self._weight - self._weight.max())
        shares: Floats = weights / weights.sum()
        return shares

    def _owed(self, fresh: Floats) -> Floats:
        """What has to be won back at sizes, if they are taken now.

        Args:
            fresh: Shape (curves, sizes), of sizes without training.
        """
        now = self._fresh[:, self._rung, None]
        share = np.minimum(fresh / np.maximum(now, 1e-9), 1.0)
        return np.where(
            fresh > now,
            self._debt[:, None] + fresh - now,
            self._debt[:, None] * share,
        )

    def _left(self, epoch: int) -> Floats:
        """Share of what was to win back that is left after an epoch."""
        passed = self._share_left(epoch) * 10.0 / self._epochs
        left: Floats = np.exp(-self._rate * passed)
        return left

    def _left_at_end(self, epoch: int) -> Floats:
        """Share of what is to win back after an epoch that stays."""
        left = np.ones(len(_CURVES))
        for later in range(epoch + 1, self._epochs + 1):
            left = left * self._left(later)
        return left

    def _costs_of_training(self, epoch: int) -> Floats:
        narrow = 1.0 + self._narrow * self._costs[self._rung]
        passed = 1.0 - self._share_left(epoch)
        fading = np.maximum(passed - self._until, 0.0) / (1.0 - self._until)
        level = np.cos(0.5 * math.pi * fading) ** self._fade
        return self._noise * narrow * level

    def _share_left(self, epoch: int) -> float:
        """Share of the training that is left in the middle of an epoch."""
        return 1.0 - (epoch - 0.5) / self._epochs


def _limited(drop: float) -> float:
    if math.isnan(drop):
        return _MOST
    return min(max(drop, -_MOST), _MOST)
