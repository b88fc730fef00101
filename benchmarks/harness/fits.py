"""How measurements grow: exponents of power laws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Slope of the least-squares line through the logarithms.

    1 where values are proportional to sizes; below it where a constant part
    is left in them.

    Args:
        sizes: Positive sizes, at least two different ones.
        values: Positive measurements.

    Raises:
        ValueError: If there are fewer than two sizes, or anything is not
            positive.
    """
    if len(set(sizes)) < 2 or min(*sizes, *values) <= 0:
        raise ValueError(
            "A power law needs two sizes and positive values. Received: "
            f"sizes={list(sizes)}, values={list(values)}"
        )
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])
