"""The state of a search, in variables of either Keras."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from msq_tf.bit_widths import MAX_BITS
from msq_tf.core import bit_history
from msq_tf.core.bit_history import BitChange
from msq_tf.core.bit_history import Reasons
from msq_tf.core.file_facts import FileFacts
from msq_tf.rules.device_costs import DeviceCosts
from msq_tf.rules.records import RuleState

# Changes that are kept, for each weight on average: six drops from 8 bits to 2,
# and as many bits given back. No search of the rules here sees more.
_CHANGES = 12

# Name -> (shape for one weight, dtype).
PER_WEIGHT: dict[str, tuple[tuple[int, ...], str]] = {
    "bits": ((), "int32"),
    "lsb": ((), "int32"),
    "trace": ((), "float32"),
    "trace_error": ((), "float32"),
    "sensitivity": ((), "float32"),
    "sensitivity_error": ((), "float32"),
    "cost": ((MAX_BITS + 1,), "float32"),
    "lsb_nonzero": ((), "float32"),
    "initial": ((), "int32"),
    "grown": ((), "int32"),
    "log": ((_CHANGES, bit_history.COLUMNS), "float64"),
}
# Name -> (shape, dtype) of what all weights share.
SHARED: dict[str, tuple[tuple[int, ...], str]] = {
    "strength": ((), "float32"),
    "measured_loss": ((), "float32"),
    "epoch": ((), "float32"),
    "steps": ((), "int32"),
    "rule": ((len(RuleState._fields),), "float32"),
}


class SearchState:
    """Bits, pulls, statistics and progress of a search.

    A mixin: what it is mixed into provides the attributes, each with
    `numpy()` and `assign(value)`, in the shapes of `PER_WEIGHT` with the
    number of weights in front, and of `SHARED`.

    Attributes:
        bits: int32 of shape (weights,): stored bits.
        lsb: int32 of shape (weights,): how many low bits the regularizer
            pulls to zero; 0 is no pull.
        strength: float32 scalar: the regularizer's lambda, see
            `LSBRegularizer`.
        trace: float32 of shape (weights,): Hessian trace.
        trace_error: float32 of shape (weights,): its standard error.
        sensitivity: float32 of shape (weights,): `Omega`, see `LayerStats`.
        sensitivity_error: float32 of shape (weights,): its standard error.
        cost: float32 of shape (weights, MAX_BITS + 1): predicted increase of
            the loss at every width, see `StatisticsGatherer.costs`. Column 0
            has what measuring them took, in forward passes of a sample.
        measured_loss: float32 scalar: the loss when `cost` was taken.
        lsb_nonzero: float32 of shape (weights,): share of weights whose low
            bits (those of the next width) are not zero.
        initial: int32 of shape (weights,): stored bits before the search, or
            before the changes in `log` where that was full.
        grown: int32 of shape (weights,): bits that were given back.
        log: float64 of shape (weights, changes, columns): a row for each
            change of a width, see `bit_history`; NaN where there is none yet.
            Rows are in the order of time, whatever weight they are of. A
            variable has one size: once all are taken, the oldest goes.
        epoch: float32 scalar: epochs trained.
        steps: int32 scalar: steps of an epoch, where `fit` cannot know it.
        rule: float32 of shape (len(RuleState),): the rule's state.
        reasons: Why the changes in `log` were made; `None` where only numbers
            can be saved.
        device_costs: What the model takes on a device, if the search has
            budgets there.
        file_facts: What files for a device tell, if the search has one.
    """

    bits: Any
    lsb: Any
    strength: Any
    trace: Any
    trace_error: Any
    sensitivity: Any
    sensitivity_error: Any
    cost: Any
    measured_loss: Any
    lsb_nonzero: Any
    initial: Any
    grown: Any
    log: Any
    epoch: Any
    steps: Any
    rule: Any
    reasons: Reasons | None = None
    device_costs: DeviceCosts | None = None
    file_facts: FileFacts = FileFacts()

    def restart(self, bits: Any) -> None:
        """Sets bits and forgets the search that led to the old ones."""
        for name, value in fresh_values(bits).items():
            getattr(self, name).assign(value)
        if self.reasons is not None:
            self.reasons.clear()
        self.device_costs = None

    def change(self, change: BitChange, paths: Sequence[str]) -> None:
        """Gives one weight another width and logs it."""
        index = paths.index(change.path)
        widths = np.array(self.bits.numpy())
        widths[index] = change.new
        self.bits.assign(widths)
        if change.new > change.old:
            grown = np.array(self.grown.numpy())
            grown[index] += change.new - change.old
            self.grown.assign(grown)
        log = np.array(self.log.numpy())
        rows = log.reshape(-1, bit_history.COLUMNS)  # a view
        # Rows are filled in order, so the empty ones are at the end.
        place = int(np.isfinite(rows[:, 0]).sum())
        if place == len(rows):
            self._forget(bit_history.from_row(rows[0], paths), paths)
            rows[:-1] = rows[1:].copy()
            place -= 1
        rows[place] = bit_history.to_row(change, paths)
        self.log.assign(log)
        if self.reasons is not None:
            self.reasons.add(change, paths)

    def _forget(self, oldest: BitChange, paths: Sequence[str]) -> None:
        """Lets the course of a weight begin behind its oldest change."""
        initial = np.array(self.initial.numpy())
        initial[paths.index(oldest.path)] = oldest.new
        self.initial.assign(initial)
        if self.reasons is not None:
            self.reasons.drop(oldest, paths)

    def logged(self) -> np.ndarray:
        """The rows of `log` that hold a change, of shape (changes, columns)."""
        rows = np.array(self.log.numpy()).reshape(-1, bit_history.COLUMNS)
        return rows[np.isfinite(rows[:, 0])]

    def changes(self, paths: Sequence[str]) -> list[BitChange]:
        """The changes of widths so far, in the order they were made."""
        changes = [bit_history.from_row(row, paths) for row in self.logged()]
        if self.reasons is None:
            return changes
        return [self.reasons.of(change, paths) for change in changes]

    def course(self, paths: Sequence[str]) -> list[list[tuple[float, int]]]:
        """`(epoch, bits)` of every weight from the start, in order of time."""
        course = [[(0.0, int(width))] for width in self.initial.numpy()]
        for change in self.changes(paths):
            course[paths.index(change.path)].append((change.epoch, change.new))
        return course

    @property
    def rule_state(self) -> RuleState:
        """The rule's state, as the rule takes it."""
        return RuleState(*map(float, self.rule.numpy()))

    @rule_state.setter
    def rule_state(self, state: RuleState) -> None:
        self.rule.assign(np.asarray(state, np.float32))


def fresh_values(bits: Any) -> dict[str, np.ndarray]:
    """Every variable's value before a search that begins with `bits`."""
    bits = np.asarray(bits, np.int32)
    values = {
        name: np.zeros((bits.size, *shape), dtype)
        for name, (shape, dtype) in PER_WEIGHT.items()
    }
    values |= {
        name: np.zeros(shape, dtype) for name, (shape, dtype) in SHARED.items()
    }
    values["bits"] = values["initial"] = bits
    values["log"] = np.full(values["log"].shape, bit_history.EMPTY)
    return values
