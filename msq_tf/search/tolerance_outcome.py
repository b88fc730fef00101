"""How a search for a tolerance ended, as data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from msq_tf.rules.course import Course
from msq_tf.rules.course import Measured
from msq_tf.rules.tolerance import ToleranceRule
from msq_tf.search.tolerance_journal import Journal


@dataclasses.dataclass(frozen=True)
class ToleranceOutcome:
    """How a search for a tolerance ended.

    Attributes:
        kept: Whether the model that it handed over keeps the promise.
        epoch: The epoch that the model is of; 0 for before training.
        value: Its metric on held-out data.
        reference: The metric of the float model.
        drop: What it lost, in `unit`.
        unit: As `ToleranceRule.unit`.
        bytes: Its size; of the whole file where the rule has a device, but for
            an Ethos-U, see `ToleranceRule`.
        trials: `(epoch, bytes, drop)` of every epoch that was measured.
    """

    kept: bool
    epoch: int
    value: float
    reference: float
    drop: float
    unit: str
    bytes: int
    trials: tuple[tuple[int, int, float], ...]


def outcome_of(
    rule: ToleranceRule,
    journal: Journal,
    known: Course,
    best: Measured,
    value: float,
    bytes_of: Callable[[int], float],
) -> ToleranceOutcome:
    """The outcome of a search that hands a model over.

    Args:
        rule: What was promised.
        journal: What was measured.
        known: The course that follows from it.
        best: The model.
        value: Its metric, as it was measured last.
        bytes_of: Function of a place in the ladder.
    """
    drop = rule.drop(value, journal.reference)
    return ToleranceOutcome(
        kept=rule.keeps(drop),
        epoch=best.epoch + journal.first,
        value=value,
        reference=journal.reference,
        drop=drop,
        unit=rule.unit_for(journal.reference),
        bytes=round(bytes_of(best.rung)),
        trials=tuple(
            (m.epoch + journal.first, round(bytes_of(m.rung)), m.drop)
            for m in known.measured
        ),
    )
