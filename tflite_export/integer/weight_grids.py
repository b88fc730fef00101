"""Trained weights that operators read like activations."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.errors import ExportError
from tflite_export.flatbuffer import model as fb
from tflite_export.integer import regions
from tflite_export.integer.grids import Grid
from tflite_export.integer.grids import make_grid
from tflite_export.integer.quantize_graph import Rows
from tflite_export.matching.match import Match
from tflite_export.targets import Target

_READ_AS_DATA = ("activation", "same")


def unreadable(
    model: schema.ModelT, matches: Sequence[Match], target: Target
) -> set[int]:
    """Trained weights that integer operators can't read as they are.

    As activations, they have a scale per channel, or are beside 16-bit ones.
    As weights, their scales lie along another axis than the operator's; a
    table of tokens has one for each feature, which its product sums over.
    """
    found = set()
    for match in matches:
        index = match.constant.tensor
        scale = match.fit.scale
        for op in model.subgraphs[0].operators:
            row = regions.row_of(model, target, op)
            if match.constant.graph or row is None:
                continue
            for place, read in enumerate(fb.inputs(op)):
                role = row.role(place)
                if read != index or role not in (*_READ_AS_DATA, "weight"):
                    continue
                if role == "weight":
                    if (
                        match.fit.axis not in (None, row.channel_axis)
                        and (scale != scale[0]).any()
                    ):
                        found.add(index)
                elif (
                    target.mode != "int8"
                    or (scale != scale[0]).any()
                    or not target.allows(row.name, "INT8", "per_tensor")
                ):
                    found.add(index)
    return found


def find(
    model: schema.ModelT,
    rows: Rows,
    matches: Sequence[Match],
    target: Target,
) -> Mapping[int, Grid]:
    """Grids of trained weights that operators read as activations."""
    found = {m.constant.tensor: m for m in matches if not m.constant.graph}
    rare = unreadable(model, matches, target)
    tables: dict[int, Grid] = {}
    for position, op in enumerate(model.subgraphs[0].operators):
        row = rows[position]
        for place, index in enumerate(fb.inputs(op)):
            match = found.get(index)
            if row is None or match is None:
                continue
            if row.role(place) not in _READ_AS_DATA:
                continue
            if index in rare:
                raise ExportError(
                    f"Layer '{match.weight.path}': {row.name} reads its "
                    f"weight like an activation, which target '{target.name}' "
                    "does with int8 and one scale for all channels only. "
                    f"{_one_scale(match, target)}"
                )
            tables[index] = make_grid(target.mode, float(match.fit.scale[0]), 0)
    return tables


def _one_scale(match: Match, target: Target) -> str:
    """What to do about a weight that is read like an activation."""
    count = len(np.unique(match.fit.scale))
    # Not to be advised where it is so already.
    expected = (
        "the layer trained with LayerConfig(granularity=PerTensor())"
        if count > 1
        else "a target of float activations"
    )
    return (
        f"Expected {expected}. Received: {count} scales, {target.mode} "
        "activations"
    )
