"""LiteRT's GPU accelerator, on a GPU or on a Vulkan made of software.

It is the one that phones run through WebGPU and Vulkan. SwiftShader, which
comes with Chromium, is a Vulkan without a GPU: right, and slow. Native code of
drivers may end a process, so the file runs in one of its own.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tflite_export.devices import beside
from tflite_export.devices import command
from tflite_export.errors import ExportError
from tflite_export.runtime import compiled
from tflite_export.runtime import interpreter
from tflite_export.runtime import ports
from tflite_export.targets import Target
from tflite_export.targets import lint
from tflite_export.verification import float_twin

# Vulkan's own variables: files of drivers, by their paths.
_DRIVERS = ("VK_DRIVER_FILES", "VK_ICD_FILENAMES")
# Where Chromium has its SwiftShader, and the loader beside it.
_CHROMIUM = (
    Path("/usr/lib/chromium"),
    Path("/usr/lib/chromium-browser"),
    Path("/opt/google/chrome"),
)
_DRIVER, _LOADER = "vk_swiftshader_icd.json", "libvulkan.so.1"
_SAMPLES = 4
# Known faults that an error names.
_FAULTS = 3
# A GPU sums in another order; measured up to 1e-6 on SwiftShader.
_LIMIT = 1e-3
_TIMEOUT_SECONDS = 300


def vulkan() -> dict[str, str] | None:
    """The Vulkan to run on, `None` where there is none.

    Returns:
        `loader`, a library, empty for the system's own; `drivers`, the value
        of Vulkan's variable.
    """
    for variable in _DRIVERS:
        if os.environ.get(variable):
            # It may be a list.
            first = os.environ[variable].partition(os.pathsep)[0]
            beside_driver = Path(first).with_name(_LOADER)
            loader = str(beside_driver) if beside_driver.exists() else ""
            return {"loader": loader, "drivers": os.environ[variable]}
    for folder in _CHROMIUM:
        driver, loader_file = folder / _DRIVER, folder / _LOADER
        if driver.exists() and loader_file.exists():
            return {"loader": str(loader_file), "drivers": str(driver)}
    return None


def installed() -> dict[str, str]:
    """The Vulkan to run on, see `vulkan`.

    Raises:
        ExportError: If there is none, with what to do.
    """
    found = vulkan()
    if found is None:
        raise ExportError(
            "There is no Vulkan to run a GPU's kernels on. Expected "
            "Chromium, whose SwiftShader needs no GPU (`make setup-browser`), "
            f"or {_DRIVERS[1]}=the .json file of a driver. Received: none"
        )
    return found


def run(
    data: bytes, batches: Sequence[Sequence[np.ndarray]]
) -> tuple[list[list[np.ndarray]], dict[str, Any]]:
    """Runs batches of one size on the GPU accelerator.

    Args:
        data: The bytes of a file with one signature, or none.
        batches: Arrays as the file takes them, in the order of its inputs.

    Returns:
        The outputs of each batch in the order of the file, and `whole`,
        `left` and `adapter`: whether all operators run there, what is said
        of those that don't, and the name of the GPU.

    Raises:
        ExportError: If there is no Vulkan, or LiteRT can't run the file
            there; with its own words.
    """
    found = installed()
    session = interpreter.Session(data, "xnnpack")
    # By these LiteRT makes room for what it computes.
    sized = session(batches[0])
    data = ports.closed(data, batches[0], sized)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "model.tflite").write_bytes(data)
        request = {
            "inputs": len(batches[0]),
            "batches": len(batches),
            "input_names": session.input_names,
            "output_names": session.output_names,
            "output_places": session.output_places,
            "output_bytes": [array.nbytes for array in sized],
            "loader": found["loader"],
        }
        Path(folder, "request.json").write_text(json.dumps(request))
        arrays: dict[str, Any] = {
            f"{i}_{k}": array
            for i, batch in enumerate(batches)
            for k, array in enumerate(batch)
        }
        np.savez(Path(folder, "in.npz"), **arrays)
        done = command.run(
            "LiteRT on the GPU",
            [sys.executable, "-P", str(Path(compiled.__file__)), folder],
            _TIMEOUT_SECONDS,
            environment=dict.fromkeys(_DRIVERS, found["drivers"]),
        )
        path = Path(folder, "answer.json")
        if done.returncode or not path.exists():
            last = done.stderr.strip().splitlines()[-1:]
            raise ExportError(
                "LiteRT's GPU accelerator ended its process. Expected an "
                "answer. Received: "
                f"{''.join(last) or f'exit code {done.returncode}'}"
            )
        answer = json.loads(path.read_text())
        if "reason" in answer:
            said = " ".join(answer["said"] or answer["reason"].split())
            raise ExportError(
                "LiteRT's GPU accelerator can't run the file. Expected "
                f"operators that it has. Received: {said[:600]}"
            )
        with np.load(Path(folder, "out.npz")) as loaded:
            outputs = [
                [loaded[f"{i}_{k}"] for k in range(answer["outputs"])]
                for i in range(len(batches))
            ]
    return outputs, answer


def verify(
    data: bytes, samples: Sequence[np.ndarray], target: Target
) -> dict[str, Any]:
    """Compares the GPU accelerator with XNNPACK.

    Args:
        data: The bytes of a file.
        samples: Inputs, one float array per input.
        target: Where the file shall run.

    Returns:
        `gpu`, its name; `samples`; `fully_accelerated`; `left`, what is left
        to the CPU; `difference`, as of `compiled_model.verify`. Or `skipped`,
        with the reason. JSON values.

    Raises:
        ExportError: If it can't run the file, or an output differs by more
            than kernel sets may.
        ValueError: If there are fewer samples than a batch takes.
    """
    reason = ports.passed_through(data)
    if reason:
        return {"skipped": reason}
    try:
        return _compared(data, samples, target)
    except ExportError as error:
        faults = [
            str(finding)
            for finding in lint.check(data, "web")
            if finding.rule == "gpu" and "wrong" in finding.message
        ]
        if not faults:
            raise
        raise ExportError(
            "The file has operators that LiteRT's GPU accelerator computes "
            f"wrong: {'; '.join(faults[:_FAULTS])}. Expected a file of the "
            f"target 'web', which avoids them. Received: {error}"
        ) from error


def _compared(
    data: bytes, samples: Sequence[np.ndarray], target: Target
) -> dict[str, Any]:
    _, batches, wanted = beside.here(data, samples, _SAMPLES)
    got, answer = run(data, batches)
    where = f"LiteRT's GPU accelerator ({answer['adapter'] or 'GPU'})"
    if target.integer:

        def explained() -> str | None:
            shown = float_twin.probe(data)
            inside, _ = run(shown, batches)
            return beside.operators(
                data, shown, batches, inside, target.operator_units, where
            ).explanation()

        apart: Any = beside.units(data, got, wanted, target, where, explained)
    else:
        apart = beside.relative(got, wanted, where, _LIMIT)
    return {
        "gpu": answer["adapter"],
        "samples": sum(len(batch[0]) for batch in batches),
        # LiteRT counts what XNNPACK runs of the rest as accelerated, too.
        "fully_accelerated": answer["whole"] and not answer["left"],
        **({"left": answer["left"]} if answer["left"] else {}),
        "difference": apart,
    }
