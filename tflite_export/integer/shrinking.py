"""Soft shrinkage without comparisons.

`x - t` above `t`, `x + t` below `-t` and zero between: the positive part of the
first and the negative part of the second, of which one is always zero. Both are
on the grid of the result, so that the sum is rounded once.
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.integer.trained_grids import as_float32
from tflite_export.targets import Target


def soft(
    model: schema.ModelT, op: schema.OperatorT, target: Target
) -> tuple[list[schema.OperatorT], list[int]] | None:
    """Operators in the place of a soft shrinkage that a SELECT_V2 ends.

    And those of their tensors that are on the grid of the result; `None` if it
    is no soft shrinkage.
    """
    if not all(map(target.has, ("MINIMUM", "SUB"))):
        return None
    found = _Shrinkage(model).threshold(op)
    if found is None:
        return None
    source, limit = found
    graph, result = model.subgraphs[0], fb.outputs(op)[0]
    above, sum_, below = (
        edit.new_tensor(graph, "FLOAT32", graph.tensors[result])
        for _ in range(3)
    )
    zero = edit.new_constant(model, np.zeros_like(limit))
    number = edit.new_constant(model, limit)
    first = edit.new_operator(
        model, "SUB", 1, [source, number], [above], "SubOptions"
    )
    first.builtinOptions.fusedActivationFunction = (
        schema.ActivationFunctionType.RELU
    )
    options = "MaximumMinimumOptions"
    steps = [
        first,
        edit.new_operator(
            model, "ADD", 1, [source, number], [sum_], "AddOptions"
        ),
        edit.new_operator(model, "MINIMUM", 1, [sum_, zero], [below], options),
        edit.new_operator(
            model, "ADD", 1, [above, below], [result], "AddOptions"
        ),
    ]
    return steps, [above, sum_]


class _Shrinkage:
    """Looks whether operators are a soft shrinkage as Keras writes it."""

    def __init__(self, model: schema.ModelT):
        self._model = model
        self._graph = model.subgraphs[0]
        self._writers = fb.writers(self._graph)

    def threshold(self, op: schema.OperatorT) -> tuple[int, np.ndarray] | None:
        """The tensor that is shrunk, and by how much."""
        mask, above, rest = fb.inputs(op)
        greater = self._read(mask, "GREATER")
        inner = self._read(rest, "SELECT_V2")
        first = self._read(above, "SUB")
        if greater is None or inner is None or first is None:
            return None
        less = self._read(inner[0], "LESS")
        second = self._read(inner[1], "ADD")
        if less is None or second is None or not self._is_zero(inner[2]):
            return None
        if len({pair[0] for pair in (greater, first, less, second)}) > 1:
            return None
        limits = [
            limit.ravel()
            for pair in (greater, first, less, second)
            if (limit := as_float32(self._model, pair[1])) is not None
        ]
        if len(limits) < 4 or any(limit.size != 1 for limit in limits):
            return None
        size = float(limits[0][0])
        signs = [float(limit[0]) for limit in limits]
        if size < 0 or signs != [size, size, -size, size]:
            return None
        return greater[0], limits[0].reshape(())

    def _read(self, index: int, name: str) -> list[int] | None:
        """What the operator that writes a tensor reads."""
        op = self._writers.get(index)
        if op is None or fb.op_name(self._model, op) != name:
            return None
        return fb.inputs(op)

    def _is_zero(self, index: int) -> bool:
        if self._read(index, "ZEROS_LIKE") is not None:
            return True
        value = as_float32(self._model, index)
        return value is not None and not value.any()
