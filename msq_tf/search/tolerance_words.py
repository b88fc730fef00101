"""The words of a search for a tolerance, for a person."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from collections.abc import Sequence

from msq_tf.rules.course import Course
from msq_tf.rules.course import Measured
from msq_tf.rules.course import Move
from msq_tf.rules.records import LayerStats
from msq_tf.rules.tolerance import METRIC
from msq_tf.rules.tolerance import PERCENT
from msq_tf.rules.tolerance import ToleranceRule


@dataclasses.dataclass(frozen=True)
class Words:
    """The sentences of one search.

    Attributes:
        rule: What is promised.
        course: What was measured.
        reference: The metric of the float model.
        bytes_at: Bytes at average stored bits.
        first: Epochs of `fit` before the search.
    """

    rule: ToleranceRule
    course: Course
    reference: float
    bytes_at: Callable[[float], float]
    first: int = 0

    def bytes_of(self, rung: int) -> float:
        """Bytes of a size."""
        return self.bytes_at(self.course.ladder[rung].average)

    def expected(self) -> list[str]:
        """Says what to expect, before training."""
        rule, known = self.rule, self.course
        name = rule.name
        least = "at most" if rule.mode == "min" else "at least"
        lines = [
            f"MSQ: the float model has {name} {self.reference:.4f}; it may "
            f"lose {self._amount(rule.max_drop)}: {least} {self._bound():.4f}"
        ]
        widest, narrowest = 0, len(known.ladder) - 1
        span = (
            f"sizes from {self._size(widest)} to {self._size(narrowest)} "
            "will be tried"
        )
        if not narrowest:
            return [*lines, f"MSQ: {self._size(0)} is the only size"]
        if not known.untrained:
            return [*lines, f"MSQ: {span}; nothing is known of them yet"]
        first = known.untrained[0]
        kept = [m for m in known.untrained if rule.keeps(m.drop)]
        if not rule.keeps(first.drop):
            lines.append(
                f"MSQ: even at {self._size(0)}, the largest size, it loses "
                f"{self._amount(first.drop)} before fine-tuning, which would "
                "have to win that back"
            )
        else:
            lines.append(
                "MSQ: without fine-tuning, "
                f"{self._size(max(m.rung for m in kept))} keeps that"
            )
        guess = known.next_rung()
        lines.append(
            f"MSQ: with fine-tuning about {self._size(guess)} is expected; "
            + span
        )
        if known.epochs < 10:
            lines.append(
                f"MSQ: {known.epochs} epochs allow {known.epochs - 1} trials; "
                "with 10 or more a search comes closer to the best size"
            )
        return lines

    def one_size(self, layers: Sequence[LayerStats]) -> str:
        """Warns that there is nothing to choose from."""
        return (
            f"A search for a tolerance has one size only, {self._size(0)}. "
            f"{self.rule.remedy(layers)}Expected narrower widths that layers "
            f"may come to ({self.rule.limited_by}). Received: "
            f"allowed_bits={self.rule.allowed_bits}, "
            f"device={self.rule.device!r}"
        )

    def moved(self, epoch: int, value: float, drop: float, move: Move) -> str:
        """Why a size follows another, after a round."""
        now = self.course.measured[-1].rung
        found = (
            f"MSQ epoch {epoch + self.first}: {self.rule.name} "
            f"{self._number(value)}, {self._of_allowed(drop)} at "
            f"{self._size(now)}"
        )
        if self.course.is_broken():
            found += (
                " (training broke it; if that happens again, lower the "
                "learning rate)"
            )
        elif not self.rule.keeps(drop):
            fades = max(min(self.course.fades(), drop), 0.0)
            found += f" ({self._amount(fades)} of it are expected to come back)"
        if move.rung == now:
            follows = "stays" if move.passed else "goes on there"
        elif move.rung > now:
            follows = f"on to {self._size(move.rung)}"
        else:
            follows = f"back to {self._size(move.rung)}"
        if move.back_to == 0:
            follows += ", with the weights from before training"
        elif move.back_to is not None and move.back_to != epoch:
            follows += (
                f", with the weights of epoch {move.back_to + self.first}"
            )
        return f"{found}: {follows}"

    def back_to(self, epoch: int) -> str:
        """Why widths change at the end."""
        if not epoch:
            return "the model from before training is handed over"
        return f"the model of epoch {epoch + self.first} is handed over"

    def handed(self, best: Measured, value: float, drop: float) -> str:
        """Says what the search ends with, where the promise is kept."""
        of = self._of_epoch(best.epoch)
        line = (
            f"MSQ: hands over the model {of}: {self.rule.name} "
            f"{self._number(value)}, {self._of_allowed(drop)}, at "
            f"{self._size(best.rung)}; verified on held-out data"
        )
        if best.epoch != self.course.measured[-1].epoch:
            last = self.course.measured[-1]
            why = "is larger" if last.rung < best.rung else "lost more"
            if not self.rule.keeps(last.drop):
                why = f"lost {self._amount(last.drop)}"
            elif last.rung == best.rung:
                why = "is no better"
            line += f". The last one {why}"
        if not best.epoch and all(
            not self.rule.keeps(m.drop) for m in self.course.measured
        ):
            line += (
                ". No epoch of training kept it: a lower learning rate, or one "
                "that falls to zero, may reach smaller sizes"
            )
        return line

    def broken(
        self, best: Measured, value: float, drop: float, measured: bool
    ) -> str:
        """Warns that the promise is not kept."""
        of = self._of_epoch(best.epoch)
        if measured and not math.isfinite(value):
            return (
                f"The promise of {self._amount(self.rule.max_drop)} is NOT "
                f"verified: {self.rule.name} gave no number when it was "
                f"measured again of the model {of}, which had kept it."
            )
        if measured:
            return (
                f"The promise of {self._amount(self.rule.max_drop)} is NOT "
                f"kept: the model {of} kept it when it was measured, and does "
                f"not now that its weights are back: {self.rule.name} "
                f"{self._number(value)}, {self._amount(drop)} lost. Something "
                "else changes weights or what is measured, such as a callback "
                "that averages weights."
            )
        size = self._size(best.rung)
        why = "No size that was tried kept it"
        if not best.rung:
            why = (
                f"Not even the largest size, {self._size(0)}, kept it: the "
                "search cannot"
            )
        return (
            f"The promise of {self._amount(self.rule.max_drop)} is NOT kept. "
            f"{why}. The model {of} is handed over, which lost least: "
            f"{self.rule.name} {self._number(value)} against "
            f"{self.reference:.4f} of the float model, {self._amount(drop)} "
            f"lost, at {size}. A longer training, a lower learning rate or a "
            "larger `max_drop` may help."
        )

    def constant(self, value: float) -> str:
        """Warns of a metric that never moves."""
        return (
            f"{self.rule.name} was {value:.4f} after every epoch, at all "
            f"sizes. Expected a metric that tells models apart. Received: the "
            f"same value {len(self.course.measured)} times"
        )

    def _of_epoch(self, epoch: int) -> str:
        if not epoch:
            return "from before training"
        return f"of epoch {epoch + self.first}"

    def _bound(self) -> float:
        step = self.rule.max_drop
        unit = self.rule.unit_for(self.reference)
        if unit == PERCENT:
            step *= abs(self.reference) / 100.0
        elif unit != METRIC:
            step /= 100.0
        return self.reference + (step if self.rule.mode == "min" else -step)

    def _amount(self, drop: float) -> str:
        unit = self.rule.unit_for(self.reference)
        if not math.isfinite(drop):
            return "everything (no number)"
        if unit == METRIC:
            return f"{drop:.4g}"
        if unit == PERCENT:
            return f"{drop:.3g}%"
        return f"{drop:.3g} point{'' if abs(drop) == 1.0 else 's'}"

    def _of_allowed(self, drop: float) -> str:
        allowed = self._amount(self.rule.max_drop)
        if drop < 0.0:
            return f"{self._amount(-drop)} better than the float model"
        return f"{self._amount(drop)} lost of {allowed} allowed"

    def _number(self, value: float) -> str:
        return f"{value:.4f}" if math.isfinite(value) else "no number"

    def _size(self, rung: int) -> str:
        average = self.course.ladder[rung].average
        return f"{self.bytes_of(rung):,.0f} bytes ({32 / average:.3g}x)"
