"""Measures how far the outputs of two runs are apart.

This is the one definition of agreement and of relative error. If two scores are
nearer to each other than their possible errors, they are even: either decision
is right. So two runs decide a sample alike if the class that one run chooses is
even with the best class of the other. An error is relative to the range of its
outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

# Outputs far from zero in a narrow band carry float32 noise of their size, so
# that their range is at least this share of the largest value.
_RANGE_FLOOR = 0.1
_LEAST_RANGE = 1e-6


@dataclasses.dataclass(frozen=True)
class Decision:
    """How an output decides.

    Attributes:
        threshold: What each number is compared with by itself; `None` where
            the largest along the last axis is the class.
    """

    threshold: float | None = None

    def alike(
        self, got: np.ndarray, wanted: np.ndarray, even: float
    ) -> np.ndarray:
        """Which decisions of two runs are the same, as a flat bool array.

        Scores at most `even` apart count as even.
        """
        # Sums of units are float32 here and there.
        even *= 1.0 + 1e-4
        if self.threshold is not None:
            same = (got > self.threshold) == (wanted > self.threshold)
            return (same | (np.abs(wanted - self.threshold) <= even)).ravel()
        chosen = got.argmax(-1)[..., None]
        best = np.take_along_axis(wanted, chosen, -1)[..., 0]
        return (best >= wanted.max(-1) - even).ravel()

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether an output of a shape has several classes."""
        if self.threshold is not None:
            return True
        return len(shape) > 1 and shape[-1] > 1


def agreement(got: np.ndarray, wanted: np.ndarray) -> float:
    """Share of samples of which two runs choose the same class.

    The class is the largest score along the last axis; one of several largest
    of `wanted` is as good as another.
    """
    return float(Decision().alike(got, wanted, 0.0).mean())


def spread(values: np.ndarray) -> float:
    """The range of an output, which its errors are relative to.

    Returns:
        The distance of its finite values, or what stands for it where that is
        next to nothing; positive.
    """
    values = values[np.isfinite(values)].astype(np.float64)
    apart = values.max(initial=-np.inf) - values.min(initial=np.inf)
    top = np.abs(values).max(initial=0.0)
    return float(max(apart, _RANGE_FLOOR * top, _LEAST_RANGE))
