"""Trained ranges, as the converter leaves them in a float file.

A fake quantization becomes a QUANTIZE and the DEQUANTIZE behind it. Their scale
and zero point are the trained ones, unless the range is so narrow that the
converter widens it. This module removes the pair and keeps its grid.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from msq_tf.keras3.activation_sites import SITE_NAME
from msq_tf.quantizers.range_average import SiteRange
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.integer.grids import Grid
from tflite_export.integer.grids import make_grid

# The converter widens ranges below 1e-6 to that, by half of it at each end.
_WIDENED = 2e-6
_SITE = re.compile(rf"{SITE_NAME}(\d+)_")
# What an unsigned grid is shifted by to become a signed one.
_SHIFTS = {
    "int8": {"UINT8": 128, "INT8": 0},
    "int16": {"UINT16": 32768, "INT16": 0},
}


def take_pairs(
    model: schema.ModelT,
    mode: str,
    ranges: Sequence[SiteRange],
    sites: dict[int, int] | None = None,
) -> dict[int, Grid]:
    """Removes the pairs of the main graph; returns trained grids by tensor.

    Tensors keep their indices. Where one tensor has sites of different
    ranges, the first stays its grid and the others become requantizations.

    Args:
        model: The float model, changed in place.
        mode: `"int8"` or `"int16"`, what the target wants.
        ranges: The trained range of each site, by the site's position.
        sites: Takes the tensor of each site, by the site's position.

    Raises:
        ExportError: If a site was trained for another width.
    """
    graph = model.subgraphs[0]
    trained: dict[int, Grid] = {}
    pairs = [o for o in graph.operators if fb.op_name(model, o) == "QUANTIZE"]
    for op in pairs:
        source, middle = fb.inputs(op)[0], fb.outputs(op)[0]
        if fb.type_name(graph.tensors[source]) != "FLOAT32":
            continue
        site = _SITE.search(fb.name(graph.tensors[middle]))
        own = None if site is None else ranges[int(site[1])]
        grid = _grid(graph.tensors[middle], mode, own)
        place = source
        readers = [o for o in graph.operators if middle in fb.inputs(o)]
        for reader in readers:
            result = fb.outputs(reader)[0]
            if fb.op_name(model, reader) != "DEQUANTIZE":
                # Where a reshape stands in between, the converter forgets
                # the DEQUANTIZE (TensorFlow 2.21).
                trained.setdefault(source, grid)
                _read_instead(reader, middle, source)
                continue
            if trained.setdefault(source, grid) == grid:
                _drop(graph, reader)
                # An output of the graph keeps its name.
                ends = fb.outputs(graph)
                if result in ends and source not in ends:
                    graph.tensors[source].name = graph.tensors[result].name
                edit.redirect(graph, result, source)
                edit.sign(model, "outputs", result, source)
            else:
                trained[result] = grid
                place = result
                edit.set_input(reader, 0, source)
                reader.opcodeIndex = op.opcodeIndex
                reader.builtinOptionsType = op.builtinOptionsType
                reader.builtinOptions = op.builtinOptions
        _drop(graph, op)
        if sites is not None and site is not None:
            sites[int(site[1])] = place
    return trained


def _grid(tensor: schema.TensorT, mode: str, own: SiteRange | None) -> Grid:
    kind = fb.type_name(tensor)
    shift = _SHIFTS[mode].get(kind)
    parameters = tensor.quantization
    if shift is None or len(parameters.scale) != 1:
        raise ExportError(
            "The model was trained with activations that a file of "
            f"{mode} activations can't store. Expected activation_bits="
            f"{mode.removeprefix('int')} in training. Received: {kind}"
        )
    scale = float(parameters.scale[0])
    zero_point = int(parameters.zeroPoint[0]) - shift
    if own is not None and own.high - own.low < _WIDENED:
        scale, zero_point = _nudged(own, mode)
    if mode == "int16" and zero_point:
        raise ExportError(
            "The model was trained with asymmetric 16-bit activations, which "
            f"no kernel runs. Received: zero point {zero_point}"
        )
    return make_grid(mode, scale, zero_point)


def _nudged(own: SiteRange, mode: str) -> tuple[float, int]:
    """Scale and zero point of a range, as a fake quantization has them."""
    half = max(_SHIFTS[mode].values())
    least, most = int(own.narrow) - half, half - 1
    scale = (own.high - own.low) / (most - least)
    zero_point = math.floor(least - own.low / scale + 0.5)
    return scale, min(max(zero_point, least), most)


def _read_instead(op: schema.OperatorT, old: int, new: int) -> None:
    for position, index in enumerate(fb.inputs(op)):
        if index == old:
            edit.set_input(op, position, new)


def _drop(graph: schema.SubGraphT, op: schema.OperatorT) -> None:
    del graph.operators[edit.before(graph, op)]


def float_tensors(model: schema.ModelT) -> set[int]:
    """Float tensors of the main graph that are no constants."""
    graph = model.subgraphs[0]
    used = {*fb.inputs(graph), *fb.outputs(graph)}
    for op in graph.operators:
        used |= {*fb.inputs(op), *fb.outputs(op)}
    return {index for index in used if is_float(model, index)}


def is_float(model: schema.ModelT, index: int) -> bool:
    """Whether a tensor of the main graph is float and no constant."""
    if index < 0:  # an optional input that isn't there
        return False
    tensor = model.subgraphs[0].tensors[index]
    return (
        fb.type_name(tensor) == "FLOAT32" and fb.raw_data(model, tensor) is None
    )


def as_float32(model: schema.ModelT, index: int) -> np.ndarray | None:
    """Value of a float constant of the main graph, else `None`."""
    tensor = model.subgraphs[0].tensors[index]
    if fb.type_name(tensor) != "FLOAT32":
        return None
    return fb.constant(model, tensor)
