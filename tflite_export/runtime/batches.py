"""Outputs of several batches as those of all samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def joined(
    results: Sequence[Sequence[np.ndarray]], rows: int, fed: int
) -> list[np.ndarray]:
    """Outputs of batches behind each other, without what filled up the last.

    Args:
        results: By batch, one array an output.
        rows: Number of samples.
        fed: Number of samples that ran. An output may have another number of
            rows, but as many for each.
    """
    found = []
    for parts in zip(*results, strict=True):
        whole = np.concatenate([np.atleast_1d(array) for array in parts])
        found.append(whole[: -(-len(whole) * rows // fed)])
    return found
