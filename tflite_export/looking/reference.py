"""The float model of a file: the same graph with nothing quantized.

Tensors keep their indices, so that what it computes can be held against the
file tensor by tensor. Weights are those that the file's codes stand for, or the
float weights that they were made from, where those are known.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.verification import float_twin

# Integers that stand for real values, where they have a scale.
_INTEGERS = ("INT2", "INT4", "INT8", "INT16", "INT32", "INT64", "UINT8")
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
# Operators that run graphs, or keep what a run leaves.
_UNKNOWN = (
    "ASSIGN_VARIABLE",
    "CALL",
    "CALL_ONCE",
    "IF",
    "READ_VARIABLE",
    "VAR_HANDLE",
    "WHILE",
)


@dataclasses.dataclass(frozen=True)
class Reference:
    """A float model.

    Attributes:
        data: The bytes of the float model.
        root: Tensor that holds what a tensor of the file stands for, by the
            tensor's index.
    """

    data: bytes
    root: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Apart:
    """The operators of a file in float, each for itself.

    Attributes:
        data: The bytes of a graph that takes what every operator reads.
        inputs: Tensors of the reference that it takes, in order.
        outputs: Tensors of the file that it gives, in order.
    """

    data: bytes
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def quantized(tensor: schema.TensorT) -> bool:
    """Whether a tensor holds integers that stand for real values."""
    q = tensor.quantization
    return (
        fb.type_name(tensor) in _INTEGERS
        and q is not None
        and q.scale is not None
        and len(q.scale) > 0
    )


def unquantized(data: bytes, floats: Mapping[int, np.ndarray]) -> Reference:
    """Makes the float model of a file.

    Args:
        data: The bytes of a TFLite file.
        floats: Float weights by the index of their tensor.

    Raises:
        ValueError: If the file has loops, variables or sparse weights.
    """
    model, root = _prepared(data, floats)
    graph = model.subgraphs[0]
    for op in graph.operators:
        op.inputs = _through(fb.inputs(op), root)
    graph.outputs = _through(fb.outputs(graph), root)
    model.signatureDefs = None
    return Reference(fb.dump(model), tuple(root))


def apart(data: bytes, recorded: Mapping[int, np.ndarray]) -> Apart:
    """Makes a graph in which every operator reads what was recorded.

    Args:
        data: The bytes of a TFLite file.
        recorded: What the reference computed, by the index of the tensor.
    """
    model, root = _prepared(data, {})
    graph = model.subgraphs[0]
    taken: dict[int, int] = {}
    outputs: list[int] = []
    for op in graph.operators:
        places = []
        for index in _through(fb.inputs(op), root):
            index = int(index)
            if index in recorded and index not in taken:
                tensor = graph.tensors[index]
                shape = recorded[index].shape
                kind = fb.type_name(tensor)
                taken[index] = edit.new_tensor(graph, kind, shape=shape)
            places.append(taken.get(index, index))
        op.inputs = np.array(places, np.int32)
        outputs += fb.outputs(op)
    graph.inputs = np.array(list(taken.values()), np.int32)
    graph.outputs = np.array(outputs, np.int32)
    model.signatureDefs = None
    return Apart(fb.dump(model), tuple(taken), tuple(outputs))


def _prepared(
    data: bytes, floats: Mapping[int, np.ndarray]
) -> tuple[schema.ModelT, list[int]]:
    """A file in float, its conversions dropped, and where their results are.

    Operators still read the tensors that conversions wrote.
    """
    model = fb.load(data)
    names = {fb.code_name(code) for code in model.operatorCodes}
    unknown = sorted(
        name for name in names if name in _UNKNOWN or name.startswith("CUSTOM")
    )
    if unknown:
        raise ValueError(
            "The file has no float form. Expected operators whose results "
            f"can be read off its tensors. Received: {', '.join(unknown)}"
        )
    graph = model.subgraphs[0]
    for index, tensor in enumerate(graph.tensors):
        if tensor.sparsity is not None:
            raise ValueError(
                "The file has no float form. Expected dense weights. Received: "
                "sparse ones"
            )
        if quantized(tensor):
            _make_float(model, tensor, floats.get(index))
    root = list(range(len(graph.tensors)))
    kept = []
    for op in graph.operators:
        ends = [*fb.inputs(op), *fb.outputs(op)]
        if fb.op_name(model, op) in _CONVERSIONS and len(ends) == 2:
            source, result = ends
            if fb.type_name(graph.tensors[source]) == "FLOAT32":
                root[result] = root[source]
                continue
        kept.append(op)
    graph.operators = kept
    return model, root


def _make_float(
    model: schema.ModelT, tensor: schema.TensorT, value: np.ndarray | None
) -> None:
    if fb.raw_data(model, tensor) is not None:
        if value is None:
            value = float_twin.constant_values(model, tensor)
        if value is None:
            raise ValueError(
                "The file has no float form. Expected constants of known "
                f"types. Received: {fb.type_name(tensor)}"
            )
        value = np.asarray(value, np.float32).reshape(fb.shape(tensor))
        tensor.buffer = edit.new_buffer(model, value)
    tensor.type = schema.TensorType.FLOAT32
    tensor.quantization = None


def _through(indices: Sequence[int], root: Sequence[int]) -> np.ndarray:
    return np.array([i if i < 0 else root[i] for i in indices], np.int32)
