"""Checks that the contents of a TFLite file are consistent.

`check_bytes.verify` has shown that the bytes can be read. This module checks
what the numbers mean: indices of existing objects, data that fills its shape,
graphs that do not call themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

# Tensors of several graphs may share a buffer, as the signatures of a language
# model do. Many more would let a small file stand for a large one.
_SHARING = 64
# The same of the names of inputs and outputs, which are printed.
_SHARING_NAMES = 16
_SLACK = 1 << 16
_LONGEST_NAME = 256
# NumPy 1 takes no more axes.
_MOST_AXES = 32
# Kernels count elements in 32-bit integers.
_MOST_ELEMENTS = 2**31 - 1
_T = schema.TensorType
# Types that are left out have no fixed size.
_BITS = {
    _T.BFLOAT16: 16,
    _T.BOOL: 8,
    _T.COMPLEX64: 64,
    _T.COMPLEX128: 128,
    _T.FLOAT8_E4M3FN: 8,
    _T.FLOAT8_E5M2: 8,
    _T.FLOAT16: 16,
    _T.FLOAT32: 32,
    _T.FLOAT64: 64,
    _T.INT2: 2,
    _T.INT4: 4,
    _T.INT8: 8,
    _T.INT16: 16,
    _T.INT32: 32,
    _T.INT64: 64,
    _T.UINT4: 4,
    _T.UINT8: 8,
    _T.UINT16: 16,
    _T.UINT32: 32,
    _T.UINT64: 64,
}
# Names of the options that hold indices of graphs; -1 is none.
CALLS = (
    "bodySubgraphIndex",
    "branchSubgraphIndices",
    "calledComputations",
    "comparatorSubgraphIndex",
    "condSubgraphIndex",
    "decompositionSubgraphIndex",
    "elseSubgraphIndex",
    "initSubgraphIndex",
    "subgraph",
    "thenSubgraphIndex",
    "updateComputationSubgraphIndex",
)


def check(model: schema.ModelT, size: int) -> None:
    """Raises a ValueError for wrong indices, shapes, parameters or calls.

    Data behind the flatbuffer is resolved. `size` is the bytes of the file.
    """
    if not model.subgraphs or not model.buffers:
        raise ValueError("the file holds no graph")
    if model.externalBufferGroups or model.externalBuffers:
        raise ValueError("its weights are in other files, which are not read")
    count = len(model.buffers)
    _within("metadata", "buffer", _list(model.metadataBuffer), count)
    for entry in model.metadata or ():
        _within("metadata", "buffer", [entry.buffer], count)
    for number, code in enumerate(model.operatorCodes):
        if len(code.customCode or b"") > _LONGEST_NAME:
            raise ValueError(
                f"operator code {number} has a name of "
                f"{len(code.customCode)} bytes"
            )
    # Nothing looks into a buffer before it is known how often all are shared.
    for number, graph in enumerate(model.subgraphs):
        for index, tensor in enumerate(graph.tensors):
            where = f"tensor {number}.{index}"
            _within(where, "buffer", [tensor.buffer], count)
        tensors = len(graph.tensors)
        where = f"graph {number}"
        _within(f"{where}'s inputs", "tensor", graph.inputs, tensors)
        _within(f"{where}'s outputs", "tensor", graph.outputs, tensors)
    _check_sharing(model, size)
    _check_strings(model)
    for number, graph in enumerate(model.subgraphs):
        for index, tensor in enumerate(graph.tensors):
            _tensor(f"tensor {number}.{index}", model, graph, tensor)
        for index, op in enumerate(graph.operators):
            _operator(f"operator {number}.{index}", model, graph, op)
    for number, signature in enumerate(model.signatureDefs or ()):
        _signature(f"signature {number}", model, signature)
    _check_calls(model)


def _tensor(
    where: str,
    model: schema.ModelT,
    graph: schema.SubGraphT,
    tensor: schema.TensorT,
) -> None:
    if tensor.externalBuffer:
        raise ValueError(f"{where} is in another file, which is not read")
    shape = _list(tensor.shape)
    if len(shape) > _MOST_AXES or any(length < 0 for length in shape):
        raise ValueError(f"{where} has the shape {_short(shape)}")
    signature = _list(tensor.shapeSignature)
    if len(signature) > _MOST_AXES or any(length < -1 for length in signature):
        raise ValueError(f"{where} has the signature {_short(signature)}")
    elements = math.prod(shape)
    if elements > _MOST_ELEMENTS:
        raise ValueError(
            f"{where} has {elements} elements; kernels count to "
            f"{_MOST_ELEMENTS}"
        )
    for variant in tensor.variantTensors or ():
        if any(length < 0 for length in _list(variant.shape)):
            raise ValueError(f"{where} holds variants of a negative shape")
    data = model.buffers[tensor.buffer].data
    if data is not None and len(data):
        _data(where, tensor, data, elements)
    if tensor.quantization is not None:
        _quantization(where, graph, tensor.quantization, shape)
    if tensor.sparsity is not None:
        _sparsity(where, tensor.sparsity, shape)


def _data(
    where: str, tensor: schema.TensorT, data: np.ndarray, elements: int
) -> None:
    """Checks that a constant's bytes fill its shape."""
    if tensor.type == _T.STRING:
        count = int(np.frombuffer(data, "<i4", 1)[0])
        if elements > count:
            raise ValueError(
                f"{where} takes {elements} strings, its buffer holds {count}"
            )
    bits = _BITS.get(tensor.type)
    # Sparse ones hold what is not zero.
    if bits is None or tensor.sparsity is not None:
        return
    needed = -(-elements * bits // 8)
    if needed != len(data):
        raise ValueError(
            f"{where} takes {needed} bytes, its buffer holds {len(data)}"
        )


def _check_strings(model: schema.ModelT) -> None:
    """Checks the layout: a count, offsets of starts and the end, bytes."""
    holders = {
        tensor.buffer
        for graph in model.subgraphs
        for tensor in graph.tensors
        if tensor.type == _T.STRING
    }
    for index in holders:
        data = model.buffers[index].data
        if data is None or not len(data):
            continue
        numbers = np.frombuffer(data, "<i4", len(data) // 4)
        count = int(numbers[0]) if numbers.size else -1
        if not 0 <= count <= numbers.size - 2:
            raise ValueError(
                f"buffer {index} holds {count} strings in {len(data)} bytes"
            )
        offsets = numbers[1 : count + 2]
        inside = offsets[0] >= 4 * (count + 2) and offsets[-1] <= len(data)
        if not inside or (offsets[1:] < offsets[:-1]).any():
            raise ValueError(f"buffer {index} holds strings outside of it")


def _quantization(
    where: str,
    graph: schema.SubGraphT,
    parameters: schema.QuantizationParametersT,
    shape: list[int],
) -> None:
    scale = np.asarray(_vector(parameters.scale), np.float32)
    zero = _vector(parameters.zeroPoint)
    if not np.isfinite(scale).all():
        raise ValueError(f"{where} has scales that are no finite numbers")
    if len(scale) and len(zero) and len(zero) != len(scale):
        raise ValueError(
            f"{where} has {len(scale)} scales and {len(zero)} zero points"
        )
    if len(scale) > 1:
        axis = parameters.quantizedDimension
        if not 0 <= axis < len(shape) or shape[axis] != len(scale):
            raise ValueError(
                f"{where} of shape {_short(shape)} has {len(scale)} scales "
                f"along axis {axis}"
            )
    details = parameters.details
    for name in ("scales", "zeroPoints"):
        index = getattr(details, name, -1)
        _within(where, "tensor", [index], len(graph.tensors), least=-1)


def _sparsity(
    where: str, sparsity: schema.SparsityParametersT, shape: list[int]
) -> None:
    levels = sparsity.dimMetadata or ()
    blocks = _list(sparsity.blockMap)
    _within(where, "axis", blocks, len(shape))
    order = _list(sparsity.traversalOrder)
    axes = len(shape) + len(blocks)
    if sorted(order) != list(range(axes)) or len(levels) != axes:
        raise ValueError(
            f"{where} is sparse in {len(levels)} levels, of {axes} axes"
        )
    if any(level.denseSize < 0 for level in levels):
        raise ValueError(f"{where} is sparse in levels of a negative size")


def _operator(
    where: str,
    model: schema.ModelT,
    graph: schema.SubGraphT,
    op: schema.OperatorT,
) -> None:
    codes, tensors = len(model.operatorCodes), len(graph.tensors)
    _within(where, "operator code", [op.opcodeIndex], codes)
    # -1 stands for an optional input that isn't there.
    _within(f"{where}'s inputs", "tensor", op.inputs, tensors, least=-1)
    _within(f"{where}'s outputs", "tensor", op.outputs, tensors)
    between = op.intermediates
    _within(f"{where}'s intermediates", "tensor", between, tensors, least=-1)


def _signature(
    where: str, model: schema.ModelT, signature: schema.SignatureDefT
) -> None:
    _within(where, "graph", [signature.subgraphIndex], len(model.subgraphs))
    tensors = len(model.subgraphs[signature.subgraphIndex].tensors)
    for entry in (*signature.inputs, *signature.outputs):
        _within(where, "tensor", [entry.tensorIndex], tensors)


def calls(op: schema.OperatorT) -> list[int]:
    """Indices of the graphs that an operator runs."""
    found: list[int] = []
    for options in (op.builtinOptions, op.builtinOptions2):
        for name in CALLS:
            value = getattr(options, name, None)
            if value is not None:
                found.extend(int(i) for i in np.atleast_1d(value))
    return [index for index in found if index != -1]


def _check_calls(model: schema.ModelT) -> None:
    """Checks that graphs run graphs that exist, and never themselves."""
    count = len(model.subgraphs)
    callees: list[Iterator[int]] = []
    for number, graph in enumerate(model.subgraphs):
        found = {index for op in graph.operators for index in calls(op)}
        _within(f"graph {number}'s operators", "graph", found, count)
        callees.append(iter(sorted(found)))
    done: set[int] = set()
    for start in range(count):
        path, entered = [start], {start}
        while path:
            # Each graph's callees are gone through once, whoever calls it.
            following = next(callees[path[-1]], None)
            if following is None:
                entered.discard(path[-1])
                done.add(path.pop())
            elif following in entered:
                raise ValueError(f"graph {following} runs itself")
            elif following not in done:
                path.append(following)
                entered.add(following)


def check_written(model: schema.ModelT) -> None:
    """Raises a ValueError where an operator or output reads what nobody wrote.

    The interpreter does not look, and reads what memory happens to hold.
    """
    for number, graph in enumerate(model.subgraphs):
        known = np.array(
            [_is_there(model, tensor) for tensor in graph.tensors], np.bool_
        )
        if graph.inputs is not None:
            known[graph.inputs] = True
        for position, op in enumerate(graph.operators):
            where = f"operator {number}.{position}"
            _check_known(where, number, op.inputs, known)
            if op.outputs is not None:
                known[op.outputs] = True
        _check_known(f"graph {number}'s outputs", number, graph.outputs, known)


def _is_there(model: schema.ModelT, tensor: schema.TensorT) -> bool:
    """Whether a tensor needs no one to write it."""
    data = model.buffers[tensor.buffer].data
    constant = data is not None and len(data) > 0
    return constant or tensor.isVariable or 0 in _list(tensor.shape)


def _check_known(
    where: str, number: int, indices: Any, known: np.ndarray
) -> None:
    values = np.asarray(_vector(indices), np.int64)
    unknown = values[(values >= 0) & ~known[values]]
    if len(unknown):
        raise ValueError(
            f"{where} reads what nothing writes before. Expected operators "
            f"in the order in which they run. Received: tensor "
            f"{number}.{unknown[0]}"
        )


def _check_sharing(model: schema.ModelT, size: int) -> None:
    """Checks that what is said of a file stays in proportion to it."""
    data = names = 0
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            held = model.buffers[tensor.buffer].data
            data += 0 if held is None else len(held)
        for index in (*_list(graph.inputs), *_list(graph.outputs)):
            names += len(graph.tensors[index].name or b"")
    if (
        data > _SHARING * size + _SLACK
        or names > _SHARING_NAMES * size + _SLACK
    ):
        raise ValueError("too many tensors or ports share the same bytes")


def _within(
    where: str, what: str, indices: Any, count: int, least: int = 0
) -> None:
    values = _vector(indices)
    if not len(values):
        return
    for index in (int(np.min(values)), int(np.max(values))):
        if not least <= index < count:
            raise ValueError(f"{where}: no {what} {index} among {count}")


def _vector(values: Iterable[Any] | None) -> Any:
    if values is None:
        return ()
    return values if isinstance(values, np.ndarray) else list(values)


def _list(values: Iterable[int] | None) -> list[int]:
    return [] if values is None else [int(value) for value in values]


def _short(values: list[int]) -> str:
    shown = ", ".join(map(str, values[:8]))
    return f"({shown}{', ...' if len(values) > 8 else ''})"
