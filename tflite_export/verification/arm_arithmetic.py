"""The one integer kernel of ARM that rounds more coarsely than others.

LiteRT's builtin DEPTHWISE_CONV_2D has a fast path of its own for ARM: filters
of 3x3 over a multiple of eight channels. It rounds sums before it shifts them
to the left. So where a channel's factor (the scales of input and weight over
that of the output) is 1 or more, its results are multiples of 2 units, from 2
on of 4, and so on; elsewhere it computes what x86 does, to the bit (LiteRT
2.3.0, emulated, see docs/integers.md). XNNPACK has no such rounding, and takes
these operators first.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import model as fb
from tflite_export.verification import fixed_point

_COARSE = "DEPTHWISE_CONV_2D"


def computed(
    model: schema.ModelT, position: int, recorded: Mapping[int, np.ndarray]
) -> np.ndarray | None:
    """The result of an operator in that kernel's arithmetic.

    Args:
        model: A file.
        position: Of an operator.
        recorded: Tensors of the file by their index.

    Returns:
        Codes of the output, or `None` if the kernel is another one or its
        factors are below 1, where it rounds as others do.
    """
    op = model.subgraphs[0].operators[position]
    if fb.op_name(model, op) != _COARSE:
        return None
    sums = fixed_point.sums(model, op, recorded)
    if sums is None or np.max(fixed_point.multiplier(sums.real)[1]) <= 0:
        return None
    return sums.codes(rescale(sums.total, sums.real))


def rescale(total: np.ndarray, real: np.ndarray) -> np.ndarray:
    """`total * real` of int64 sums as that kernel rounds it.

    `vqrdmulh` rounds to a multiple of what `vrshl` then shifts to the left, or
    rounds once more where it shifts to the right; both break ties upwards.
    """
    fixed, exponent = fixed_point.multiplier(np.asarray(real, np.float64))
    high = (total * fixed + (1 << 30)) >> 31
    left, right = np.maximum(exponent, 0), np.maximum(-exponent, 0)
    return ((high << left) + ((np.int64(1) << right) >> 1)) >> right
