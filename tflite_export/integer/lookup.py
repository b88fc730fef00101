"""Functions of one number as tables of their 256 results.

An int8 activation has 256 values. So any function of single elements is a
table, however many operators the converter needs for it. CAST widens the code,
ADD shifts it to 0..255, and GATHER reads the table there. Each result is
rounded once, from float arithmetic, as a quantization point of training rounds
it.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.integer.grids import Grid
from tflite_export.integer.trained_grids import as_float32
from tflite_export.runtime import interpreter
from tflite_export.targets.operator_rows import OperatorRow

_POINTWISE = {
    *("ABS", "ADD", "CAST", "CEIL", "COS", "DIV", "ELU", "EQUAL", "EXP"),
    *("FLOOR", "FLOOR_DIV", "FLOOR_MOD", "GELU", "GREATER", "GREATER_EQUAL"),
    *("HARD_SWISH", "LEAKY_RELU", "LESS", "LESS_EQUAL", "LOG", "LOGICAL_AND"),
    *("LOGICAL_NOT", "LOGICAL_OR", "LOGISTIC", "MAXIMUM", "MINIMUM", "MUL"),
    *("NEG", "NOT_EQUAL", "POW", "RELU", "RELU6", "RELU_0_TO_1"),
    *("RELU_N1_TO_1", "ROUND", "RSQRT", "SELECT", "SELECT_V2", "SIGN", "SIN"),
    *("SQRT", "SQUARE", "SQUARED_DIFFERENCE", "SUB", "TANH", "ZEROS_LIKE"),
}
# How codes become places in a table.
WIDENING = OperatorRow(
    name="CAST",
    operands=("any",),
    output="integers",
    versions={"int8": 1},
    grid={},
    mixes=False,
    channel_axis=0,
    reads=(),
    delicate=False,
    units={},
    evidence="",
)
_CODES = 256
_FIRST = 128


@dataclasses.dataclass(frozen=True)
class Lookup:
    """One function.

    Attributes:
        operator: The CAST that widens its argument.
        source: Tensor that holds its argument.
        table: Constant that holds its results, once they are known.
        result: Tensor that holds its result.
        function: The bytes of a float file that computes 256 of them.
    """

    operator: schema.OperatorT
    source: int
    table: int
    result: int
    function: bytes


def find(
    model: schema.ModelT,
    operators: Collection[schema.OperatorT],
    has_kernel: Callable[[schema.OperatorT], bool],
) -> list[list[schema.OperatorT]]:
    """Functions of one number among operators that have no kernel.

    What stands between two sites of training is one function where it can be.
    Where it is not, as the root of a sum, the parts of it that lack a kernel
    are, from and to the ranges that were measured. Returns the operators of
    each function, in order.
    """
    functions = []
    for group in _groups(operators):
        whole = _with_masks(model, group)
        if _ends(model, whole) is not None:
            functions.append(whole)
            continue
        pointwise = [op for op in group if fb.op_name(model, op) in _POINTWISE]
        for part in _groups(pointwise):
            lacking = [op for op in part if not has_kernel(op)]
            for some in (part, *([op] for op in lacking)) if lacking else ():
                whole = _with_masks(model, some)
                if _ends(model, whole) is not None:
                    functions.append(whole)
                    if some is part:
                        break
    return functions


def replace(
    model: schema.ModelT, functions: Collection[list[schema.OperatorT]]
) -> list[Lookup]:
    """Puts a table in the place of each function; its results come later."""
    lookups = []
    for operators in functions:
        ends = _ends(model, operators)
        if ends is not None:
            lookups.append(_replace(model, operators, *ends))
    return lookups


def fill(
    model: schema.ModelT,
    lookups: Collection[Lookup],
    grids: Mapping[int, Grid],
) -> None:
    """Computes the tables, once the grids of their arguments are known."""
    for lookup in lookups:
        grid = grids[lookup.source]
        low, high = grid.limits
        codes = np.arange(low, high + 1)
        values = ((codes - grid.zero_point) * grid.scale).astype(np.float32)
        with np.errstate(all="ignore"):
            [results] = interpreter.Session(lookup.function, "builtin")(
                [values]
            )
        tensor = model.subgraphs[0].tensors[lookup.table]
        tensor.buffer = edit.new_buffer(model, _finite(results))


def _finite(results: np.ndarray) -> np.ndarray:
    """A logarithm of 0 is the lowest number that any grid has."""
    top = float(np.finfo(np.float32).max) / 4
    return np.nan_to_num(results, nan=0.0, posinf=top, neginf=-top)


def _groups(
    operators: Collection[schema.OperatorT],
) -> list[list[schema.OperatorT]]:
    """Operators that read each other's results."""
    groups: list[list[schema.OperatorT]] = []
    for op in operators:
        linked = [
            group
            for group in groups
            if any(set(fb.inputs(op)) & set(fb.outputs(o)) for o in group)
        ]
        merged = [o for group in linked for o in group] + [op]
        groups = [g for g in groups if all(g is not other for other in linked)]
        groups.append(merged)
    return groups


