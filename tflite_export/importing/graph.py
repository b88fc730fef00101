"""Layers for the operators of a file's graphs, one after the other."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import model as flat
from tflite_export.importing import constants
from tflite_export.importing import dilation
from tflite_export.importing import elementwise
from tflite_export.importing import grids
from tflite_export.importing import loops
from tflite_export.importing import pixels
from tflite_export.importing import shapes
from tflite_export.importing import weighted
from tflite_export.importing.operator import NeedsFixedBatch
from tflite_export.importing.operator import Operator

OPERATORS = (
    weighted.OPERATORS
    | elementwise.OPERATORS
    | shapes.OPERATORS
    | pixels.OPERATORS
    | loops.OPERATORS
)
# Operators, those of each round of a loop counted, beyond which a file is made
# up or no model to train.
_MOST = 20_000


@dataclasses.dataclass
class Builder:
    """Makes layers of the graphs of one file.

    Attributes:
        model: The file.
        batch: The batch size that the model is made for; `None` for any.
        rounds: Whether activations of integers are rounded to their grids.
        lengths_open: Whether other axes than the batch are open, too.
        anchor: An input of the model, which says how many samples there are.
        layers: Layers that were made for constants, by operator and constants.
        weights: Those layers, and the arrays of their weights.
    """

    model: schema.ModelT
    batch: int | None
    rounds: bool
    lengths_open: bool
    anchor: Any
    layers: dict[Any, keras.layers.Layer] = dataclasses.field(
        default_factory=dict
    )
    weights: list[tuple[keras.layers.Layer, list[np.ndarray]]] = (
        dataclasses.field(default_factory=list)
    )
    _open: list[int] = dataclasses.field(default_factory=list)
    # Of each graph with their places; a loop runs its own round by round.
    _operators: dict[int, list[tuple[int, schema.OperatorT]]] = (
        dataclasses.field(default_factory=dict)
    )
    _count: int = 0

    def run(
        self, number: int, inputs: Sequence[Any], prefix: str = ""
    ) -> list[Any]:
        """Computes the outputs of a graph.

        Args:
            number: Which graph of the file.
            inputs: A symbolic tensor, or an array of constants, for each of
                its inputs.
            prefix: What names of its layers begin with.

        Returns:
            Symbolic tensors, or arrays of constants.

        Raises:
            ValueError: If no layers are made of it.
            NeedsFixedBatch: If it mixes the batch with other axes.
        """
        graph = self.model.subgraphs[number]
        if number in self._open:
            raise ValueError(
                "The file's graphs call each other in a circle. Expected "
                f"graphs that end. Received: graph {number} in itself"
            )
        self._count += len(graph.operators)
        if self._count > _MOST:
            raise ValueError(
                "The file has too many operators to make layers of, those of "
                f"each round of a loop counted. Expected at most {_MOST}. "
                f"Received: {self._count} or more"
            )
        self._open.append(number)
        values: dict[int, Any] = dict(
            zip(flat.inputs(graph), inputs, strict=True)
        )
        if number not in self._operators:
            self._operators[number] = dilation.fused(self.model, graph)
        for at, op in self._operators[number]:
            found = self._outputs(number, values, op, f"{prefix}{{}}_at_{at}")
            values.update(zip(flat.outputs(op), found, strict=False))
        self._open.pop()
        for i in flat.outputs(graph):
            self._read(graph, values, i)
        return [values[i] for i in flat.outputs(graph)]

    def _read(self, graph: schema.SubGraphT, values: Any, i: int) -> None:
        if i >= 0 and i not in values:
            values[i] = constants.real(self.model, graph.tensors[i])

    def _outputs(
        self,
        number: int,
        values: dict[int, Any],
        op: schema.OperatorT,
        name: str,
    ) -> list[Any]:
        """What an operator writes; symbolic tensors, or arrays of constants."""
        graph = self.model.subgraphs[number]
        kind = flat.op_name(self.model, op)
        read = flat.inputs(op)
        for i in read:
            self._read(graph, values, i)
        written = [graph.tensors[i] for i in flat.outputs(op)]
        operator = Operator(
            kind=kind,
            name=name.format(kind.lower()),
            options=op.builtinOptions,
            inputs=[values[i] if i >= 0 else None for i in read],
            given=[
                flat.shape(graph.tensors[i]) if i >= 0 else () for i in read
            ],
            on_grid=[
                i >= 0 and grids.is_on_grid(graph.tensors[i]) for i in read
            ],
            shapes=[flat.shape(tensor) for tensor in written],
            types=[flat.type_name(tensor) for tensor in written],
            output=flat.name(written[0]) if written else "nothing",
            batch=self.batch,
            lengths_open=self.lengths_open,
            anchor=self.anchor,
            constants=tuple(
                self._key(number, i, values[i])
                for i in read
                if i >= 0 and isinstance(values[i], np.ndarray)
            ),
            layers=self.layers,
            weights=self.weights,
            run=self.run,
        )
        with _named(operator):
            found = OPERATORS[kind](operator)
        several = found if isinstance(found, list | tuple) else [found]
        for value in several:
            if isinstance(value, keras.KerasTensor):
                operator.check_size(n for n in value.shape if n is not None)
        several = [
            value if isinstance(value, keras.KerasTensor) else np.asarray(value)
            for value in several
        ]
        if not self.rounds:
            return several
        tensors = [graph.tensors[i] for i in read if i >= 0]
        return [
            grids.rounded(value, operator, tensors, tensor, i)
            for i, (value, tensor) in enumerate(
                zip(several, written, strict=False)
            )
        ]

    def _key(self, number: int, i: int, value: np.ndarray) -> Any:
        """What tells a constant from others."""
        tensor = self.model.subgraphs[number].tensors[i]
        if flat.raw_data(self.model, tensor) is not None:
            return number, i
        # It was computed, or given to a loop, which has another every round.
        data = np.ascontiguousarray(value)
        code = hashlib.sha256(data.tobytes()).digest()
        return value.shape, value.dtype.str, code


@contextlib.contextmanager
def _named(operator: Operator) -> Iterator[None]:
    """Errors of Keras with the operator that they are about."""
    try:
        yield
    except NeedsFixedBatch as error:
        if operator.batch is None:
            raise
        raise operator.unknown("it mixes samples") from error
    except (
        *(TypeError, IndexError, AttributeError, ArithmeticError),
        *(MemoryError, tf.errors.OpError),
    ) as error:
        raise operator.unknown(str(error)) from error
