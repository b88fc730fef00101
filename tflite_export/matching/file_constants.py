"""The float constants of a file, and who reads them."""

from __future__ import annotations

import dataclasses

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer.operators import WEIGHT_INPUTS

# Elements at which a weight has to agree before all of them are looked at.
_SAMPLE = 4096


@dataclasses.dataclass(frozen=True, eq=False)
class Constant:
    """A float32 constant of two or more axes in a file.

    Attributes:
        graph: Index of the subgraph.
        tensor: Index of the tensor in it.
        name: Name the converter gave it.
        value: float32 array.
        readers: Names of the operators that read it, each once.
        weighs: Names of those that read it where weights belong.
    """

    graph: int
    tensor: int
    name: str
    value: np.ndarray
    readers: tuple[str, ...]
    weighs: tuple[str, ...]

    @property
    def is_weight(self) -> bool:
        """Whether an operator reads it where weights belong.

        One that no weight of the model explains would be a weight left behind
        unnoticed.
        """
        return bool(self.weighs)


def find_constants(model: schema.ModelT) -> tuple[list[Constant], int]:
    """Float32 constants of all subgraphs of two or more axes.

    In the order in which they are first read, and the number of the others.
    """
    found, others = [], 0
    for number, graph in enumerate(model.subgraphs):
        readers = _readers(model, graph)
        rest = [i for i in range(len(graph.tensors)) if i not in readers]
        for index in (*readers, *rest):
            tensor = graph.tensors[index]
            if tensor.type != schema.TensorType.FLOAT32:
                continue
            value = fb.constant(model, tensor)
            if value is None:
                continue
            if value.ndim < 2:
                others += 1
                continue
            uses = readers.get(index, [])
            found.append(
                Constant(
                    graph=number,
                    tensor=index,
                    name=fb.name(tensor),
                    value=value,
                    readers=tuple(dict.fromkeys(op for op, _ in uses)),
                    weighs=tuple(
                        dict.fromkeys(
                            op
                            for op, position in uses
                            if position in WEIGHT_INPUTS.get(op, ())
                        )
                    ),
                )
            )
    return found, others


def _readers(
    model: schema.ModelT, graph: schema.SubGraphT
) -> dict[int, list[tuple[str, int]]]:
    readers: dict[int, list[tuple[str, int]]] = {}
    for op in graph.operators or ():
        for position, index in enumerate(fb.inputs(op)):
            if index < 0:
                continue  # an optional input that isn't there
            readers.setdefault(index, []).append(
                (fb.op_name(model, op), position)
            )
    return readers


def sample_places(size: int) -> np.ndarray:
    """Some elements that tell most tensors that don't match.

    Without them, the work would grow with the square of a model's layers.
    """
    return np.linspace(0, size - 1, min(size, _SAMPLE)).astype(np.int64)
