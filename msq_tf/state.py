"""Everything a search remembers, as variables of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from msq_tf.round_clamp import MAX_BITS
from msq_tf.search import RuleState


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
        lsb_nonzero: float32 of shape (weights,): share of weights whose low
            bits (those of the next width) are not zero.
        reached: float32 of shape (weights, 9): the epoch (with its fraction)
            at which a weight came to a width; negative for never. Widths
            only fall during a search, so this is its whole history.
        epoch: float32 scalar: epochs trained.
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
        self.lsb_nonzero = self._variable("lsb_nonzero", (count,))
        self.reached = self._variable("reached", (count, MAX_BITS + 1))
        self.epoch = self._variable("epoch", ())
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
            self.lsb_nonzero,
            self.epoch,
            self.rule,
        ):
            variable.assign(np.zeros(variable.shape, np.float32))
        reached = np.full(self.reached.shape, -1.0, np.float32)
        reached[np.arange(bits.size), bits] = 0.0
        self.reached.assign(reached)

    def lower(self, index: int, bits: int, epoch: float) -> None:
        """Gives one weight a smaller width and notes when."""
        widths = self.bits.numpy()
        widths[index] = bits
        self.bits.assign(widths)
        reached = self.reached.numpy()
        reached[index, bits] = epoch
        self.reached.assign(reached)

    def history(self, index: int) -> list[tuple[float, int]]:
        """`(epoch, bits)` of one weight, in the order of time."""
        row = self.reached.numpy()[index]
        # Two drops at one decision share an epoch: the wider came first.
        return sorted(
            (
                (float(epoch), width)
                for width, epoch in enumerate(row)
                if epoch >= 0.0
            ),
            key=lambda entry: (entry[0], -entry[1]),
        )

    @property
    def rule_state(self) -> RuleState:
        """The rule's state, as the rule takes it."""
        return RuleState(*map(float, self.rule.numpy()))

    @rule_state.setter
    def rule_state(self, state: RuleState) -> None:
        self.rule.assign(np.asarray(state, np.float32))

    def get_config(self) -> dict[str, Any]:
        return {"start_bits": self.start_bits, "name": self.name}
