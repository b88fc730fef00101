"""Names of the channels of a network; some channels are one and the same.

A convolution computes channels; a batch norm, a pooling or an activation passes
them on; an addition ties two of them: either both go, or none. Each channel has
a number here, numbers of tied channels are tied, and a channel that has to stay
is pinned, with the reason.
"""

from __future__ import annotations

import numpy as np


class ChannelIds:
    """Numbers of channels, in classes of those that are one channel."""

    def __init__(self) -> None:
        self._above: list[int] = []
        self._reasons: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._above)

    def new(self, count: int, reason: str = "") -> np.ndarray:
        """Makes numbers for channels that nothing is known of yet.

        Args:
            count: How many.
            reason: Why they have to stay; empty where they may go.

        Returns:
            int64 array of shape (count,).
        """
        ids = np.arange(len(self), len(self) + count)
        self._above.extend(range(len(self), len(self) + count))
        if reason:
            self.pin(ids, reason)
        return ids

    def root(self, number: int) -> int:
        """The number that stands for the class of another one."""
        while self._above[number] != number:
            # Paths are halved on the way, so that they stay short.
            self._above[number] = self._above[self._above[number]]
            number = self._above[number]
        return number

    def roots(self, ids: np.ndarray) -> np.ndarray:
        """`root` of every number."""
        return np.array([self.root(number) for number in ids], np.int64)

    def tie(self, ids: np.ndarray, others: np.ndarray) -> None:
        """Makes channels one, pair by pair; a reason to stay is for both."""
        for one, other in zip(ids, others, strict=True):
            low, high = sorted((self.root(one), self.root(other)))
            if low != high:
                self._above[high] = low
                reason = self._reasons.pop(high, "")
                if reason:
                    self._reasons.setdefault(low, reason)

    def pin(self, ids: np.ndarray, reason: str) -> None:
        """Says why channels have to stay; the first reason counts."""
        for number in ids:
            self._reasons.setdefault(self.root(number), reason)

    def reason(self, number: int) -> str:
        """Why a channel has to stay; empty where it may go."""
        return self._reasons.get(self.root(number), "")
