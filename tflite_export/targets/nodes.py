"""An operator of a file, as rules of targets look at it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import model as fb


@dataclasses.dataclass(frozen=True)
class Node:
    """An operator of a file and what it reads and writes.

    Attributes:
        model: The model.
        graph: The operator's graph.
        op: The operator.
        known: What is known of constants and scales, shared by the nodes of a
            file: each is looked through once, however many operators read it.
    """

    model: schema.ModelT
    graph: schema.SubGraphT
    op: schema.OperatorT
    known: dict[tuple[Any, ...], Any] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def inputs(self) -> list[int]:
        """Indices of the tensors that it reads."""
        return fb.inputs(self.op)

    @functools.cached_property
    def outputs(self) -> list[int]:
        """Indices of the tensors that it writes."""
        return fb.outputs(self.op)

    def input(self, position: int) -> schema.TensorT | None:
        """Tensor at an input, `None` where there is none."""
        indices = self.inputs
        if position >= len(indices) or indices[position] < 0:
            return None
        return self.graph.tensors[indices[position]]

    def output_shape(self) -> tuple[int, ...]:
        """Shape of the first output, `()` where there is none."""
        indices = self.outputs
        return fb.shape(self.graph.tensors[indices[0]]) if indices else ()

    def input_shape(self, position: int) -> tuple[int, ...]:
        """Shape of an input, `()` where there is none."""
        tensor = self.input(position)
        return () if tensor is None else fb.shape(tensor)

    def constant(self, position: int) -> np.ndarray | None:
        """Value of a constant input."""
        tensor = self.input(position)
        return None if tensor is None else fb.constant(self.model, tensor)

    def is_throughout(self, position: int, number: int) -> bool:
        """Whether all elements of a constant input are one number."""
        tensor, value = self.input(position), self.constant(position)
        if tensor is None or value is None:
            return False
        key = "throughout", tensor.buffer, tensor.type, number
        if key not in self.known:
            self.known[key] = bool((value == number).all())
        return self.known[key]

    def axes(self, position: int, rank: int) -> frozenset[int]:
        """Axes of a tensor that a constant input of integers names."""
        tensor, value = self.input(position), self.constant(position)
        if tensor is None or value is None or value.dtype.kind not in "iu":
            return frozenset()
        if not rank:
            return frozenset()
        key = "axes", tensor.buffer, tensor.type, rank
        if key not in self.known:
            self.known[key] = frozenset(np.unique(value % rank).tolist())
        return self.known[key]

    def grid(self, index: int) -> bytes:
        """A key for the scales of a tensor; empty for none."""
        key = "grid", id(self.graph), index
        if key not in self.known:
            q = self.graph.tensors[index].quantization
            if q is None or q.scale is None or q.zeroPoint is None:
                self.known[key] = b""
            else:
                digest = hashlib.sha256(np.asarray(q.scale, "<f4").tobytes())
                digest.update(np.asarray(q.zeroPoint, "<i8").tobytes())
                self.known[key] = digest.digest()
        return self.known[key]

    def option(self, name: str, default: int = 0) -> int:
        """An option of the operator; nothing keeps those of another out."""
        value = getattr(self.op.builtinOptions, name, default)
        return int(value or default) if isinstance(value, int) else default
