"""Grids: the values of the integers of an activation tensor."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import edit
from tflite_export.targets.operator_rows import ACTIVATIONS

_BITS = {"int8": 8, "int16": 16}
_DTYPES = {"int8": np.int8, "int16": np.int16}
# A tensor that is zero on all samples, or next to it: below the least scale
# kernels flush numbers to zero.
_NO_RANGE = 1.0
_LEAST_SCALE = 2.0**-100


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


def least_range(mode: str) -> float:
    """The width of a range below which all numbers count as zero."""
    return _LEAST_SCALE * (1 << _BITS[mode])


def grid_of_range(mode: str, low: float, high: float) -> Grid:
    """The grid that covers a range and zero.

    8-bit grids are asymmetric. Those of 16 bits have the zero point 0, which
    the kernels demand.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low < least_range(mode):
        low, high = 0.0, _NO_RANGE
    if mode == "int16":
        top = max(-low, high)
        return make_grid(mode, top / 32767, 0)
    scale = float(np.float32((high - low) / 255))
    return make_grid(
        mode, scale, int(np.clip(round(-128 - low / scale), -128, 127))
    )


def coarser(grid: Grid, scale: float) -> Grid:
    """A grid whose unit is at least `scale`, with the same zero point."""
    if grid.scale >= scale:
        return grid
    return make_grid(grid.mode, scale, grid.zero_point)


def finer(grid: Grid, scale: float) -> Grid:
    """A grid whose unit is at most `scale`, and a whole part of the other's.

    Values keep their codes' meaning, up to where the smaller range ends.
    """
    parts = math.ceil(grid.scale / scale)
    if parts <= 1:
        return grid
    return make_grid(grid.mode, grid.scale / parts, grid.zero_point)
