"""A TFLite file in the making, whose parts may share what they lead to."""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import model as fb

_T = schema.TensorType


def table(builder: flatbuffers.Builder, kind: str, **fields: Any) -> int:
    """Writes one table; returns where it is."""
    getattr(schema, f"{kind}Start")(builder)
    for field, value in fields.items():
        getattr(schema, f"{kind}Add{field}")(builder, value)
    return getattr(schema, f"{kind}End")(builder)


def offsets(builder: flatbuffers.Builder, places: list[int]) -> int:
    """A vector that leads to tables, possibly to one many times."""
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return builder.EndVector()


class File:
    """A file in the making.

    Attributes:
        builder: What it is written with.
        tensors: Places of the tensors of the next graph.
        operators: Places of its operators.
        graphs: Places of the graphs that are done.
    """

    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1 << 16)
        self.buffers = [table(self.builder, "Buffer")]
        self.codes: list[int] = []
        self.tensors: list[int] = []
        self.operators: list[int] = []
        self.graphs: list[int] = []

    def ints(self, values: Any) -> int:
        """A vector of 32-bit integers."""
        return self.builder.CreateNumpyVector(np.asarray(values, np.int32))

    def buffer(self, data: np.ndarray) -> int:
        """Adds a buffer; returns its index."""
        held = self.builder.CreateNumpyVector(np.asarray(data).view(np.uint8))
        self.buffers.append(table(self.builder, "Buffer", Data=held))
        return len(self.buffers) - 1

    def tensor(
        self, name: str = "t", shape: Any = (2, 2), **fields: Any
    ) -> int:
        """Adds a tensor; returns its index."""
        called = self.builder.CreateString(name)
        fields = {"Type": _T.FLOAT32, "Shape": self.ints(shape)} | fields
        self.tensors.append(
            table(self.builder, "Tensor", Name=called, **fields)
        )
        return len(self.tensors) - 1

    def code(self, kind: int, name: str = "") -> int:
        """Adds an operator code; returns its index."""
        fields: dict[str, Any] = {"BuiltinCode": kind, "Version": 1}
        if name:
            fields["CustomCode"] = self.builder.CreateString(name)
        self.codes.append(table(self.builder, "OperatorCode", **fields))
        return len(self.codes) - 1

    def operator(
        self, code: int, inputs: int, outputs: int, **fields: Any
    ) -> None:
        """Adds an operator whose vectors are written already."""
        fields = {"Inputs": inputs, "Outputs": outputs} | fields
        self.operators.append(
            table(self.builder, "Operator", OpcodeIndex=code, **fields)
        )

    def graph(self, inputs: Any = (), outputs: Any = ()) -> None:
        """Makes a graph of the tensors and operators that were added."""
        self.graphs.append(
            table(
                self.builder,
                "SubGraph",
                Tensors=offsets(self.builder, self.tensors),
                Operators=offsets(self.builder, self.operators),
                Inputs=self.ints(inputs),
                Outputs=self.ints(outputs),
            )
        )
        self.tensors, self.operators = [], []

    def done(self, **fields: Any) -> bytes:
        """The bytes of the file."""
        builder = self.builder
        model = table(
            builder,
            "Model",
            Version=3,
            OperatorCodes=offsets(builder, self.codes),
            Subgraphs=offsets(builder, self.graphs),
            Buffers=offsets(builder, self.buffers),
            **fields,
        )
        builder.Finish(model, file_identifier=fb.FILE_IDENTIFIER)
        return bytes(builder.Output())
