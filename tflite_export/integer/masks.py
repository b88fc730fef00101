"""Scores with a mask: numbers like -1e9, for which no grid has room.

A softmax gives zero for them, and also for scores that are some ten below the
largest of a row. So the grid of scores ends there, and its lowest code stands
for all masked scores. An addend that masks needs no wider grid than the sum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import model as fb
from tflite_export.integer.calibrate import Range
from tflite_export.integer.grids import Grid
from tflite_export.integer.grids import grid_of_range
from tflite_export.integer.trained_grids import as_float32

# Masks add no less than that; where a row's largest score is below, all of the
# row is masked.
_MASKED = -9000.0
_BITS = {"int8": 8, "int16": 16}
_MOVING = ("RESHAPE", "TRANSPOSE")
_COPYING = (
    *_MOVING,
    "BROADCAST_TO",
    "EXPAND_DIMS",
    "SLICE",
    "SQUEEZE",
    "STRIDED_SLICE",
    "TILE",
)


class Scores:
    """The scores that the softmaxes of a graph read."""

    def __init__(self, model: schema.ModelT, mode: str):
        self._model = model
        self._mode = mode
        self._graph = model.subgraphs[0]
        self._writers = fb.writers(self._graph)
        # The least number of what masks, by tensor: several layers may read it.
        self._least: dict[int, float] = {}
        self._read = [
            fb.inputs(op)[0]
            for op in self._graph.operators
            if fb.op_name(model, op) == "SOFTMAX"
        ]

    def seen(self, index: int, values: np.ndarray) -> np.ndarray:
        """The values with a part in a range: no score that is masked."""
        if index not in self._read or not (values < _MASKED).any():
            return values
        largest = values.max(-1, keepdims=True)
        reach = math.log(2.0 ** _BITS[self._mode] * values.shape[-1])
        near = np.maximum(values, largest - np.float32(reach))
        return np.where(largest < _MASKED, np.float32(0), near)

    def limit(
        self, trained: Mapping[int, Grid], ranges: dict[int, Range]
    ) -> dict[int, Grid]:
        """Ends the ranges of what masks, in place, where those of scores end.

        Returns grids of constants that mask.
        """
        constants: dict[int, Grid] = {}
        for index in self._read:
            at = index
            while at in ranges or at in trained:
                ends = trained[at].range if at in trained else ranges[at]
                op = self._writers.get(at)
                name = "" if op is None else fb.op_name(self._model, op)
                if op is None or name not in _MOVING:
                    break
                at = fb.inputs(op)[0]
                if at in ranges and ranges[at][0] < _MASKED:
                    ranges[at] = ends
            else:
                continue
            if op is not None and name == "ADD":
                self._limit_addends(op, ends, ranges, constants)
        return constants

    def _limit_addends(
        self,
        op: schema.OperatorT,
        ends: Range,
        ranges: dict[int, Range],
        constants: dict[int, Grid],
    ) -> None:
        for index in fb.inputs(op):
            value = as_float32(self._model, index)
            if value is not None:
                low, high = float(value.min()), float(value.max())
            elif index in ranges:
                low, high = ranges[index]
            else:
                continue
            if low >= _MASKED and index not in self._least:
                continue
            # Beside the largest of the other addends the sum ends there, too.
            low = 2.0 * (ends[0] - max(ends[1], 0.0))
            low = min(low, self._least.get(index, low))
            self._least[index] = low
            limited = low, min(max(high, low), -low)
            if value is None:
                self._spread(index, limited, ranges)
            else:
                constants[index] = grid_of_range(self._mode, *limited)

    def _spread(
        self, index: int, limited: Range, ranges: dict[int, Range]
    ) -> None:
        """Limits what a tensor was copied from as well."""
        while index in ranges:
            ranges[index] = limited
            self._least[index] = limited[0]
            op = self._writers.get(index)
            if op is None or fb.op_name(self._model, op) not in _COPYING:
                return
            index = fb.inputs(op)[0]
