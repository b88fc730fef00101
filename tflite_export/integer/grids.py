"""Grids: what the integers of an activation tensor stand for."""

from __future__ import annotations

import dataclasses

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export import edit
from tflite_export.policy import ACTIVATIONS

_BITS = {"int8": 8, "int16": 16}
_DTYPES = {"int8": np.int8, "int16": np.int16}
# A tensor that is zero on all samples.
_NO_RANGE = 1.0


@dataclasses.dataclass(frozen=True)
class Grid:
    """One integer type, scale and zero point for a whole tensor.

    Attributes:
        mode: `"int8"` or `"int16"`.
        scale: Value of one unit, exactly representable as float32.
        zero_point: Integer that stands for zero.
    """

    mode: str
    scale: float
    zero_point: int

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest integer."""
        half = 1 << (_BITS[self.mode] - 1)
        return -half, half - 1

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest value."""
        low, high = self.limits
        return (
            (low - self.zero_point) * self.scale,
            (high - self.zero_point) * self.scale,
        )

    def quantize(self, values: np.ndarray) -> np.ndarray:
        """Nearest integers of values."""
        units = np.round(values.astype(np.float64) / self.scale)
        return np.clip(units + self.zero_point, *self.limits).astype(
            _DTYPES[self.mode]
        )

    def write(self, tensor: schema.TensorT) -> None:
        """Gives a tensor this grid's type and parameters."""
        tensor.type = getattr(schema.TensorType, ACTIVATIONS[self.mode])
        tensor.quantization = edit.quantization(
            np.array([self.scale], np.float32), self.zero_point
        )


def make_grid(mode: str, scale: float, zero_point: int) -> Grid:
    """A grid whose scale is rounded to float32, as files store it."""
    return Grid(mode, float(np.float32(scale)), int(zero_point))


def grid_of_range(mode: str, low: float, high: float) -> Grid:
    """The grid that covers a range and zero.

    8-bit grids are asymmetric. Those of 16 bits have the zero point 0, which
    the kernels demand.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if mode == "int16":
        top = max(-low, high) or _NO_RANGE
        return make_grid(mode, top / 32767, 0)
    scale = float(np.float32(((high - low) or _NO_RANGE) / 255))
    return make_grid(
        mode, scale, int(np.clip(round(-128 - low / scale), -128, 127))
    )
