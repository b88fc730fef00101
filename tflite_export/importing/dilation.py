"""Dilated convolutions, which converters write as three operators.

`SPACE_TO_BATCH_ND` makes a batch of the places of a block, a plain convolution
follows, and `BATCH_TO_SPACE_ND` puts the places back. Keras has one layer for
that, which trains, quantizes and runs on devices whose kernels know no such
batches. Around a convolution of one axis, the converter adds and takes another
axis in between.
"""

from __future__ import annotations

import collections
import copy
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import model as flat
from tflite_export.importing import constants

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_SPACE, _BATCH = "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"
# What stands around a convolution of one axis.
_ADDS, _TAKES = ("EXPAND_DIMS", "RESHAPE"), ("SQUEEZE", "RESHAPE")


class _Chain(NamedTuple):
    """Places of the operators; those of one axis alone may be `None`."""

    space: int
    adds: int | None
    convolution: int
    takes: int | None
    batch: int


def fused(
    model: schema.ModelT, graph: schema.SubGraphT
) -> list[tuple[int, schema.OperatorT]]:
    """Operators of a graph with their places, dilated convolutions as one.

    What is no dilated convolution of Keras stays as it is.

    Args:
        model: The file.
        graph: One of its graphs. It gets tensors that only the result reads.
    """
    found: dict[int, schema.OperatorT | None] = dict(enumerate(graph.operators))
    for chain in _chains(model, graph):
        padding = _padding(model, graph, chain)
        if padding is not None:
            found.update(_replaced(model, graph, chain, padding))
    return [(at, op) for at, op in found.items() if op is not None]


def _chains(model: schema.ModelT, graph: schema.SubGraphT) -> Iterator[_Chain]:
    readers: dict[int, list[int]] = collections.defaultdict(list)
    for at, op in enumerate(graph.operators):
        for i in set(flat.inputs(op)):
            readers[i].append(at)
    last = set(flat.outputs(graph))

    def follower(at: int | None, kinds: Sequence[str]) -> int | None:
        """The one operator that reads what another one writes."""
        if at is None:
            return None
        written = flat.outputs(graph.operators[at])
        if len(written) != 1 or written[0] in last:
            return None
        reads = readers[written[0]]
        if len(reads) != 1:
            return None
        op = graph.operators[reads[0]]
        first = flat.inputs(op)[:1] == written
        return reads[0] if first and flat.op_name(model, op) in kinds else None

    for at, op in enumerate(graph.operators):
        if flat.op_name(model, op) != _SPACE:
            continue
        adds = follower(at, _ADDS)
        middle = follower(at if adds is None else adds, _CONVOLUTIONS)
        takes = follower(middle, _TAKES) if adds is not None else None
        end = follower(middle if adds is None else takes, (_BATCH,))
        if middle is not None and end is not None:
            yield _Chain(at, adds, middle, takes, end)


def _padding(
    model: schema.ModelT, graph: schema.SubGraphT, chain: _Chain
) -> schema.Padding | None:
    """The padding of the one convolution; `None` if there is none such."""
    space, middle, batch = (
        graph.operators[at]
        for at in (chain.space, chain.convolution, chain.batch)
    )
    options = middle.builtinOptions
    factors = [options.strideH, options.strideW]
    factors += [options.dilationHFactor, options.dilationWFactor]
    if max(factors) > 1 or options.padding != schema.Padding.VALID:
        return None
    read, written = flat.inputs(space)[0], flat.outputs(batch)[0]
    if -1 in flat.axes(graph.tensors[read])[1:]:
        return None
    sizes = flat.shape(graph.tensors[read])[1:]
    results = flat.shape(graph.tensors[written])[1:]
    kernel = flat.shape(graph.tensors[flat.inputs(middle)[1]])[1:3]
    blocks, added = _constants(model, graph, space)
    again, cut = _constants(model, graph, batch)
    one_axis = chain.adds is not None
    if blocks is None or again is None or not np.array_equal(blocks, again):
        return None
    if len(sizes) != (2 if one_axis else 3) or len(blocks) != len(sizes) - 1:
        return None
    if one_axis and kernel[0] != 1:
        return None
    same = valid = True
    lengths = kernel[-len(blocks) :]
    for size, result, block, length, before, after in zip(
        sizes, results, blocks, lengths, added, cut, strict=False
    ):
        reach = (length - 1) * block
        left = before[0] - after[0]
        same &= result == size and left == reach // 2
        valid &= result == size - reach and left == 0
    if same:
        return schema.Padding.SAME
    return schema.Padding.VALID if valid else None


def _constants(
    model: schema.ModelT, graph: schema.SubGraphT, op: schema.OperatorT
) -> tuple[Any, Any]:
    """Blocks, and what is added or cut; `None` for what is computed."""
    found = []
    for i in flat.inputs(op)[1:3]:
        tensor = graph.tensors[i]
        if flat.raw_data(model, tensor) is None:
            return None, None
        found.append(np.asarray(constants.real(model, tensor)).astype(int))
    return found[0].ravel(), found[1].reshape(-1, 2)


def _replaced(
    model: schema.ModelT,
    graph: schema.SubGraphT,
    chain: _Chain,
    padding: schema.Padding,
) -> dict[int, schema.OperatorT | None]:
    """The operators at the places of a chain that stand for it."""
    operators = graph.operators
    read = flat.inputs(operators[chain.space])[0]
    written = flat.outputs(operators[chain.batch])[0]
    blocks, _ = _constants(model, graph, operators[chain.space])
    new: dict[int, schema.OperatorT | None] = {
        chain.space: None,
        chain.batch: None,
    }
    middle = copy.copy(operators[chain.convolution])
    options = copy.copy(middle.builtinOptions)
    options.padding = padding
    options.dilationHFactor, options.dilationWFactor = (
        map(int, blocks) if len(blocks) == 2 else (1, int(blocks[0]))
    )
    middle.builtinOptions = options
    if chain.adds is not None and chain.takes is not None:
        adds, takes = operators[chain.adds], operators[chain.takes]
        wide = _widened(graph, read, flat.outputs(adds)[0])
        result = _widened(graph, written, flat.outputs(middle)[0])
        new[chain.adds] = _between(model, adds, read, wide)
        new[chain.takes] = _between(model, takes, result, written)
        read, written = wide, result
    middle.inputs = [read, *flat.inputs(middle)[1:]]
    middle.outputs = [written]
    new[chain.convolution] = middle
    return new


def _widened(graph: schema.SubGraphT, like: int, grid: int) -> int:
    """A new tensor of the shape of one, with an axis more, as another one."""
    tensor = copy.copy(graph.tensors[grid])
    shape = flat.shape(graph.tensors[like])
    tensor.shape = np.array([shape[0], 1, *shape[1:]], np.int32)
    tensor.shapeSignature = None
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _between(
    model: schema.ModelT, op: schema.OperatorT, read: int, written: int
) -> schema.OperatorT:
    """An operator that adds or takes an axis, with other ends."""
    new = copy.copy(op)
    rest = flat.inputs(op)[1:]
    if flat.op_name(model, op) == "RESHAPE":
        # Its constant is of the batch of places.
        rest, new.builtinOptions = [], None
    new.inputs, new.outputs = [read, *rest], [written]
    return new
