"""The course of a search for a tolerance: what was measured, and what follows.

Nothing but numbers: the same measurements give the same next size, however
often the training was broken off between them.

How one training is divided. Its epochs are grouped in rounds. The first round
trains at the widest size. Its loss against the float model is what training at
this learning rate costs by itself; it fades until the end, and is allowed for
in the rounds between. Each later round tries one size. After it, the bracket of
the sizes that passed and failed is cut: between two measured sizes where the
line between their losses, over predicted cost, meets the promise; below the
smallest that passed, where what was measured before training says that it
would. The promise itself knows no allowance.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from collections.abc import Sequence
from typing import NamedTuple

from msq_tf.rules.tolerance import Rung

LEAST_EPOCHS = 3
# Ends of the rounds, as shares of the training: short ones to find a size, and
# longer ones to fine-tune at it.
_ENDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
# From here on, what was not kept yet is trained at the widest size.
_LATE = 0.6
# Share of what a size loses before fine-tuning that it loses after, until the
# search has measured its own.
_LEFT = 0.1
# Share of the promise that a new size aims for.
_AIM = 0.9
# Share of what a size lost in a short round, at a high learning rate, that it
# may lose in a long one at the end; and how far apart the sizes that passed and
# failed may be for that to count.
_REGAINED = 0.5
_NARROW = 2
# Where in a bracket a new size may lie.
_INNER = 0.35
_OUTER = 0.75


class Measured(NamedTuple):
    """A measurement of the metric.

    Attributes:
        epoch: Epochs trained before it.
        rung: Place of the size in the ladder.
        drop: What the metric had lost, in the unit of the promise.
    """

    epoch: int
    rung: int
    drop: float


class Trial(NamedTuple):
    """The finding of a round: a size's loss, less what training cost."""

    epoch: int
    rung: int
    drop: float


class Move(NamedTuple):
    """The step after a round.

    Attributes:
        rung: The size of the next round.
        passed: Whether the last round did.
        back_to: The epoch whose weights to go back to; `None` to go on.
    """

    rung: int
    passed: bool
    back_to: int | None


def round_ends(epochs: int) -> tuple[int, ...]:
    """The epochs after which a new size may be tried; the last is the end."""
    if epochs < round(1 / _ENDS[0]):
        return tuple(range(1, epochs + 1))
    return tuple(round(end * epochs) for end in _ENDS)


