"""Measures how far the outputs of two runs are apart.

This is the one definition of agreement and of relative error. If two scores are
nearer to each other than their possible errors, they are even: either decision
is right. So two runs decide a sample alike if the class that one run chooses is
even with the best class of the other. An error is relative to the range of its
outputs.

`divergence` is that of `msq_tf.sensitivity.divergence` in numpy: processes that
run files load no TensorFlow. A test holds the two together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

# Outputs far from zero in a narrow band carry float32 noise of their size, so
# that their range is at least this share of the largest value.
_RANGE_FLOOR = 0.1
_LEAST_RANGE = 1e-6
# Probabilities are kept off zero, as Keras's losses keep them.
_EPSILON = 1e-7
# A distribution of integers adds up to one but for its rounding.
_ROUNDING = 0.02


@dataclasses.dataclass(frozen=True)
class Decision:
    """How an output decides.

    Attributes:
        threshold: What each number is compared with by itself; `None` where
            the largest along the last axis is the class.
    """

    threshold: float | None = None

    def chosen(self, values: np.ndarray) -> np.ndarray:
        """Classes that outputs choose, one for each decision.

        Args:
            values: Outputs of a shape that fits.

        Returns:
            An integer array without the last axis, or a bool array of the
            shape of `values` where there is a threshold.
        """
        if self.threshold is not None:
            return values > self.threshold
        return values.argmax(-1)

    def alike(
        self, got: np.ndarray, wanted: np.ndarray, even: float
    ) -> np.ndarray:
        """Which decisions of two runs are the same, as a flat bool array.

        Scores at most `even` apart count as even.
        """
        # Sums of units are float32 here and there.
        even *= 1.0 + 1e-4
        if self.threshold is not None:
            same = self.chosen(got) == self.chosen(wanted)
            return (same | (np.abs(wanted - self.threshold) <= even)).ravel()
        chosen = self.chosen(got)[..., None]
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


def divergence(
    decision: Decision | None, wanted: np.ndarray, got: np.ndarray
) -> float:
    """How far an output moved, as a loss with the other for the truth.

    Args:
        decision: How the output decides; `None` where there are no classes.
        wanted: The output before, samples along the first axis.
        got: The same after.

    Returns:
        The mean over decisions of the Kullback-Leibler divergence, of scores
        that are no distribution behind a softmax; where nothing is decided,
        the mean squared difference.
    """
    a, b = wanted.astype(np.float64), got.astype(np.float64)
    if decision is None or not decision.fits(a.shape):
        return float(np.square(a - b).mean())
    if decision.threshold is None:
        if not _is_distribution(a):
            a, b = _softmax(a), _softmax(b)
        a, b = _shares(a), _shares(b)
        return float((a * np.log(a / b)).sum(-1).mean())
    if decision.threshold == 0.0:
        a, b = (1.0 / (1.0 + np.exp(-np.clip(v, -50, 50))) for v in (a, b))
    a, b = (np.clip(v, _EPSILON, 1.0 - _EPSILON) for v in (a, b))
    both = a * np.log(a / b) + (1 - a) * np.log((1 - a) / (1 - b))
    return float(both.mean())


def _softmax(values: np.ndarray) -> np.ndarray:
    shifted = np.exp(values - values.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def _shares(values: np.ndarray) -> np.ndarray:
    total = np.maximum(values.sum(-1, keepdims=True), _EPSILON)
    return np.clip(values / total, _EPSILON, 1.0)


def _is_distribution(values: np.ndarray) -> bool:
    return bool(
        (values >= 0).all() and np.allclose(values.sum(-1), 1.0, atol=_ROUNDING)
    )
