"""The course of a search for a tolerance: what was measured, and what follows.

Nothing but numbers: the same measurements give the same next size, however
often the training was broken off between them.

How one training is divided. Its epochs are grouped in rounds, tenths of it and
at the end halves of these. The first round trains at the widest size. Each
later round tries one size: of the likely ones, that with the largest expected
gain over the smallest model that kept the promise so far, by its chance to keep
it at the end (see `outlook`). The first ones go halfway to the smallest size at
most. Where no model near it is in store, the rounds before the last secure one
first. What was measured at the end of an epoch is what counts for the promise,
without any allowance.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from collections.abc import Sequence
from typing import NamedTuple

from msq_tf.rules.outlook import Outlook
from msq_tf.rules.tolerance import Rung

LEAST_EPOCHS = 3
# Ends of the rounds, as shares of the training. The last ones are short: they
# tell most, and what is larger needs little training.
_ENDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)
# While more rounds are left, a chance is worth its power: what fails is tried
# larger later.
_BOLD = 0.6
# The least chance that a size is tried with, while any has one.
_LIKELY = 0.4
_LAST_ROUNDS = 2
# In this first part of the training, a step goes no farther than this share of
# the way from the model in store to the smallest size: what is taken by steps
# has less to win back, and what is halfway may be in store soon.
_STEP_UNTIL = 0.35
_STEP = 0.5
# The last rounds go no farther from the model in store, in sizes, than to one
# with this chance.
_FAR = 3
_SAFE = 0.6
# Share of the promise that the last round aims for.
_AIM = 0.75
# Promises that are much to lose.
_MUCH = 2.0
# Promises by which weights in store have to be better at a larger size. Below
# it, two measurements of one model may differ as much.
_SOUNDER = 0.5
# The rate, in tenths of the training, at which it wins back what weights in
# store lose at fewer bits.
_RATE = 10.0
# Without a model in store, even the largest size gains this many sizes.
_NOTHING = -6


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
    return tuple(dict.fromkeys(round(end * epochs) for end in _ENDS))


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
        stores_next_best: Whether weights of the next best model are stored.
    """

    ladder: Sequence[Rung]
    epochs: int
    max_drop: float
    keeps: Callable[[float], bool]
    untrained: tuple[Measured, ...] = ()
    measured: tuple[Measured, ...] = ()
    stored: tuple[int, ...] = ()
    diverged: float = math.inf
    stores_next_best: bool = True

    def is_broken(self, number: int = -1) -> bool:
        """Whether training broke a model that was measured.

        Where most is lost, half of that at the largest size, or much of the
        promise and more than the size loses without any training.

        Args:
            number: Which of `measured`, the last one if not given.
        """
        found = self.measured[number]
        if self.keeps(found.drop):
            return False
        most = self.diverged if found.rung else 0.5 * self.diverged
        if not found.drop < most:
            return True
        much = max(self.before_training(found.rung), _MUCH * self._promise())
        return len(self.untrained) > 1 and found.rung > 0 and found.drop > much

    def with_epoch(self, new: Measured) -> Course:
        """The course after one more epoch; says what weights it stores."""
        course = dataclasses.replace(
            self,
            measured=(*self.measured, new),
            stored=(*self.stored, new.epoch),
        )
        needed = course.needed()
        return dataclasses.replace(
            course, stored=tuple(e for e in course.stored if e in needed)
        )

    def needed(self) -> set[int]:
        """Epochs whose weights may still be asked for."""
        found = [self.best() or self.nearest()]
        if self.stores_next_best:
            found.append(self._next_best())
        return {self._base(), *(m.epoch for m in found if m)}

    def best(self) -> Measured | None:
        """The smallest model that kept the promise, the better of equals."""
        kept = [m for m in self._models() if self.keeps(m.drop)]
        return min(kept, key=lambda m: (-m.rung, m.drop), default=None)

    def _next_best(self) -> Measured | None:
        """Of the smaller models in store, that which lost least.

        Where a search goes back, it is nearer than the best.
        """
        best = self.best()
        least = best.rung if best else 0
        smaller = [
            m
            for m in self.measured
            if m.rung > least and m.epoch in self.stored
        ]
        return min(smaller, key=lambda m: m.drop, default=None)

    def nearest(self) -> Measured | None:
        """The model that lost least."""
        return min(self._models(), key=lambda m: m.drop, default=None)

    def _models(self) -> tuple[Measured, ...]:
        # Any size of before training is there while its weights are stored.
        untrained = self.untrained if 0 in self.stored else ()
        return (*untrained, *self.measured)

    def next_move(self) -> Move:
        """The step to take at the end of a round that is not the last."""
        last = self.measured[-1]
        passed, back = self.keeps(last.drop), None
        if self.is_broken():
            base = self._base()
            back = base if base in self.stored else None
            if not back:
                # The rate is too high for any size.
                return Move(0, passed, back)
        outlook = self.outlook()
        if back is not None:
            outlook.take(self._rung_at(back), back)
        rung = self._choose(outlook, last.epoch)
        if back is None and rung < last.rung:
            back = self._sounder(rung)
        return Move(rung, passed, back)

    def _sounder(self, rung: int) -> int | None:
        """The epoch in store whose weights lose less at a larger size.

        What was trained at a few bits does not win back by more bits what it
        lost, or slowly. Weights in store win back what they lose untrained, if
        there is time. What comes back as the rate falls does so for all of
        them. `None` where the weights are about as good.
        """
        last = self.measured[-1]

        def loses(model: Measured) -> float:
            if model.rung > rung:
                # More bits keep what weights compute.
                return model.drop
            before, after = map(self.before_training, (model.rung, rung))
            more = max(after - before, 0.0) * self._stays()
            # Of an infinite loss nothing is known.
            return model.drop + (more if math.isfinite(before) else math.inf)

        others = [
            model
            for model in self._models()
            if model.epoch in self.stored and model.epoch != last.epoch
        ]
        found = min(others, key=loses, default=None)
        better = _SOUNDER * self._promise()
        if found is None or loses(found) + better >= loses(last):
            return None
        return found.epoch

    def _stays(self) -> float:
        """The share of what a change costs that training does not win back."""
        left = 1.0 - self.measured[-1].epoch / self.epochs
        # The rate falls along a cosine, so what is trained with its square.
        return math.exp(-_RATE * 5.0 * left**2)

    def next_rung(self) -> int:
        """The size that is expected before any training: as likely as not."""
        chances = self.outlook().chances(0)
        return max((r for r, c in enumerate(chances) if c >= 0.5), default=0)

    def fades(self) -> float:
        """Computes how much of the last loss comes back, as far as is known."""
        last = self.measured[-1]
        if self.is_broken():
            return 0.0
        return self.outlook().fades(last.epoch) * self._promise()

    def outlook(self) -> Outlook:
        """All that was measured, weighed."""
        promise = self._promise()
        sizes = range(len(self.ladder))
        outlook = Outlook(
            [rung.cost for rung in self.ladder],
            [self.before_training(rung) / promise for rung in sizes],
            self.epochs,
        )
        ends, back = round_ends(self.epochs), None
        rung = 0
        for number, measured in enumerate(self.measured):
            if back is not None or measured.rung != rung:
                outlook.take(measured.rung, back)
            rung, back = measured.rung, None
            broken = self.is_broken(number)
            # What broke the largest size says nothing of the others.
            if rung or not broken:
                outlook.see(measured.epoch, measured.drop / promise)
            if broken and measured.epoch in ends:
                back = self._base(measured.epoch)
        return outlook

    def _promise(self) -> float:
        """What a loss is measured by; positive."""
        if self.max_drop > 0.0:
            return self.max_drop
        known = [abs(m.drop) for m in (*self.untrained, *self.measured)]
        return max([0.0, *filter(math.isfinite, known)]) / 10.0 or 1.0

    def _choose(self, outlook: Outlook, epoch: int) -> int:
        """The size with the largest expected gain."""
        chances = outlook.chances(epoch)
        best, last = self.best(), len(self.ladder) - 1
        low = best.rung if best else 0
        smaller = range(low + 1 if best else 0, len(self.ladder))
        base = low if best else _NOTHING
        left = sum(end > epoch for end in round_ends(self.epochs))
        bold = _BOLD if left > _LAST_ROUNDS else 1.0
        likely = [r for r in smaller if chances[r] >= _LIKELY]
        if likely:
            rung = max(likely, key=lambda r: chances[r] ** bold * (r - base))
        else:
            rung = max(smaller, key=lambda r: chances[r], default=last)
        if epoch < _STEP_UNTIL * self.epochs:
            step = round(_STEP * (last - low))
            rung = min(rung, low + max(step, 1))
        if left <= _LAST_ROUNDS and rung - low > _FAR:
            safe = [r for r in smaller if chances[r] >= _SAFE]
            likeliest = max(smaller, key=lambda r: chances[r])
            secure = safe[-1] if safe else likeliest
            if left == 1:
                secure = min(secure, max(self._on_line(low), smaller[0]))
            rung = min(rung, secure)
        return rung

    def _on_line(self, low: int) -> int:
        """Where a line of losses over costs meets the promise, as measured.

        From the size of the model in store, or the largest, to the last
        measurement, whatever may come back.
        """
        last = self.measured[-1]
        if self.keeps(last.drop):
            return len(self.ladder) - 1
        if last.rung <= low:
            return low
        known = [m.drop for m in self._models() if m.rung == low]
        at_low = min([self.max_drop, *known])
        room = max(last.drop - at_low, 1e-30)
        share = (_AIM * self.max_drop - at_low) / room
        costs = [rung.cost for rung in self.ladder]
        most = costs[low] + max(share, 0.0) * (costs[last.rung] - costs[low])
        sizes = range(low, last.rung + 1)
        # A loss of minus infinity makes no line.
        return max((r for r in sizes if costs[r] <= most), default=low)

    def _base(self, before: int | None = None) -> int:
        """The last end of a round whose model was not broken; or the start.

        Args:
            before: Counts earlier rounds alone.
        """
        ends = round_ends(self.epochs)
        sound = [
            m.epoch
            for number, m in enumerate(self.measured)
            if m.epoch in ends
            and not self.is_broken(number)
            and (before is None or m.epoch < before)
        ]
        return max(sound, default=0)

    def _rung_at(self, epoch: int) -> int:
        return next((m.rung for m in self.measured if m.epoch == epoch), 0)

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
