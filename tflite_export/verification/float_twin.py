"""Float references of an integer file.

Every integer operator becomes DEQUANTIZE, the float operator and QUANTIZE: the
arithmetic that fake quantization trains, read off the bytes of the file. In
the chained twin each operator reads what the twin computed before; in the
isolated twin it reads what a kernel recorded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container
from collections.abc import Mapping

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer import packing
from tflite_export.targets import CONTAINERS

_KINDS = ("INT8", "INT16")


@dataclasses.dataclass(frozen=True)
class Step:
    """One integer operator.

    Attributes:
        name: The operator.
        position: Its place among the operators of the integer file.
        reads: Its activations, tensors of the integer file.
        writes: The integer tensors it writes.
    """

    name: str
    position: int
    reads: tuple[int, ...]
    writes: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Twin:
    """A float twin.

    Attributes:
        data: The bytes of the twin.
        inputs: Tensors of the integer file that it takes, in order.
        outputs: Tensors of the integer file that it gives, in order.
        steps: The operators it simulates.
    """

    data: bytes
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    steps: tuple[Step, ...]


def activations(model: schema.ModelT) -> list[int]:
    """Integer activation tensors of the main graph, in order of writing."""
    graph = model.subgraphs[0]
    found = [i for i in fb.inputs(graph) if _is_activation(model, i)]
    for op in graph.operators:
        found += [i for i in fb.outputs(op) if _is_activation(model, i)]
    return list(dict.fromkeys(found))


def steps(model: schema.ModelT) -> list[Step]:
    """The operators that compute with integer activations."""
    found = []
    for position, op in enumerate(model.subgraphs[0].operators):
        reads = [i for i in fb.inputs(op) if _is_activation(model, i)]
        writes = [i for i in fb.outputs(op) if _is_activation(model, i)]
        if writes:
            name = fb.op_name(model, op)
            found.append(Step(name, position, tuple(reads), tuple(writes)))
    return found


def probe(data: bytes, hidden: Container[int] = ()) -> bytes:
    """The same file with every activation as an output, but for `hidden` ones.

    A delegate hides what happens inside; what is an output it has to show.
    """
    model = fb.load(data)
    graph = model.subgraphs[0]
    inside = (index for index in activations(model) if index not in hidden)
    shown = [*fb.outputs(graph), *inside]
    graph.outputs = np.array(list(dict.fromkeys(shown)), np.int32)
    model.signatureDefs = None
    return fb.dump(model)


def isolated(data: bytes, recorded: Mapping[int, np.ndarray]) -> Twin:
    """The twin in which every operator reads recorded tensors, by index.

    What reads an activation that isn't among them, reads what the twin computed
    in its place.
    """
    return _Builder(data, recorded).build()


def chained(data: bytes) -> Twin:
    """The twin that computes the whole graph; inputs as in the file."""
    return _Builder(data, None).build()


def _is_activation(model: schema.ModelT, index: int) -> bool:
    if index < 0:
        return False
    tensor = model.subgraphs[0].tensors[index]
    return (
        fb.type_name(tensor) in _KINDS
        and tensor.quantization is not None
        and tensor.quantization.scale is not None
        and len(tensor.quantization.scale) > 0
        and fb.raw_data(model, tensor) is None
    )


class _Builder:
    def __init__(self, data: bytes, recorded: Mapping[int, np.ndarray] | None):
        self._model = fb.load(data)
        self._graph = self._model.subgraphs[0]
        self._isolate = recorded is not None
        self._inside: set[int] = set()
        if recorded is not None:
            self._inside = set(activations(self._model)) - set(recorded)
        for index, array in (recorded or {}).items():
            tensor = self._graph.tensors[index]
            tensor.shape = np.array(array.shape, np.int32)
            tensor.shapeSignature = None
        self._floats: dict[int, int] = {}
        self._steps = steps(self._model)

    def build(self) -> Twin:
        placed = {step.position: step for step in self._steps}
        known = set(activations(self._model))
        operators = list(self._graph.operators)
        graph = self._graph
        ports = fb.inputs(graph)
        read: list[int] = []
        results: list[int] = []
        outputs: list[int] = []
        graph.operators = []
        for position, op in enumerate(operators):
            step = placed.get(position)
            if step is None:
                # What leaves the integers for good has nothing to compare.
                leaves = fb.op_name(self._model, op) == "DEQUANTIZE" and set(
                    fb.outputs(op)
                ) <= set(fb.outputs(graph))
                if not (self._isolate and leaves):
                    self._append(op)
                    read += [i for i in fb.inputs(op) if i in known]
            else:
                read += step.reads
                outputs += [
                    i
                    for i in fb.outputs(op)
                    if i in known and i not in self._inside
                ]
                results += self._simulate(op, known)
        if self._isolate:
            ports = [
                index
                for index in dict.fromkeys((*ports, *read))
                if index not in self._inside
            ]
            graph.inputs = np.array(ports, np.int32)
            graph.outputs = np.array(results, np.int32)
        else:
            outputs = fb.outputs(graph)
        self._model.signatureDefs = None
        return Twin(
            fb.dump(self._model),
            tuple(ports),
            tuple(outputs),
            tuple(self._steps),
        )

    def _simulate(self, op: schema.OperatorT, known: set[int]) -> list[int]:
        """Appends the float form of an operator."""
        inputs = [self._float(i, known) if i >= 0 else i for i in fb.inputs(op)]
        results, floats, behind = [], [], []
        last = -1
        for index in fb.outputs(op):
            if index not in known:
                floats.append(index)
                continue
            tensor = self._graph.tensors[index]
            plain = edit.new_tensor(self._graph, "FLOAT32", tensor)
            result = index
            if self._isolate:
                result = edit.new_tensor(self._graph, "INT8", tensor)
                self._graph.tensors[result].type = tensor.type
                self._graph.tensors[result].quantization = tensor.quantization
            floats.append(plain)
            if index in self._inside:
                # Nobody rounds what a device fuses with what reads it.
                self._floats[index] = plain
                continue
            results.append(result)
            behind.append(self._converted("QUANTIZE", plain, result))
            last = result
        if fb.op_name(self._model, op) == "QUANTIZE":
            behind = [self._converted("QUANTIZE", inputs[0], last)]
        else:
            op.inputs = np.array(inputs, np.int32)
            op.outputs = np.array(floats, np.int32)
            self._append(op)
        for other in behind:
            self._append(other)
        return results

    def _append(self, op: schema.OperatorT) -> None:
        self._graph.operators.append(op)

    def _float(self, index: int, known: set[int]) -> int:
        """The float tensor with the values of an integer tensor."""
        if index in self._floats:
            return self._floats[index]
        tensor = self._graph.tensors[index]
        if index in known:
            result = edit.new_tensor(self._graph, "FLOAT32", tensor)
            self._append(self._converted("DEQUANTIZE", index, result))
        elif (value := constant_values(self._model, tensor)) is not None:
            buffer = edit.new_buffer(self._model, value)
            result = edit.new_tensor(
                self._graph, "FLOAT32", tensor, buffer=buffer
            )
        else:
            return index
        self._floats[index] = result
        return result

    def _converted(
        self, name: str, source: int, result: int
    ) -> schema.OperatorT:
        integer = result if name == "QUANTIZE" else source
        kind = fb.type_name(self._graph.tensors[integer])
        return edit.conversion(self._model, name, kind, source, result)


def constant_values(
    model: schema.ModelT, tensor: schema.TensorT
) -> np.ndarray | None:
    """Float values of a constant with scales, else `None`."""
    parameters = tensor.quantization
    data = fb.raw_data(model, tensor)
    if data is None or parameters is None or parameters.scale is None:
        return None
    bits = CONTAINERS.get(fb.type_name(tensor))
    shape = fb.shape(tensor)
    if bits is None:
        integers = fb.constant(model, tensor)
        if integers is None:
            return None
    else:
        count = int(np.prod(shape, dtype=np.int64))
        integers = packing.unpack(data, bits, count).reshape(shape)
    scale = np.asarray(parameters.scale, np.float64)
    zero = np.asarray(parameters.zeroPoint, np.float64)
    if scale.size > 1:
        rank = [1] * len(shape)
        rank[parameters.quantizedDimension] = -1
        scale, zero = scale.reshape(rank), zero.reshape(rank)
    return ((integers - zero) * scale).astype(np.float32)
