"""What a precision rule sees, remembers and answers: plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

from msq_tf.round_clamp import MIN_BITS


class RuleState(NamedTuple):
    """What a rule remembers between decisions; floats, so it can be saved.

    Attributes:
        started: 1 once the search has begun.
        start_bits: Average stored bits at its beginning.
        target_bits: Average stored bits it aims for.
        decisions: Number of decisions taken.
        last_step: Training step of the last one.
        done: 1 once the target is reached: the scheme is frozen.
    """

    started: float = 0.0
    start_bits: float = 0.0
    target_bits: float = 0.0
    decisions: float = 0.0
    last_step: float = 0.0
    done: float = 0.0


@dataclasses.dataclass(frozen=True)
class LayerStats:
    """What a rule knows of one weight.

    Attributes:
        path: Name of the weight.
        size: Number of elements.
        bits: Stored bits now.
        min_bits: Fewest stored bits allowed.
        sensitivity: `Omega = Tr(H) / N * ||Q_next(w) - w||**2` at the next
            width (HAWQ-V2's form): loss per weight tensor.
        lsb_nonzero: Maps k to the share of elements whose low k bits are not
            all zero.
        cost: Maps a width to the predicted increase of the loss if this
            weight alone came to it.
    """

    path: str
    size: int
    bits: int
    min_bits: int = MIN_BITS
    sensitivity: float = 0.0
    lsb_nonzero: Mapping[int, float] = dataclasses.field(default_factory=dict)
    cost: Mapping[int, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class SearchStats:
    """What a rule knows of a model at one moment.

    Attributes:
        layers: A `LayerStats` for each quantized weight.
        progress: Share of the training that is over, from 0 to 1.
        step: Training steps taken.
        float_size: Elements of quantizable weights that stay in float; they
            count 32 bits each.
    """

    layers: Sequence[LayerStats]
    progress: float = 0.0
    step: int = 0
    float_size: int = 0

    @property
    def size(self) -> int:
        """Number of quantizable elements, those left in float included."""
        return self.float_size + sum(layer.size for layer in self.layers)

    @property
    def average_bits(self) -> float:
        """Stored bits per quantizable element."""
        stored = sum(layer.size * layer.bits for layer in self.layers)
        return (stored + 32 * self.float_size) / self.size


@dataclasses.dataclass(frozen=True)
class Change:
    """One weight's new width, and why."""

    path: str
    old: int
    new: int
    reason: str


@dataclasses.dataclass(frozen=True)
class Decision:
    """What a rule decided.

    Attributes:
        changes: New widths. A weight occurs at most once.
        lsb: Maps paths to the number of low bits that the regularizer pulls
            from now on; a path that is left out is not pulled.
    """

    changes: tuple[Change, ...] = ()
    lsb: Mapping[str, int] = dataclasses.field(default_factory=dict)
