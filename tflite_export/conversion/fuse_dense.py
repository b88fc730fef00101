"""Dense layers on sequences and images as one operator each.

On an input of more than two axes with an open batch, the converter flattens the
input to a matrix, multiplies, computes the old shape again while the file runs,
and only then adds the bias. FULLY_CONNECTED keeps the leading axes by itself,
and adds the bias and applies the activation. One operator is faster, and an
integer file then has one grid there, as training has, and not two.
"""

from __future__ import annotations

import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer.operators import KEEPS_AXES
from tflite_export.flatbuffer.prune import compact

# What computes shapes, and can go when nobody reads it any more.
_SHAPE_OPERATORS = {
    "CONCATENATION",
    "GATHER",
    "PACK",
    "REDUCE_PROD",
    "RESHAPE",
    "SHAPE",
    "STRIDED_SLICE",
}
# A bias is spelled out for every output, which a damaged file may claim many
# of.
_MOST_OUTPUTS = 1 << 24
_NONE = schema.ActivationFunctionType.NONE


def join(model: schema.ModelT) -> bool:
    """Joins the pieces of every dense layer of the main graph, in place.

    Returns whether anything was joined.
    """
    graph = _Graph(model)
    changed = False
    for op in list(graph.operators):
        if graph.is_dense(op):
            changed |= graph.keep_axes(op)
            changed |= graph.add_bias(op)
    if changed:
        graph.drop_unread()
        compact(model)
    return changed


class _Graph:
    def __init__(self, model: schema.ModelT):
        self._model = model
        self._graph = model.subgraphs[0]

    @property
    def operators(self) -> list[schema.OperatorT]:
        return self._graph.operators

    def is_dense(self, op: schema.OperatorT) -> bool:
        """Whether an operator is a dense layer, with a matrix of weights."""
        weight = [i for i in fb.inputs(op)[:2] if i >= 0][1:]
        return (
            fb.op_name(self._model, op) == "FULLY_CONNECTED"
            and isinstance(op.builtinOptions, schema.FullyConnectedOptionsT)
            and len(fb.outputs(op)) > 0
            and [len(fb.shape(self._graph.tensors[i])) for i in weight] == [2]
        )

    def keep_axes(self, op: schema.OperatorT) -> bool:
        """Takes the reshapes around a matrix product away."""
        before = self._writer(fb.inputs(op)[0], "RESHAPE")
        after = self._only_reader(fb.outputs(op)[0], "RESHAPE")
        if before is None or after is None or op.builtinOptions.keepNumDims:
            return False
        source, result = fb.inputs(before)[0], fb.outputs(after)[0]
        rows = self._axes(source)[:-1]
        outputs, inputs = fb.shape(self._graph.tensors[fb.inputs(op)[1]])
        if (
            len(rows) < 1
            or rows.count(-1) > 1
            or self._axes(source) != (*rows, inputs)
            or self._axes(result) != (*rows, outputs)
        ):
            return False
        edit.set_input(op, 0, source)
        op.outputs = np.array([result], np.int32)
        op.builtinOptions.keepNumDims = True
        code = fb.op_code(self._model, op)
        op.opcodeIndex = edit.op_code(
            self._model,
            schema.BuiltinOperator.FULLY_CONNECTED,
            max(code.version, KEEPS_AXES),
        )
        self._remove(after)
        return True

    def add_bias(self, op: schema.OperatorT) -> bool:
        """Takes in an addition behind it, also behind a split of its axes."""
        inputs = fb.inputs(op)
        if op.builtinOptions.fusedActivationFunction != _NONE or (
            len(inputs) > 2 and inputs[2] >= 0
        ):
            return False
        result = fb.outputs(op)[0]
        split = self._only_reader(result, "RESHAPE")
        if split is not None and self._splits_outputs(op, split):
            result = fb.outputs(split)[0]
        else:
            split = None
        added = self._only_reader(result, "ADD")
        if added is None or not isinstance(
            added.builtinOptions, schema.AddOptionsT
        ):
            return False
        bias = self._bias(op, added, result)
        if bias is None:
            return False
        vector = edit.new_constant(self._model, bias)
        op.inputs = np.array([*inputs[:2], vector], np.int32)
        options = added.builtinOptions
        op.builtinOptions.fusedActivationFunction = (
            options.fusedActivationFunction
        )
        last = op if split is None else split
        last.outputs = np.array(fb.outputs(added), np.int32)
        self._remove(added)
        return True

    def _splits_outputs(
        self, op: schema.OperatorT, split: schema.OperatorT
    ) -> bool:
        """Whether a reshape only splits the last axis of a product."""
        whole = self._axes(fb.outputs(op)[0])
        parts = self._axes(fb.outputs(split)[0])
        rows = whole[:-1]
        rest = parts[len(rows) :]
        return (
            rows.count(-1) <= 1
            and parts[: len(rows)] == rows
            and -1 not in rest
            and math.prod(rest) == whole[-1]
        )

    def _bias(
        self, op: schema.OperatorT, added: schema.OperatorT, result: int
    ) -> np.ndarray | None:
        """What an addition adds to each output of a product, if it does."""
        other = [i for i in fb.inputs(added) if i != result]
        if len(other) != 1 or other[0] < 0:
            return None
        tensor = self._graph.tensors[other[0]]
        value = fb.constant(self._model, tensor)
        outputs = fb.shape(self._graph.tensors[fb.inputs(op)[1]])[0]
        axes = self._axes(result)
        if value is None or fb.type_name(tensor) != "FLOAT32":
            return None
        # The axes that hold the outputs: the last, or what it was split to.
        count = 1
        while math.prod(axes[-count:]) != outputs and count < len(axes):
            count += 1
        if math.prod(axes[-count:]) != outputs or outputs > _MOST_OUTPUTS:
            return None
        shape = (1,) * (len(axes) - value.ndim) + value.shape
        if value.ndim > len(axes) or set(shape[:-count]) - {1}:
            return None
        value = value.reshape(shape[-count:])
        return np.broadcast_to(value, axes[-count:]).reshape(-1).copy()

    def drop_unread(self) -> None:
        """Removes computations of shapes that nobody reads."""
        while True:
            read = set(fb.outputs(self._graph))
            for op in self.operators:
                read.update(fb.inputs(op))
            unread = [
                op
                for op in self.operators
                if fb.op_name(self._model, op) in _SHAPE_OPERATORS
                and not read.intersection(fb.outputs(op))
            ]
            if not unread:
                return
            for op in unread:
                self._remove(op)

    def _axes(self, index: int) -> tuple[int, ...]:
        return fb.axes(self._graph.tensors[index])

    def _writer(self, index: int, name: str) -> schema.OperatorT | None:
        for op in self.operators:
            if index in fb.outputs(op):
                named = fb.op_name(self._model, op) == name
                reads = min(fb.inputs(op)[:1], default=-1) >= 0
                return op if named and reads else None
        return None

    def _only_reader(self, index: int, name: str) -> schema.OperatorT | None:
        """The one operator that reads a tensor as data."""
        readers = fb.readers(self._graph, index)
        if len(readers) != 1 or index in fb.outputs(self._graph):
            return None
        (op,) = readers
        named = fb.op_name(self._model, op) == name
        return op if named and fb.outputs(op) else None

    def _remove(self, op: schema.OperatorT) -> None:
        del self.operators[edit.before(self._graph, op)]
