"""Microcontrollers: the arena of TFLite Micro, and operations."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from msq_tf.bit_widths import MAX_BITS
from msq_tf.bit_widths import MIN_BITS
from msq_tf.rules.device_costs import DeviceCosts
from tflite_export.costs.files import BuiltFile
from tflite_export.costs.files import Files
from tflite_export.costs.files import readers
from tflite_export.devices import micro
from tflite_export.latency import operators
from tflite_export.runtime import ports

# Width of the packed codes, and what holds them.
_PACKED, _CONTAINER = 4, "INT4"


def costs(
    files: Files, paths: Sequence[str], macs_per_ms: float | None
) -> DeviceCosts:
    """Measures arenas, and counts operations by weight.

    Codes of 4 bits take more RAM, as kernels unpack them there. One arena a
    weight is measured if that is more than what the model takes anyway.

    Raises:
        ExportError: If TFLite Micro is not installed or refuses the file.
    """
    micro.check_installed()
    wide = files.at(dict.fromkeys(paths, MAX_BITS))
    packed = files.at(dict.fromkeys(paths, _PACKED))
    base = _arena(wide, files.inputs)
    ram = _packed_arenas(files, paths, packed, base)
    speed = macs_per_ms or 0.0
    work = {
        MAX_BITS: _operations(wide, paths),
        _PACKED: _operations(packed, paths),
    }

    def milliseconds(operations: float) -> float:
        return operations / speed if speed else 0.0

    latency: dict[str, dict[int, float]] = {}
    rows: dict[str, dict[int, float]] = {}
    for path in paths:
        latency[path], rows[path] = {}, {}
        for width in range(MIN_BITS, MAX_BITS + 1):
            narrow = width <= _PACKED
            held = _PACKED if narrow else MAX_BITS
            latency[path][width] = milliseconds(work[held][0][path])
            rows[path][width] = ram.get(path, base) if narrow else base
    counted = "operations, and " if speed else ""
    return DeviceCosts(
        device="mcu",
        source=f"{counted}the arena of TFLite Micro's reference kernels",
        latency=latency,
        rest_latency=milliseconds(work[MAX_BITS][1]),
        ram=rows,
        rest_ram=base,
    )


def _arena(built: BuiltFile, inputs: Sequence[np.ndarray]) -> float:
    samples = ports.whole_batches(built.data, inputs, 1)
    done = micro.run(built.data, samples)
    return float(micro.smallest_arena(built.data, samples, done.arena_bytes))


def _packed_arenas(
    files: Files, paths: Sequence[str], packed: BuiltFile, base: float
) -> dict[str, float]:
    """The arena by the weight that alone has packed codes."""
    together = _arena(packed, files.inputs)
    held = {
        record.match.weight.path
        for record in packed.written
        if record.container == _CONTAINER
    }
    if together <= base:
        return {}
    wide = dict.fromkeys(paths, MAX_BITS)
    arenas = {
        path: _arena(files.at(wide | {path: _PACKED}), files.inputs)
        for path in paths
        if path in held
    }
    # Several may take a little more than the one that takes most.
    more = max(together - max(arenas.values()), 0.0)
    return {path: arena + more for path, arena in arenas.items()}


def _operations(
    built: BuiltFile, paths: Sequence[str]
) -> tuple[Mapping[str, float], float]:
    """Multiplications by weight, and of the other operators.

    A packed code that is unpacked counts as one; so does a byte that is moved
    by an operator without multiplications.
    """
    reads = readers(built)
    found = dict.fromkeys(paths, 0.0)
    rest = 0.0
    for operator in operators.split(built.data):
        path = reads.get(operator.position)
        work = float(operator.macs or operator.moved)
        if path is None:
            rest += work
        else:
            found[path] += work
    for record in built.written:
        if record.container == _CONTAINER:
            found[record.match.weight.path] += record.match.weight.codes.size
    return found, rest
