"""Coral Edge TPU: the published rules of its compiler, checked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tflite_export.devices.result import DeviceResult
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import model as fb
from tflite_export.targets import lint

# "about 8 MB of SRAM", minus what the compiler keeps for itself.
_CACHE_BYTES = 8 << 20


def finish(
    data: bytes, stem: str, inputs: Sequence[np.ndarray]
) -> DeviceResult:
    """Checks a file against every published rule of the Edge TPU.

    The compiler itself isn't run: it is a closed program that no package
    index holds. Returns what was checked, and the command that compiles.

    Raises:
        ExportError: If a rule is broken.
    """
    del inputs
    findings = lint.check(data, "edgetpu")
    severe = lint.severe(findings)
    if severe:
        raise ExportError(
            "The Edge TPU can't run the file (argument target). Expected "
            "operators and shapes that its compiler takes. Received: "
            f"{'; '.join(severe)}"
        )
    parameters = _parameter_bytes(data)
    command = f"edgetpu_compiler --show_operations {stem}.tflite"
    notes = [
        f"The Edge TPU compiler was not run. Run it with: {command}",
        *(str(finding) for finding in findings),
    ]
    if parameters > _CACHE_BYTES:
        notes.append(
            f"{parameters:,} bytes of parameters don't fit the Edge TPU's "
            "8 MB: the rest is fetched at every run"
        )
    figures = {
        "compiler_was_run": False,
        "command": command,
        "parameter_bytes": parameters,
        "fits_on_chip": parameters <= _CACHE_BYTES,
    }
    return DeviceResult(figures, notes=tuple(notes))


def _parameter_bytes(data: bytes) -> int:
    model = fb.load(data)
    return sum(
        len(buffer.data) for buffer in model.buffers if buffer.data is not None
    )
