"""The grids of an integer file's activations, as layers that round to them.

A kernel of integers computes a real number and rounds it to the grid of what it
writes. So a grid stands behind each operator, its fused activation included.
None is needed where an operator gives numbers that it read on that same grid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
from ai_edge_litert import schema_py_generated as schema

from msq_tf.keras3.activation_grid import ActivationGrid
from tflite_export.flatbuffer import model as flat
from tflite_export.importing.operator import Operator

# Least code and bits of the types that activations have.
_TYPES = {"INT8": (-128, 8), "UINT8": (0, 8), "INT16": (-32768, 16)}
# Operators that give numbers that they read. `PAD` adds zeros, which each grid
# holds.
_MOVING = frozenset(
    (
        *("BATCH_TO_SPACE_ND", "BROADCAST_TO", "CONCATENATION"),
        *("DEPTH_TO_SPACE", "EXPAND_DIMS", "GATHER", "GATHER_ND"),
        *("MAXIMUM", "MAX_POOL_2D", "MINIMUM", "MIRROR_PAD", "PACK", "PAD"),
        *("PADV2", "QUANTIZE", "REDUCE_MAX", "REDUCE_MIN", "RESHAPE"),
        *("RESIZE_NEAREST_NEIGHBOR", "REVERSE_V2", "SELECT", "SELECT_V2"),
        *("SLICE", "SPACE_TO_BATCH_ND", "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V"),
        *("SQUEEZE", "STRIDED_SLICE", "TILE", "TOPK_V2", "TRANSPOSE", "UNPACK"),
    )
)
# Those fused activations whose ends are codes of each grid.
_ENDS_ARE_CODES = (
    schema.ActivationFunctionType.NONE,
    schema.ActivationFunctionType.RELU,
)


@dataclasses.dataclass(frozen=True)
class FileGrid:
    """The grid of one activation.

    Attributes:
        kind: Its type in the schema, such as `"INT8"`.
        scale: Value of one code.
        zero_point: The code of zero, of the type.
    """

    kind: str
    scale: float
    zero_point: int

    def layer(self, name: str, averages: bool) -> keras.layers.Layer:
        """The layer that rounds to it.

        Args:
            name: Of the layer.
            averages: Whether what it rounds are averages of codes. Their
                kernels round halves of signed codes away from zero.
        """
        least, bits = _TYPES[self.kind]
        return ActivationGrid(
            self.scale,
            0 if bits == 16 else self.zero_point - least,
            bits,
            half_away=averages and self.kind == "INT8",
            name=name,
        )


def is_on_grid(tensor: schema.TensorT) -> bool:
    """Whether a tensor's integers stand for real numbers."""
    grid = tensor.quantization
    return grid is not None and grid.scale is not None and len(grid.scale) > 0


def _is_zero(tensor: schema.TensorT) -> bool:
    """Whether all of a tensor's codes are zero, as of a first state."""
    return not any(map(float, tensor.quantization.scale))


def of_activation(tensor: schema.TensorT) -> FileGrid | None:
    """The grid of an activation; `None` for one that is not of integers.

    Raises:
        ValueError: If it has a grid that no kernel has.
    """
    kind = flat.type_name(tensor)
    if not is_on_grid(tensor) or kind not in _TYPES:
        return None
    scales = tensor.quantization.scale
    zeros = tensor.quantization.zeroPoint
    zeros = [] if zeros is None else list(zeros)
    zero = int(zeros[0]) if zeros else 0
    least, bits = _TYPES[kind]
    held = (zero == 0) if bits == 16 else least <= zero < least + 256
    if len(scales) != 1 or not held or not 0 < float(scales[0]) < float("inf"):
        raise ValueError(
            "An activation has a grid that no layer is made of. Expected one "
            "scale above 0, and a zero point among the codes, of 16 bits 0. "
            f"Received: tensor '{flat.name(tensor)}', {kind}, scales "
            f"{list(scales)[:4]}, zero points {zeros[:4]}"
        )
    return FileGrid(kind, float(scales[0]), zero)


def rounded(
    value: Any,
    operator: Operator,
    read: Sequence[schema.TensorT],
    written: schema.TensorT,
    position: int,
) -> Any:
    """Rounds what an operator computes to the grid of what it writes.

    Args:
        value: A symbolic tensor, or an array of constants.
        operator: The operator.
        read: The tensors that it reads.
        written: The tensor that it writes.
        position: Which of the operator's outputs it is.

    Returns:
        The value behind a layer, or as it is where that would change nothing.
    """
    if not isinstance(value, keras.KerasTensor):
        return value
    grid = of_activation(written)
    if grid is None or not value.dtype.startswith("float"):
        return value
    fused = getattr(operator.options, "fusedActivationFunction", 0)
    if operator.kind in _MOVING and fused in _ENDS_ARE_CODES:
        numbers = [tensor for tensor in read if is_on_grid(tensor)]
        if numbers and all(
            not _is_zero(t) and of_activation(t) == grid for t in numbers
        ):
            return value
    averages = operator.kind == "AVERAGE_POOL_2D"
    name = f"{operator.name}_grid" + (f"_{position}" if position else "")
    return grid.layer(name, averages)(value)
