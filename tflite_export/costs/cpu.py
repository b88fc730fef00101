"""Processors: a table of measured operators, on one thread."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

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
        for width in _CONTAINERS:
            known.measure(files.at(dict.fromkeys(paths, width)).data)
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
    latency = {
        path: {
            width: sums[min(c for c in _CONTAINERS if c >= width)][0][path]
            for width in range(MIN_BITS, MAX_BITS + 1)
        }
        for path in paths
    }
    return DeviceCosts(
        device=device,
        source=f"one thread of {known.processor}, {known.runtime}, "
        f"measured {known.date}",
        latency=latency,
        rest_latency=known.call + sums[MAX_BITS][1],
    )


def _sums(
    built: BuiltFile, table: LatencyTable, paths: Sequence[str]
) -> tuple[dict[str, float], float]:
    """Milliseconds by weight, and of the other operators."""
    reads = _with_reshapes(built)
    found = dict.fromkeys(paths, 0.0)
    rest = 0.0
    for operator in operators.split(built.data):
        path = reads.get(operator.position)
        time = table.predict(operator).milliseconds
        if path is None:
            rest += time
        else:
            found[path] += time
    return found, rest


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
