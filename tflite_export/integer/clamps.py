"""Ends of activation functions that an output's grid never reaches.

Kernels count an end, such as the 6 of a ReLU6, in units of the output in 32
bits. If 32 bits are too few, they refuse the file or overflow. A grid that fine
ends long before 6 and saturates there, so the file needs no end of its own.
"""

from __future__ import annotations

from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.integer.grids import Grid

# Units that kernels count with room to spare.
_COUNTED = 1 << 30
_KINDS = schema.ActivationFunctionType
# What is left of a fused function on a grid that ends before it does.
_FUSED = {
    _KINDS.RELU6: (6.0, _KINDS.RELU),
    _KINDS.RELU_N1_TO_1: (1.0, _KINDS.NONE),
}


def drop(model: schema.ModelT, op: schema.OperatorT, grid: Grid) -> None:
    """Takes out ends that kernels can't count on the grid of the output."""
    kind = getattr(op.builtinOptions, "fusedActivationFunction", None)
    if kind in _FUSED:
        end, rest = _FUSED[kind]
        if end / grid.scale >= _COUNTED:
            op.builtinOptions.fusedActivationFunction = rest
    if fb.op_name(model, op) == "RELU6" and 6 / grid.scale >= _COUNTED:
        op.opcodeIndex = edit.op_code(
            model,
            schema.BuiltinOperator.RELU,
            fb.op_code(model, op).version,
        )
