"""Layer normalizations in float, between integers.

The converter writes them as a dozen operators: means, squares, a reciprocal
root, products, sums. A variance in 8 bits, and the reciprocal of its root, are
off by large factors wherever variances differ from token to token, and one unit
there moves the outputs by many. In training such a layer has one quantization
point, its output. So on targets that also run float operators, its operators
compute in float, between a DEQUANTIZE and a QUANTIZE on the trained grids.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence

from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.integer.trained_grids import as_float32
from tflite_export.integer.trained_grids import is_float

# What stands between the variance and the result.
_AFTER = {"ADD", "MUL", "NEG", "SUB"}


def find(model: schema.ModelT, ends: Collection[int]) -> list[schema.OperatorT]:
    """The operators of all layer and root-mean-square normalizations, in order.

    Tensors with a trained grid are an end for sure.
    """
    graph = model.subgraphs[0]
    writers = fb.writers(graph)
    found: list[schema.OperatorT] = []
    for op in graph.operators:
        if fb.op_name(model, op) == "RSQRT":
            found += _around(model, op, writers, ends)
    return [op for op in graph.operators if any(op is x for x in found)]


def _around(
    model: schema.ModelT,
    root: schema.OperatorT,
    writers: dict[int, schema.OperatorT],
    ends: Collection[int],
) -> list[schema.OperatorT]:
    """The normalization that a reciprocal root belongs to, or nothing."""
    before = _before(model, root, writers)
    if not before:
        return []
    source = fb.inputs(before[0])[0]
    known = {source}
    for op in (*before, root):
        known.update(fb.outputs(op))
    after = []
    for op in model.subgraphs[0].operators:
        if any(op is x for x in (*before, root)):
            continue
        inputs = fb.inputs(op)
        inside = [i for i in inputs if i in known - {source} - set(ends)]
        if (
            fb.op_name(model, op) in _AFTER
            and inside
            and all(
                i in known - set(ends) | {source}
                or as_float32(model, i) is not None
                for i in inputs
            )
        ):
            after.append(op)
            known.update(fb.outputs(op))
    return [*before, root, *after]


def _before(
    model: schema.ModelT,
    root: schema.OperatorT,
    writers: dict[int, schema.OperatorT],
) -> list[schema.OperatorT]:
    """From the layer's input to the variance; empty where it is no variance."""

    def writer(index: int, name: str) -> schema.OperatorT | None:
        op = writers.get(index)
        return op if op and fb.op_name(model, op) == name else None

    found: list[schema.OperatorT] = []
    variance = fb.inputs(root)[0]
    if (added := writer(variance, "ADD")) is not None:
        found.append(added)
        variance = fb.inputs(added)[0]
    mean = writer(variance, "MEAN")
    if mean is None:
        return []
    found.append(mean)
    for name in ("SQUARED_DIFFERENCE", "SQUARE", "MUL"):
        squares = writer(fb.inputs(mean)[0], name)
        if squares is not None:
            break
    else:
        return []
    found.append(squares)
    source, *other = fb.inputs(squares)
    if name == "MUL" and other != [source]:
        return []
    if name != "SQUARED_DIFFERENCE":
        apart = writer(source, "SUB")
        if apart is None:
            return found[::-1]
        found.append(apart)
        source, *other = fb.inputs(apart)
    center = writer(other[0], "MEAN")
    if center is None or fb.inputs(center)[0] != source:
        return []
    found.append(center)
    return found[::-1]


def surround(
    model: schema.ModelT,
    operators: list[schema.OperatorT],
    mode: str,
    ends: Collection[int],
    plain: Collection[int] = (),
) -> list[schema.OperatorT]:
    """Puts conversions around operators that stay in float.

    Tensors of integer operators keep their indices; the float ones in between
    get new ones where both need the same values.

    Args:
        model: The float model, changed in place.
        operators: What `find` or `regions.find` found.
        mode: `"int8"` or `"int16"`.
        ends: As `find` got them: also between two normalizations.
        plain: Inputs of the graph that stay float.

    Returns:
        These operators and the DEQUANTIZE in front of them.
    """
    graph = model.subgraphs[0]
    inside = {i for op in operators for i in fb.outputs(op)} - set(ends)
    inside.update(plain)
    kept = list(operators)
    floats: dict[int, int] = {}
    for op in operators:
        for place, index in enumerate(fb.inputs(op)):
            if index in inside or not is_float(model, index):
                continue
            if index not in floats:
                floats[index] = edit.new_tensor(
                    graph, "FLOAT32", graph.tensors[index]
                )
                entry = edit.conversion(
                    model, "DEQUANTIZE", mode, index, floats[index]
                )
                graph.operators.insert(edit.before(graph, op), entry)
                kept.append(entry)
            edit.set_input(op, place, floats[index])
    for op in operators:
        for index in fb.outputs(op):
            if not is_float(model, index):
                continue
            _leave(model, op, index, operators if index in inside else (), mode)
    return kept


def _leave(
    model: schema.ModelT,
    op: schema.OperatorT,
    index: int,
    inside: Sequence[schema.OperatorT],
    mode: str,
) -> None:
    """Quantizes an output that others than those inside read."""
    graph = model.subgraphs[0]
    readers = [o for o in graph.operators if index in fb.inputs(o)]
    own = [o for o in readers if any(o is x for x in inside)]
    if len(own) == len(readers) and index not in fb.outputs(graph):
        return
    plain = edit.new_tensor(graph, "FLOAT32", graph.tensors[index])
    op.outputs = edit.replaced(fb.outputs(op), index, plain)
    for other in own:
        for place, read in enumerate(fb.inputs(other)):
            if read == index:
                edit.set_input(other, place, plain)
    exit_ = edit.conversion(model, "QUANTIZE", mode, plain, index)
    graph.operators.insert(edit.before(graph, op) + 1, exit_)
