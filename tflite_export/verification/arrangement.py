"""The order of numbers at a quantization point, in a file and in Keras."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Move = tuple[tuple[int, ...], np.ndarray | None]


def arranged(
    codes: np.ndarray, own: np.ndarray, moves: Sequence[Move]
) -> np.ndarray:
    """Puts what a file has at a site into the order that Keras has there.

    The converter moves the rounding of a site behind a RESHAPE or TRANSPOSE.
    Shapes do not always say behind which; the closest arrangement does.
    `moves` has each operator that the rounding may have been moved behind, the
    last first: the shape that it reads, and axes of a TRANSPOSE.
    """
    found = [codes]
    for shape, axes in moves:
        if axes is not None and axes.size == codes.ndim:
            codes = codes.transpose(np.argsort(axes))
        elif axes is None and codes.size % max(math.prod(shape[1:]), 1) == 0:
            # Windows of a picture lie in front, with the batch.
            codes = codes.reshape(-1, *shape[1:])
        else:
            break
        found.append(codes)
    if len(found) == 1:
        return found[0]
    return min(
        (x.reshape(own.shape) for x in found),
        key=lambda x: np.abs(x - own).sum(),
    )
