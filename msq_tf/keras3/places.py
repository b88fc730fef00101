"""Which tensors of a trace are positions: whole numbers that count things.

Lengths, distances and the angles of rotary embeddings are computed from
integers and shapes, and end as integers, as masks or as a sine. They are exact
in a file, whatever its activations are; a grid of 8 bits would shift a position
by several tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

# What they say is known without data.
_SHAPES = {"Rank", "Shape", "ShapeN", "Size"}
# What becomes of a position in the end.
_ENDS = {
    "Cos",
    "Equal",
    "Greater",
    "GreaterEqual",
    "Less",
    "LessEqual",
    "NotEqual",
    "Sin",
}


class Places:
    """The positions among the tensors of a graph.

    Args:
        graph: The graph of a trace.
        inputs: The tensors of the model's inputs.
        outputs: Those of its outputs.
    """

    def __init__(
        self,
        graph: tf.Graph,
        inputs: Sequence[tf.Tensor],
        outputs: Sequence[tf.Tensor],
    ):
        self._ends = {x.name for x in outputs}
        self._counted = {x.name for x in inputs if _counts(x.dtype)}
        given = {x.name for x in inputs}
        for operation in graph.get_operations():
            names = [x.name for x in operation.outputs]
            if operation.type in _SHAPES or (
                operation.inputs
                and all(x.name in self._counted for x in operation.inputs)
            ):
                self._counted.update(names)
            elif not operation.inputs and not given.intersection(names):
                self._counted.update(
                    x.name for x in operation.outputs if _is_vector(x)
                )
            elif operation.type == "ReadVariableOp":
                # Frequencies; tables and kernels have two axes.
                self._counted.update(
                    x.name for x in operation.outputs if _is_vector(x)
                )
        self._known: dict[str, bool] = {}

    def __contains__(self, tensor: tf.Tensor) -> bool:
        """Whether a tensor is a position and nothing else."""
        name = tensor.name
        if name not in self._known:
            self._known[name] = (
                name in self._counted
                and name not in self._ends
                and bool(tensor.consumers())
                and all(map(self._takes, tensor.consumers()))
            )
        return self._known[name]

    def _takes(self, operation: tf.Operation) -> bool:
        """Whether an operation takes positions, or goes on with them."""
        if operation.type in (*_ENDS, *_SHAPES):
            return True
        return all(
            _counts(x.dtype) or x in self for x in operation.outputs
        ) and bool(operation.outputs)


def _counts(dtype: tf.DType) -> bool:
    """Whether numbers count things; those of a byte may be a picture."""
    return dtype == tf.bool or (dtype.is_integer and dtype.size > 1)


def _is_vector(tensor: tf.Tensor) -> bool:
    rank = tensor.shape.rank
    return rank is not None and rank <= 1 and tensor.dtype != tf.resource