@dataclasses.dataclass(frozen=True)
class Course:
    """All that was measured, and what follows from it.

    Attributes:
        ladder: Sizes, the largest first.
        epochs: Epochs of the training.
        max_drop: The promise.
        keeps: Whether a drop is within the promise, rounding allowed for.
        untrained: Measurements before training, of a few sizes; the first of
            them, if any, is of the largest.
        measured: Measurements after epochs, in their order.
        stored: Epochs whose weights are stored.
        diverged: A drop that says that training broke the model; its weights
            are not trained on.
    """

    ladder: Sequence[Rung]
    epochs: int
    max_drop: float
    keeps: Callable[[float], bool]
    untrained: tuple[Measured, ...] = ()
    measured: tuple[Measured, ...] = ()
    stored: tuple[int, ...] = ()
    diverged: float = math.inf

    def is_broken(self, drop: float) -> bool:
        """Whether training broke a model that lost so much."""
        return not drop < self.diverged

    def with_epoch(self, new: Measured) -> Course:
        """The course after one more epoch; says what weights it stores."""
        course = dataclasses.replace(self, measured=(*self.measured, new))
        needed = course.needed()
        return dataclasses.replace(
            course,
            stored=tuple(e for e in (*self.stored, new.epoch) if e in needed),
        )

    def needed(self) -> set[int]:
        """Epochs whose weights may still be asked for."""
        best = self.best() or self.nearest()
        base = self._base()
        return {e for e in (best and best.epoch, base) if e is not None}

    def best(self) -> Measured | None:
        """The smallest model that kept the promise, the better of equals."""
        kept = [m for m in self._models() if self.keeps(m.drop)]
        return min(kept, key=lambda m: (-m.rung, m.drop), default=None)

    def nearest(self) -> Measured | None:
        """The model that lost least."""
        return min(self._models(), key=lambda m: m.drop, default=None)

    def _models(self) -> tuple[Measured, ...]:
        # Any size of before training is there while its weights are stored.
        untrained = self.untrained if 0 in self.stored else ()
        return (*untrained, *self.measured)

    def allowance(self, epoch: int) -> float:
        """The loss that training makes by itself at an epoch."""
        first = round_ends(self.epochs)[0]
        drops = [m.drop for m in self.measured if m.epoch <= first]
        if not drops or epoch < first:
            return 0.0
        # What the widths lost before is no matter of training.
        widths = max([0.0, *(m.drop for m in self.untrained[:1])])
        lost = min(drops) - widths
        if lost <= 0.0 or self.is_broken(lost):
            return 0.0
        left = (self.epochs - epoch) / max(self.epochs - first, 1)
        return lost * left

    def trials(self) -> list[Trial]:
        """The findings of the rounds that are over, in their order."""
        found, begin = [], 0
        for end in round_ends(self.epochs):
            drops = [m for m in self.measured if begin < m.epoch <= end]
            if not drops or drops[-1].epoch != end:
                break
            # Of a round, what could be handed over counts; where training
            # diverged, nothing does.
            drop = min(m.drop for m in drops)
            if self.is_broken(drops[-1].drop):
                drop = math.inf
            drop -= self.allowance(end)
            found.append(Trial(end, drops[-1].rung, drop))
            begin = end
        return found

    def next_move(self) -> Move:
        """The step to take at the end of a round that is not the last."""
        trials = self.trials()
        last = trials[-1]
        passed = self.keeps(last.drop)
        rung = self.next_rung(trials)
        if last.epoch >= _LATE * self.epochs and self.best() is None:
            rung = 0
        back = None
        base = self._base()
        # A size that is trained on goes on with the weights it has.
        goes_on = rung == last.rung and math.isfinite(last.drop)
        if not (passed or goes_on) and base in self.stored:
            back = base
        return Move(rung, passed, back)

    def _base(self) -> int | None:
        """The epoch of the last round that passed, at a size that still does.

        Before one did, the beginning.
        """
        trials = self.trials()
        low, _ = self._bracket(trials)
        passing = [t for t in trials if self.keeps(t.drop) and t.rung <= low]
        if passing:
            return passing[-1].epoch
        return 0 if self.untrained or 0 in self.stored else None

    def _bracket(self, trials: Sequence[Trial]) -> tuple[int, int]:
        """The smallest size that passed, and the largest that failed.

        What was found last counts: a size that fails takes smaller ones along
        that passed before, and one that passes takes larger ones.
        """
        passed, failed = {0}, {len(self.ladder)}
        for trial in trials:
            if self.keeps(trial.drop):
                passed.add(trial.rung)
                failed = {r for r in failed if r > trial.rung}
            else:
                failed.add(trial.rung)
                passed = {r for r in passed if r < trial.rung}
        return max(passed, default=0), min(failed, default=len(self.ladder))

    def next_rung(self, trials: Sequence[Trial] | None = None) -> int:
        """The size to try next; before any trial, the one that is expected."""
        trials = self.trials() if trials is None else trials
        low, high = self._bracket(trials)
        narrow = high - low <= _NARROW
        if narrow and self._turns_late(trials) and self._has(low):
            trials, low, high = self._reopened(trials, low, high)
            return self._inside(trials, low, high) if high - low > 1 else low
        if high - low <= 1:
            return self._again(trials, low, high)
        return self._inside(trials, low, high)

    def _reopened(
        self, trials: Sequence[Trial], low: int, high: int
    ) -> tuple[list[Trial], int, int]:
        """What the short rounds found, as the long ones would have found it.

        Returns:
            The findings with the losses that would be left, and the bracket. It
            begins at the least with the size that failed, as a model of the
            larger one is in store.
        """
        left = [
            t._replace(drop=min(t.drop, t.drop * _REGAINED)) for t in trials
        ]
        _, failed = self._bracket(left)
        low = max(low, high - 1)
        return left, low, max(failed, min(high + 1, len(self.ladder)))

    def _turns_late(self, trials: Sequence[Trial]) -> bool:
        """Whether the long rounds, at low learning rates, begin."""
        late = _LATE * self.epochs
        ends = [end for end in round_ends(self.epochs) if end >= late]
        return bool(trials) and trials[-1].epoch == ends[0] != self.epochs

    def _has(self, rung: int) -> bool:
        """Whether a model of a size, or a smaller one, kept the promise."""
        best = self.best()
        return best is not None and best.rung >= rung

    def _inside(self, trials: Sequence[Trial], low: int, high: int) -> int:
        """A size between one that passes and one that fails."""
        room = high - low
        at_low, at_high = self._drop(trials, low), self._drop(trials, high)
        tried = any(t.rung == high for t in trials)
        if tried and math.isfinite(at_high):
            guess = self._between(low, high, at_low, at_high)
            least, most = _INNER * room, (1.0 - _INNER) * room
        elif high < len(self.ladder):
            guess, least, most = low + room // 2, 1, room
        else:
            guess, least, most = self._below(trials, low), 1, _OUTER * room
        least = max(1, math.floor(least))
        most = min(max(least, math.ceil(most)), room - 1)
        return low + min(max(guess - low, least), most)

    def _again(self, trials: Sequence[Trial], low: int, high: int) -> int:
        """Nothing lies between: goes on at the size that failed, or stays.

        Once a model of the larger size is in store, the training that is left
        is worth most at the smaller one, for as long as that comes nearer.
        """
        at_high = [t.drop for t in trials if t.rung == high]
        if not at_high or not self._has(low):
            return low
        if len(at_high) < 2 or at_high[-1] < min(at_high[:-1]):
            return high
        return low

    def _between(
        self, low: int, high: int, at_low: float, at_high: float
    ) -> int:
        """Where the line between two measured losses meets the promise."""
        share = (_AIM * self.max_drop - at_low) / max(at_high - at_low, 1e-9)
        costs = [rung.cost for rung in self.ladder]
        cost = costs[low] + min(max(share, 0.0), 1.0) * (
            costs[high] - costs[low]
        )
        fits = [i for i in range(low, high) if costs[i] <= cost]
        return max(fits, default=low)

    def _below(self, trials: Sequence[Trial], low: int) -> int:
        """Where what was measured before training says that it is met."""
        if len(self.untrained) < 2:
            return low + (len(self.ladder) - low) // 2
        left = self._left(trials)
        fits = [
            i
            for i in range(low, len(self.ladder))
            if left * self.before_training(i) <= _AIM * self.max_drop
        ]
        return max(fits, default=low)

    def _left(self, trials: Sequence[Trial]) -> float:
        """Share of the loss before fine-tuning that is left after it."""
        shares = sorted(
            max(t.drop, 0.0) / self.before_training(t.rung)
            for t in trials
            if math.isfinite(t.drop)
            and self.before_training(t.rung) > 0.0
            # What was hardly lost says nothing of what comes back.
            and self.before_training(t.rung) > self.max_drop
        )
        return shares[len(shares) // 2] if shares else _LEFT

    def before_training(self, rung: int) -> float:
        """The loss of a size before training, between measured ones."""
        costs = [r.cost for r in self.ladder]
        known = sorted(self.untrained, key=lambda m: m.rung)
        for before, after in zip(known, known[1:], strict=False):
            if rung > after.rung:
                continue
            span = costs[after.rung] - costs[before.rung]
            share = (
                (costs[rung] - costs[before.rung]) / span if span > 0 else 1.0
            )
            near, far = before.drop, after.drop
            if not math.isfinite(far):
                return far if share > 0.0 else near
            return near + min(max(share, 0.0), 1.0) * (far - near)
        return known[-1].drop if known else 0.0

    def _drop(self, trials: Sequence[Trial], rung: int) -> float:
        """What was found last of a size; 0 of the largest, if nothing was."""
        found = [t.drop for t in trials if t.rung == rung]
        return found[-1] if found else 0.0
