"""Tables with a scale per feature, as one of codes.

An operator that looks rows up, or one whose product sums over the features,
reads a table with one scale only. So the table becomes one of codes, and a
depthwise 1x1 convolution has the scales as its weights: behind a GATHER it
multiplies the rows that were found, and rounds once, as training does; in front
of a FULLY_CONNECTED, which a model with tied weights has at its end, it
multiplies what the product reads.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.integer import reshaping
from tflite_export.matching.match import Match
from tflite_export.targets import Target

# Kernels look up rows of INT8.
_TABLE_BITS = 8


def take_out_features(
    model: schema.ModelT, match: Match, target: Target
) -> list[Match]:
    """Makes a table with a scale per feature one of codes, where it helps.

    A table that is looked up and is a weight becomes two tensors, which share
    their bytes in the file.

    Returns:
        The matches of the tensors that hold the table then, or `match` alone.
    """
    scale, index = match.fit.scale, match.constant.tensor
    graph = model.subgraphs[0]
    readers = fb.readers(graph, index)
    products = [op for op in readers if _sums_features(model, op, index)]
    lookups = [op for op in readers if _looks_up(model, op, index)]
    if (
        match.constant.graph
        or target.mode != "int8"
        or match.constant.value.ndim != 2
        or match.fit.axis != 1
        or not (scale != scale[0]).any()
        or match.fit.columns is not None
        or not target.allows("DEPTHWISE_CONV_2D", "INT8", "per_channel")
        or len(products) + len(lookups) < len(readers)
        or (lookups and not target.allows("GATHER", "INT8", "per_tensor"))
        # Where they may, products of tied tables compute in float.
        or (products and (target.float_regions or not _fits(match, target)))
    ):
        return [match]
    # The table holds codes; the signs of their factors went to the scales.
    columns = scale * match.fit.signs
    codes = match.codes * match.fit.signs
    graph.tensors[index].buffer = edit.new_buffer(
        model, codes.astype(np.float32)
    )
    one = np.ones(1)
    plain = dataclasses.replace(
        match,
        fit=dataclasses.replace(
            match.fit,
            axis=None,
            scale=one.astype(np.float32),
            signs=one.astype(np.int8),
            columns=columns,
        ),
    )
    for op in lookups:
        _scale_rows(model, op, columns)
    if not products:
        return [plain]
    weight = index
    if lookups:
        table = graph.tensors[index]
        weight = edit.new_tensor(graph, "FLOAT32", table, buffer=table.buffer)
    for op in products:
        _scale_input(model, op, columns)
        edit.set_input(op, 1, weight)
    if not lookups:
        return [plain]
    constant = dataclasses.replace(match.constant, tensor=weight)
    # In the type of the table the file holds its bytes once.
    return [
        plain,
        dataclasses.replace(plain, constant=constant, least_bits=_TABLE_BITS),
    ]


def _looks_up(model: schema.ModelT, op: schema.OperatorT, table: int) -> bool:
    """Whether an operator finds whole rows of a table, in a known shape."""
    result = reshaping.output_axes(model.subgraphs[0], op)
    return (
        fb.op_name(model, op) == "GATHER"
        and fb.inputs(op)[0] == table
        and op.builtinOptions.axis == 0
        and not op.builtinOptions.batchDims
        and len(result) > 1
        and min(result[1:]) > 0
    )


def _sums_features(
    model: schema.ModelT, op: schema.OperatorT, table: int
) -> bool:
    """Whether an operator multiplies by a table, its rows being outputs."""
    if fb.op_name(model, op) != reshaping.FULLY_CONNECTED:
        return False
    data, weight = fb.inputs(op)[:2]
    graph = model.subgraphs[0]
    axes = fb.axes(graph.tensors[data])
    return (
        weight == table
        and data != table
        and len(axes) > 1
        and min(axes[1:]) > 0
        and axes[-1:] == fb.shape(graph.tensors[table])[-1:]
    )


def _fits(match: Match, target: Target) -> bool:
    """Whether a product takes the codes with one scale."""
    return any(
        target.allows(
            reshaping.FULLY_CONNECTED,
            kind,
            "per_tensor",
            match.constant.value.shape[-1],
        )
        for kind in target.containers_for(match.weight.bits)
    )


def _scale_rows(
    model: schema.ModelT, op: schema.OperatorT, columns: np.ndarray
) -> None:
    """Multiplies what an operator finds."""
    graph = model.subgraphs[0]
    result = fb.outputs(op)[0]
    found = reshaping.new_tensor(graph, reshaping.output_axes(graph, op))
    op.outputs = np.array([found], np.int32)
    place = edit.before(graph, op) + 1
    graph.operators[place:place] = _product(model, found, result, columns)


def _scale_input(
    model: schema.ModelT, op: schema.OperatorT, columns: np.ndarray
) -> None:
    """Multiplies what an operator reads."""
    graph = model.subgraphs[0]
    data = fb.inputs(op)[0]
    scaled = reshaping.new_tensor(graph, fb.axes(graph.tensors[data]))
    place = edit.before(graph, op)
    graph.operators[place:place] = _product(model, data, scaled, columns)
    edit.set_input(op, 0, scaled)


def _product(
    model: schema.ModelT, source: int, result: int, columns: np.ndarray
) -> list[schema.OperatorT]:
    """Operators that multiply by a vector along the last axis."""
    graph = model.subgraphs[0]
    rows, count = fb.axes(graph.tensors[source])[:-1], len(columns)
    pixels = (rows[0], int(np.prod(rows[1:], dtype=int)), 1, count)
    image, scaled = (reshaping.new_tensor(graph, pixels) for _ in range(2))
    weight = edit.new_constant(
        model, columns.astype(np.float32).reshape(1, 1, 1, count)
    )
    reads = [image, weight, reshaping.zeros(model, count)]
    return [
        edit.reshape(model, source, image),
        reshaping.depthwise(model, reads, scaled),
        edit.reshape(model, scaled, result),
    ]
