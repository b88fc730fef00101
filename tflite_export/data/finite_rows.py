"""Samples that are no numbers, and which they are."""

from __future__ import annotations

import numpy as np


def check_finite(array: np.ndarray, what: str, seen: int = 0) -> None:
    """Refuses samples with NaN or infinite values.

    Args:
        array: Samples along the first axis.
        what: What they are, for the message.
        seen: Number of samples before them.

    Raises:
        ValueError: If there are such.
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
