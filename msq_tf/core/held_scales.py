"""Scales that stay while weights train, for either Keras."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import numpy as np
import tensorflow as tf


class HeldScales(abc.ABC):
    """The scales of all weights, and the widths that they were taken at.

    A mixin of what holds them in variables.
    """

    @abc.abstractmethod
    def scales(self) -> tf.Tensor:
        """float32 vector of the scales of all weights, in their order."""

    @abc.abstractmethod
    def widths(self) -> tf.Tensor:
        """int32 tensor of shape (weights,): their stored bits, 0 for none."""

    @abc.abstractmethod
    def counts(self) -> Sequence[int]:
        """How many scales each weight has."""

    @abc.abstractmethod
    def assign(self, scales: np.ndarray, widths: np.ndarray) -> None:
        """Takes others, in the shapes of `scales` and `widths`."""

    def part(self, indices: Sequence[int]) -> HeldScales:
        """Those of some weights, by their places; they cannot be assigned."""
        return _Part(self, indices)


class _Part(HeldScales):
    """The scales of some weights of a whole."""

    def __init__(self, whole: HeldScales, indices: Sequence[int]):
        counts = whole.counts()
        ends = np.cumsum(counts)
        self._whole = whole
        self._indices = list(indices)
        self._counts = [counts[i] for i in indices]
        self._places = np.concatenate(
            [np.arange(ends[i] - counts[i], ends[i]) for i in indices]
        )

    def scales(self) -> tf.Tensor:
        return tf.gather(self._whole.scales(), self._places)

    def widths(self) -> tf.Tensor:
        return tf.gather(self._whole.widths(), self._indices)

    def counts(self) -> Sequence[int]:
        return self._counts

    def assign(self, scales: np.ndarray, widths: np.ndarray) -> None:
        raise NotImplementedError("A part of the scales is read alone.")
