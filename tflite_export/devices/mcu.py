"""Microcontrollers: TFLite Micro and a C array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tflite_export import targets
from tflite_export.devices import c_array
from tflite_export.devices import micro
from tflite_export.devices import resolver
from tflite_export.devices import widen
from tflite_export.devices.result import DeviceResult
from tflite_export.errors import ExportError
from tflite_export.runtime import litert
from tflite_export.runtime import ports
from tflite_export.targets import lint

# Kernels that round requantized values in another place differ by one unit.
_UNITS = 1
_SAMPLES = 8
_ARENA = (
    "The smallest arena that does, measured on a 64-bit host with the "
    "reference kernels."
)
check_name = c_array.check_name


def finish(
    data: bytes,
    stem: str,
    inputs: Sequence[np.ndarray],
    max_units: int | None = None,
    *,
    name: str = "model_data",
) -> DeviceResult:
    """Runs a file on TFLite Micro and makes a C array of it.

    Args:
        data: The bytes of the file.
        stem: Not used: the array is named by `name`.
        inputs: Samples, one array per input.
        max_units: Largest difference of an output from LiteRT that is
            accepted; `None` for 1, or more where single units inside explain
            it.
        name: Name of the C array and its files.

    Raises:
        ExportError: If TFLite Micro refuses the file or computes something
            else than LiteRT.
    """
    del stem
    severe = lint.severe(lint.check(data, "mcu"))
    if severe:
        raise ExportError(
            "TFLite Micro can't run the file (argument target). Expected "
            "operators and types that its kernels take. Received: "
            f"{'; '.join(severe)}"
        )
    samples = ports.whole_batches(data, inputs, _SAMPLES)
    done = micro.run(data, samples)
    arena = micro.smallest_arena(data, samples, done.arena_bytes)
    differences = {}
    for kernels in ("reference", "builtin"):
        try:
            # The reference kernels lack DEPTHWISE_CONV_2D with INT4.
            wanted = litert.run(widen.widened(data), samples, kernels)
        except RuntimeError:
            # The reference kernels lack operators (DEPTH_TO_SPACE on int8).
            continue
        differences[kernels] = ports.units(
            ports.outputs(data), done.outputs, wanted
        )
    nearest = min(differences, key=lambda kernels: differences[kernels])
    worst = differences[nearest]
    most = _UNITS if max_units is None else max_units
    notes = []
    if not worst <= most:
        why = None
        if max_units is None:
            target = targets.load("mcu")
            why = micro.explain(data, samples, done, target)
        if why is None:
            raise ExportError(
                "TFLite Micro computes something else than LiteRT's "
                f"{nearest} kernels: outputs differ by {worst:g} units. "
                f"Expected at most max_units={most}, or without max_units "
                "more where single units inside explain it. Received: "
                f"max_units={max_units}"
            )
        notes.append(
            f"on TFLite Micro the output is up to {worst:g} units from that "
            f"of LiteRT's {nearest} kernels instead of {most}: {why}"
        )
    files = c_array.sources(
        data,
        name,
        f"A TFLite model of {len(data)} bytes.",
        {"arena_bytes": (arena, _ARENA)},
        resolver.methods(data),
    )
    figures = {
        "arena_bytes": arena,
        "max_units": worst,
        "compared_with": f"{nearest} kernels of LiteRT",
        "samples": len(samples[0]),
        "c_array": sorted(files),
    }
    return DeviceResult(figures, files, tuple(notes))
