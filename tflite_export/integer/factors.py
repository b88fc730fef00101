"""Products with one positive number: codes stay as they are, on another grid.

An example is attention's query, divided by the root of its size. If the grid of
the result is that of the operand times the number, nothing is rounded.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import model as fb
from tflite_export.integer.grids import Grid
from tflite_export.integer.grids import make_grid

# How much two float32 scales may differ that stand for one.
_ALIKE = 1e-6


class Factor(NamedTuple):
    """A product with a number.

    Attributes:
        operand: The tensor that is multiplied.
        number: By what, above zero.
    """

    operand: int
    number: float

    def forth(self, grid: Grid, mode: str) -> Grid:
        """The grid of the result where the operand has a grid."""
        return make_grid(mode, grid.scale * self.number, grid.zero_point)

    def back(self, grid: Grid, mode: str) -> Grid:
        """The grid of the operand where the result has a grid."""
        return make_grid(mode, grid.scale / self.number, grid.zero_point)


def find(model: schema.ModelT, op: schema.OperatorT) -> Factor | None:
    """The factor of an operator of the main graph, `None` where it has none."""
    if fb.op_name(model, op) != "MUL" or (
        op.builtinOptions is not None
        and op.builtinOptions.fusedActivationFunction
    ):
        return None
    tensors = model.subgraphs[0].tensors
    places = fb.inputs(op)
    for operand, other in (places, places[::-1]):
        value = _number(model, tensors[other])
        if value is None or fb.raw_data(model, tensors[operand]) is not None:
            continue
        return Factor(operand, value)
    return None


def keeps_codes(model: schema.ModelT, op: schema.OperatorT) -> bool:
    """Whether an integer operator gives the codes that it reads."""
    found = find(model, op)
    if found is None:
        return False
    tensors = model.subgraphs[0].tensors
    read, written = (
        tensors[i].quantization for i in (found.operand, fb.outputs(op)[0])
    )
    if any(grid is None or grid.scale is None for grid in (read, written)):
        return False  # between operators that compute in float
    return int(read.zeroPoint[0]) == int(written.zeroPoint[0]) and bool(
        np.isclose(
            float(written.scale[0]),
            float(read.scale[0]) * found.number,
            rtol=_ALIKE,
            atol=0.0,
        )
    )


def _number(model: schema.ModelT, tensor: schema.TensorT) -> float | None:
    """Value of a constant of one number above zero."""
    value = fb.constant(model, tensor)
    if value is None or value.size != 1:
        return None
    number = float(value.reshape(()))
    parameters = tensor.quantization
    if fb.type_name(tensor) != "FLOAT32":
        if parameters is None or parameters.scale is None:
            return None
        number -= int(parameters.zeroPoint[0])
        number *= float(parameters.scale[0])
    return number if number > 0.0 and np.isfinite(number) else None
