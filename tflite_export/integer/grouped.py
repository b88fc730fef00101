"""One convolution a group where a runtime computes grouped ones wrong.

LiteRT's GPU accelerator takes a CONV_2D with groups, and is right on some of
them only, see `gpu_rules.mixes_groups`. Of the others each group is a
convolution of its own channels here; the codes, the grids and the rounding
stay, so a CPU computes the same to the bit.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.integer.reshaping import new_tensor
from tflite_export.integer.trained_grids import as_float32
from tflite_export.matching import scales
from tflite_export.matching.match import Match
from tflite_export.targets import gpu_rules

# Beyond that many, a layer would be more operators than a network. The usual
# ones with many groups (ResNeXt, RegNet) have multiples of four channels in
# each, and are right as they are.
_MOST = 64
_CONVOLUTION = "CONV_2D"


def apart(model: schema.ModelT, matches: Sequence[Match]) -> list[Match]:
    """Changes a float model without pairs in place; tensors keep their indices.

    A weight becomes one tensor a group. What other operators read, too, stays
    beside them.

    Returns:
        The matches of the tensors that hold the weights then.
    """
    graph = model.subgraphs[0]
    found = {m.constant.tensor: m for m in matches if not m.constant.graph}
    pieces: dict[int, list[int]] = {}
    for op in list(graph.operators):
        if fb.op_name(model, op) != _CONVOLUTION:
            continue
        source, weight = fb.inputs(op)[:2]
        count = _groups(graph, op)
        if (
            not 1 < count <= _MOST
            or not gpu_rules.mixes_groups(
                *(fb.axes(graph.tensors[i]) for i in (source, weight))
            )
            or not _can(model, graph, op, found)
        ):
            continue
        if weight not in pieces:
            pieces[weight] = _cut(model, graph, weight, count)
        _replace(model, graph, op, pieces[weight])
    return [
        piece
        for match in matches
        for piece in (
            _matches(graph, match, pieces[match.constant.tensor])
            if not match.constant.graph and match.constant.tensor in pieces
            else [match]
        )
    ]


def _groups(graph: schema.SubGraphT, op: schema.OperatorT) -> int:
    """The number of groups of a CONV_2D, 1 where it isn't known."""
    source, weight = (fb.axes(graph.tensors[i]) for i in fb.inputs(op)[:2])
    return gpu_rules.groups(source, weight)


def _can(
    model: schema.ModelT,
    graph: schema.SubGraphT,
    op: schema.OperatorT,
    found: dict[int, Match],
) -> bool:
    """Whether all of an operator can be cut."""
    inputs = fb.inputs(op)
    weight, bias = inputs[1], inputs[2] if len(inputs) > 2 else -1
    match = found.get(weight)
    return (
        as_float32(model, weight) is not None
        and (bias < 0 or as_float32(model, bias) is not None)
        and (match is None or all(map(_is_cut, (match, *match.twins))))
        and all(
            fb.op_name(model, reader) == _CONVOLUTION
            and fb.inputs(reader)[1] == weight
            and _groups(graph, reader) == _groups(graph, op)
            for reader in fb.readers(graph, weight)
        )
    )


def _is_cut(match: Match) -> bool:
    """Whether the first axis of a tensor is the last one of its weight."""
    shape = match.weight.codes.shape
    # Axes of one element stand anywhere.
    order = [a for a in match.arrangement.permutation if shape[a] > 1]
    return match.fit.columns is None and order[:1] == [len(shape) - 1]


def _cut(
    model: schema.ModelT, graph: schema.SubGraphT, index: int, count: int
) -> list[int]:
    """Constants that are parts of another along its first axis."""
    value = as_float32(model, index)
    if value is None:
        raise ValueError(
            "Expected a constant to cut. Received: tensor "
            f"'{fb.name(graph.tensors[index])}'"
        )
    parts = [edit.new_constant(model, v, graph) for v in np.split(value, count)]
    for number, part in enumerate(parts):
        name = f"{fb.name(graph.tensors[index])}/{number}"
        graph.tensors[part].name = name.encode()
    return parts


def _replace(
    model: schema.ModelT,
    graph: schema.SubGraphT,
    op: schema.OperatorT,
    weights: list[int],
) -> None:
    inputs, result = fb.inputs(op), fb.outputs(op)[0]
    source, count = inputs[0], len(weights)
    axes = fb.axes(graph.tensors[source])
    written = fb.axes(graph.tensors[result])
    biases = [-1] * count
    if len(inputs) > 2 and inputs[2] >= 0:
        biases = _cut(model, graph, inputs[2], count)
    each = (*axes[:-1], axes[-1] // count)
    # -1 is all that an open axis has.
    size = edit.new_constant(model, np.array(each, np.int32), graph)
    steps, results = [], []
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        start = np.zeros(len(axes), np.int32)
        start[-1] = number * each[-1]
        place = edit.new_constant(model, start, graph)
        piece = new_tensor(graph, each)
        steps.append(
            edit.new_operator(
                model,
                "SLICE",
                1,
                [source, place, size],
                [piece],
                "SliceOptions",
            )
        )
        results.append(new_tensor(graph, (*written[:-1], written[-1] // count)))
        part = copy.deepcopy(op)
        part.inputs = np.array([piece, weight, bias][: len(inputs)], np.int32)
        part.outputs = np.array([results[-1]], np.int32)
        steps.append(part)
    joined = edit.new_operator(
        model, "CONCATENATION", 1, results, [result], "ConcatenationOptions"
    )
    joined.builtinOptions.axis = len(written) - 1
    at = edit.before(graph, op)
    graph.operators[at : at + 1] = [*steps, joined]


def _matches(
    graph: schema.SubGraphT, match: Match, tensors: Sequence[int]
) -> list[Match]:
    return [
        _part(match, number, tensor, fb.name(graph.tensors[tensor]), tensors)
        for number, tensor in enumerate(tensors)
    ]


def _part(
    match: Match, number: int, tensor: int, name: str, tensors: Sequence[int]
) -> Match:
    """What one of the tensors holds."""
    value = np.split(match.constant.value, len(tensors))[number]
    arrangement, fit = match.arrangement, match.fit
    first = arrangement.start + number * len(value)
    if fit.axis == 0:
        here = slice(number * len(value), (number + 1) * len(value))
        codes = match.codes[here].reshape(len(value), -1)
        scale, silent = fit.scale[here], ~codes.any(1)
        fit = dataclasses.replace(
            fit,
            scale=scale,
            signs=fit.signs[here],
            dead=int(silent.sum()),
            muted=int((~silent & (scale == scales.MUTED_SCALE)).sum()),
        )
    return dataclasses.replace(
        match,
        constant=dataclasses.replace(
            match.constant, tensor=tensor, name=name, value=value
        ),
        arrangement=dataclasses.replace(
            arrangement, start=first, stop=first + len(value)
        ),
        fit=fit,
        twins=tuple(
            _part(twin, number, tensor, name, tensors) for twin in match.twins
        ),
    )
