"""Takes a file apart into files of one operator each, to time them."""

from __future__ import annotations

import copy
from typing import Any
from typing import NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.errors import ExportError
from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer.prune import compact

# They run other graphs, whose operators no table has.
_LOOPS = ("WHILE", "IF", "CALL_ONCE", "STABLEHLO_WHILE")
# Operators that move nothing: they name what is kept from call to call.
_FREE = ("VAR_HANDLE",)
_BYTES = {"INT4": 0.5, "INT2": 0.25, "INT8": 1, "UINT8": 1, "BOOL": 1}
_WIDE = {"INT16": 2, "FLOAT16": 2, "INT64": 8, "FLOAT64": 8}


class Operator(NamedTuple):
    """One operator of a file, with what makes its constants.

    Attributes:
        position: Its position among the operators of the file.
        parts: Its position and those of what unpacks its constants.
        key: All that its time depends on, as text: names, options, types and
            shapes.
        family: The same without sizes: what may be compared.
        macs: Multiplications with additions, in a call.
        moved: Bytes that it reads and writes.
        depth: Channels that a tap of its kernel sums over; 0 without a sum.
            Vector kernels fill few of them up with zeros.
    """

    position: int
    parts: tuple[int, ...]
    key: str
    family: str
    macs: int
    moved: float
    depth: int = 0


def split(data: bytes) -> list[Operator]:
    """Describes the operators of a file that compute on activations.

    Raises:
        ExportError: If the file has a loop.
    """
    model = fb.read(data)
    graph = model.subgraphs[0]
    made: dict[int, int] = {}
    found = []
    for position, op in enumerate(graph.operators or ()):
        name = fb.op_name(model, op)
        if name in _LOOPS:
            raise ExportError(
                "A loop's time is not that of its operators. Expected layers "
                "built with unroll=True, or budgets of size alone. Received: "
                f"{name}"
            )
        if name in _FREE:
            continue
        if all(i in made or fb.is_constant(model, graph, i) for i in _read(op)):
            made |= dict.fromkeys(fb.outputs(op), position)
            continue
        found.append(_described(model, graph, position, made))
    return found


def alone(data: bytes, operator: Operator) -> bytes:
    """A file of one operator, whose inputs are those of the file."""
    model = copy.deepcopy(fb.load(data))
    graph = model.subgraphs[0]
    op = graph.operators[operator.position]
    kept = [graph.operators[i] for i in operator.parts]
    inside = {i for other in kept for i in fb.outputs(other)}
    graph.inputs = np.array(
        [
            i
            for i in dict.fromkeys(_read(op))
            if i not in inside and not fb.is_constant(model, graph, i)
        ],
        np.int32,
    )
    graph.outputs = np.array(fb.outputs(op), np.int32)
    graph.operators = kept
    model.subgraphs = [graph]
    model.signatureDefs = None
    for tensor in graph.tensors:
        tensor.shapeSignature = None
        tensor.isVariable = False
    compact(model)
    return fb.dump(model)


def _read(op: schema.OperatorT) -> list[int]:
    return [i for i in fb.inputs(op) if i >= 0]


def _described(
    model: schema.ModelT,
    graph: schema.SubGraphT,
    position: int,
    made: dict[int, int],
) -> Operator:
    op = graph.operators[position]
    parts, todo = [position], [*_read(op)]
    while todo:
        maker = made.get(todo.pop())
        if maker is not None and maker not in parts:
            parts.append(maker)
            todo += _read(graph.operators[maker])
    names, sizes, moved = [], [], 0.0
    for i in sorted(parts):
        each = graph.operators[i]
        read = [
            _tensor(model, graph, t)
            for t in _read(each)
            if t not in made or i == position
        ]
        written = [_tensor(model, graph, t) for t in fb.outputs(each)]
        options = _options(each)
        kinds = " ".join(kind for kind, _, _ in read)
        names.append(f"{fb.op_name(model, each)}[{options}] {kinds}")
        sizes.append(
            ",".join("x".join(map(str, shape)) for _, shape, _ in read)
            + ">"
            + ",".join("x".join(map(str, shape)) for _, shape, _ in written)
        )
        moved += sum(size for *_, size in read + written)
    kernel = _kernel(model, graph, op)
    family = f"{' + '.join(names)}{kernel}"
    return Operator(
        position,
        tuple(sorted(parts)),
        f"{family} | {' + '.join(sizes)}",
        family,
        _macs(model, graph, op),
        moved,
        _depth(model, graph, op),
    )


def _tensor(
    model: schema.ModelT, graph: schema.SubGraphT, index: int
) -> tuple[str, tuple[int, ...], float]:
    """Kind, shape and bytes; a kind says whether it has a scale a channel."""
    tensor = graph.tensors[index]
    kind = fb.type_name(tensor)
    shape = tuple(max(int(n), 1) for n in fb.shape(tensor))
    size = float(np.prod(shape)) * _BYTES.get(kind, _WIDE.get(kind, 4))
    grid = tensor.quantization
    scales = 0 if grid is None or grid.scale is None else len(grid.scale)
    held = "=" if fb.is_constant(model, graph, index) else ""
    return f"{held}{kind.lower()}{'*' if scales > 1 else ''}", shape, size


def _options(op: schema.OperatorT) -> str:
    """Options in words; sizes are in the shapes."""
    options: Any = op.builtinOptions
    if options is None:
        return ""
    given = {
        name: value
        for name, value in sorted(vars(options).items())
        if isinstance(value, bool | int | float)
        and value
        and name not in ("newHeight", "newWidth", "axis")
    }
    return ",".join(f"{name}={value:g}" for name, value in given.items())


def _weights(
    model: schema.ModelT, graph: schema.SubGraphT, op: schema.OperatorT
) -> tuple[int, ...]:
    return fb.shape(graph.tensors[_read(op)[1]])


def _kernel(
    model: schema.ModelT, graph: schema.SubGraphT, op: schema.OperatorT
) -> str:
    """Height and width of a kernel, for which there is code of its own."""
    if fb.op_name(model, op) in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        _, height, width, _ = _weights(model, graph, op)
        return f" k{height}x{width}"
    return ""


def _depth(
    model: schema.ModelT, graph: schema.SubGraphT, op: schema.OperatorT
) -> int:
    if fb.op_name(model, op) in ("CONV_2D", "FULLY_CONNECTED"):
        return int(_weights(model, graph, op)[-1])
    return 0


def _macs(
    model: schema.ModelT, graph: schema.SubGraphT, op: schema.OperatorT
) -> int:
    name = fb.op_name(model, op)
    out = int(np.prod(fb.shape(graph.tensors[fb.outputs(op)[0]])))
    if name == "CONV_2D":
        return out * int(np.prod(_weights(model, graph, op)[1:]))
    if name == "DEPTHWISE_CONV_2D":
        return out * int(np.prod(_weights(model, graph, op)[1:3]))
    if name == "FULLY_CONNECTED":
        return out * int(_weights(model, graph, op)[-1])
    if name == "BATCH_MATMUL":
        return out * int(fb.shape(graph.tensors[_read(op)[0]])[-1])
    if name == "TRANSPOSE_CONV":
        read = int(np.prod(fb.shape(graph.tensors[_read(op)[2]])))
        shape = _weights(model, graph, op)
        return read * int(np.prod(shape[:3]))
    return 0
