"""Samples that are no numbers, and which they are."""

from __future__ import annotations

import numpy as np


def check_finite(array: np.ndarray, what: str, seen: int = 0) -> None:
    """Raises a ValueError for samples with NaN or infinite values.

    `what` they are is for the message, and how many were `seen` before them.
    """
    if array.dtype.kind != "f":
        return
    wrong = ~np.isfinite(array)
    if not wrong.any():
        return
    rows = np.flatnonzero(wrong.reshape(len(array), -1).any(axis=1))
    first = array[rows[0]]
    value = first[~np.isfinite(first)].ravel()[0]
    more = f" and in {len(rows) - 1} more samples" * (len(rows) > 1)
    raise ValueError(
        f"Expected finite numbers in {what}. Received: {value} in sample "
        f"{seen + rows[0]}{more}"
    )
