"""Everything a search remembers, as variables of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from msq_tf import history
from msq_tf.history import BitChange
from msq_tf.round_clamp import MAX_BITS
from msq_tf.search import RuleState

# Changes that one weight can see at most: six drops from 8 bits to 2, and as
# many bits given back.
_CHANGES = 12


@keras.saving.register_keras_serializable(package="msq_tf")
class SearchVariables(keras.layers.Layer):
    """Bits, pulls, statistics and progress of a search.

    Held as non-trainable variables, so that `.keras`, `.weights.h5` and
    `BackupAndRestore` bring back a search exactly as it stood.

    Args:
        start_bits: Stored bits of each quantized weight at the start.
        name: Name of the layer.

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
            the loss at every width, see `StatisticsGatherer.costs`.
        measured_loss: float32 scalar: the loss when `cost` was taken.
        lsb_nonzero: float32 of shape (weights,): share of weights whose low
            bits (those of the next width) are not zero.
        initial: int32 of shape (weights,): stored bits before the search.
        grown: int32 of shape (weights,): bits that were given back.
        log: float64 of shape (capacity, columns): a row for each change of
            a width, see `history`; NaN where there is none yet.
        epoch: float32 scalar: epochs trained.
        steps: int32 scalar: steps of an epoch, where `fit` cannot know it.
        rule: float32 of shape (len(RuleState),): the rule's state.
    """

    def __init__(self, start_bits: Sequence[int], name: str | None = None):
        super().__init__(name=name, dtype="float32", trainable=False)
        self.start_bits = [int(width) for width in start_bits]
        count = len(self.start_bits)
        self.bits = self._variable("bits", (count,), "int32")
        self.lsb = self._variable("lsb", (count,), "int32")
        self.strength = self._variable("strength", ())
        self.trace = self._variable("trace", (count,))
        self.trace_error = self._variable("trace_error", (count,))
        self.sensitivity = self._variable("sensitivity", (count,))
        self.sensitivity_error = self._variable("sensitivity_error", (count,))
        self.cost = self._variable("cost", (count, MAX_BITS + 1))
        self.measured_loss = self._variable("measured_loss", ())
        self.lsb_nonzero = self._variable("lsb_nonzero", (count,))
        self.initial = self._variable("initial", (count,), "int32")
        self.grown = self._variable("grown", (count,), "int32")
        self.log = self._variable(
            "log", (count * _CHANGES, history.COLUMNS), "float64"
        )
        self.epoch = self._variable("epoch", ())
        self.steps = self._variable("steps", (), "int32")
        self.rule = self._variable("rule", (len(RuleState._fields),))
        self.built = True
        self.restart(self.start_bits)

    def _variable(
        self, name: str, shape: tuple[int, ...], dtype: str = "float32"
    ) -> Any:
        return self.add_weight(
            name=name,
            shape=shape,
            dtype=dtype,
            initializer="zeros",
            trainable=False,
            autocast=False,
        )

    def call(self) -> None:
        """Holds state only."""

    def restart(self, bits: Any) -> None:
        """Sets bits and forgets the search that led to the old ones."""
        bits = np.asarray(bits, np.int32)
        self.bits.assign(bits)
        self.lsb.assign(np.zeros_like(bits))
        self.strength.assign(0.0)
        for variable in (
            self.trace,
            self.trace_error,
            self.sensitivity,
            self.sensitivity_error,
            self.cost,
            self.measured_loss,
            self.lsb_nonzero,
            self.grown,
            self.epoch,
            self.steps,
            self.rule,
        ):
            variable.assign(np.zeros(variable.shape, variable.dtype))
        self.initial.assign(bits)
        self.log.assign(np.full(self.log.shape, history.EMPTY))

    def change(self, change: BitChange, paths: Sequence[str]) -> None:
        """Gives one weight another width and logs it.

        Args:
            change: What is changed, and what was known.
            paths: Names of the weights, in their order.
        """
        index = paths.index(change.path)
        widths = self.bits.numpy()
        widths[index] = change.new
        self.bits.assign(widths)
        if change.new > change.old:
            grown = self.grown.numpy()
            grown[index] += change.new - change.old
            self.grown.assign(grown)
        log = self.log.numpy()
        # Rows are filled in order, so the empty ones are at the end.
        log[int(np.isfinite(log[:, 0]).sum())] = history.to_row(change, paths)
        self.log.assign(log)

    def changes(self, paths: Sequence[str]) -> list[BitChange]:
        """All changes of widths so far, in the order they were made."""
        return [
            history.from_row(row, paths)
            for row in self.log.numpy()
            if np.isfinite(row[0])
        ]

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

    def get_config(self) -> dict[str, Any]:
        return {"start_bits": self.start_bits, "name": self.name}
