"""Restrictions of single operators, by the names that targets use.

Each says what stands against an operator of a file, or `None`. A sentence
that starts with "note:" warns of what only the compiler can decide.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import model as fb

_LONGEST_SOFTMAX = 16_000
_LARGE_RESHAPE = 1 << 20


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


def _no_fused_activation(node: Node) -> str | None:
    if node.option("fusedActivationFunction"):
        return "has a fused activation function"
    return None


def _same_dilation(node: Node) -> str | None:
    x = node.option("dilationWFactor", 1)
    y = node.option("dilationHFactor", 1)
    return None if x == y else f"has dilations {y} and {x} along y and x"


def _zero_constant(node: Node) -> str | None:
    count = len(node.inputs)
    for position in range(count):
        tensor = node.input(position)
        if tensor is None or node.constant(position) is None:
            continue
        q = tensor.quantization
        zeros = [0] if q is None or q.zeroPoint is None else q.zeroPoint
        zero = int(zeros[0]) if len(zeros) else 0
        if count != 2 or not node.is_throughout(position, zero):
            return "joins a constant that isn't one tensor of zeros"
    return None


def _default_weights_format(node: Node) -> str | None:
    if node.option("weightsFormat"):
        return "has weights in a shuffled format"
    return None


def _one_dimensional_output(node: Node) -> str | None:
    shape = node.output_shape()
    if any(n > 1 for n in shape[:-1]):
        return f"has an output of shape {shape}, which isn't one-dimensional"
    return None


def _axes(node: Node) -> frozenset[int]:
    return node.axes(1, len(node.input_shape(0)))


def _axes_not_batch(node: Node) -> str | None:
    if node.output_shape() and 0 in _axes(node):
        return "reduces the batch axis"
    return None


def _depth_mean_by_4(node: Node) -> str | None:
    shape = node.input_shape(0)
    if len(shape) > 1 and len(shape) - 1 in _axes(node) and shape[-1] % 4:
        return f"reduces {shape[-1]} channels, which is no multiple of 4"
    return None


def _one_grid(node: Node) -> str | None:
    if node.input(0) is None or not node.outputs:
        return None
    if node.grid(node.inputs[0]) != node.grid(node.outputs[0]):
        return "has an output on another grid, to which it does not rescale"
    return None


def _pack_not_batch(node: Node) -> str | None:
    return None if node.option("axis") else "packs along the batch axis"


def _pad_not_batch(node: Node) -> str | None:
    paddings = node.constant(1)
    # One row an axis: before and behind.
    if paddings is not None and paddings.ravel()[:2].any():
        return "pads the batch axis"
    return None


def _alpha_along_depth(node: Node) -> str | None:
    shape = node.input_shape(1)
    if any(n > 1 for n in shape[:-1]):
        return f"has slopes of shape {shape}; set shared_axes=[1, 2]"
    return None


def _four_axes(node: Node) -> str | None:
    shape = node.input_shape(0)
    return f"reads {len(shape)} axes, of shape {shape}" if shape[4:] else None


def _has_bias(node: Node) -> str | None:
    return None if node.input(2) is not None else "has no bias"


def _large_reshape(node: Node) -> str | None:
    # "Certain reshapes might not be mapped for large tensor sizes": no figure
    # is published.
    if math.prod(node.output_shape()) >= _LARGE_RESHAPE:
        return "note: may not be mapped, as its tensor is large"
    return None


def _resize_precision(node: Node) -> str | None:
    return (
        "note: may not be mapped, depending on its sizes, to avoid a loss of "
        "precision"
    )


def _softmax_length(node: Node) -> str | None:
    shape = node.output_shape()
    if any(n > 1 for n in shape[:-1]):
        return f"has an input of shape {shape}, which isn't one-dimensional"
    if shape and shape[-1] > _LONGEST_SOFTMAX:
        return f"has more than {_LONGEST_SOFTMAX:,} elements"
    return None


def _split_not_batch(node: Node) -> str | None:
    axis, rank = node.constant(0), len(node.input_shape(1))
    if axis is None or not axis.size or axis.dtype.kind not in "iu":
        return None
    if rank and int(axis.flat[0]) % rank == 0:
        return "splits the batch axis"
    return None


def _leading_ones(node: Node) -> str | None:
    shape = node.input_shape(0)
    seen = False
    for length in shape:
        if seen and length == 1:
            return f"removes an axis behind longer ones, of shape {shape}"
        seen = seen or length > 1
    return None


def _unit_strides(node: Node) -> str | None:
    if not node.is_throughout(3, 1):
        return "has strides other than 1"
    if node.option("ellipsisMask") or node.option("newAxisMask"):
        return "has an ellipsis or a new axis"
    return None


RESTRICTIONS: dict[str, Callable[[Node], str | None]] = {
    function.__name__.removeprefix("_"): function
    for function in (
        _alpha_along_depth,
        _axes_not_batch,
        _default_weights_format,
        _depth_mean_by_4,
        _four_axes,
        _has_bias,
        _large_reshape,
        _leading_ones,
        _no_fused_activation,
        _one_dimensional_output,
        _one_grid,
        _pack_not_batch,
        _pad_not_batch,
        _resize_precision,
        _same_dilation,
        _softmax_length,
        _split_not_batch,
        _unit_strides,
        _zero_constant,
    )
}
