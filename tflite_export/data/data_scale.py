"""How large numbers are, to tell data of one scale from that of another."""

from __future__ import annotations

import dataclasses

import numpy as np

# From here on data is worth a word: two of eight bits.
OTHER = 4.0
# Rows of an array that are looked at, from its begin to its end.
_ROWS = 256


@dataclasses.dataclass(frozen=True)
class DataScale:
    """How large numbers are: their farthest end, and their mean magnitude."""

    low: float
    high: float
    magnitude: float

    @classmethod
    def of(cls, array: np.ndarray) -> DataScale:
        """The scale of an array that is not empty."""
        numbers = array.astype(np.float64)
        return cls(
            float(numbers.min()),
            float(numbers.max()),
            float(np.abs(numbers).mean()),
        )

    @classmethod
    def of_rows(cls, array: np.ndarray) -> DataScale:
        """The scale of some rows of an array, evenly apart."""
        return cls.of(array[:: -(-len(array) // _ROWS)])

    @property
    def end(self) -> float:
        return max(abs(self.low), abs(self.high))

    def times(self, other: DataScale) -> float:
        """By how much it is larger, at least; below 1 where it is smaller.

        1 where ends and magnitudes do not say the same.
        """
        if not (self.end and other.end and self.magnitude and other.magnitude):
            return 1.0
        ratios = self.end / other.end, self.magnitude / other.magnitude
        if min(ratios) > 1.0:
            return min(ratios)
        return max(ratios) if max(ratios) < 1.0 else 1.0

    def __str__(self) -> str:
        return f"{self.low:.3g} to {self.high:.3g}"


def in_words(times: float) -> str:
    """The words for `DataScale.times`, before what it is compared with."""
    if times > 1.0:
        return f"{times:.3g} times as large as"
    return f"{1.0 / times:.3g} times smaller than"
