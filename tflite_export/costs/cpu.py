"""Processors: a table of measured operators, on one thread."""

from __future__ import annotations

import os
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

from msq_tf.bit_widths import MAX_BITS
from msq_tf.bit_widths import MIN_BITS
from msq_tf.rules.device_costs import DeviceCosts
from tflite_export.costs.files import BuiltFile
from tflite_export.costs.files import Files
from tflite_export.costs.files import readers
from tflite_export.flatbuffer import model as fb
from tflite_export.latency import operators
from tflite_export.latency.table import LatencyTable

NAMES = ("cpu_int8", "min_size", "cpu_float")
# Codes are stored in these; a width takes the next one.
_CONTAINERS = (8, 4, 2)
# How often whole files are measured, in turn.
ROUNDS = 3


def costs(
    files: Files,
    device: str,
    paths: Sequence[str],
    table: str | os.PathLike[str] | None,
    measure: bool,
) -> DeviceCosts:
    """Looks the operators of files up, or measures them first.

    Raises:
        ExportError: If the table has nothing like an operator.
    """
    if measure:
        known = LatencyTable.of_this_machine()
        if table is not None and os.path.exists(table):
            known = LatencyTable.load(table)
    else:
        known = LatencyTable.load(table)
    if measure:
        built = [files.at(dict.fromkeys(paths, width)) for width in _CONTAINERS]
        for each in ROUNDS * built:
            known.measure(each.data)
        if table is not None:
            known.save(table)
    return look_up(files, device, paths, known)


def look_up(
    files: Files, device: str, paths: Sequence[str], known: LatencyTable
) -> DeviceCosts:
    """Predicts files at every width from a table.

    Raises:
        ExportError: If the table has nothing like an operator.
    """
    built = {
        width: files.at(dict.fromkeys(paths, width)) for width in _CONTAINERS
    }
    sums = {width: _sums(each, known, paths) for width, each in built.items()}
    # In a network, operators take more or less than alone: caches are shared,
    # calls are not. All parts share the difference.
    rest = sums[MAX_BITS].others * sums[MAX_BITS].ratio
    stored = _fitted(sums, rest)
    latency = {
        path: {
            width: stored[min(c for c in _CONTAINERS if c >= width)][path]
            for width in range(MIN_BITS, MAX_BITS + 1)
        }
        for path in paths
    }
    return DeviceCosts(
        device=device,
        source=f"one thread of {known.processor}, {known.runtime}, "
        f"measured {known.date}",
        latency=latency,
        rest_latency=rest,
    )


class _Sums(NamedTuple):
    """Milliseconds of the operators of a file.

    Attributes:
        weights: Of those that read a weight, by its path.
        keys: What these operators are, by path.
        others: Of all others, and of a call by itself.
        ratio: What a call of the file takes, in the sum of all of these.
    """

    weights: Mapping[str, float]
    keys: Mapping[str, tuple[str, ...]]
    others: float
    ratio: float


def _fitted(
    sums: Mapping[int, _Sums], rest: float
) -> dict[int, dict[str, float]]:
    """Milliseconds by container and weight, which add up to whole files.

    Args:
        sums: By container, widest first.
        rest: Milliseconds of what reads no weight.
    """
    ratios: dict[tuple[str, tuple[str, ...]], float] = {}
    found = {}
    for width, each in sums.items():
        # What a wider container has as well takes as long as there.
        new = [p for p in each.weights if (p, each.keys[p]) not in ratios]
        products = sum(each.weights[path] for path in new)
        same = sum(
            each.weights[path] * ratios[path, each.keys[path]]
            for path in each.weights
            if path not in new
        )
        ratio = each.ratio
        if products:
            whole = ratio * (each.others + sum(each.weights.values()))
            left = (whole - rest - same) / products
            # A small difference of large figures is noise.
            ratio = left if left > ratio / 4 else ratio
        ratios |= {(path, each.keys[path]): ratio for path in new}
        found[width] = {
            path: time * ratios[path, each.keys[path]]
            for path, time in each.weights.items()
        }
    return found


def _sums(built: BuiltFile, table: LatencyTable, paths: Sequence[str]) -> _Sums:
    reads = _with_reshapes(built)
    found = dict.fromkeys(paths, 0.0)
    keys: dict[str, tuple[str, ...]] = dict.fromkeys(paths, ())
    others = table.call
    parts = operators.split(built.data)
    for operator in parts:
        path = reads.get(operator.position)
        time = table.predict(operator).milliseconds
        if path is None:
            others += time
        else:
            found[path] += time
            keys[path] += (operator.key,)
    total = others + sum(found.values())
    return _Sums(found, keys, others, table.whole(parts, total) / total)


def _with_reshapes(built: BuiltFile) -> dict[int, str]:
    """Readers of weights, and what only brings a product into its shape.

    A pointwise convolution is a product of matrices at some widths alone.
    """
    reads = readers(built)
    model = fb.read(built.data)
    graph: Any = model.subgraphs[0]
    ends = {
        tensor: reads[place]
        for place, op in enumerate(graph.operators)
        if place in reads
        for tensor in (*fb.outputs(op), fb.inputs(op)[0])
    }
    for place, op in enumerate(graph.operators):
        if place not in reads and fb.op_name(model, op) == "RESHAPE":
            near = [
                ends[tensor]
                for tensor in (fb.inputs(op)[0], *fb.outputs(op))
                if tensor in ends
            ]
            if near:
                reads[place] = near[-1]
    return reads
