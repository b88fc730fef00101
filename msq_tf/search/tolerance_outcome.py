"""How a search for a tolerance ended, as data."""

from __future__ import annotations

import dataclasses


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
        bytes: Its size; of the whole file where the rule has a device.
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
