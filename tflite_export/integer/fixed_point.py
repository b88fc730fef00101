"""The arithmetic of LiteRT's builtin integer kernels, operator by operator.

XNNPACK rescales accumulators in float; the builtin and reference kernels do it
in fixed point, with a rounding twice where the float arithmetic rounds once
(gemmlowp's `SaturatingRoundingDoublingHighMul`, then a rounding shift). With
few-bit codes accumulators are small numbers, and the second rounding meets
ties often: single units, which later operators may add up. So a file on those
kernels is compared with this simulation.

Operators that multiply weights and MEAN are computed here, in numpy and
float64 sums of integers; any other runs alone on the reference kernels, from
the simulated inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from tflite_export import flatbuffer as fb
from tflite_export import packing
from tflite_export import runtime
from tflite_export.targets import CONTAINERS

_PADDING = {schema.Padding.SAME: "SAME", schema.Padding.VALID: "VALID"}
_INT32 = np.iinfo(np.int32)
_NO_ACTIVATION = schema.ActivationFunctionType.NONE
_ACTIVATIONS = {
    schema.ActivationFunctionType.RELU: (0.0, math.inf),
    schema.ActivationFunctionType.RELU6: (0.0, 6.0),
    schema.ActivationFunctionType.RELU_N1_TO_1: (-1.0, 1.0),
}


def multiplier(real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A real factor as a 31-bit fixed-point number and a power of two.

    Args:
        real: float64 positive factors.

    Returns:
        int64 numbers `q` and exponents `e` with `real ~ q * 2**(e - 31)`.
    """
    mantissa, exponent = np.frexp(real)
    fixed = np.floor(mantissa * 2.0**31 + 0.5).astype(np.int64)
    over = fixed == 2**31
    fixed = np.where(over, fixed // 2, fixed)
    exponent = np.where(over, exponent + 1, exponent)
    fixed = np.where(exponent < -31, 0, fixed)
    return fixed, exponent.astype(np.int64)


def rescale(x: np.ndarray, real: np.ndarray) -> np.ndarray:
    """`round(x * real)` as the builtin kernels compute it.

    Args:
        x: int64 accumulators.
        real: float64 factors that broadcast against `x`.

    Returns:
        int64 array.
    """
    fixed, exponent = multiplier(np.asarray(real, np.float64))
    shifted = x * 2 ** np.maximum(exponent, 0)
    product = np.clip(shifted, _INT32.min, _INT32.max) * fixed
    nudge = np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    # C++ division rounds towards zero.
    high = np.trunc((product + nudge) / 2.0**31).astype(np.int64)
    total = product + nudge
    high = np.where(total >= 0, total >> 31, -((-total) >> 31))
    return _rounding_shift(high, np.maximum(-exponent, 0))


def _rounding_shift(x: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    mask = (np.int64(1) << exponent) - 1
    remainder = x & mask
    threshold = (mask >> 1) + (x < 0)
    return (x >> exponent) + (remainder > threshold)