def _with_masks(
    model: schema.ModelT, group: list[schema.OperatorT]
) -> list[schema.OperatorT]:
    """A group with the comparisons that only it reads."""
    graph = model.subgraphs[0]
    inside = {id(op) for op in group}
    for op in reversed(graph.operators):
        kinds = {fb.type_name(graph.tensors[i]) for i in fb.outputs(op)}
        readers = [
            id(o)
            for o in graph.operators
            if set(fb.outputs(op)) & set(fb.inputs(o))
        ]
        if readers and "FLOAT32" not in kinds and inside >= set(readers):
            inside.add(id(op))
    return [op for op in graph.operators if id(op) in inside]


def _ends(
    model: schema.ModelT, operators: list[schema.OperatorT]
) -> tuple[int, int] | None:
    """Argument and result of a function of one number, `None` for no such."""
    graph = model.subgraphs[0]
    inside = {id(op) for op in operators}
    written = {i for op in operators for i in fb.outputs(op)}
    read = {i for op in operators for i in fb.inputs(op)} - written - {-1}
    arguments = {
        i for i in read if fb.raw_data(model, graph.tensors[i]) is None
    }
    shared = set(fb.outputs(graph))
    for op in graph.operators:
        if id(op) not in inside:
            shared.update(fb.inputs(op))
    results = written & shared
    if not (
        len(arguments) == len(results) == 1
        and all(fb.op_name(model, op) in _POINTWISE for op in operators)
        and all(
            np.prod(fb.shape(graph.tensors[i])) == 1 for i in read - arguments
        )
    ):
        return None
    ends = (arguments.pop(), results.pop())
    same = fb.shape(graph.tensors[ends[0]]) == fb.shape(graph.tensors[ends[1]])
    floats = all(fb.type_name(graph.tensors[i]) == "FLOAT32" for i in ends)
    return ends if same and floats else None


def _replace(
    model: schema.ModelT,
    operators: list[schema.OperatorT],
    source: int,
    result: int,
) -> Lookup:
    graph = model.subgraphs[0]
    function = _alone(model, operators, source, result)
    shape = graph.tensors[source]
    wide = edit.new_tensor(graph, "INT32", shape)
    place = edit.new_tensor(graph, "INT32", shape)
    first = edit.new_constant(model, np.array(_FIRST, np.int32))
    table = edit.new_constant(model, np.zeros(_CODES, np.float32))
    cast = edit.new_operator(model, "CAST", 1, [source], [wide], "CastOptions")
    cast.builtinOptions.inDataType = schema.TensorType.INT8
    cast.builtinOptions.outDataType = schema.TensorType.INT32
    add = edit.new_operator(
        model, "ADD", 1, [wide, first], [place], "AddOptions"
    )
    gather = edit.new_operator(
        model, "GATHER", 2, [table, place], [result], "GatherOptions"
    )
    last = edit.before(graph, operators[-1])
    graph.operators[last + 1 : last + 1] = [cast, add, gather]
    for op in operators:
        del graph.operators[edit.before(graph, op)]
    return Lookup(cast, source, table, result, function)


def _alone(
    model: schema.ModelT,
    operators: list[schema.OperatorT],
    source: int,
    result: int,
) -> bytes:
    """A file of the operators alone, for 256 numbers at once."""
    single = copy.copy(model)
    graph = copy.copy(model.subgraphs[0])
    graph.tensors = [copy.copy(tensor) for tensor in graph.tensors]
    for tensor in graph.tensors:
        tensor.shapeSignature = None
        if fb.raw_data(model, tensor) is None:
            tensor.shape = np.array([_CODES], np.int32)
    for op in operators:
        for index in fb.inputs(op):
            if as_float32(model, index) is not None:
                graph.tensors[index].shape = np.array([1], np.int32)
    graph.operators = list(operators)
    graph.inputs = np.array([source], np.int32)
    graph.outputs = np.array([result], np.int32)
    single.subgraphs = [graph]
    single.signatureDefs = None
    single.metadata = None
    return fb.dump(single)
