"""States on one grid where they leave a file and come in again.

The output of a state is its input in the next call, so the same bytes have to
mean the same at both ports. The grid of the output decides: the output holds
the state, and another grid would round it once more.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.integer.assign_grids import Solution
from tflite_export.integer.calibrate import Range
from tflite_export.integer.grids import Grid
from tflite_export.integer.quantize_graph import Rows

# An input that took over a grid may change that of its output; of the third
# time on, a conversion at the input has to do.
_MOST_ROUNDS = 3


def pairs(model: schema.ModelT, count: int) -> list[tuple[int, int]]:
    """The input and the output of each state, the last ones of the graph."""
    graph = model.subgraphs[0]
    inputs, outputs = fb.inputs(graph), fb.outputs(graph)
    return list(
        zip(
            inputs[len(inputs) - count :],
            outputs[len(outputs) - count :],
            strict=True,
        )
    )


def joined(
    model: schema.ModelT,
    rows: Rows,
    ranges: Mapping[int, Range],
    states: Sequence[tuple[int, int]],
) -> dict[int, Range]:
    """Ranges in which both ends of a state, see `pairs`, have that of both."""
    result = dict(ranges)
    for taken, given in states:
        ends = [taken, *_sources(model, rows, given)]
        known = [result[end] for end in ends if end in result]
        if len(known) == len(ends):
            lows, highs = zip(*known, strict=True)
            result |= {end: (min(lows), max(highs)) for end in ends}
    return result


def _sources(model: schema.ModelT, rows: Rows, index: int) -> list[int]:
    """A tensor, and those whose grid it has because it is moved only."""
    found = [index]
    for op, row in zip(
        reversed(model.subgraphs[0].operators), reversed(rows), strict=True
    ):
        if found[-1] in fb.outputs(op):
            same = [
                i
                for place, i in enumerate(fb.inputs(op))
                if row is not None
                and row.output == "same"
                and row.role(place) == "same"
            ]
            if len(same) != 1:
                break
            found += same
    return found


def solve(
    solved: Callable[[Mapping[int, Grid]], Solution],
    states: Sequence[tuple[int, int]],
    trained: Mapping[int, Grid],
) -> Solution:
    """Grids of a graph with those of the states' outputs at their inputs.

    `solved` is a function of grids that inputs shall have, that solves it.
    Inputs keep trained grids.
    """
    tied: dict[int, Grid] = {}
    for _ in range(_MOST_ROUNDS):
        found = solved(tied)
        grids = found.tensors
        apart = {
            taken: grids[given]
            for taken, given in states
            if taken in grids
            and given in grids
            and taken not in trained
            and grids[taken] != grids[given]
        }
        if not apart:
            break
        tied |= apart
    # Rounded in training when it was given.
    known = {
        taken
        for taken, given in states
        if given in trained and grids.get(taken) == grids.get(given)
    }
    found.untrained = [i for i in found.untrained if i not in known]
    return found


def align(
    model: schema.ModelT, states: Sequence[tuple[int, int]], mode: str
) -> None:
    """Has inputs that are on another grid still take what the outputs give."""
    graph = model.subgraphs[0]
    for taken, given in states:
        inner, outer = graph.tensors[taken], graph.tensors[given]
        if _meaning(inner) == _meaning(outer):
            continue
        port = edit.new_tensor(graph, fb.type_name(outer), inner)
        graph.tensors[port].name = inner.name
        graph.tensors[port].quantization = outer.quantization
        floats = fb.type_name(inner) == "FLOAT32"
        kind = "DEQUANTIZE" if floats else "QUANTIZE"
        operator = edit.conversion(model, kind, mode, port, taken)
        graph.operators.insert(0, operator)
        graph.inputs = edit.replaced(fb.inputs(graph), taken, port)
        edit.sign(model, "inputs", taken, port)


def _meaning(tensor: schema.TensorT) -> tuple[str, float, int]:
    """Type, scale and zero point."""
    q = tensor.quantization
    if q is None or q.scale is None or not len(q.scale):
        return fb.type_name(tensor), 0.0, 0
    return fb.type_name(tensor), float(q.scale[0]), int(q.zeroPoint[0])
