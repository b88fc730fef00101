"""Wider containers for codes where a device is wrong on narrow ones.

The compiler of Qualcomm's NPU fails on INT2 weights of a product that reads an
input of the file, and is wrong without an error where it fuses such a product
with an activation behind it. The next wider container holds the same codes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import model as fb
from tflite_export.matching.match import Match
from tflite_export.targets import CONTAINERS
from tflite_export.targets import Target

_OPTION = "narrow_weights"
_RESHAPES = ("EXPAND_DIMS", "RESHAPE", "SQUEEZE")


def avoid(
    model: schema.ModelT, matches: Sequence[Match], target: Target
) -> list[Match]:
    """Gives weights the container that they need at least.

    Args:
        model: The float model, as it will be written.
        matches: Its weights.
        target: Where it shall run. Its option `narrow_weights` has, by
            container, `of_inputs`, whether a product may read an input of the
            file, and `before`, operators that may not be all that reads its
            result, reshapes aside.

    Returns:
        The matches, those in question with another `least_bits`.
    """
    return [_with_room(model, match, target) for match in matches]


def _with_room(model: schema.ModelT, match: Match, target: Target) -> Match:
    graph = model.subgraphs[match.constant.graph]
    readers = fb.readers(graph, match.constant.tensor)
    least = match.least_bits
    for container, rule in target.options.get(_OPTION, {}).items():
        if any(_is_wrong(model, graph, op, rule) for op in readers):
            least = max(least, CONTAINERS[container] + 1)
    return dataclasses.replace(match, least_bits=least)


def _is_wrong(
    model: schema.ModelT,
    graph: schema.SubGraphT,
    op: schema.OperatorT,
    rule: Mapping[str, Any],
) -> bool:
    given = set(fb.inputs(graph))
    if not rule["of_inputs"] and given & set(fb.inputs(op)):
        return True
    return _behind(model, graph, fb.outputs(op)[0]) in rule["before"]


def _behind(
    model: schema.ModelT, graph: schema.SubGraphT, index: int
) -> str | None:
    """The operator that alone computes with a tensor, `None` for several.

    A compiler looks through reshapes that leave the channels alone.
    """
    while index not in fb.outputs(graph):
        readers = fb.readers(graph, index)
        if len(readers) != 1:
            # What something else reads, too, is not fused.
            return None
        name, result = fb.op_name(model, readers[0]), fb.outputs(readers[0])[0]
        if name not in _RESHAPES or _channels(graph, index) != _channels(
            graph, result
        ):
            return name
        index = result
    return None


def _channels(graph: schema.SubGraphT, index: int) -> tuple[int, ...]:
    return fb.shape(graph.tensors[index])[-1:]
