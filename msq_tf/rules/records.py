"""All that a rule sees, remembers and answers: names, counts and floats."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

from msq_tf.bit_widths import MAX_BITS
from msq_tf.bit_widths import MIN_BITS

# Average bits are ratios of integers: equal up to this is equal.
EPSILON = 1e-6


class Candidate(NamedTuple):
    """A change that a rule considered and did not make.

    Attributes:
        path: The weight.
        bits: The width that it would have got.
        cost: Predicted increase of the loss; NaN if none is predicted.
    """

    path: str
    bits: int
    cost: float


class RuleState(NamedTuple):
    """The memory of a rule between decisions; floats, so it can be saved.

    Attributes:
        started: 1 once the search has begun.
        start_bits: Average stored bits at its beginning.
        target_bits: Average stored bits it aims for.
        decisions: Number of decisions taken.
        last_step: Training step of the last one.
        done: 1 once the target is reached: the scheme is frozen.
        grown: Number of times that bits were given back.
    """

    started: float = 0.0
    start_bits: float = 0.0
    target_bits: float = 0.0
    decisions: float = 0.0
    last_step: float = 0.0
    done: float = 0.0
    grown: float = 0.0

    def goes_on(self, older: RuleState, slack: float = 0.0) -> bool:
        """Whether this state of a search that begins continues an older one.

        It does with the same target, unless that one was done and this one is
        not: then another budget than that of size has changed.

        Args:
            older: The older state.
            slack: Average bits by which the same target may differ.
        """
        # Both went through float32 or come from the same division.
        apart = abs(self.target_bits - older.target_bits)
        return apart < 1e-5 + slack and self.done >= older.done


@dataclasses.dataclass(frozen=True)
class LayerStats:
    """Statistics of one weight, as a rule gets them.

    Attributes:
        path: Name of the weight.
        size: Number of elements.
        bits: Stored bits now.
        min_bits: Fewest stored bits allowed.
        kind: What computes with it: `"dense"` (a matrix product),
            `"one_output"` (the same, of one column), `"pointwise"` (a
            convolution that is one per pixel), `"strided_pointwise"`, `"conv"`,
            `"depthwise"` or `"other"`.
        channels: Number of output channels.
        inputs: Elements of an output channel.
        one_scale: Whether all output channels share a scale.
        sensitivity: `Omega = Tr(H) / N * ||Q_next(w) - w||**2` at one bit
            less (HAWQ-V2's form): loss per weight tensor.
        sensitivity_error: Its standard error over the Hessian's probes.
        lsb_nonzero: Maps k to the share of elements whose low k bits are not
            all zero.
        cost: Maps each measured width, also the present one, to the predicted
            increase of the loss if this weight alone got it.
        start_bits: Stored bits at the beginning.
        grown: Bits that were given back to it.
        gain: Decrease of the loss on held-out batches if this weight alone got
            the next wider width; 0 if that was not measured.
        latency: Maps widths to the milliseconds of the device's operators that
            read the weight; empty without `DeviceCosts`.
        ram: Maps widths to the bytes of RAM in use while they run; empty where
            that is not known.
        containers: Stored bits that the device has for this very weight, widest
            first; empty for those of its kind.
    """

    path: str
    size: int
    bits: int
    min_bits: int = MIN_BITS
    kind: str = "other"
    channels: int = 0
    inputs: int = 4
    one_scale: bool = False
    sensitivity: float = 0.0
    sensitivity_error: float = 0.0
    lsb_nonzero: Mapping[int, float] = dataclasses.field(default_factory=dict)
    cost: Mapping[int, float] = dataclasses.field(default_factory=dict)
    start_bits: int = MAX_BITS
    grown: int = 0
    gain: float = 0.0
    latency: Mapping[int, float] = dataclasses.field(default_factory=dict)
    ram: Mapping[int, float] = dataclasses.field(default_factory=dict)
    containers: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class SearchStats:
    """Statistics of a model at one moment, as a rule gets them.

    Attributes:
        layers: A `LayerStats` for each quantized weight.
        progress: Share of the training that is over, from 0 to 1.
        step: Training steps taken.
        float_size: Elements of quantizable weights that stay in float; they
            count 32 bits each.
        rest_latency: Milliseconds of the operators that read no quantized
            weight.
        rest_ram: Bytes of RAM in use while they run.
        file_overhead: Bytes besides codes of a file for the rule's device;
            `None` for an estimate.
    """

    layers: Sequence[LayerStats]
    progress: float = 0.0
    step: int = 0
    float_size: int = 0
    rest_latency: float = 0.0
    rest_ram: float = 0.0
    file_overhead: float | None = None

    @property
    def size(self) -> int:
        """Number of quantizable elements, those left in float included."""
        return self.float_size + sum(layer.size for layer in self.layers)

    def average(self, stored: float) -> float:
        """Average bits of an element, of the stored bits of all layers."""
        return (stored + 32 * self.float_size) / self.size

    @property
    def latency(self) -> float:
        """Milliseconds at the widths now; 0 without `DeviceCosts`."""
        return self.rest_latency + sum(
            layer.latency.get(layer.bits, 0.0) for layer in self.layers
        )

    @property
    def ram(self) -> float:
        """Bytes of RAM at the widths now; 0 where that is not known."""
        taken = [layer.ram.get(layer.bits, 0.0) for layer in self.layers]
        return max([self.rest_ram, *taken])


@dataclasses.dataclass(frozen=True)
class Change:
    """One weight's new width, and why.

    Attributes:
        path: The weight.
        old: Its bits before.
        new: Its bits after.
        reason: Why, for a person.
        cost: Predicted increase of the loss by this change alone; NaN if the
            rule predicts none.
        next_in_line: The change that would have come next, if any.
    """

    path: str
    old: int
    new: int
    reason: str
    cost: float = math.nan
    next_in_line: Candidate | None = None


@dataclasses.dataclass(frozen=True)
class Decision:
    """The answer of a rule.

    Attributes:
        changes: New widths. A weight occurs at most once.
        lsb: Maps paths to the number of low bits on which the LSB penalty acts
            from now on; it leaves all other weights alone.
    """

    changes: tuple[Change, ...] = ()
    lsb: Mapping[str, int] = dataclasses.field(default_factory=dict)


def mean_sensitivity(layers: Sequence[LayerStats]) -> float:
    """Mean over layers, against which one width or two are decided."""
    return sum(layer.sensitivity for layer in layers) / len(layers)
