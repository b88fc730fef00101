"""The knowledge of a search for a tolerance, for a run that resumes it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from msq_tf import distribute
from msq_tf.rules.course import Course
from msq_tf.rules.course import Measured
from msq_tf.rules.tolerance import Rung
from msq_tf.rules.tolerance import ToleranceRule


class Record(NamedTuple):
    """An epoch that was measured.

    Attributes:
        epoch: Epochs of this search, from 1.
        rung: Place of its size in the ladder.
        value: The metric.
        decisions: Decisions of the search once what follows from it is done;
            0 if nothing does.
        bits: Stored bits of each weight; empty in journals of earlier versions.
    """

    epoch: int
    rung: int
    value: float
    decisions: int = 0
    bits: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Journal:
    """All that was measured, and for what promise.

    Attributes:
        settings: What the promise is, for a run that resumes.
        first: Epochs of `fit` before the search.
        reference: The metric of the float model.
        ladder: The sizes.
        untrained: `(rung, metric)` of sizes that were measured before training,
            the largest first.
        records: The epochs since.
        next_best: Whether weights of the next best are stored; searches of
            earlier versions go on without.
    """

    settings: Mapping[str, Any]
    first: int
    reference: float
    ladder: tuple[Rung, ...]
    untrained: tuple[tuple[int, float], ...] = ()
    records: tuple[Record, ...] = ()
    next_best: bool = True

    @property
    def epochs(self) -> int:
        """Epochs of the search."""
        return int(self.settings["epochs"]) - self.first

    def value(self, epoch: int, rung: int) -> float:
        """The metric of a size after an epoch; 0 is before training."""
        if not epoch:
            return dict(self.untrained)[rung]
        return next(r.value for r in self.records if r.epoch == epoch)

    def bits_of(self, epoch: int) -> tuple[int, ...]:
        """The bits of each weight after an epoch; empty if not noted."""
        return next(r.bits for r in self.records if r.epoch == epoch)

    def rung_at(self, budget: float) -> int:
        """The size of a budget, in average stored bits."""
        return min(
            range(len(self.ladder)),
            key=lambda rung: abs(self.ladder[rung].budget - budget),
        )

    def with_record(self, record: Record) -> Journal:
        """The journal with one more epoch."""
        return dataclasses.replace(self, records=(*self.records, record))

    def course(self, rule: ToleranceRule) -> Course:
        """The course that follows from the measurements."""
        course = Course(
            ladder=self.ladder,
            epochs=self.epochs,
            max_drop=rule.max_drop,
            keeps=rule.keeps,
            untrained=tuple(
                Measured(0, rung, rule.drop(value, self.reference))
                for rung, value in self.untrained
            ),
            stored=(0,),
            diverged=rule.diverged(self.reference),
            stores_next_best=self.next_best,
        )
        for record in self.records:
            drop = rule.drop(record.value, self.reference)
            course = course.with_epoch(
                Measured(record.epoch, record.rung, drop)
            )
        return course

    def to_json(self) -> dict[str, Any]:
        """The journal as JSON has it; `from_json` reads it."""
        return {
            "settings": dict(self.settings),
            "first": self.first,
            "reference": self.reference,
            "ladder": [list(rung) for rung in self.ladder],
            "untrained": [[r, _as_json(v)] for r, v in self.untrained],
            "records": [
                record._replace(value=_as_json(record.value))._asdict()
                for record in self.records
            ],
            "next_best": self.next_best,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Journal:
        """Reads what `to_json` made.

        Raises:
            ValueError: If it is something else.
        """
        try:
            return cls(
                settings=dict(found["settings"]),
                first=int(found["first"]),
                reference=float(found["reference"]),
                ladder=tuple(Rung(*map(float, row)) for row in found["ladder"]),
                untrained=tuple(
                    (int(rung), float(value))
                    for rung, value in found["untrained"]
                ),
                records=tuple(
                    Record(
                        int(row["epoch"]),
                        int(row["rung"]),
                        float(row["value"]),
                        int(row["decisions"]),
                        tuple(map(int, row.get("bits", ()))),
                    )
                    for row in found["records"]
                ),
                next_best=bool(found.get("next_best", False)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                "The journal of a search for a tolerance does not fit. "
                f"Expected what the search wrote. Received: {error!r}"
            ) from error


def settings_of(rule: ToleranceRule, epochs: int) -> dict[str, Any]:
    """The settings that a run and the one that resumes it agree on."""
    return {
        "max_drop": rule.max_drop,
        "monitor": rule.name,
        "mode": rule.mode,
        "unit": rule.unit,
        "device": rule.device,
        "allowed_bits": rule.allowed_bits and list(rule.allowed_bits),
        "epochs": epochs,
    }


def of_same_search(
    found: Mapping[str, Any], rule: ToleranceRule, epochs: int
) -> Journal:
    """Reads the journal of a run that is resumed.

    Raises:
        ValueError: If it is that of another search.
    """
    journal, mine = Journal.from_json(found), settings_of(rule, epochs)
    if journal.settings != mine:
        raise ValueError(
            "The folder has the search for another tolerance. Expected "
            f"{dict(journal.settings)}. Received: {mine}"
        )
    return journal


def from_chief(
    strategy: tf.distribute.Strategy, journal: dict[str, Any] | None
) -> dict[str, Any] | None:
    """The journal that the chief has read, on every worker."""
    if distribute.workers(strategy) == 1:
        return journal
    text = json.dumps(journal).encode()
    (size,) = distribute.from_chief(strategy, [np.array(len(text))])
    mine = np.frombuffer(text[: int(size)].ljust(int(size)), np.uint8)
    (sent,) = distribute.from_chief(strategy, [mine])
    return json.loads(sent.tobytes())


def _as_json(value: float) -> Any:
    """A number as JSON has it; others as text that `float` reads."""
    return value if math.isfinite(value) else repr(value)
