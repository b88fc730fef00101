"""What a search did, change by change: from variables to records and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from msq_tf.rules.rule import Candidate


class BitChange(NamedTuple):
    """One change of one weight's width, and what was known at that moment.

    Attributes:
        step: Training steps taken.
        epoch: Epochs trained, with their fraction.
        path: The weight.
        old: Stored bits before.
        new: Stored bits after.
        cost: Predicted increase of the loss by this change alone; NaN where
            the rule predicts none.
        lsb_nonzero: Share of elements whose bits between the two widths are
            not all zero; NaN where bits were given back.
        sensitivity: `Omega = Tr(H) / N * ||Q(w) - w||**2` at the next width.
        sensitivity_error: Its standard error over the Hessian's probes.
        next_in_line: The change that would have come next; `None` where
            nothing else was left.
        reason: Why, in the words of the rule, when the change is made: in the
            log, in the line that is printed. A model keeps numbers only, so
            that a search which goes on ends as one that was never stopped.
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
