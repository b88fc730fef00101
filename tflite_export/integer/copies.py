"""Repeated rows and columns as one resizing operator.

Keras spells nearest up-sampling as a reshape, a tile and another reshape for
each axis. RESIZE_NEAREST_NEIGHBOR copies the same elements, is one operator,
and runs where TILE does not. Which element goes where is computed for both,
not assumed.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.targets import Target
from tflite_export.targets import vela_rules

_COPYING = {"BROADCAST_TO", "EXPAND_DIMS", "RESHAPE", "SQUEEZE", "TILE"}
_RESIZE = "RESIZE_NEAREST_NEIGHBOR"
# The rule of devices that take some factors only.
_FACTORS = "vela_nearest"
# Places of elements are computed for all of them.
_MOST_ELEMENTS = 1 << 24


def resize(model: schema.ModelT, target: Target, ends: Collection[int]) -> None:
    """Finds up-sampling in the main graph and rewrites it; `ends` stay."""
    if not target.has(_RESIZE):
        return
    graph = model.subgraphs[0]
    # From the end, so that the longest chain is found first.
    for op in reversed(list(graph.operators)):
        if any(op is other for other in graph.operators):
            chain = _chain(model, op, ends)
            if any(fb.op_name(model, one) == "TILE" for one in chain):
                _rewrite(model, chain, target)


def join_reshapes(model: schema.ModelT, ends: Collection[int]) -> None:
    """Makes one RESHAPE of several behind each other; `ends` stay."""
    graph = model.subgraphs[0]
    for op in list(graph.operators):
        if fb.op_name(model, op) != "RESHAPE":
            continue
        source = fb.inputs(op)[0]
        readers = [o for o in graph.operators if source in fb.inputs(o)]
        before = [
            o
            for o in graph.operators
            if source in fb.outputs(o) and fb.op_name(model, o) == "RESHAPE"
        ]
        if (
            before
            and len(readers) == 1
            and source not in (*fb.outputs(graph), *ends)
        ):
            edit.set_input(op, 0, fb.inputs(before[0])[0])
            del graph.operators[edit.before(graph, before[0])]


def _chain(
    model: schema.ModelT, last: schema.OperatorT, ends: Collection[int]
) -> list[schema.OperatorT]:
    """Copying operators behind each other, of which only the last is read."""
    graph = model.subgraphs[0]
    chain: list[schema.OperatorT] = []
    op: schema.OperatorT | None = last
    while op is not None and fb.op_name(model, op) in _COPYING:
        source = fb.inputs(op)[0]
        if min(*_shape(model, source), *_shape(model, fb.outputs(op)[0])) < 1:
            break
        chain.insert(0, op)
        readers = [o for o in graph.operators if source in fb.inputs(o)]
        writers = [o for o in graph.operators if source in fb.outputs(o)]
        alone = len(readers) == 1 and source not in (
            *fb.outputs(graph),
            *ends,
        )
        op = writers[0] if alone and writers else None
    return chain


def _shape(model: schema.ModelT, index: int) -> tuple[int, ...]:
    return fb.axes(model.subgraphs[0].tensors[index]) or (0,)


def _rewrite(
    model: schema.ModelT, chain: list[schema.OperatorT], target: Target
) -> None:
    graph = model.subgraphs[0]
    source, result = fb.inputs(chain[0])[0], fb.outputs(chain[-1])[0]
    before, after = _shape(model, source), _shape(model, result)
    if not (
        len(before) == len(after) in (3, 4)
        and before[0] == after[0]
        and before[-1] == after[-1]
        and math.prod(after) <= _MOST_ELEMENTS
    ):
        return
    # A sequence is an image of one column.
    high = (before[1], before[2] if len(before) == 4 else 1)
    wide = (after[1], after[2] if len(after) == 4 else 1)
    rules = target.options.get("rules", {}).get("operators", {})
    if any(b % a for a, b in zip(high, wide, strict=True)) or (
        _FACTORS in rules.get(_RESIZE, ())
        and not vela_rules.runs_nearest(high, wide)
    ):
        return
    places = np.arange(math.prod(before), dtype=np.int32)
    image = places.reshape(before[0], *high, before[-1])
    for axis, (a, b) in enumerate(zip(high, wide, strict=True), start=1):
        image = np.repeat(image, b // a, axis)
    if not np.array_equal(
        _moved(model, chain, places.reshape(before)), image.reshape(after)
    ):
        return
    first = edit.before(graph, chain[0])
    for op in chain:
        del graph.operators[edit.before(graph, op)]
    new: list[schema.OperatorT] = []
    sizes = edit.new_constant(model, np.array(wide, np.int32))
    data, end = source, result
    if len(before) == 3:
        data = edit.new_tensor(
            graph, "FLOAT32", shape=(before[0], *high, before[-1])
        )
        end = edit.new_tensor(
            graph, "FLOAT32", shape=(after[0], *wide, after[-1])
        )
        new.append(edit.reshape(model, source, data))
    resized = edit.new_operator(
        model, _RESIZE, 3, [data, sizes], [end], "ResizeNearestNeighborOptions"
    )
    # Halfway into an element no rounding of a ratio can reach its border.
    resized.builtinOptions.halfPixelCenters = True
    new.append(resized)
    if end != result:
        new.append(edit.reshape(model, end, result))
    graph.operators[first:first] = new


def _moved(
    model: schema.ModelT, chain: list[schema.OperatorT], places: np.ndarray
) -> np.ndarray:
    for op in chain:
        name, index = fb.op_name(model, op), fb.outputs(op)[0]
        shape = _shape(model, index)
        if name == "TILE":
            counts = [b // a for a, b in zip(places.shape, shape, strict=True)]
            places = np.tile(places, counts)
        elif name == "BROADCAST_TO":
            places = np.broadcast_to(places, shape)
        else:
            places = places.reshape(shape)
    return places
