"""Changes of a search, from variables to records and back."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np

from msq_tf.rules.records import Candidate
from msq_tf.rules.records import Change
from msq_tf.rules.records import LayerStats


class BitChange(NamedTuple):
    """A record of one change of one weight's width.

    Attributes:
        step: Training steps taken.
        epoch: Epochs trained, with their fraction.
        path: The weight.
        old: Stored bits before.
        new: Stored bits after.
        cost: Predicted increase of the loss by this change alone; NaN if the
            rule predicts none.
        lsb_nonzero: Share of elements with a nonzero bit among the bits that
            went; NaN if bits were given back.
        sensitivity: `Omega = Tr(H) / N * ||Q(w) - w||**2` at the next width.
        sensitivity_error: Its standard error over the Hessian's probes.
        next_in_line: The change that would have come next; `None` if nothing
            else was left.
        reason: The reason, in the words of the rule. Empty on workers that
            follow the chief, in models from files of earlier versions, and in
            the history of tf_keras models: their files hold numbers only, and
            the log has the reason.
    """

    step: int
    epoch: float
    path: str
    old: int
    new: int
    cost: float
    lsb_nonzero: float
    sensitivity: float
    sensitivity_error: float
    next_in_line: Candidate | None
    reason: str = ""

    @classmethod
    def of(
        cls, change: Change, step: int, epoch: float, layer: LayerStats
    ) -> BitChange:
        """The record of a change, with its time and what was known then."""
        return cls(
            step=step,
            epoch=epoch,
            path=change.path,
            old=change.old,
            new=change.new,
            cost=change.cost,
            lsb_nonzero=layer.lsb_nonzero.get(
                change.old - change.new, math.nan
            ),
            sensitivity=layer.sensitivity,
            sensitivity_error=layer.sensitivity_error,
            next_in_line=change.next_in_line,
            reason=change.reason,
        )


class Reasons:
    """Reasons of changes: the words that no row of numbers holds."""

    def __init__(self) -> None:
        self._texts: dict[tuple[int, int, int], str] = {}

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, change: BitChange, paths: Sequence[str]) -> None:
        """Keeps the reason of a change, if it has one."""
        if change.reason:
            self._texts[_key(change, paths)] = change.reason

    def drop(self, change: BitChange, paths: Sequence[str]) -> None:
        """Forgets the reason of a change."""
        self._texts.pop(_key(change, paths), None)

    def clear(self) -> None:
        """Forgets all reasons."""
        self._texts.clear()

    def of(self, change: BitChange, paths: Sequence[str]) -> BitChange:
        """The change with its reason, as far as that is known."""
        return change._replace(reason=self._texts.get(_key(change, paths), ""))

    def to_array(self) -> np.ndarray:
        """All reasons as bytes for a file, uint8 of one dimension."""
        rows = [[*key, text] for key, text in self._texts.items()]
        return np.frombuffer(json.dumps(rows).encode(), np.uint8)

    def load(self, array: Any) -> None:
        """Takes what `to_array` gave, in the place of what was there.

        Raises:
            ValueError: If it is something else.
        """
        try:
            rows = json.loads(np.asarray(array, np.uint8).tobytes())
            texts = {(step, at, new): text for step, at, new, text in rows}
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                "The file holds reasons of changes that can't be read. "
                f"Expected JSON. Received: {error}"
            ) from None
        wrong = [
            (*key, text)
            for key, text in texts.items()
            if [*map(type, key), type(text)] != [int, int, int, str]
        ]
        if wrong:
            raise ValueError(
                "The file holds reasons of changes that are none. Expected "
                "[step, place of the weight, bits, text]. Received: "
                f"{list(wrong[0])!r}"
            )
        self._texts = texts


def _key(change: BitChange, paths: Sequence[str]) -> tuple[int, int, int]:
    return int(change.step), paths.index(change.path), int(change.new)


# Columns of the variable that holds the history.
COLUMNS = 12
# A row that holds no change yet.
EMPTY = math.nan


def to_row(change: BitChange, paths: Sequence[str]) -> np.ndarray:
    """One change as float64 numbers, of shape (COLUMNS,)."""
    following = change.next_in_line
    candidate: tuple[float, ...] = (EMPTY, EMPTY, EMPTY)
    if following is not None:
        path, bits, cost = following
        candidate = (paths.index(path), bits, cost)
    index = paths.index(change.path)
    return np.array([*change[:2], index, *change[3:9], *candidate], np.float64)


def from_row(row: np.ndarray, paths: Sequence[str]) -> BitChange:
    """The inverse of `to_row`."""
    following = None
    if not math.isnan(row[9]):
        following = Candidate(paths[int(row[9])], int(row[10]), float(row[11]))
    step, epoch, index, old, new, cost, share, omega, error = row[:9].tolist()
    return BitChange(
        int(step),
        epoch,
        paths[int(index)],
        int(old),
        int(new),
        cost,
        share,
        omega,
        error,
        following,
    )


def newer(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The rows that `after` has beyond `before`, whose oldest may have gone."""
    for count in range(len(after)):
        kept = after[: len(after) - count]
        old = before[max(0, len(before) - len(kept)) :]
        if np.array_equal(kept, old, equal_nan=True):
            return after[len(kept) :]
    return after
